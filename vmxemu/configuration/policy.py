"""Who handles a management interrupt: an ordered table of rules; the first that matches decides."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from vmxemu.configuration import quantities

MOST_RULES = 64
ManagementKind = Literal["smi", "mc", "cmci", "nmi", "pmi"]
AddressOwner = Literal["none", "vmm1", "vmm2", "both", "unknown"]
Severity = Literal["corrected", "ucna", "srao", "srar", "fatal"]
Owner = Literal["vmm1", "vmm2", "both", "unknown"]
Action = Literal["deliver", "count", "migrate", "contain", "firmware-smm", "log", "ignore", "fatal"]


class Match(BaseModel):
    """What a rule looks at; a key that is not given matches everything."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: ManagementKind | None = None
    command: Annotated[int, BeforeValidator(quantities.address), Field(le=0xFF)] | None = None
    bank: Annotated[int, BeforeValidator(quantities.address), Field(le=31)] | None = None
    owner: AddressOwner | None = None
    severity: Severity | None = None


class Rule(BaseModel):
    """One rule: `owner` is who the interrupt belongs to, `action` what is done with it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=80)]
    match: Match = Match()
    owner: Owner
    action: Action


def _rule(name: str, owner: Owner, action: Action, /, **match: object) -> Rule:
    return Rule(name=name, owner=owner, action=action, match=Match.model_validate(match))


DEFAULT: tuple[Rule, ...] = (
    _rule("context-corrupt", "vmm1", "fatal", kind="mc", severity="fatal"),
    _rule("corrected-error", "vmm1", "migrate", kind="cmci", severity="corrected"),
    _rule("corrected-error-polled", "vmm1", "migrate", kind="mc", severity="corrected"),
    _rule("consumed-by-vmm1", "vmm1", "fatal", kind="mc", owner="vmm1", severity="srar"),
    _rule("uncorrected-for-vmm2", "vmm2", "deliver", kind="mc", owner="vmm2"),
    _rule("uncorrected-unconsumed", "vmm1", "contain", kind="mc"),
    _rule("uncorrected-no-action", "vmm1", "contain", kind="cmci"),
    _rule("smi-unknown", "unknown", "firmware-smm", kind="smi"),
    _rule("nmi-to-vmm2", "vmm2", "deliver", kind="nmi"),
    _rule("pmi-by-vmm1", "vmm1", "log", kind="pmi"),
    _rule("otherwise", "unknown", "log"),
)

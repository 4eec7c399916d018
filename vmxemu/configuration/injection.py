"""Errors and interrupts put in from outside: what, when, where."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from vmxemu.configuration import quantities
from vmxemu.configuration.complaint import complaint
from vmxemu.configuration.errors import InputError

Cycles = Annotated[int, BeforeValidator(quantities.cycles), Field(lt=1 << 59)]
MOST_INJECTIONS = 1 << 16  # of one run, repetitions counted
Address = Annotated[int, BeforeValidator(quantities.address)]
InjectionKind = Literal["ce", "ue", "srao", "smi", "nmi", "pmi", "mc", "fatal"]

ADDRESSES = ("hpa", "vm1_gpa", "vm2_gpa")
NEED_ADDRESS = ("ce", "ue", "srao")
NO_ADDRESS = ("smi", "nmi", "pmi")


class Injection(BaseModel):
    """One injection.

    ce: corrected memory error. ue: uncorrected, found by the consumer (SRAR). srao: uncorrected, found by the scrubber.
    smi, nmi, pmi: the interrupt; smi and pmi take a command. mc: a machine check with no address. fatal: context lost.
    `cycle` is the virtual cycle of the first one; with `count` more follow, `every` cycles apart.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: InjectionKind
    cycle: Cycles
    hpa: Address | None = None
    vm1_gpa: Address | None = None
    vm2_gpa: Address | None = None
    command: Annotated[int, BeforeValidator(quantities.address), Field(le=0xFF)] | None = None
    bank: Annotated[int, BeforeValidator(quantities.address), Field(le=31)] | None = None
    count: Annotated[int, BeforeValidator(quantities.address), Field(ge=1, le=MOST_INJECTIONS)] = 1
    every: Cycles = 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [name for name in ADDRESSES if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"expected one address, got {' and '.join(given)}")
        if not given and self.kind in NEED_ADDRESS:
            raise ValueError(f"{self.kind} needs an address: hpa=, vm1_gpa= or vm2_gpa=")
        if given and self.kind in NO_ADDRESS:
            raise ValueError(f"{self.kind} takes no address, got {given[0]}")
        if self.command is not None and self.kind not in ("smi", "pmi"):
            raise ValueError(f"{self.kind} takes no command")
        if self.count > 1 and self.every == 0:
            raise ValueError("count needs every= (cycles between two)")
        if self.cycle + self.count * self.every >= 1 << 59:
            raise ValueError(f"the last one would come at cycle {self.cycle + (self.count - 1) * self.every}")
        return self

    @property
    def address_kind(self) -> str:
        """'hpa', 'vm1_gpa', 'vm2_gpa', or '' if there is no address."""
        return next((name for name in ADDRESSES if getattr(self, name) is not None), "")

    @property
    def address(self) -> int | None:
        """The address, of the kind that `address_kind` names."""
        return getattr(self, self.address_kind) if self.address_kind else None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 'ce@cycle=5M,hpa=0x1f3000,count=3,every=10k'. Raises InputError."""
        return cls._build(f"injection {text!r}", _split(text))

    @classmethod
    def _build(cls, where: str, fields: dict[str, Any]) -> Self:
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise complaint(where, error, cls) from None

    def text(self) -> str:
        """The same injection as `parse` reads it."""
        parts = [f"cycle={self.cycle}"]
        if self.address is not None:
            parts.append(f"{self.address_kind}={self.address:#x}")
        parts += [f"{name}={value:#x}" for name in ("command", "bank") if (value := getattr(self, name)) is not None]
        if self.count > 1:
            parts += [f"count={self.count}", f"every={self.every}"]
        return f"{self.kind}@{','.join(parts)}"


def _split(text: str) -> dict[str, Any]:
    where = f"injection {text!r}"
    kind, at, rest = text.partition("@")
    if not at:
        raise InputError(where, "expected KIND@cycle=N[,hpa=ADDRESS...]")
    fields: dict[str, Any] = {"kind": kind.strip()}
    for part in rest.split(","):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise InputError(where, f"expected NAME=VALUE, got {part!r}")
        if name.strip() in fields:
            raise InputError(where, f"{name.strip()} is given twice")
        fields[name.strip()] = value.strip()
    return fields

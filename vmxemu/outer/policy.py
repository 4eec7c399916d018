"""The policy table: ordered rules, the first match decides who a management interrupt belongs to and what is done."""

from typing import TYPE_CHECKING, Any

from vmxemu.isa import mca
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.trace.events import ACTIONS, MANAGEMENT, OWNERS

if TYPE_CHECKING:
    from vmxemu.state import State

ANY = U(0xFFFFFFFFFFFFFFFF)
NO_RULE = U(0xFFFF)
OWNER_NONE, OWNER_VMM1, OWNER_VMM2, OWNER_BOTH, OWNER_UNKNOWN = (U(number) for number in OWNERS)
IGNORE, DELIVER, COUNT, MIGRATE, CONTAIN, FIRMWARE_SMM, LOG, FATAL = (U(number) for number in ACTIONS)
SEVERITIES = {0: "none", 1: "corrected", 2: "ucna", 3: "srao", 4: "srar", 5: "fatal"}
NO_SEVERITY, CORRECTED, UCNA, SRAO, SRAR, SEVERITY_FATAL = (U(number) for number in SEVERITIES)


def install_policy(m: Any, configuration: Any) -> None:
    """Put the configured rules, thresholds and switches into VMM1's record. Raises ValueError for more rules than it holds."""
    kinds = {name.strip("#").lower(): number for number, name in MANAGEMENT.items()}
    owners = {name.lower(): number for number, name in OWNERS.items()}
    severities = {name: number for number, name in SEVERITIES.items()}
    actions = {name: number for number, name in ACTIONS.items()}
    outer = m.outer
    if len(configuration.policy) > len(outer.rules):
        raise ValueError(f"policy: expected at most {len(outer.rules)} rules, got {len(configuration.policy)}")

    def number(value: Any, table: dict[str, int] | None = None) -> int:
        if value is None:
            return int(ANY)
        return table[value] if table else int(value)

    for index, rule in enumerate(configuration.policy):
        row, match = outer.rules[index], rule.match
        row.kind, row.command, row.bank = number(match.kind, kinds), number(match.command), number(match.bank)
        row.owner, row.severity = number(match.owner, owners), number(match.severity, severities)
        row.decided_owner, row.action = owners[rule.owner], actions[rule.action]
    outer.rule_count = len(configuration.policy)
    outer.threshold = configuration.thresholds.ce
    outer.trap_allowed = int(configuration.trap)
    outer.invalidation = int(configuration.invalidation)


@kernel
def severity_of(status: int, restart_valid: int, error_valid: int) -> int:
    """Severity of a machine-check record: a first-match table, as operating systems grade it from the SDM's flags."""
    if status & mca.STATUS_VAL == 0:
        return NO_SEVERITY
    if status & mca.STATUS_UC == 0:
        return CORRECTED
    if status & mca.STATUS_PCC != 0:
        return SEVERITY_FATAL
    if restart_valid == 0:
        return SEVERITY_FATAL
    if status & mca.STATUS_S == 0:
        return UCNA
    if status & mca.STATUS_AR == 0:
        return SRAO
    if error_valid == 0:
        return SEVERITY_FATAL
    return SRAR


@kernel
def match(m: "State", kind: int, command: int, bank: int, owner: int, severity: int) -> int:
    """Index of the first rule that matches, NO_RULE if none does."""
    outer = m.outer
    for index in range(outer.rule_count):
        rule = outer.rules[index]
        if (
            (rule.kind == ANY or rule.kind == kind)
            and (rule.command == ANY or rule.command == command)
            and (rule.bank == ANY or rule.bank == bank)
            and (rule.owner == ANY or rule.owner == owner)
            and (rule.severity == ANY or rule.severity == severity)
        ):
            return index
    return NO_RULE

"""Events in words: the names of kinds, levels, reasons and fields."""

from typing import Any

import numpy as np

from vmxemu.isa import exceptions, exits
from vmxemu.trace import events
from vmxemu.translation.stale_words import CHANGES, SOURCES

LEVELS = {0: "L0", 1: "L1", 2: "L2", 3: "SMM"}
BASIC_REASON = 0xFFFF
ENTRY_FAILED = 1 << 31
HEXADECIMAL = frozenset(
    "vmcs interruption_info qualification guest_physical error_code smbase address detail hpa gpa gpa1 gpa2 old_hpa "
    "new_hpa root first operand value gla cached_hpa".split()
)


def kind_name(number: int) -> str:
    """Name of a kind of event."""
    kind = events.BY_NUMBER.get(number)
    return kind.name if kind else f"KIND_{number}"


def level_name(number: int) -> str:
    """L0, L1, L2 or SMM."""
    return LEVELS.get(number, f"level {number}")


def exit_name(reason: int) -> str:
    """Name of an exit reason, with its failed-entry flag."""
    name = exits.NAMES.get(reason & BASIC_REASON, f"EXIT_{reason & BASIC_REASON}")
    return f"{name} (entry failed)" if reason & ENTRY_FAILED else name


def reason_name(kind: int, reason: int, rules: tuple[str, ...] = ()) -> str:
    """What an event's `reason` says; empty for kinds that have none."""
    described = events.BY_NUMBER.get(kind)
    if described is None or not described.reason:
        return ""
    return value_name(described.reason, reason, rules)


def value_name(field: str, value: int, rules: tuple[str, ...] = ()) -> str:
    """A field's value in words if it has any, else as a number."""
    if field == "exit_reason":
        return exit_name(value)
    if field == "rule":
        return rules[value] if value < len(rules) else f"rule {value}"
    if (table := TABLES.get(field)) is not None:
        return table.get(value, str(value))
    return f"{value:#x}" if field in HEXADECIMAL else str(value)


TABLES: dict[str, dict[int, str]] = {
    "vector": {row.vector: f"#{row.mnemonic}" for row in exceptions.ROWS},
    "phase": events.PHASES,
    "management_kind": events.MANAGEMENT,
    "inject_kind": getattr(events, "INJECTIONS", {}),
    "owner": events.OWNERS,
    "action": events.ACTIONS,
    "level": LEVELS,
    "stale_change": CHANGES,
    "stale_source": SOURCES,
    "status": getattr(events, "MIGRATION_STATUS", {0: "done"}),
    "state": getattr(events, "FRAME_STATES", {}),
}


def fields_of(event: np.void, rules: tuple[str, ...] = ()) -> dict[str, str]:
    """The named fields a..d of an event in words, in order; those that its kind does not use are left out."""
    kind = events.BY_NUMBER.get(int(event["kind"]))
    if kind is None:
        return {name: f"{int(event[name]):#x}" for name in "abcd" if event[name]}
    named = ((getattr(kind, name), int(event[name])) for name in "abcd")
    return {field: value_name(field, value, rules) for field, value in named if field}


def unnamed(event: np.void) -> list[str]:
    """Columns that are not 0 although the event's kind gives them no meaning."""
    kind = events.BY_NUMBER.get(int(event["kind"]))
    return [name for name in ("reason", *"abcd") if event[name] and not (kind and getattr(kind, name))]


def rules_of(header: dict[str, Any]) -> tuple[str, ...]:
    """The names of the policy's rules, as a trace's header has them."""
    rules = (header.get("configuration") or {}).get("policy") or ()
    return tuple(str(rule.get("name", index)) for index, rule in enumerate(rules) if isinstance(rule, dict))

"""Stale uses (translation.stale) as facts with names, for people and JSON."""

from typing import Any

from vmxemu.outcome import EPT_MISCONFIG, EPT_VIOLATION, FAULT, SPP_EVENT
from vmxemu.translation.bits import FRAME_MASK
from vmxemu.translation.ept_failure import FAILED
from vmxemu.translation.rights import page_offset
from vmxemu.translation.stale_words import CHANGES, OWED, SOURCES

ACCESSES = ("read", "write", "fetch")
FAILURES = {int(EPT_VIOLATION): "EPT violation", int(EPT_MISCONFIG): "EPT misconfiguration", int(SPP_EVENT): "SPP event"}
LEVELS = ("L0", "L1", "L2", "SMM")


def stale_uses(m: Any) -> list[dict[str, Any]]:
    """The kinds of stale uses seen so far in the state `m`, in the order in which they were first met; JSON-able."""
    return [_facts(m.tlb.stale[place]) for place in range(int(m.tlb.stale_kinds))]


def _facts(use: Any) -> dict[str, Any]:
    gla, owed, born = int(use.gla), int(use.owed), int(use.born_clock) or int(use.born_ticks)
    return {
        "count": int(use.count),
        "gla": gla,
        "access": ACCESSES[int(use.access) & 3],
        "source": SOURCES[int(use.source)],
        "changed": CHANGES[owed],
        "owed": OWED[owed],
        "cached": _meaning(int(use.cached_word), gla),
        "now": _meaning(int(use.now_word), gla),
        "cached_gpa": int(use.cached_gpa),
        "now_gpa": int(use.now_gpa),
        "cycle_cached": int(use.born_ticks) >> 4 if born else None,
        "cycle": int(use.used_ticks) >> 4,
        "lookup_cached": int(use.born_clock) if born else None,
        "lookup": int(use.used_clock),
        "rip": int(use.rip),
        "level": LEVELS[int(use.level)],
        "vpid": int(use.vpid),
        "pcid": int(use.pcid),
        "eptp": int(use.ept_pointer),
    }


def _meaning(word: int, gla: int) -> str:
    """A frame, or how the walk fails."""
    if not word & int(FAILED):
        offset = int(page_offset(word))
        return f"{(word & int(FRAME_MASK) & ~offset) | (gla & offset & ~0xFFF):#x}"
    outcome = word & ~int(FAILED)
    if outcome & 0xFF == int(FAULT):
        return f"#PF({outcome >> 32:#x})" if outcome >> 8 & 0xFF == 14 else "#GP(0)"
    return FAILURES.get(outcome & 0xFF, f"outcome {outcome & 0xFF}")

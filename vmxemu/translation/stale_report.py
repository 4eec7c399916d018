"""Stale uses (translation.stale) as facts with names, for people and JSON."""

from typing import Any

from vmxemu.outcome import EPT_MISCONFIG, EPT_VIOLATION, FAULT, SPP_EVENT
from vmxemu.translation.bits import FRAME_MASK
from vmxemu.translation.ept_failure import FAILED
from vmxemu.translation.rights import page_offset

ACCESSES = ("read", "write", "fetch")
SOURCES = {
    0: "L1 DTLB",
    1: "L1 ITLB",
    2: "STLB",
    3: "paging-structure cache",
    4: "nested TLB",
    5: "EPT paging-structure cache",
    6: "walk cache",
}
# What changed, and what would have removed the translation.
OWED = {
    1: ("guest tables changed", "INVLPG, INVPCID or MOV to CR3; by its VMM, INVVPID"),
    2: ("EPT changed", "INVEPT"),
    3: ("guest dirty flag cleared", "INVLPG, INVPCID or MOV to CR3; by its VMM, INVVPID"),
    4: ("EPT dirty flag cleared", "INVEPT"),
    5: ("other tables under the same VPID and PCID", "MOV to CR3 without the no-flush bit, INVPCID or INVVPID"),
}
FAILURES = {int(EPT_VIOLATION): "EPT violation", int(EPT_MISCONFIG): "EPT misconfiguration", int(SPP_EVENT): "SPP event"}
LEVELS = ("L0", "L1", "L2", "SMM")


def stale_uses(m: Any) -> list[dict[str, Any]]:
    """The kinds of stale uses seen so far in the state `m`, in the order in which they were first met; JSON-able."""
    return [_facts(m.tlb.stale[place]) for place in range(int(m.tlb.stale_kinds))]


def _facts(use: Any) -> dict[str, Any]:
    gla, owed, born = int(use.gla), int(use.owed), int(use.born_clock) or int(use.born_ticks)
    changed, invalidation = OWED[owed]
    return {
        "count": int(use.count),
        "gla": gla,
        "access": ACCESSES[int(use.access) & 3],
        "source": SOURCES[int(use.source)],
        "changed": changed,
        "owed": invalidation,
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

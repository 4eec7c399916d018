"""The journal of one translation: every entry that was read and every cached translation that was used, in order.

It is kept while `m.walk.recording` is 1. Walks take the careful way then; what they find is the same.
"""

from typing import TYPE_CHECKING

from vmxemu.layout import u64 as U
from vmxemu.translation.inline import apart
from vmxemu.translation.layout import STEPS as _STEPS

if TYPE_CHECKING:
    from vmxemu.state import State

STEPS = U(_STEPS)


@apart
def note(m: "State", kind: int, level: int, guest_level: int, gpa: int, hpa: int, entry: int, cycles: int) -> None:
    """Add a line; a full journal takes no more."""
    count = m.walk.step_count
    if count >= STEPS:
        return
    step = m.walk.steps[count]
    step.kind = kind
    step.level = level
    step.guest_level = guest_level
    step.gla = m.walk.gla
    step.gpa = gpa
    step.hpa = hpa
    step.entry = entry
    step.cycles = cycles
    m.walk.step_count = count + 1

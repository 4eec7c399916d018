"""Frame states and poisoned lines: what RAS knows of each 4-KiB frame of RAM."""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel, load8, load64, store8, store64
from vmxemu.layout import u64 as U
from vmxemu.memory.layout import HEALTHY, HOLDS_CODE, POISONED, RETIRED
from vmxemu.memory.physical import ALL_ONES, frame_index

if TYPE_CHECKING:
    from vmxemu.state import State

POISON_CAPACITY = U(4096)
LINE_SHIFT = U(6)


@kernel
def frame_state(m: "State", hpa: int) -> int:
    """State of the frame at `hpa`; HEALTHY outside RAM."""
    index = frame_index(m, hpa)
    return HEALTHY if index == ALL_ONES else load8(m.memory.frames + index) & 0x7F


@kernel
def set_frame_state(m: "State", hpa: int, state: int) -> None:
    """Change a frame's state; the engine's mark that it holds code stays."""
    index = frame_index(m, hpa)
    if index != ALL_ONES:
        at = m.memory.frames + index
        store8(at, load8(at) & HOLDS_CODE | state)


@kernel
def holds_code(m: "State", hpa: int) -> bool:
    """Whether Unicorn may have translated code of this frame."""
    index = frame_index(m, hpa)
    return index != ALL_ONES and load8(m.memory.frames + index) & HOLDS_CODE != 0


@kernel
def mark_code(m: "State", hpa: int) -> None:
    """Remember that Unicorn may have translated code of this frame."""
    index = frame_index(m, hpa)
    if index != ALL_ONES:
        at = m.memory.frames + index
        store8(at, load8(at) | HOLDS_CODE)


@kernel
def poison_line(m: "State", hpa: int) -> bool:
    """Poison the 64-byte line at `hpa`: consuming it raises #MC. False where there is no RAM or the list is full."""
    memory = m.memory
    if frame_index(m, hpa) == ALL_ONES or memory.poison_count >= POISON_CAPACITY:
        return False
    if frame_state(m, hpa) != RETIRED:
        set_frame_state(m, hpa, POISONED)
    if not is_poisoned(m, hpa, 1):
        store64(memory.poison_lines + memory.poison_count * 8, hpa >> LINE_SHIFT << LINE_SHIFT)
        memory.poison_count = memory.poison_count + 1
    m.engine.flush = 1
    return True


@kernel
def is_poisoned(m: "State", hpa: int, size: int) -> bool:
    """Whether any byte of [hpa, hpa + size) lies in a poisoned line."""
    memory = m.memory
    for i in range(memory.poison_count):
        line = load64(memory.poison_lines + i * 8)
        if hpa < line + 64 and line < hpa + size:
            return True
    return False


@kernel
def clear_poison(m: "State", hpa: int) -> None:
    """Forget the poison of the whole frame at `hpa`, as when every line of it has been overwritten."""
    memory = m.memory
    kept = 0
    for i in range(memory.poison_count):
        line = load64(memory.poison_lines + i * 8)
        if line >> 12 != hpa >> 12:
            store64(memory.poison_lines + kept * 8, line)
            kept = kept + 1
    memory.poison_count = kept
    if frame_state(m, hpa) == POISONED:
        set_frame_state(m, hpa, HEALTHY)

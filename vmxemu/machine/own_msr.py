"""vmxemu's own MSRs: where the door is, what is sequestered, the boot phase, the software trap, SMRAM."""

from typing import TYPE_CHECKING

from vmxemu.isa import exceptions, msrs
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.outcome import DONE, NOT_MINE, fault_with
from vmxemu.trace import events
from vmxemu.trace.emit import emit

if TYPE_CHECKING:
    from vmxemu.state import State

TRAP_ENABLE, TRAP_LOCK = U(1), U(2)
REFUSED_DOOR, REFUSED_PHASE, REFUSED_TRAP, REFUSED_SMRAM = U(1), U(2), U(3), U(4)


@kernel
def refuse(m: "State", what: int, value: int) -> int:
    """Record the refusal; the instruction gets #GP(0)."""
    emit(m, events.REFUSED, what, value, 0, 0, 0)
    return fault_with(exceptions.GP, 0)


@kernel
def read_msr(m: "State", index: int) -> int:
    """The MSR's value in m.walk.value."""
    outer = m.outer
    if index == msrs.VMXEMU_DOOR:
        if outer.run_time != 0:
            return refuse(m, REFUSED_DOOR, 0)
        m.walk.value = outer.door
    elif index == msrs.VMXEMU_SEQUESTERED_BASE:
        m.walk.value = m.memory.sequestered_base
    elif index == msrs.VMXEMU_SEQUESTERED_BYTES:
        m.walk.value = m.memory.sequestered_bytes
    elif index == msrs.VMXEMU_PHASE:
        m.walk.value = outer.run_time
    elif index == msrs.VMXEMU_TRAP_CONTROL:
        m.walk.value = outer.trap_control
    elif index == msrs.VMXEMU_MEMORY_BYTES:
        m.walk.value = m.memory.low_bytes + m.memory.high_bytes
    elif index == msrs.VMXEMU_EVENT_COUNT:
        m.walk.value = m.trace.total
    elif index == msrs.VMXEMU_TSEG:
        m.walk.value = m.memory.tseg_base | m.memory.tseg_bytes >> 12
    elif index == msrs.VMXEMU_SMRAM_LOCK:
        m.walk.value = m.memory.smram_locked
    elif index == msrs.VMXEMU_IMAGE_BYTES:
        m.walk.value = m.memory.image_bytes
    else:
        return NOT_MINE
    return DONE


@kernel
def write_msr(m: "State", index: int, value: int) -> int:
    """Write one of the few that can be written."""
    outer = m.outer
    if index == msrs.VMXEMU_PHASE:
        if value != 1:
            return refuse(m, REFUSED_PHASE, value)
        if outer.run_time == 0:
            outer.run_time = 1
            emit(m, events.PHASE, events.PHASE_RUN_TIME, 0, 0, 0, 0)
        return DONE
    if index == msrs.VMXEMU_TRAP_CONTROL:
        if outer.trap_control & TRAP_LOCK != 0 or value > 3:
            return refuse(m, REFUSED_TRAP, value)
        outer.trap_control = value
        return DONE
    if index == msrs.VMXEMU_SMRAM_LOCK:
        if value != 1 or m.memory.smram_locked != 0:
            return refuse(m, REFUSED_SMRAM, value)
        m.memory.smram_locked = 1
        m.engine.flush = 1
        return DONE
    if msrs.VMXEMU_DOOR <= index <= msrs.VMXEMU_IMAGE_BYTES:
        return fault_with(exceptions.GP, 0)
    return NOT_MINE

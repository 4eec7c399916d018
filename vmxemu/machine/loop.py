"""The run loop: events, then the guest, until Python is wanted."""

from typing import TYPE_CHECKING

import numpy as np
from numba import types

from vmxemu import report
from vmxemu.cpu.layout import ACTIVE, HALTED
from vmxemu.engine.coherence import drop_code
from vmxemu.engine.layout import NO_TRAP
from vmxemu.engine.library import emu_start
from vmxemu.jit import kernel, native_callback
from vmxemu.layout import u64 as U
from vmxemu.machine.callbacks import POLL_TRAP, before_guest, state_at, step_symbol
from vmxemu.machine.traps import FILL_TRAP
from vmxemu.memory.physical import ALL_ONES
from vmxemu.outcome import DONE, NOT_MINE
from vmxemu.platform.timers import next_due
from vmxemu.trace.layout import CAPACITY as _CAPACITY

if TYPE_CHECKING:
    from vmxemu.state import State

UC_OK, UC_EXCEPTION = np.int32(0), np.int32(21)
TRACE_HIGH_WATER = U(_CAPACITY - 4096)
NOTHING_HAPPENS = U(100_000)


@native_callback(types.uint64(types.uint64))
def run(state: int) -> int:
    """Run until a reason to stop appears; returns it (report.*). The slice's end is m.clock.slice_end, in ticks."""
    m = state_at(state)
    while True:
        while True:
            outcome = step_symbol(state, POLL_TRAP)
            if outcome != DONE or m.engine.stop != 0:
                break
        if outcome != NOT_MINE and outcome != DONE:
            return m.report.reason
        if m.engine.stop != 0:
            m.engine.stop = 0
            return m.report.reason
        if m.clock.ticks >= m.clock.limit:
            m.report.reason = report.CYCLE_LIMIT
            return report.CYCLE_LIMIT
        if m.clock.ticks >= m.clock.slice_end:
            return report.SLICE_END
        if m.trace.count >= TRACE_HIGH_WATER:
            return report.TRACE_FULL
        due = soonest(m)
        if m.cpu.activity != ACTIVE:
            if nothing_can_come(m) or not wait(m, due):
                m.report.reason = report.HALTED_FOREVER
                return report.HALTED_FOREVER
            continue
        m.clock.next_stop = due
        m.clock.deadline = 0 if m.clock.attention != 0 else due
        if not execute(m, state):
            return m.report.reason


@kernel
def soonest(m: "State") -> int:
    """Ticks of the next moment at which the run loop must look."""
    due = next_due(m)
    if m.vmx.non_root != 0 and m.vmx.preemption_deadline != 0 and m.vmx.preemption_deadline < due:
        due = m.vmx.preemption_deadline
    if m.clock.slice_end < due:
        due = m.clock.slice_end
    if m.clock.limit < due:
        due = m.clock.limit
    return due


@kernel
def nothing_can_come(m: "State") -> bool:
    """Whether no timer, no injection and no VMX-preemption timer will ever end the processor's halt."""
    return next_due(m) == ALL_ONES and (m.vmx.non_root == 0 or m.vmx.preemption_deadline == 0)


@kernel
def wait(m: "State", due: int) -> bool:
    """HLT: let time pass to the next event. False if none can ever come."""
    if due == ALL_ONES:
        return False
    if due == m.clock.limit and m.cpu.activity != HALTED:
        return False
    if due > m.clock.ticks:
        m.clock.ticks = due
    return True


@kernel
def execute(m: "State", state: int) -> bool:
    """Let the guest run up to its next trap that the hook leaves to us; False if the run ends."""
    before_guest(m)
    engine = m.engine
    engine.trap = NO_TRAP
    error = emu_start(engine.uc, m.r.rip, 0, 0, 0)
    if engine.retranslate != 0:
        engine.retranslate = 0
        drop_code(m, engine.retranslate_hpa, engine.retranslate_bytes)
        return True
    if engine.trap != NO_TRAP:
        trap = engine.trap
        engine.trap = NO_TRAP
        if m.cpu.mce_pending != 0:
            return True  # the machine check comes first; the instruction has not begun and stops here again
        return step_symbol(state, trap) == DONE
    if error == UC_OK:
        if engine.stop != 0:
            engine.stop = 0
            return m.report.reason == report.RUNNING
        return True
    if error == UC_EXCEPTION and engine.fill_failed != 0:
        return step_symbol(state, FILL_TRAP) == DONE
    m.report.reason = report.ENGINE_ERROR
    m.report.value = U(error)
    return False

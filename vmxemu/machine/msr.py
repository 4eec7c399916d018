"""RDMSR and WRMSR: each room knows its own registers; the machine asks them in turn."""

from typing import TYPE_CHECKING

from vmxemu.cpu import msr as cpu_msr
from vmxemu.cpu.decode import advance
from vmxemu.cpu.layout import RAX, RCX, RDX
from vmxemu.isa import exceptions
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.machine import own_msr
from vmxemu.outcome import DONE, NOT_MINE, fault_with
from vmxemu.platform import msr as platform_msr
from vmxemu.timing import costs
from vmxemu.timing.clock import charge_event

if TYPE_CHECKING:
    from vmxemu.state import State

LOW = U(0xFFFFFFFF)
WRMSR = U(0x0F30)


@kernel
def execute(m: "State") -> int:
    """RDMSR or WRMSR at RIP, checks included."""
    if m.r.mode & 3 != 0:
        return fault_with(exceptions.GP, 0)
    index = m.r.gpr[RCX] & LOW
    if m.cpu.insn.opcode == WRMSR:
        charge_event(m, costs.WRMSR)
        m.engine.trap_may_raise = 1
        outcome = write_msr(m, index, m.r.gpr[RDX] << 32 | m.r.gpr[RAX] & LOW)
    else:
        charge_event(m, costs.RDMSR)
        outcome = read_msr(m, index)
        if outcome == DONE:
            m.r.gpr[RAX] = m.walk.value & LOW
            m.r.gpr[RDX] = m.walk.value >> 32
    if outcome == NOT_MINE:
        return fault_with(exceptions.GP, 0)
    if outcome == DONE:
        advance(m)
    return outcome


@kernel
def read_msr(m: "State", index: int) -> int:
    """The MSR's value in m.walk.value; NOT_MINE if no room has it."""
    outcome = cpu_msr.read_msr(m, index)
    if outcome == NOT_MINE:
        outcome = platform_msr.read_msr(m, index)
    return own_msr.read_msr(m, index) if outcome == NOT_MINE else outcome


@kernel
def write_msr(m: "State", index: int, value: int) -> int:
    """Write the MSR; NOT_MINE if no room has it."""
    outcome = cpu_msr.write_msr(m, index, value)
    if outcome == NOT_MINE:
        outcome = platform_msr.write_msr(m, index, value)
    return own_msr.write_msr(m, index, value) if outcome == NOT_MINE else outcome

"""RDTSC, RDTSCP and RDPMC. SDM Vol. 2B."""

from typing import TYPE_CHECKING

from vmxemu.cpu.decode import advance
from vmxemu.cpu.layout import HF_CPL, RCX
from vmxemu.cpu.msr import return_msr
from vmxemu.isa import exceptions
from vmxemu.isa.bits import CR4_TSD
from vmxemu.jit import kernel
from vmxemu.outcome import DONE, fault_with
from vmxemu.timing import costs
from vmxemu.timing.clock import charge_event, read_tsc

if TYPE_CHECKING:
    from vmxemu.state import State


@kernel
def read_time_stamp(m: "State", with_processor: bool) -> int:
    """RDTSC, or RDTSCP with IA32_TSC_AUX in ECX."""
    if m.r.cr[4] & CR4_TSD != 0 and m.r.mode & HF_CPL != 0:
        return fault_with(exceptions.GP, 0)
    charge_event(m, costs.RDTSC)
    return_msr(m, read_tsc(m))
    if with_processor:
        m.r.gpr[RCX] = m.r.tsc_aux & 0xFFFFFFFF
    advance(m)
    return DONE


@kernel
def read_performance_counter(m: "State") -> int:
    """RDPMC: #GP(0), because there is no counter (and CR4.PCE does not change that)."""
    return fault_with(exceptions.GP, 0)

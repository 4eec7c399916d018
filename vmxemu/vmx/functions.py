"""VMFUNC in VMX non-root operation. SDM Vol. 3C, 'VM Functions'; 'VMFUNC' in the VMX instruction reference."""

from typing import TYPE_CHECKING

from vmxemu.cpu.decode import advance
from vmxemu.cpu.layout import RAX, RCX
from vmxemu.isa import controls, exceptions, exits
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import read64
from vmxemu.outcome import DONE, fault, vm_exit
from vmxemu.timing import costs
from vmxemu.timing.clock import charge_event
from vmxemu.translation.invalidate import on_rights_change
from vmxemu.vmx.capability import eptp_fits
from vmxemu.vmx.checks_controls import secondary_controls

if TYPE_CHECKING:
    from vmxemu.state import State
    from vmxemu.vmx.vmcs import Vmcs

LOW_HALF, LOW_WORD = U(0xFFFFFFFF), U(0xFFFF)
FUNCTIONS, EPTP_SWITCHING, LIST_ENTRIES = U(64), U(0), U(512)


@kernel
def _listed_eptp(m: "State", v: "Vmcs") -> int:
    """The EPTP that ECX names."""
    return read64(m, v.eptp_list_address + ((m.r.gpr[RCX] & LOW_HALF) << 3))


@kernel
def function_exits(m: "State", v: "Vmcs") -> int:
    """VMFUNC before it takes effect: DONE, #UD, or its VM exit. Any privilege level may execute it."""
    function = m.r.gpr[RAX] & LOW_HALF
    if secondary_controls(v) & controls.SECONDARY_VMFUNC == 0 or function >= FUNCTIONS:
        return fault(exceptions.UD)
    if v.vm_function_control >> function & 1 == 0 or function != EPTP_SWITCHING or m.r.gpr[RCX] & LOW_HALF >= LIST_ENTRIES:
        return vm_exit(exits.VMFUNC)
    return DONE if eptp_fits(m, m.vmx, _listed_eptp(m, v)) else vm_exit(exits.VMFUNC)


@kernel
def switch_eptp(m: "State", v: "Vmcs") -> int:
    """EPTP switching; function_exits has passed. What is cached under either EPTP stays valid under its own."""
    charge_event(m, costs.VMFUNC)
    eptp = _listed_eptp(m, v)
    v.ept_pointer = eptp
    m.paging.ept_pointer = eptp
    if secondary_controls(v) & controls.SECONDARY_EPT_VE != 0:
        v.eptp_index = m.r.gpr[RCX] & LOW_WORD
        m.paging.eptp_index = v.eptp_index
    on_rights_change(m)
    advance(m)
    return DONE

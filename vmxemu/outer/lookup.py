"""Finding the frame behind a guest-physical address, for injections and for looking at memory from outside."""

from typing import TYPE_CHECKING

from vmxemu.isa import controls
from vmxemu.jit import kernel
from vmxemu.outer.ept02 import maps_vm1
from vmxemu.outer.ept_tables import NOT_MAPPED
from vmxemu.outer.guest_view import hpa_of, vmcs12
from vmxemu.vmx.checks_controls import secondary_controls

if TYPE_CHECKING:
    from vmxemu.state import State


@kernel
def frame_behind(m: "State", gpa: int, of_vm2: bool) -> int:
    """HPA behind an address of VM2 (through EPT12 and EPT01) or VM1 (through EPT01); NOT_MAPPED if there is none. No side
    effects."""
    if of_vm2:
        if m.outer.nested.host_address == 0:
            return NOT_MAPPED
        v12 = vmcs12(m)
        if secondary_controls(v12) & controls.SECONDARY_EPT != 0:
            gpa = maps_vm1(m, gpa, v12.ept_pointer)
            if gpa == NOT_MAPPED:
                return NOT_MAPPED
    return hpa_of(m, gpa)

"""What becomes of a walk that EPT has ended: VM exits, or a virtualization exception. SDM Vol. 3C, 'EPT-Induced VM Exits',
'Virtualization Exceptions', 'Page-Modification Logging', 'SPP-Induced VM Exits'."""

from typing import TYPE_CHECKING

from vmxemu.cpu.nmi import unblocked_by_iret
from vmxemu.isa import bits, exceptions, exits
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import read32, write16, write32, write64
from vmxemu.outcome import EPT_VIOLATION, PML_FULL, SPP_EVENT, fault, vm_exit
from vmxemu.translation.layout import EPT_CONVERT_TO_VE
from vmxemu.vmx import event
from vmxemu.vmx.qualification import clear_exit

if TYPE_CHECKING:
    from vmxemu.state import State

# The virtualization-exception information area
VE_REASON, VE_BUSY, VE_QUALIFICATION, VE_LINEAR, VE_PHYSICAL, VE_EPTP_INDEX = (U(i) for i in (0, 4, 8, 16, 24, 32))
BUSY = U(0xFFFFFFFF)


@kernel
def becomes_exception(m: "State") -> bool:
    """Whether this EPT violation causes #VE: convertible, in protected mode, outside event delivery, and the area is free."""
    if m.walk.convertible == 0 or m.paging.ept_extensions & EPT_CONVERT_TO_VE == 0 or m.r.cr[0] & bits.CR0_PE == 0:
        return False
    return m.cpu.event_info & event.INFO_VALID == 0 and read32(m, m.paging.ve_information + VE_BUSY) == 0


@kernel
def _report_exception(m: "State", qualification: int) -> None:
    area = m.paging.ve_information
    write32(m, area + VE_REASON, exits.EPT_VIOLATION)
    write32(m, area + VE_BUSY, BUSY)
    write64(m, area + VE_QUALIFICATION, qualification)
    write64(m, area + VE_LINEAR, m.walk.gla)
    write64(m, area + VE_PHYSICAL, m.walk.gpa)
    write16(m, area + VE_EPTP_INDEX, m.paging.eptp_index)


@kernel
def ept_event(m: "State", kind: int) -> int:
    """The VM exit, `m.exit` filled, or #VE that an outcome of translation stands for. EPT_VIOLATION, EPT_MISCONFIG, PML_FULL,
    SPP_EVENT."""
    by_iret = event.INFO_NMI_UNBLOCKING if unblocked_by_iret(m) else 0
    qualification = m.walk.qualification | by_iret
    if kind == EPT_VIOLATION and becomes_exception(m):
        _report_exception(m, qualification)
        return fault(exceptions.VE)
    clear_exit(m)
    if kind == PML_FULL:
        m.exit.qualification = by_iret
        return vm_exit(exits.PML_FULL)
    m.exit.guest_physical = m.walk.gpa
    if kind == EPT_VIOLATION or kind == SPP_EVENT:
        m.exit.qualification = qualification
        m.exit.guest_linear = m.walk.gla
        return vm_exit(exits.EPT_VIOLATION if kind == EPT_VIOLATION else exits.SPP_EVENT)
    return vm_exit(exits.EPT_MISCONFIG)

"""What VM-execution controls add to EPT: PML, sub-page permissions, mode-based execution, #VE, EPTP switching. SDM Vol. 3C, 'VMX
Support for Address Translation' and 'VM Functions'."""

from typing import TYPE_CHECKING

from vmxemu.isa import controls
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.translation.layout import EPT_CONVERT_TO_VE, EPT_MODE_BASED_EXECUTE, EPT_PAGE_MODIFICATION_LOG, EPT_SUBPAGE_WRITE
from vmxemu.vmx.checks_controls import secondary_controls

if TYPE_CHECKING:
    from vmxemu.state import State
    from vmxemu.vmx.vmcs import Vmcs

LOW_WORD = U(0xFFFF)


@kernel
def _when(word: int, control: int, extension: int) -> int:
    return extension if word & control != 0 else 0


@kernel
def load_ept_extensions(m: "State", v: "Vmcs", secondary: int) -> None:
    """VM entry: what walks of EPT need besides the EPTP; `secondary` is 0 where EPT is off."""
    paging = m.paging
    paging.ept_extensions = (
        _when(secondary, controls.SECONDARY_MODE_BASED_EXECUTE, EPT_MODE_BASED_EXECUTE)
        | _when(secondary, controls.SECONDARY_SPP, EPT_SUBPAGE_WRITE)
        | _when(secondary, controls.SECONDARY_PML, EPT_PAGE_MODIFICATION_LOG)
        | _when(secondary, controls.SECONDARY_EPT_VE, EPT_CONVERT_TO_VE)
    )
    if paging.ept_extensions == 0:
        return
    paging.spp_table = v.spp_table_pointer
    paging.pml_address = v.pml_address
    paging.pml_index = v.guest_pml_index & LOW_WORD
    paging.ve_information = v.ve_information_address
    paging.eptp_index = v.eptp_index & LOW_WORD


@kernel
def save_pml_index(m: "State", v: "Vmcs") -> None:
    """VM exit: where the log stands."""
    if secondary_controls(v) & controls.SECONDARY_PML != 0:
        v.guest_pml_index = m.paging.pml_index

"""Which of the processor's VMX capabilities VMM2 is shown. VMM1 builds EPT02 with read, write and execute rights only, four levels
deep: what would need more of it is withheld, and VMM2 finds neither the controls nor their VMCS fields."""

from typing import TYPE_CHECKING

from vmxemu.isa import capabilities, controls, exceptions, msrs
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.outcome import DONE, fault_with
from vmxemu.vmx.capability import CPU_CTLS2, EPT_VPID_CAP, VMFUNC_CTLS, able

if TYPE_CHECKING:
    from vmxemu.state import State

WITHHELD_CONTROLS = (
    controls.SECONDARY_PML
    | controls.SECONDARY_EPT_VE
    | controls.SECONDARY_MODE_BASED_EXECUTE
    | controls.SECONDARY_SPP
    | controls.SECONDARY_VMFUNC
)
WITHHELD_EPT = capabilities.EPT_WALK_5 | capabilities.EPT_SUPERVISOR_SHADOW_STACK
EVERYTHING = U(0xFFFFFFFFFFFFFFFF)


@kernel
def withhold(m: "State") -> None:
    """Fill the `withheld` of the virtual processor."""
    nested = m.outer.nested
    nested.withheld[CPU_CTLS2] = WITHHELD_CONTROLS << 32
    nested.withheld[EPT_VPID_CAP] = WITHHELD_EPT
    nested.withheld[VMFUNC_CTLS] = EVERYTHING


@kernel
def show(m: "State", index: int) -> int:
    """What VM1 reads of a capability MSR, after the processor's own is in m.walk.value. DONE or #GP(0)."""
    which = index - msrs.IA32_VMX_BASIC
    if which == VMFUNC_CTLS:
        return fault_with(exceptions.GP, 0)  # without "enable VM functions" it does not exist
    m.walk.value = able(m, m.outer.nested, which)
    return DONE

"""VM entry, first group: the VMX controls. SDM Vol. 3C, 'Checks on VMX Controls'. A failure is VMfail(7)."""

from typing import TYPE_CHECKING

from vmxemu.isa import bits, capabilities, controls, exceptions
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import read8
from vmxemu.vmx import reasons
from vmxemu.vmx.capability import (
    BASIC,
    CPU_CTLS,
    CPU_CTLS2,
    CPU_CTLS3,
    ENTRY_CTLS,
    EXIT_CTLS,
    MISC,
    PIN_CTLS,
    VMFUNC_CTLS,
    able,
    eptp_fits,
    fits,
    is_page,
    is_physical,
)
from vmxemu.vmx.event import (
    HARDWARE_TYPE,
    INFO_ERROR_CODE,
    INFO_RESERVED,
    INFO_VALID,
    NMI_TYPE,
    OTHER_TYPE,
    RESERVED_TYPE,
    SOFTWARE_TYPE,
)

if TYPE_CHECKING:
    from vmxemu.state import State
    from vmxemu.vmx.layout import Vmx
    from vmxemu.vmx.vmcs import Vmcs

VIRTUAL_TPR_OFFSET = U(0x80)
APIC_VIRTUALIZATION = (
    controls.SECONDARY_VIRTUALIZE_X2APIC
    | controls.SECONDARY_APIC_REGISTER_VIRTUALIZATION
    | controls.SECONDARY_VIRTUAL_INTERRUPT_DELIVERY
)
NEEDING_EPT = controls.SECONDARY_UNRESTRICTED_GUEST | controls.SECONDARY_MODE_BASED_EXECUTE


@kernel
def secondary_controls(v: "Vmcs") -> int:
    """The secondary processor-based controls in force: all 0 where they are not activated."""
    return v.secondary_vm_exec_control if v.cpu_based_vm_exec_control & controls.CPU_SECONDARY != 0 else 0


@kernel
def _execution_words(m: "State", vmx: "Vmx", v: "Vmcs") -> int:
    if not fits(m, vmx, PIN_CTLS, v.pin_based_vm_exec_control):
        return reasons.PIN_RESERVED
    primary = v.cpu_based_vm_exec_control
    if not fits(m, vmx, CPU_CTLS, primary):
        return reasons.CPU_RESERVED
    if not fits(m, vmx, CPU_CTLS2, secondary_controls(v)):
        return reasons.SECONDARY_RESERVED
    if primary & controls.CPU_TERTIARY != 0 and v.tertiary_vm_exec_control & ~able(m, vmx, CPU_CTLS3) != 0:
        return reasons.TERTIARY_RESERVED
    return 0


@kernel
def _bitmaps(m: "State", v: "Vmcs") -> int:
    primary = v.cpu_based_vm_exec_control
    if v.cr3_target_count > m.cpu.vmx_msr[MISC] >> 16 & 0x1FF:
        return reasons.CR3_TARGET_COUNT
    if primary & controls.CPU_IO_BITMAPS != 0 and not (is_page(m, v.io_bitmap_a) and is_page(m, v.io_bitmap_b)):
        return reasons.IO_BITMAP_ADDRESS
    if primary & controls.CPU_MSR_BITMAPS != 0 and not is_page(m, v.msr_bitmap):
        return reasons.MSR_BITMAP_ADDRESS
    return 0


@kernel
def _tpr_shadow(m: "State", v: "Vmcs") -> int:
    secondary = secondary_controls(v)
    if v.cpu_based_vm_exec_control & controls.CPU_TPR_SHADOW == 0:
        return reasons.APIC_VIRTUALIZATION_WITHOUT_TPR_SHADOW if secondary & APIC_VIRTUALIZATION != 0 else 0
    if not is_page(m, v.virtual_apic_page_addr):
        return reasons.VIRTUAL_APIC_ADDRESS
    if secondary & controls.SECONDARY_VIRTUAL_INTERRUPT_DELIVERY != 0:
        return 0
    if v.tpr_threshold >> 4 != 0:
        return reasons.TPR_THRESHOLD
    if secondary & controls.SECONDARY_VIRTUALIZE_APIC_ACCESSES == 0:
        if v.tpr_threshold > read8(m, v.virtual_apic_page_addr + VIRTUAL_TPR_OFFSET) >> 4:
            return reasons.TPR_THRESHOLD
    return 0


@kernel
def _interrupt_controls(m: "State", v: "Vmcs") -> int:
    pin = v.pin_based_vm_exec_control
    secondary = secondary_controls(v)
    if pin & controls.PIN_NMI == 0 and pin & controls.PIN_VIRTUAL_NMI != 0:
        return reasons.VIRTUAL_NMI_WITHOUT_NMI_EXITING
    if pin & controls.PIN_VIRTUAL_NMI == 0 and v.cpu_based_vm_exec_control & controls.CPU_NMI_WINDOW != 0:
        return reasons.NMI_WINDOW_WITHOUT_VIRTUAL_NMI
    if secondary & controls.SECONDARY_VIRTUALIZE_APIC_ACCESSES != 0:
        if not is_page(m, v.apic_access_addr):
            return reasons.APIC_ACCESS_ADDRESS
        if secondary & controls.SECONDARY_VIRTUALIZE_X2APIC != 0:
            return reasons.X2APIC_WITH_APIC_ACCESSES
    if secondary & controls.SECONDARY_VIRTUAL_INTERRUPT_DELIVERY != 0 and pin & controls.PIN_EXTERNAL_INTERRUPT == 0:
        return reasons.VIRTUAL_INTERRUPTS_WITHOUT_EXITING
    if pin & controls.PIN_POSTED_INTERRUPTS != 0:
        delivers = (
            secondary & controls.SECONDARY_VIRTUAL_INTERRUPT_DELIVERY != 0
            and v.vm_exit_controls & controls.EXIT_ACK_INTERRUPT != 0
        )
        fit = (
            v.posted_intr_nv >> 8 == 0
            and v.posted_intr_desc_addr & 0x3F == 0
            and is_physical(m, v.posted_intr_desc_addr)
        )
        if not delivers or not fit:
            return reasons.POSTED_INTERRUPTS
    return 0


@kernel
def _vm_functions(m: "State", vmx: "Vmx", v: "Vmcs") -> int:
    functions = v.vm_function_control
    if functions & ~able(m, vmx, VMFUNC_CTLS) != 0:
        return reasons.VM_FUNCTIONS
    if functions & controls.VMFUNC_EPTP_SWITCHING == 0:
        return 0
    with_ept = secondary_controls(v) & controls.SECONDARY_EPT != 0
    return 0 if with_ept and is_page(m, v.eptp_list_address) else reasons.VM_FUNCTIONS


@kernel
def _memory_controls(m: "State", vmx: "Vmx", v: "Vmcs") -> int:
    secondary = secondary_controls(v)
    with_ept = secondary & controls.SECONDARY_EPT != 0
    if secondary & controls.SECONDARY_VPID != 0 and v.virtual_processor_id == 0:
        return reasons.VPID_ZERO
    if with_ept and not eptp_fits(m, vmx, v.ept_pointer):
        return reasons.EPT_POINTER
    if secondary & controls.SECONDARY_PML != 0 and not (with_ept and is_page(m, v.pml_address)):
        return reasons.PML
    if secondary & NEEDING_EPT != 0 and not with_ept:
        return reasons.NEEDS_EPT
    if secondary & controls.SECONDARY_SPP != 0 and not (with_ept and is_page(m, v.spp_table_pointer)):
        return reasons.SPP_TABLE
    if secondary & controls.SECONDARY_VMFUNC != 0 and _vm_functions(m, vmx, v) != 0:
        return reasons.VM_FUNCTIONS
    if secondary & controls.SECONDARY_VMCS_SHADOWING != 0 and not (
        is_page(m, v.vmread_bitmap) and is_page(m, v.vmwrite_bitmap)
    ):
        return reasons.SHADOWING_BITMAP
    if secondary & controls.SECONDARY_EPT_VE != 0 and not is_page(m, v.ve_information_address):
        return reasons.VE_ADDRESS
    return 0


@kernel
def _list_fits(m: "State", count: int, address: int) -> bool:
    """Whether an MSR area's address is aligned and all of the area within the physical-address width."""
    if count == 0:
        return True
    return address & 0xF == 0 and is_physical(m, address) and is_physical(m, address + (count << 4) - 1)


@kernel
def _exit_controls(m: "State", vmx: "Vmx", v: "Vmcs") -> int:
    if not fits(m, vmx, EXIT_CTLS, v.vm_exit_controls):
        return reasons.EXIT_RESERVED
    if (
        v.pin_based_vm_exec_control & controls.PIN_PREEMPTION_TIMER == 0
        and v.vm_exit_controls & controls.EXIT_SAVE_PREEMPTION_TIMER != 0
    ):
        return reasons.SAVE_TIMER_WITHOUT_TIMER
    if not _list_fits(m, v.vm_exit_msr_store_count, v.vm_exit_msr_store_addr):
        return reasons.EXIT_STORE_LIST
    if not _list_fits(m, v.vm_exit_msr_load_count, v.vm_exit_msr_load_addr):
        return reasons.EXIT_LOAD_LIST
    return 0


@kernel
def _carries_error_code(m: "State", v: "Vmcs", kind: int, vector: int) -> bool:
    """Whether an injected event must have its deliver-error-code bit set (else it must be clear)."""
    unrestricted = secondary_controls(v) & controls.SECONDARY_UNRESTRICTED_GUEST != 0
    protected = not unrestricted or v.guest_cr0 & bits.CR0_PE != 0
    return protected and kind == HARDWARE_TYPE and exceptions.WITH_ERROR_CODE_MASK >> vector & 1 != 0


@kernel
def _injection(m: "State", v: "Vmcs") -> int:
    info = v.vm_entry_intr_info_field
    if info & INFO_VALID == 0:
        return 0
    kind = info >> 8 & 7
    vector = info & 0xFF
    if kind == RESERVED_TYPE or kind == OTHER_TYPE and m.cpu.vmx_msr[CPU_CTLS] >> 32 & controls.CPU_MTF == 0:
        return reasons.INJECTION_TYPE
    if (
        kind == NMI_TYPE
        and vector != exceptions.NMI
        or kind == HARDWARE_TYPE
        and vector > 31
        or kind == OTHER_TYPE
        and vector != 0
    ):
        return reasons.INJECTION_VECTOR
    has_code = info & INFO_ERROR_CODE != 0
    free = m.cpu.vmx_msr[BASIC] & capabilities.BASIC_ANY_EXCEPTION_ERROR_CODE != 0 and kind == HARDWARE_TYPE
    if has_code != _carries_error_code(m, v, kind, vector) and not free:
        return reasons.INJECTION_ERROR_CODE_BIT
    if info & INFO_RESERVED != 0:
        return reasons.INJECTION_RESERVED
    if has_code and v.vm_entry_exception_error_code >> 16 != 0:
        return reasons.INJECTION_ERROR_CODE
    if kind >= SOFTWARE_TYPE and kind != OTHER_TYPE:
        length = v.vm_entry_instruction_len
        if length > 15 or length == 0 and m.cpu.vmx_msr[MISC] & capabilities.MISC_INJECT_LENGTH_0 == 0:
            return reasons.INJECTION_LENGTH
    return 0


@kernel
def _entry_controls(m: "State", vmx: "Vmx", v: "Vmcs") -> int:
    if not fits(m, vmx, ENTRY_CTLS, v.vm_entry_controls):
        return reasons.ENTRY_RESERVED
    failed = _injection(m, v)
    if failed != 0:
        return failed
    if not _list_fits(m, v.vm_entry_msr_load_count, v.vm_entry_msr_load_addr):
        return reasons.ENTRY_LOAD_LIST
    if v.vm_entry_controls & (controls.ENTRY_SMM | controls.ENTRY_DEACTIVATE_DUAL_MONITOR) != 0:
        return reasons.ENTRY_SMM  # legal in SMM only, and there under the dual-monitor treatment only
    return 0


@kernel
def check_controls(m: "State", vmx: "Vmx", v: "Vmcs") -> int:
    """The first check on the VMX controls that fails (vmx.reasons), 0 if all pass; `vmx` belongs to the processor that enters."""
    failed = _execution_words(m, vmx, v)
    if failed == 0:
        failed = _bitmaps(m, v)
    if failed == 0:
        failed = _tpr_shadow(m, v)
    if failed == 0:
        failed = _interrupt_controls(m, v)
    if failed == 0:
        failed = _memory_controls(m, vmx, v)
    if failed == 0:
        failed = _exit_controls(m, vmx, v)
    if failed == 0:
        failed = _entry_controls(m, vmx, v)
    return failed

"""VMX state of one logical processor: the real one's, and the virtual one that VMM1 shows to VMM2 (same record)."""

from vmxemu.layout import Array, Layout, array, u64


class Vmx(Layout):
    """`m.vmx` is the processor's own; `m.outer.nested` is what VMM2 sees."""

    on: u64  # in VMX operation
    non_root: u64
    vmxon_pointer: u64
    current: u64  # current-VMCS pointer; all ones = none
    launched_entry: u64
    ept_in_use: u64
    tsc_offset: u64  # of the running guest
    preemption_deadline: u64  # ticks, 0 = not armed
    smx: u64
    in_smm_transfer: u64
    host_address: u64  # host address of the current VMCS's data, 0 = none
    operand_low: u64  # descriptor of the INVEPT or INVVPID in execution
    operand_high: u64
    mtf_pending: u64  # an MTF VM exit was injected, or the instruction that the monitor trap flag watches has retired
    failed_check: u64  # vmx.reasons number of the check that the latest VM entry failed
    withheld: Array[u64] = array(20)  # bits of the capability MSRs 480H..493H that this processor shows as 0; see vmx.capability


class Exit(Layout):
    """Facts of the VM exit in preparation."""

    qualification: u64
    interruption_info: u64
    interruption_error: u64
    instruction_length: u64
    instruction_info: u64
    guest_linear: u64
    guest_physical: u64

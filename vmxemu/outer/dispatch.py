"""VMM1's main loop body: what it does each time it gets control at the door."""

from typing import TYPE_CHECKING

from vmxemu import report
from vmxemu.isa import controls, exits
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.outcome import DONE, STOPPED, VMFAIL, kind_of
from vmxemu.outer import level1, level2
from vmxemu.outer.decide import decide
from vmxemu.outer.door import stands_at_door
from vmxemu.outer.ept02 import eptp02
from vmxemu.outer.guest_view import vmcs02, vmcs12
from vmxemu.outer.nested import fail_msr_load
from vmxemu.outer.virtual_events import deliver_waiting
from vmxemu.timing import costs
from vmxemu.timing.clock import charge_event
from vmxemu.vmx.checks_controls import secondary_controls
from vmxemu.vmx.entry import enter
from vmxemu.vmx.vmcs import vmcs_at

if TYPE_CHECKING:
    from vmxemu.state import State

BASIC = U(0xFFFF)
ENTRY_FAILURE = U(1 << 31)
LEVEL_2 = U(2)


@kernel
def handle_exit(m: "State") -> int:
    """If root software stands at the door, VMM1 deals with why and enters a virtual machine again; otherwise nothing.

    DONE: the guest (or the ordinary host) goes on. STOPPED: m.report says why.
    """
    if not stands_at_door(m):
        return DONE
    charge_event(m, costs.VMM1_DISPATCH)
    outer = m.outer
    outcome = DONE
    exited = outer.pending_exit
    outer.pending_exit = 0
    if outer.arrival != 0:
        outcome = decide(m)
        if m.cpu.in_smm != 0:
            return DONE  # the firmware's SMM handler runs; RSM comes back to the door
    elif exited != 0:
        v = vmcs_at(m.vmx.host_address)
        reason = v.vm_exit_reason
        if reason & ENTRY_FAILURE != 0:
            return broken(m, reason)
        outcome = level2.handle(m, reason & BASIC) if outer.level == LEVEL_2 else level1.handle(m, reason & BASIC)
    elif outer.smi_command != 0:  # the firmware's SMM handler has returned
        m.platform.smi_command = outer.smi_command & 0xFF
        outer.smi_command = 0
    if outcome != DONE:
        return outcome
    outcome = deliver_waiting(m)
    return resume(m) if outcome == DONE else outcome


@kernel
def resume(m: "State") -> int:
    """Enter whatever runs next."""
    if m.outer.level == LEVEL_2 and secondary_controls(vmcs12(m)) & controls.SECONDARY_EPT != 0:
        vmcs02(m).ept_pointer = eptp02(m, vmcs12(m).ept_pointer)  # the arena may have been emptied meanwhile
    outcome = enter(m, 0)
    if kind_of(outcome) == VMFAIL:
        return broken(m, outcome)
    v = vmcs_at(m.vmx.host_address)
    if m.vmx.non_root == 0:
        if m.outer.level == LEVEL_2 and v.vm_exit_reason & BASIC == exits.ENTRY_FAIL_MSR_LOADING:
            fail_msr_load(m, v.exit_qualification)  # a bad entry in VMM2's own area; settle comes back here
            return DONE
        return broken(m, v.vm_exit_reason)
    v.vm_entry_msr_load_count = 0  # VMM2's transition has happened; entries that follow exits to VMM1 are not its own
    if m.outer.mtf_pending != 0:
        m.vmx.mtf_pending = 1 if m.outer.level == LEVEL_2 else 0
        m.outer.mtf_pending = 0
    if m.platform.management.count != 0:
        m.clock.attention = 1  # what was held can come now
    return DONE


@kernel
def broken(m: "State", value: int) -> int:
    """A VM entry of VMM1 failed. It made the VMCS itself, so this is a defect of VMM1 or of the firmware that built VMCS01."""
    m.report.reason = report.VMM1_FATAL
    m.report.value = value
    m.report.where = m.vmx.current
    m.report.feature = m.vmx.failed_check
    return STOPPED



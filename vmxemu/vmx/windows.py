"""Exits between instructions: monitor trap flag, preemption timer, NMI window, interrupt window; and whether an NMI
may come in.

SDM Vol. 3C, 'Other Causes of VM Exits', in the order of their priority.
"""

from typing import TYPE_CHECKING

from vmxemu.cpu.layout import ACTIVE, HALTED, HF_INHIBIT_IRQ
from vmxemu.isa import bits, controls, exits
from vmxemu.jit import kernel
from vmxemu.outcome import DONE, vm_exit
from vmxemu.vmx.entry import blocked_by_mov_ss
from vmxemu.vmx.preemption import timer_expired
from vmxemu.vmx.qualification import clear_exit
from vmxemu.vmx.vmcs import vmcs_at

if TYPE_CHECKING:
    from vmxemu.state import State


@kernel
def interrupt_window_open(m: "State") -> bool:
    """Whether a maskable interrupt could be taken now."""
    if m.r.eflags & bits.RFLAGS_IF == 0 or m.r.mode & HF_INHIBIT_IRQ != 0:
        return False
    return m.cpu.activity == ACTIVE or m.cpu.activity == HALTED


@kernel
def nmi_window_open(m: "State") -> bool:
    """Whether a (virtual) NMI could be taken now."""
    return m.cpu.nmi_blocked == 0 and not blocked_by_mov_ss(m)


@kernel
def nmi_blocked_by_processor(m: "State") -> bool:
    """Whether a physical NMI has to wait. In a guest with virtual NMIs, `m.cpu.nmi_blocked` blocks virtual NMIs
    only."""
    if m.vmx.non_root != 0 and vmcs_at(m.vmx.host_address).pin_based_vm_exec_control & controls.PIN_VIRTUAL_NMI != 0:
        return blocked_by_mov_ss(m)
    return not nmi_window_open(m)


@kernel
def _which(m: "State") -> int:
    if m.vmx.mtf_pending != 0:
        return exits.MONITOR_TRAP_FLAG
    if timer_expired(m):
        return exits.PREEMPTION_TIMER
    primary = vmcs_at(m.vmx.host_address).cpu_based_vm_exec_control
    if primary & controls.CPU_NMI_WINDOW != 0 and nmi_window_open(m):
        return exits.NMI_WINDOW
    if primary & controls.CPU_INTERRUPT_WINDOW != 0 and interrupt_window_open(m):
        return exits.INTERRUPT_WINDOW
    return 0


@kernel
def pending_exit(m: "State") -> int:
    """In VMX non-root operation, between instructions and with no event to inject: vm_exit(reason), or DONE."""
    reason = _which(m)
    if reason == 0:
        return DONE
    clear_exit(m)
    return vm_exit(reason)


@kernel
def watches_instructions(m: "State") -> bool:
    """Whether the monitor trap flag is set: after the next instruction `m.vmx.mtf_pending` is to be set."""
    return m.vmx.non_root != 0 and vmcs_at(m.vmx.host_address).cpu_based_vm_exec_control & controls.CPU_MTF != 0


@kernel
def wants_attention(m: "State") -> bool:
    """Whether the run loop has to look at every block boundary for an exit of this kind."""
    if m.vmx.non_root == 0:
        return False
    primary = vmcs_at(m.vmx.host_address).cpu_based_vm_exec_control
    watched = controls.CPU_INTERRUPT_WINDOW | controls.CPU_NMI_WINDOW | controls.CPU_MTF
    return m.vmx.mtf_pending != 0 or primary & watched != 0

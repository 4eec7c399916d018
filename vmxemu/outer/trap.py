"""The software trap: while it is armed every management interrupt leaves the virtual machine to VMM1 before anyone else sees it.

It models an SMM-transfer monitor inside VMM1: an SMI in VMX non-root operation is an SMM VM exit (basic reasons 5 and 6) to
the door.
#MC, NMI and CMCI exit by reasons 0 and 1, a PMI like an SMI. VMM1 itself is never interrupted: it runs with management
# interrupts held.
"""

from typing import TYPE_CHECKING

from vmxemu.isa import exceptions, exits
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.outcome import vm_exit
from vmxemu.outer.layout import VIRTUAL_EVENTS
from vmxemu.platform.management import CAUSE_PORT, take_management
from vmxemu.trace import events
from vmxemu.trace.emit import emit

if TYPE_CHECKING:
    from vmxemu.state import State

ENABLED = U(1)
ENOUGH = U(VIRTUAL_EVENTS - 64)  # room is kept for machine checks
VALID, NMI_TYPE, HARDWARE_TYPE = U(1 << 31), U(2 << 8), U(3 << 8)


@kernel
def armed(m: "State") -> bool:
    """Whether a management interrupt that arrives now goes to VMM1."""
    outer = m.outer
    return outer.up != 0 and outer.trap_control & ENABLED != 0 and outer.trap_allowed != 0 and m.vmx.non_root != 0


@kernel
def holds(m: "State", kind: int) -> bool:
    """Whether a management interrupt has to wait where it is: the firmware's SMM handler runs on VMM1's behalf, or VMM2 has
    more of its
    own before it than VMM1 keeps for it. A machine check does not wait: in SMM the processor shuts down."""
    outer = m.outer
    if outer.up == 0 or outer.trap_control & ENABLED == 0 or outer.trap_allowed == 0 or kind == events.MC:
        return False
    return m.vmx.non_root == 0 or outer.waiting_count >= ENOUGH


@kernel
def arrive(m: "State", kind: int) -> int:
    """A management interrupt of this kind arrives: the VM exit that takes it to VMM1. Its facts are in
    m.platform.management.taken."""
    command = m.platform.smi_command
    take_management(m, kind)
    m.platform.smi_command = command  # VM1 sees the command port change only by an SMI of its own
    taken = m.platform.management.taken
    outer = m.outer
    outer.arrival = kind
    outer.arrival_level = outer.level
    outer.mtf_pending = m.vmx.mtf_pending
    emit(m, events.ARRIVAL, kind, taken.serial, taken.hpa, taken.detail, outer.level)
    m.exit.qualification = 0
    m.exit.interruption_error = 0
    m.exit.instruction_length = 0
    m.exit.interruption_info = 0
    if kind == events.NMI:
        m.exit.interruption_info = VALID | NMI_TYPE | exceptions.NMI
        return vm_exit(exits.EXCEPTION_NMI)
    if kind == events.MC:
        m.exit.interruption_info = VALID | HARDWARE_TYPE | exceptions.MC
        return vm_exit(exits.EXCEPTION_NMI)
    if kind == events.CMCI:
        return vm_exit(exits.EXTERNAL_INTERRUPT)
    return vm_exit(exits.IO_SMI if taken.cause == CAUSE_PORT else exits.OTHER_SMI)

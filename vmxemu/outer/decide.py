"""VMM1's decision on a management interrupt: facts, first matching rule, one decision record, action."""

from typing import TYPE_CHECKING

from vmxemu import report
from vmxemu.isa import mca
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.memory.frames import frame_state
from vmxemu.memory.layout import RETIRED
from vmxemu.memory.physical import is_ram
from vmxemu.outcome import DONE, STOPPED
from vmxemu.outer import policy, virtual_mca
from vmxemu.outer.ept_tables import NOT_MAPPED
from vmxemu.outer.ras import contain, corrected, gpa1_of
from vmxemu.outer.virtual_events import queue
from vmxemu.platform.mca import clear_bank
from vmxemu.smm.entry import enter_smm
from vmxemu.trace import events
from vmxemu.trace.emit import emit
from vmxemu.vmx.intercepts import program

if TYPE_CHECKING:
    from vmxemu.state import State

KEPT = U(1 << 32)
NO_BANK = U(0xFFFFFFFFFFFFFFFF)
RESTART, ERROR_IP = mca.MCG_STATUS_RIPV, mca.MCG_STATUS_EIPV


@kernel
def owner_of(m: "State", hpa: int, has_address: bool) -> int:
    """Whose memory an address is: VM1's (VMM2 and its guests), VMM1's (sequestered, SMRAM, firmware), nobody's, or unknown."""
    if not has_address:
        return policy.OWNER_NONE
    if not is_ram(m, hpa):
        return policy.OWNER_UNKNOWN
    if frame_state(m, hpa) == RETIRED:
        return policy.OWNER_VMM1
    if gpa1_of(m, hpa) != NOT_MAPPED:
        return policy.OWNER_VMM2
    return policy.OWNER_VMM1


@kernel
def decide(m: "State") -> int:
    """Decide on the arrival in hand and act. DONE, or STOPPED if it is fatal."""
    outer = m.outer
    kind = outer.arrival
    outer.arrival = 0
    taken = m.platform.management.taken
    is_error = kind == events.MC or kind == events.CMCI
    bank = taken.detail if is_error else NO_BANK
    status = U(0)
    severity = policy.NO_SEVERITY
    address = taken.hpa
    misc = U(0)
    if is_error:
        record = m.platform.mca.bank[bank]
        status = record.status
        misc = record.misc
        if status & mca.STATUS_ADDRV != 0:
            address = record.addr
        severity = (
            policy.severity_of(status, taken.flags & RESTART, taken.flags & ERROR_IP)
            if kind == events.MC
            else policy.severity_of(status, 1, 1)
        )
        clear_bank(m, bank)
        m.platform.mca.status = 0
    owner = owner_of(m, address, is_error and status & mca.STATUS_ADDRV != 0)
    rule = policy.match(m, kind, NO_BANK if is_error else taken.detail, bank, owner, severity)
    decided, action = policy.OWNER_UNKNOWN, policy.LOG
    if rule != policy.NO_RULE:
        decided = outer.rules[rule].decided_owner
        action = outer.rules[rule].action
    outer.decisions = outer.decisions + 1
    emit(m, events.DECISION, rule, taken.serial, kind, decided, action)
    return act(m, kind, action, address, status, misc, bank)


@kernel
def act(m: "State", kind: int, action: int, address: int, status: int, misc: int, bank: int) -> int:
    """Carry the decision out."""
    taken = m.platform.management.taken
    if action == policy.DELIVER:
        if not give(m, kind, address, status, misc, bank):
            m.report.reason = report.VMM1_FATAL
            m.report.where = taken.serial
            m.report.value = kind
            return STOPPED
    elif action == policy.MIGRATE and address != 0:
        if status & mca.STATUS_UC != 0:
            contain(m, address)  # bad data is never copied as good
        else:
            corrected(m, address)
    elif action == policy.CONTAIN and address != 0:
        contain(m, address)
    elif action == policy.FIRMWARE_SMM:
        outer = m.outer
        outer.smi_command = m.platform.smi_command | KEPT
        m.platform.smi_command = taken.detail
        enter_smm(m, kind)
        program(m)
    elif action == policy.FATAL:
        m.report.reason = report.VMM1_FATAL
        m.report.where = address
        m.report.value = status
        return STOPPED
    return DONE


@kernel
def give(m: "State", kind: int, hpa: int, status: int, misc: int, bank: int) -> bool:
    """Queue it for VMM2 in VMM2's terms: guest-physical addresses, virtual banks. False if VMM1 keeps no more."""
    taken = m.platform.management.taken
    gpa1 = U(0)
    if bank != NO_BANK:
        gpa1 = gpa1_of(m, hpa) if status & mca.STATUS_ADDRV != 0 else U(0)
        if gpa1 == NOT_MAPPED:
            gpa1 = U(0)
            status = status & ~mca.STATUS_ADDRV
        virtual_mca.log(m, bank, status, gpa1, misc)
    return queue(m, kind, taken.serial, gpa1, taken.detail, taken.flags)

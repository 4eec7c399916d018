"""INT n, INT3, INTO and INT1: instructions that become events to deliver. SDM Vol. 2A, 'INT n/INTO/INT3/INT1'."""

from typing import TYPE_CHECKING

from vmxemu.cpu.decode import advance
from vmxemu.cpu.flags import OF, arithmetic_flags
from vmxemu.cpu.layout import HF_CS64
from vmxemu.isa import exceptions
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, NOT_MINE, RETRY, fault

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
INT3, INT_N, INTO, INT1 = U(0xCC), U(0xCD), U(0xCE), U(0xF1)
SOFTWARE_INTERRUPT, PRIVILEGED_SOFTWARE_EXCEPTION, SOFTWARE_EXCEPTION = U(4), U(5), U(6)
EVENT_VALID = U(1 << 31)


@kernel
def _pend(m: "State", vector: int, kind: int) -> int:
    cpu = m.cpu
    cpu.event_vector = vector
    cpu.event_info = EVENT_VALID | kind << 8 | vector
    cpu.event_error = 0
    cpu.event_length = cpu.insn.length
    return RETRY


@kernel
def emulate_int(m: "State") -> int:
    """Make the decoded instruction the pending event. RETRY: the event waits; DONE: INTO has retired without one."""
    insn = m.cpu.insn
    if insn.opcode == INT_N:
        return _pend(m, insn.immediate & 0xFF, SOFTWARE_INTERRUPT)
    if insn.opcode == INT3:
        return _pend(m, exceptions.BP, SOFTWARE_EXCEPTION)
    if insn.opcode == INT1:
        return _pend(m, exceptions.DB, PRIVILEGED_SOFTWARE_EXCEPTION)
    if insn.opcode != INTO:
        return NOT_MINE
    if m.r.mode & HF_CS64 != 0:
        return fault(exceptions.UD)
    if arithmetic_flags(m) & OF != 0:
        return _pend(m, exceptions.OF, SOFTWARE_EXCEPTION)
    advance(m)
    return DONE

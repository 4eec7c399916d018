"""IN, OUT, INS and OUTS: what they access, whether they may, and the string forms' memory side. SDM Vol. 1, ch. 19."""

from typing import TYPE_CHECKING

from vmxemu.cpu.decode import REP, REPNE, next_rip
from vmxemu.cpu.descriptors import SYSTEM_READ
from vmxemu.cpu.flags import IOPL_SHIFT
from vmxemu.cpu.layout import ES, RCX, RDI, RDX, RSI, TR
from vmxemu.cpu.mode import cpl, is_protected, is_virtual_8086
from vmxemu.cpu.operand import linear_of, mask_of
from vmxemu.isa import exceptions
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, NOT_MINE, fault_with
from vmxemu.translation.access import read_linear, write_linear
from vmxemu.translation.layout import READ, WRITE
from vmxemu.translation.translate import translate

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
LOW_HALF = U(0xFFFFFFFF)
TSS_32 = U(0x900)  # type of a 32- or 64-bit TSS in TR's flags, busy bit left out
TSS_TYPE = U(0xD00)
BITMAP_POINTER = U(102)  # offset in the TSS


@kernel
def decode_io(m: "State") -> int:
    """Fill m.cpu.io from the decoded instruction; NOT_MINE if it is none of IN, OUT, INS, OUTS."""
    insn = m.cpu.insn
    io = m.cpu.io
    opcode = insn.opcode
    string = opcode >= 0x6C and opcode <= 0x6F
    immediate = opcode >= 0xE4 and opcode <= 0xE7
    if not string and not immediate and (opcode < 0xEC or opcode > 0xEF):
        return NOT_MINE
    io.is_string = 1 if string else 0
    io.is_immediate = 1 if immediate else 0
    io.is_rep = 1 if string and insn.prefixes & (REP | REPNE) != 0 else 0
    io.is_in = 1 if opcode & 2 == 0 else 0
    io.size = 1
    if opcode & 1 != 0:
        io.size = 2 if insn.operand_bytes == 2 else 4
    io.port = insn.immediate & 0xFF if immediate else m.r.gpr[RDX] & 0xFFFF
    io.next_rip = next_rip(m)
    return DONE


@kernel
def io_allowed(m: "State", port: int, size: int) -> int:
    """DONE or #GP(0) by IOPL and the TSS's I/O permission bitmap, or what reading it met."""
    if not is_protected(m):
        return DONE
    if not is_virtual_8086(m) and cpl(m) <= m.r.eflags >> IOPL_SHIFT & 3:
        return DONE
    refused = fault_with(exceptions.GP, 0)
    tss = m.r.seg[TR]
    if tss.flags & TSS_TYPE != TSS_32 or tss.limit < BITMAP_POINTER + 1:
        return refused
    outcome = read_linear(m, tss.base + BITMAP_POINTER, 2, SYSTEM_READ)
    if outcome != DONE:
        return outcome
    offset = m.walk.value + (port >> 3)
    if offset + 1 > tss.limit:  # the processor always reads two bytes
        return refused
    outcome = read_linear(m, tss.base + offset, 2, SYSTEM_READ)
    if outcome != DONE:
        return outcome
    wanted = (1 << size) - 1 << (port & 7)
    return DONE if m.walk.value & wanted == 0 else refused


@kernel
def elements_left(m: "State") -> int:
    """How many elements the string form still moves: rCX with REP, else 1."""
    if m.cpu.io.is_rep == 0:
        return 1
    return m.r.gpr[RCX] & mask_of(m.cpu.insn.address_bytes)


@kernel
def element_address(m: "State") -> int:
    """Linear address of the element: ES:rDI for INS, DS (or override):rSI for OUTS."""
    insn = m.cpu.insn
    mask = mask_of(insn.address_bytes)
    if m.cpu.io.is_in != 0:
        return linear_of(m, ES, m.r.gpr[RDI] & mask)
    return linear_of(m, insn.segment, m.r.gpr[RSI] & mask)


@kernel
def prepare_element(m: "State") -> int:
    """Before INS reads the port: whether its store can succeed."""
    return translate(m, element_address(m), WRITE)


@kernel
def load_element(m: "State") -> int:
    """OUTS: the element into m.walk.value."""
    return read_linear(m, element_address(m), m.cpu.io.size, READ)


@kernel
def store_element(m: "State", value: int) -> int:
    """INS: store the element."""
    return write_linear(m, element_address(m), m.cpu.io.size, value, WRITE)


@kernel
def _write_counter(m: "State", register: int, value: int) -> None:
    """Write rCX, rSI or rDI in the address size."""
    mask = mask_of(m.cpu.insn.address_bytes)
    if m.cpu.insn.address_bytes == 2:
        m.r.gpr[register] = m.r.gpr[register] & ~mask | value & mask
    else:
        m.r.gpr[register] = value & mask


@kernel
def finish_element(m: "State") -> int:
    """Move rSI or rDI, count down rCX with REP; returns how many elements are left."""
    register = RDI if m.cpu.io.is_in != 0 else RSI
    size = m.cpu.io.size
    if m.r.df < 0:
        _write_counter(m, register, m.r.gpr[register] - size)
    else:
        _write_counter(m, register, m.r.gpr[register] + size)
    if m.cpu.io.is_rep == 0:
        return 0
    _write_counter(m, RCX, m.r.gpr[RCX] - 1)
    return elements_left(m)

"""Instruction bytes: fetched page by page, so that a page that the instruction does not reach cannot fault."""

from typing import TYPE_CHECKING

from vmxemu.cpu.layout import CS, HF_CS64, Instruction
from vmxemu.isa import exceptions
from vmxemu.jit import address_of, copy_bytes, kernel, load64, store64
from vmxemu.layout import u64
from vmxemu.memory.physical import host_address
from vmxemu.outcome import DONE, fault_with
from vmxemu.translation.layout import FETCH
from vmxemu.translation.translate import translate

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
LONGEST = U(15)
CODE_OFFSET = U(Instruction.FIELDS["code"].offset)
PAGE_MASK = U(0xFFF)
LOW_HALF = U(0xFFFFFFFF)


@kernel
def code_address(m: "State", offset: int) -> int:
    """Linear address of the byte `offset` bytes after RIP."""
    if m.r.mode & HF_CS64 != 0:
        return m.r.rip + offset
    return m.r.seg[CS].base + m.r.rip + offset & LOW_HALF


@kernel
def _fetch_from_page(m: "State") -> None:
    """Add to `insn.code` the bytes that stand in one page."""
    insn = m.cpu.insn
    gla = code_address(m, insn.available)
    outcome = translate(m, gla, FETCH)
    if outcome != DONE:
        insn.failure = outcome
        return
    size = LONGEST - insn.available
    left = 4096 - (gla & PAGE_MASK)
    if size > left:
        size = left
    host = host_address(m, m.walk.hpa)
    target = address_of(insn) + CODE_OFFSET + insn.available
    if host == 0:  # nobody drives the bus
        for i in range(size):
            insn.code[insn.available + i] = 0xFF
    elif left >= 16 and insn.available == 0:
        store64(target, load64(host))
        store64(target + 8, load64(host + 8))
    else:
        copy_bytes(target, host, size)
    insn.available = insn.available + size


@kernel
def begin_fetch(m: "State") -> None:
    """Start at RIP."""
    insn = m.cpu.insn
    insn.available = 0
    insn.cursor = 0
    insn.failure = 0
    _fetch_from_page(m)


@kernel
def next_byte(m: "State") -> int:
    """The next instruction byte; 0 after a failure, which `insn.failure` keeps."""
    insn = m.cpu.insn
    if insn.cursor >= insn.available:
        if insn.failure != 0:
            return 0
        if insn.cursor >= LONGEST:
            insn.failure = fault_with(exceptions.GP, 0)
            return 0
        _fetch_from_page(m)
        if insn.failure != 0:
            return 0
    value = insn.code[insn.cursor]
    insn.cursor = insn.cursor + 1
    return value


@kernel
def next_bytes(m: "State", count: int) -> int:
    """The next `count` bytes (up to eight) as a number."""
    value = 0
    for i in range(count):
        value = value | next_byte(m) << 8 * i
    return value

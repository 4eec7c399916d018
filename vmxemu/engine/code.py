"""Looking at code when Unicorn first translates it: what a block costs, and where its I/O instructions are.

Unicorn cannot intercept IN, OUT, INS and OUTS; so each such instruction, once seen, gets a code hook on exactly its address. The
same serves RDPKRU and WRPKRU, which Unicorn would execute on a PKRU of its own.
It loads, then stores, what the processor reads and writes in one, and does not say which loads are the processor's own: blocks with
such instructions are marked, so that only their misses have to be looked into.
"""

from typing import TYPE_CHECKING

import capstone.x86_const as x86
import numpy as np
from unicorn.unicorn_const import UC_HOOK_CODE

from vmxemu.cpu.layout import HF_CS32, HF_CS64
from vmxemu.cpu.memory_uses import DESCRIPTOR, READ_MODIFY_WRITE, memory_uses
from vmxemu.engine.layout import BLOCK_USES, BLOCKS, IO_SITES
from vmxemu.engine.library import disassemble_next, hook_add
from vmxemu.jit import address_of, kernel, load8, load32, load64, store64
from vmxemu.layout import u64 as U

if TYPE_CHECKING:
    from vmxemu.state import State

HOOK_CODE = np.int32(UC_HOOK_CODE)
LEA, NOP = U(x86.X86_INS_LEA), U(x86.X86_INS_NOP)
IO_INSTRUCTIONS = np.array(
    [
        x86.X86_INS_IN,
        x86.X86_INS_OUT,
        x86.X86_INS_INSB,
        x86.X86_INS_INSW,
        x86.X86_INS_INSD,
        x86.X86_INS_OUTSB,
        x86.X86_INS_OUTSW,
        x86.X86_INS_OUTSD,
        x86.X86_INS_RDPKRU,
        x86.X86_INS_WRPKRU,
    ],
    dtype=np.uint64,
)
IO_KINDS = U(len(IO_INSTRUCTIONS))
# cs_insn of Capstone 5: id u32 at 0, address u64 at 8, size u16 at 16, operand text at 74
INSN_ADDRESS, INSN_OPERANDS = U(8), U(74)
BRACKET, COMMA = U(ord("[")), U(ord(","))
NO_MEMORY, LOADS, STORES = U(0), U(1), U(2)
# Rows of the table at engine.mnemonic_ticks, three u64 per instruction: ticks in register form, extra for a load, extra for a store
TICKS_ROW = U(24)
ANYTHING = READ_MODIFY_WRITE | DESCRIPTOR


@kernel
def block_slot(address: int) -> int:
    """Index of a block in the cost table."""
    return (address ^ address >> 15) & (BLOCKS - 1)


@kernel
def _uses_slot(address: int) -> int:
    return (address ^ address >> 17) & (BLOCK_USES - 1)


@kernel
def mark_block(m: "State", linear: int, uses: int) -> None:
    """Note READ_MODIFY_WRITE and DESCRIPTOR of a block. Nothing is ever taken back: of two blocks with the same linear address, in
    different address spaces, both may still run.
    """
    slot = _uses_slot(linear)
    m.engine.block_uses[slot] = m.engine.block_uses[slot] | uses & ANYTHING


@kernel
def block_may(m: "State") -> int:
    """READ_MODIFY_WRITE if the block that runs may have such an instruction, DESCRIPTOR likewise."""
    return m.engine.block_uses[_uses_slot(m.engine.current_block)]


@kernel
def memory_use(insn: int) -> int:
    """Whether the disassembled instruction's text has a memory operand, and on which side."""
    commas = 0
    for i in range(160):
        character = load8(insn + INSN_OPERANDS + i)
        if character == 0:
            break
        if character == COMMA:
            commas = commas + 1
        elif character == BRACKET:
            return STORES if commas == 0 else LOADS
    return NO_MEMORY


@kernel
def capstone_handle(m: "State") -> int:
    """The disassembler for the current code size."""
    if m.r.mode & HF_CS64 != 0:
        return m.engine.capstone64
    return m.engine.capstone32 if m.r.mode & HF_CS32 != 0 else m.engine.capstone16


@kernel
def is_io(number: int) -> bool:
    """Whether a Capstone instruction number is of the IN/OUT family, or one that reads or writes PKRU."""
    for i in range(IO_KINDS):
        if IO_INSTRUCTIONS[i] == number:
            return True
    return False


@kernel
def hook_io_site(m: "State", linear: int) -> bool:
    """Put a code hook on the instruction at `linear`; False if it has one already."""
    engine = m.engine
    slot = (linear ^ linear >> 12) & (IO_SITES - 1)
    for _ in range(IO_SITES):
        if engine.io_sites[slot] == linear:
            return False
        if engine.io_sites[slot] == 0:
            engine.io_sites[slot] = linear
            engine.io_site_count = engine.io_site_count + 1
            handle = address_of(engine.scratch)
            hook_add(engine.uc, handle, HOOK_CODE, engine.io_callback, engine.state_address, linear, linear)
            return True
        slot = (slot + 1) & (IO_SITES - 1)
    return False


@kernel
def survey_block(m: "State", linear: int, size: int, host: int) -> bool:
    """Enter the block's cost in the table and hook its I/O instructions. `host` holds a copy of its `size` bytes.

    Returns True if a hook is new, so that the block must be translated again.
    """
    engine = m.engine
    scratch = engine.scratch
    at = address_of(scratch) + 8
    store64(at, host)
    store64(at + 8, size)
    store64(at + 16, linear)
    insn = engine.capstone_insn
    ticks, instructions, uses, hooked = U(0), U(0), U(0), False
    handle = capstone_handle(m)
    while load64(at + 8) > 0:
        bytes_at = load64(at)
        if disassemble_next(handle, at, at + 8, at + 16, insn) == 0:
            uses = ANYTHING
            break
        uses = uses | uses_of_code(m.r.mode, bytes_at, load64(at))
        number = load32(insn)
        row = engine.mnemonic_ticks + number * TICKS_ROW
        ticks = ticks + load64(row)
        if number != LEA and number != NOP:
            use = memory_use(insn)
            if use != NO_MEMORY:
                ticks = ticks + load64(row + use * 8)
        instructions = instructions + 1
        if is_io(number) and hook_io_site(m, load64(insn + INSN_ADDRESS)):
            hooked = True
    mark_block(m, linear, uses)
    block = engine.block[block_slot(linear)]
    block.linear = linear
    block.size = size
    block.ticks = ticks
    block.instructions = instructions
    return hooked


@kernel
def is_io_code(host: int) -> bool:
    """Whether the bytes at `host` (at least 16) are an instruction that `is_io` names."""
    for i in range(14):
        byte = load8(host + i)
        if byte & 0xFC == 0xE4 or byte & 0xFC == 0xEC or byte & 0xFC == 0x6C:
            return True
        if byte == 0x0F:
            return load8(host + i + 1) == 0x01 and load8(host + i + 2) & 0xFE == 0xEE
        if not is_prefix(byte):
            return False
    return False


@kernel
def is_prefix(byte: int) -> bool:
    """Whether a byte before an opcode may be a prefix other than LOCK. Outside 64-bit mode 40h to 4Fh are instructions, without
    operands in memory.
    """
    return (
        byte == 0x66
        or byte == 0x67
        or byte == 0xF2
        or byte == 0xF3
        or byte & 0xE7 == 0x26
        or byte & 0xFE == 0x64
        or byte & 0xF0 == 0x40
    )


@kernel
def uses_of_code(mode: int, host: int, end: int) -> int:
    """What the instruction whose bytes stand in [host, end) does with memory (cpu.memory_uses)."""
    while host < end and (is_prefix(load8(host)) or load8(host) == 0xF0):
        host = host + 1
    opcode = load8(host)
    if opcode == 0x0F:
        host = host + 1
        opcode = 0x0F00 | load8(host)
    modrm = load8(host + 1) if host + 1 < end else opcode ^ opcode
    return memory_uses(mode, opcode, modrm)

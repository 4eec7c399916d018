"""The decoder against Capstone, on random encodings of everything that can trap."""

import random

import capstone
import pytest
from capstone import x86

from tests.unit.cpu.processor import Processor
from vmxemu.cpu.decode import advance, decode
from vmxemu.cpu.layout import CS, DS, ES, FS, GS, SS

# Opcode bytes, then: m ModRM follows, b imm8 follows, - nothing
TRAPPING = """
    0f00m 0f01m 0f06- 0f08- 0f09- 0f0b- 0f20m 0f21m 0f22m 0f23m 0f30- 0f31- 0f32- 0f33- 0f34- 0f35- 0f05- 0f07-
    0f77- 0f78m 0f79m 0fa2- 0faa- 0fc7m 0f3880m 0f3881m 0f3882m 6c- 6d- 6e- 6f- 9c- 9d- 90- cc- cdb f1- cf- f4-
    e4b e5b e6b e7b ec- ed- ee- ef- 89m 8bm 88m c7m f7m 81m 83m a1- 0fb6m 0fafm 69m c8- e8- e9- 9a- b8- d1m ffm
    8em 0fbam 0f1fm 0f3a0fm 0f01m 0f01m 0f78m 0f79m
""".split()
REGISTERS_64 = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split()
REGISTERS_32 = "eax ecx edx ebx esp ebp esi edi r8d r9d r10d r11d r12d r13d r14d r15d".split()
REGISTERS_16 = "ax cx dx bx sp bp si di".split()
SEGMENTS = {
    x86.X86_REG_ES: ES,
    x86.X86_REG_CS: CS,
    x86.X86_REG_SS: SS,
    x86.X86_REG_DS: DS,
    x86.X86_REG_FS: FS,
    x86.X86_REG_GS: GS,
}
MODES = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
START = 0x8000
# Capstone prints these without the memory operand that ModRM encodes, or with an operand of its own.
NOT_COMPARED = {"nop", "lea"}
AMD_ONLY = {"insertq", "extrq"}


def is_disputed(prefixes: bytes, bits: int) -> bool:
    """A null segment prefix after FS or GS in 64-bit mode: for Capstone it wins, for the manual it is ignored."""
    return bits == 64 and len(prefixes) == 2 and prefixes[0] in (0x64, 0x65) and prefixes[1] in (0x2E, 0x36, 0x3E, 0x26)


def random_code(generator: random.Random, bits: int) -> bytes:
    text = generator.choice(TRAPPING)
    prefixes = bytes(
        generator.choice((0x66, 0x67, 0xF2, 0xF3, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65))
        for _ in range(generator.choice((0, 0, 0, 1, 1, 2)))
    )
    if is_disputed(prefixes, bits):
        prefixes = prefixes[:1]
    rex = bytes([0x40 | generator.getrandbits(4)]) if bits == 64 and generator.random() < 0.6 else b""
    tail = bytes(generator.getrandbits(8) for _ in range(14))
    return prefixes + rex + bytes.fromhex(text[:-1]) + tail


def number(name: str) -> int:
    for names in (REGISTERS_64, REGISTERS_32, REGISTERS_16):
        if name in names:
            return names.index(name)
    return 16


def processor_in(bits: int) -> Processor:
    processor = Processor().long() if bits == 64 else Processor().protected(bits)
    generator = random.Random(bits)
    for i in range(16):
        processor.m.r.gpr[i] = generator.getrandbits(64 if bits == 64 else 32)
    for index in (ES, SS, DS, FS, GS):
        processor.m.r.seg[index].base = generator.getrandbits(20)
    processor.m.r.rip = START
    return processor


def expected_linear(
    processor: Processor, insn: "capstone.CsInsn", operand: "x86.X86OpMem", bits: int
) -> tuple[int, int, int]:
    """Segment, offset, linear address, from Capstone's view of the operand."""
    base, index = insn.reg_name(operand.base) or "", insn.reg_name(operand.index) or ""
    value = operand.disp
    if base in ("rip", "eip"):
        value += START + insn.size
    elif number(base) < 16:
        value += int(processor.m.r.gpr[number(base)])
    if number(index) < 16:
        value += int(processor.m.r.gpr[number(index)]) * operand.scale
    offset = value & ((1 << 8 * insn.addr_size) - 1)
    default = SS if base in ("rsp", "rbp", "esp", "ebp", "bp", "sp") else DS
    segment = SEGMENTS.get(operand.segment, default)
    if bits == 64 and segment not in (FS, GS):
        return int(default), offset, offset
    linear = int(processor.m.r.seg[segment].base) + offset
    return int(segment), offset, linear & (0xFFFFFFFFFFFFFFFF if bits == 64 else 0xFFFFFFFF)


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_decoder_equals_capstone(bits: int) -> None:
    generator = random.Random(bits)
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, MODES[bits])
    disassembler.detail = True
    processor = processor_in(bits)
    decoded, operands = 0, 0
    for _ in range(4000):
        code = random_code(generator, bits)
        insn = next(disassembler.disasm(code[:15], START, 1), None)
        if insn is None or insn.mnemonic in AMD_ONLY:
            continue
        decoded += 1
        processor.poke(START, code)
        assert int(decode(processor.m)) == 0
        ours = processor.m.cpu.insn
        assert int(ours.length) == insn.size, (code.hex(), insn.mnemonic, insn.op_str)
        memory = [operand for operand in insn.operands if operand.type == x86.X86_OP_MEM]
        if not memory or not int(ours.has_modrm) or insn.mnemonic in NOT_COMPARED:
            continue
        operands += 1
        assert int(ours.is_memory) == 1, (code.hex(), insn.mnemonic, insn.op_str)
        segment, offset, linear = expected_linear(processor, insn, memory[0].mem, bits)
        assert (int(ours.segment), int(ours.offset), int(ours.linear)) == (segment, offset, linear), (
            code.hex(),
            insn.mnemonic,
            insn.op_str,
        )
    assert decoded > 1500 and operands > 400


@pytest.mark.parametrize(
    "code, opcode, immediate",
    [
        ("cd30", 0xCD, 0x30),
        ("e480", 0xE4, 0x80),
        ("66e7ff", 0xE7, 0xFF),
        ("480f20c0", 0x0F20, 0),
        ("660f388201", 0x0F3882, 0),
        ("0f01c1", 0x0F01, 0),
    ],
)
def test_opcode_and_immediate(code: str, opcode: int, immediate: int) -> None:
    processor = processor_in(64)
    processor.poke(START, bytes.fromhex(code))
    assert int(decode(processor.m)) == 0
    assert (int(processor.m.cpu.insn.opcode), int(processor.m.cpu.insn.immediate)) == (opcode, immediate)


def test_more_than_15_bytes_is_a_general_protection_fault() -> None:
    processor = processor_in(64)
    processor.poke(START, b"\x66" * 15 + b"\xf4")
    assert int(decode(processor.m)) == 1 | 13 << 8 | 1 << 16


def test_an_instruction_at_the_end_of_a_page_does_not_touch_the_next() -> None:
    processor = processor_in(64)
    at = 0x1FFFFE  # the last two bytes of the first 2-MiB page; the next is not present
    processor.poke(0xFF008, bytes(8))
    processor.m.r.rip = at
    processor.m.memory.low_bytes = 1 << 20
    assert int(decode(processor.m)) == 0  # no RAM there: the bus gives FFh, which is a ModRM instruction of two bytes
    assert int(processor.m.cpu.insn.length) == 2
    processor.m.r.rip = at + 1
    assert int(decode(processor.m)) & 0xFFFF == 1 | 14 << 8


@pytest.mark.parametrize("bits, before, after", [(16, 0xFFFF, 1), (32, 0xFFFFFFFF, 1), (64, 0xFFFFFFFF, 0x100000001)])
def test_advance_truncates(bits: int, before: int, after: int) -> None:
    processor = processor_in(bits)
    processor.m.r.rip, processor.m.r.eflags, processor.m.cpu.insn.length = before, 0x10002, 2
    advance(processor.m)
    assert int(processor.m.r.rip) == after and int(processor.m.r.eflags) == 2


def test_advance_under_single_step_leaves_a_pending_debug_exception() -> None:
    processor = processor_in(64)
    processor.m.r.eflags, processor.m.cpu.insn.length = 0x102, 1
    advance(processor.m)
    assert int(processor.m.cpu.pending_debug) == 1 << 14

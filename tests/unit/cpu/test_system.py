"""Emulated system instructions: CPUID, descriptor tables, flags on the stack, software events, time, I/O."""

from typing import Any

import pytest

from tests.unit.cpu.processor import Processor
from vmxemu.cpu import io
from vmxemu.cpu.decode import decode
from vmxemu.cpu.flags import read_flags, write_flags
from vmxemu.cpu.layout import ES, GDTR, IDTR, LDTR, TR
from vmxemu.cpu.mode import refresh_mode
from vmxemu.cpu.system import emulate

pytestmark = pytest.mark.jit_off

GP, UD, NP, NOT_MINE, RETRY = 1 | 13 << 8 | 1 << 16, 1 | 6 << 8, 1 | 11 << 8 | 1 << 16, 9, 10
AT, RSP = 0x1000, 4


def run(processor: Processor, code: str) -> int:
    processor.poke(AT, bytes.fromhex(code) + b"\x90" * 4)
    processor.m.r.rip = AT
    assert int(decode(processor.m)) == 0
    return int(emulate(processor.m, 0))


def leaf(
    processor: Processor, number: int, subleaf: int, registers: tuple[int, int, int, int], any_subleaf: int = 1
) -> None:
    m = processor.m
    row = m.cpu.cpuid[int(m.cpu.cpuid_count)]
    row.leaf, row.subleaf, row.any_subleaf = number, subleaf, any_subleaf
    row.eax, row.ebx, row.ecx, row.edx = registers
    m.cpu.cpuid_count = int(m.cpu.cpuid_count) + 1


def with_cpuid(processor: Processor) -> Processor:
    leaf(processor, 0, 0, (7, 1, 2, 3))
    leaf(processor, 1, 0, (0x50654, 0, 0x7FFFFFFF, 0xFFFFFFFF))
    leaf(processor, 4, 1, (0x121, 0, 0, 0), 0)
    leaf(processor, 7, 0, (0, 0xFFFFFFFF, 0x10, 0), 0)
    leaf(processor, 0x80000000, 0, (0x80000001, 0, 0, 0))
    leaf(processor, 0x80000001, 0, (0, 0, 0, 0xFFFFFFFF))
    return processor


@pytest.mark.parametrize(
    "eax, ecx, expected",
    [
        (0, 0, (7, 1, 2, 3)),
        (4, 1, (0x121, 0, 0, 0)),
        (4, 2, (0, 0, 0, 0)),
        (5, 0, (0, 0, 0, 0)),
        (0x20, 0, (0, 0xFFFFFFFF, 0, 0)),
        (0x40000000, 0, (0, 0xFFFFFFFF, 0, 0)),
    ],
)
def test_cpuid(eax: int, ecx: int, expected: tuple[int, int, int, int]) -> None:
    processor = with_cpuid(Processor().long())
    gpr = processor.m.r.gpr
    gpr[0], gpr[1] = 0xFFFFFFFF00000000 | eax, ecx
    assert run(processor, "0fa2") == 0 and int(processor.m.r.rip) == AT + 2
    assert (int(gpr[0]), int(gpr[3]), int(gpr[1]), int(gpr[2])) == expected


def test_cpuid_mirrors_control_registers() -> None:
    processor = with_cpuid(Processor().long())
    m = processor.m
    m.r.gpr[0], m.r.gpr[1] = 1, 0
    run(processor, "0fa2")
    assert not int(m.r.gpr[1]) >> 27 & 1 and not int(m.r.gpr[2]) >> 9 & 1
    m.r.cr[4] = int(m.r.cr[4]) | 1 << 18
    m.cpu.apic_base, m.cpu.misc_enable = 0xFEE00900, 1 << 18
    m.r.gpr[0], m.r.gpr[1] = 1, 0
    run(processor, "0fa2")
    assert int(m.r.gpr[1]) >> 27 & 1 and int(m.r.gpr[1]) >> 3 & 1 and int(m.r.gpr[2]) >> 9 & 1


@pytest.mark.parametrize(
    "code, outcome",
    [
        ("f4", GP),
        ("0f09", GP),
        ("0f08", GP),
        ("0f0138", GP),
        ("0f0110", GP),
        ("0f00d0", GP),
        ("0f33", GP),
        ("f390", 0),
        ("0f0100", 0),
    ],
)
def test_user_level(code: str, outcome: int) -> None:
    assert run(Processor().long(cpl=3), code) == outcome


@pytest.mark.parametrize("code", ["0f0b", "0f01c1", "0f0a", "0fc730", "f00fa2", "f33e0fc7f8", "0f01d1", "90"])
def test_unknown_here(code: str) -> None:
    assert run(with_cpuid(Processor().long()), code) == NOT_MINE


def test_halt_and_time() -> None:
    processor = with_cpuid(Processor().long())
    m = processor.m
    assert run(processor, "f4") == 0 and int(m.cpu.activity) == 1 and int(m.r.rip) == AT + 1
    m.clock.ticks, m.r.tsc_aux = 0x123456789 << 4, 5
    assert run(processor, "0f01f9") == 0
    assert (int(m.r.gpr[2]) << 32 | int(m.r.gpr[0])) == 0x123456789 and int(m.r.gpr[1]) == 5
    user = Processor().long(cpl=3)
    user.m.r.cr[4] = int(user.m.r.cr[4]) | 4
    assert run(user, "0f31") == GP


def test_descriptor_tables() -> None:
    processor = Processor().long()
    m = processor.m
    m.r.gpr[0] = 0x3000
    processor.poke(0x3000, b"\xff\x03" + (0xFFFF800000001000).to_bytes(8, "little"))
    assert run(processor, "0f0110") == 0 and (int(m.r.seg[GDTR].base), int(m.r.seg[GDTR].limit)) == (
        0xFFFF800000001000,
        0x3FF,
    )
    assert run(processor, "0f0108") == 0  # SIDT
    assert processor.peek(0x3000, 10) == int(m.r.seg[IDTR].limit) | int(m.r.seg[IDTR].base) << 16
    processor.poke(0x3002, (1 << 50).to_bytes(8, "little"))
    assert run(processor, "0f0118") == GP
    small = Processor().protected(16)
    small.m.r.gpr[3], small.m.r.gpr[6] = 0x3000, 0
    small.poke(0x3000, b"\xff\x03\x78\x56\x34\x12")
    assert run(small, "0f0110") == 0 and int(small.m.r.seg[GDTR].base) == 0x345678
    assert run(small, "660f0110") == 0 and int(small.m.r.seg[GDTR].base) == 0x12345678


def test_task_register_and_ldt() -> None:
    processor = Processor().long()
    m = processor.m
    processor.segment(GDTR, 0, 0x5000, 0x4F, 0)
    processor.poke(0x5010, (0x0000890011110067).to_bytes(8, "little") + (0xFFFF8000).to_bytes(8, "little"))
    m.r.gpr[0] = 0x10
    assert run(processor, "0f00d8") == 0
    assert (
        int(m.r.seg[TR].base) == 0xFFFF800000001111
        and int(m.r.seg[TR].flags) == 0x8B00
        and processor.peek(0x5015, 1) == 0x8B
    )
    assert run(processor, "0f00d8") == GP | 0x10 << 32  # busy now
    assert run(processor, "0f00d0") == GP | 0x10 << 32  # not an LDT
    m.r.gpr[0] = 3
    assert run(processor, "0f00d0") == 0 and int(m.r.seg[LDTR].selector) == 3 and int(m.r.seg[LDTR].flags) == 0
    assert run(processor, "0f00d8") == GP
    processor.poke(0x5020, (0x0000020011110067).to_bytes(8, "little"))
    m.r.gpr[0] = 0x20
    assert run(processor, "0f00d0") == NP | 0x20 << 32
    assert run(Processor().real(), "0f00d0") == UD
    assert run(processor, "0f00c8") == 0 and int(m.r.gpr[0]) == 0x10  # STR EAX


@pytest.mark.parametrize(
    "level, iopl, value, expected",
    [
        (0, 0, 0x3202, 0x3202),
        (3, 0, 0x3202, 0x002),
        (3, 3, 0x0202, 0x3202),
        (0, 0, 0x30002, 0x002),
        (3, 0, 0x244ED7, 0x244CD7),
    ],
)
def test_popf(level: int, iopl: int, value: int, expected: int) -> None:
    processor = Processor().long(cpl=level)
    m = processor.m
    write_flags(m, 2 | iopl << 12)
    refresh_mode(m)
    m.r.gpr[RSP] = 0x6000
    processor.poke(0x6000, value.to_bytes(8, "little"))
    assert run(processor, "9d") == 0 and int(m.r.gpr[RSP]) == 0x6008
    assert int(read_flags(m)) == expected


def test_pushf_in_each_size() -> None:
    for code, size in (("9c", 8), ("669c", 2)):
        processor = Processor().long()
        write_flags(processor.m, 0x10247)
        processor.m.r.gpr[RSP] = 0x6000
        assert run(processor, code) == 0
        assert int(processor.m.r.gpr[RSP]) == 0x6000 - size and processor.peek(0x6000 - size, size) == 0x247


def test_virtual_8086_flags_want_iopl_3() -> None:
    processor = Processor().protected(16)
    processor.m.r.eflags = 0x20002
    refresh_mode(processor.m)
    assert run(processor, "9c") == GP
    processor.m.r.eflags = 0x23002
    assert run(processor, "9c") == 0


@pytest.mark.parametrize(
    "code, vector, kind, length", [("cd80", 0x80, 4, 2), ("cc", 3, 6, 1), ("f1", 1, 5, 1), ("66cd80", 0x80, 4, 3)]
)
def test_software_events(code: str, vector: int, kind: int, length: int) -> None:
    processor = Processor().long()
    assert run(processor, code) == RETRY and int(processor.m.r.rip) == AT
    cpu = processor.m.cpu
    assert (int(cpu.event_vector), int(cpu.event_info), int(cpu.event_length)) == (
        vector,
        1 << 31 | kind << 8 | vector,
        length,
    )


def test_into() -> None:
    assert run(Processor().long(), "ce") == UD
    processor = Processor().protected()
    assert run(processor, "ce") == 0 and int(processor.m.r.rip) == AT + 1
    write_flags(processor.m, 0x802)
    assert run(processor, "ce") == RETRY and int(processor.m.cpu.event_vector) == 4


def test_iret_unblocks_nmis_and_stops_no_more() -> None:
    processor = Processor().long()
    processor.m.cpu.nmi_blocked, processor.m.r.intercept = 1, 1 << 20 | 1
    assert run(processor, "48cf") == RETRY
    assert int(processor.m.cpu.nmi_blocked) == 0 and int(processor.m.r.intercept) == 1


def test_random_numbers_repeat() -> None:
    def draw(seed: int) -> tuple[int, int]:
        processor = with_cpuid(Processor().long())
        processor.m.cpu.random = seed
        assert run(processor, "480fc7f1") == 0 and run(processor, "0fc7fa") == 0
        assert int(read_flags(processor.m)) & 0x8D5 == 1
        return int(processor.m.r.gpr[1]), int(processor.m.r.gpr[2])

    assert draw(0)[0] == 0xE220A8397B1DCDAF  # SplitMix64's first output for seed 0
    assert draw(1) == draw(1) != draw(2) and draw(3)[1] < 1 << 32
    assert run(Processor().long(), "0fc7f0") == NOT_MINE


def test_stac_and_clac() -> None:
    processor = with_cpuid(Processor().long())
    processor.m.r.cr[4] = 0x200020
    assert run(processor, "0f01cb") == 0 and int(processor.m.r.eflags) >> 18 & 1 and int(processor.m.engine.flush) == 1
    assert run(processor, "0f01ca") == 0 and not int(processor.m.r.eflags) >> 18 & 1
    assert run(with_cpuid(Processor().long(cpl=3)), "0f01cb") == NOT_MINE


def test_monitor_and_mwait() -> None:
    processor = with_cpuid(Processor().long())
    m = processor.m
    m.r.eflags = 0x202
    assert run(processor, "0f01c8") == 0 and run(processor, "0f01c9") == 0 and int(m.cpu.activity) == 1
    m.r.gpr[1] = 2
    assert run(processor, "0f01c9") == GP
    assert run(with_cpuid(Processor().long(cpl=3)), "0f01c8") == UD


def test_invpcid_and_invlpg() -> None:
    processor = with_cpuid(Processor().long())
    m = processor.m
    m.r.gpr[0], m.r.gpr[3] = 0x3000, 2
    assert run(processor, "660f388218") == 0  # invpcid rbx, [rax]
    m.r.gpr[3] = 4
    assert run(processor, "660f388218") == GP
    m.r.gpr[3] = 1
    processor.poke(0x3000, b"\x05")
    assert run(processor, "660f388218") == GP  # PCID without CR4.PCIDE
    m.engine.flush = 0
    assert run(processor, "0f0138") == 0 and int(m.engine.flush) == 1


# ---- I/O -----------------------------------------------------------------


def io_of(processor: Processor, code: str) -> Any:
    processor.poke(AT, bytes.fromhex(code) + b"\x90" * 4)
    processor.m.r.rip = AT
    assert int(decode(processor.m)) == 0
    return int(io.decode_io(processor.m)), processor.m.cpu.io


@pytest.mark.parametrize(
    "code, port, size, is_in, is_string, is_rep",
    [
        ("e460", 0x60, 1, 1, 0, 0),
        ("66e7b2", 0xB2, 2, 0, 0, 0),
        ("ed", 0x3F8, 4, 1, 0, 0),
        ("ee", 0x3F8, 1, 0, 0, 0),
        ("f36c", 0x3F8, 1, 1, 1, 1),
        ("666f", 0x3F8, 2, 0, 1, 0),
    ],
)
def test_io_decoding(code: str, port: int, size: int, is_in: int, is_string: int, is_rep: int) -> None:
    processor = Processor().long()
    processor.m.r.gpr[2] = 0xFFFF03F8
    outcome, access = io_of(processor, code)
    assert outcome == 0
    assert tuple(int(getattr(access, name)) for name in ("port", "size", "is_in", "is_string", "is_rep")) == (
        port,
        size,
        is_in,
        is_string,
        is_rep,
    )


def test_other_instructions_are_no_io() -> None:
    assert io_of(Processor().long(), "90")[0] == NOT_MINE


def test_permission_by_iopl_and_bitmap() -> None:
    processor = Processor().long(cpl=3)
    m = processor.m
    processor.segment(TR, 0x40, 0x7000, 0x68 + 0x20, 0x8B00)
    processor.poke(0x7066, (0x68).to_bytes(2, "little"))
    processor.poke(0x7068 + 0x10, b"\x02")  # port 81h forbidden
    assert (
        int(io.io_allowed(m, 0x80, 1)) == 0
        and int(io.io_allowed(m, 0x81, 1)) == GP
        and int(io.io_allowed(m, 0x80, 2)) == GP
    )
    assert int(io.io_allowed(m, 0x108, 1)) == GP  # beyond the limit
    m.r.eflags = 0x3002
    assert int(io.io_allowed(m, 0x81, 1)) == 0
    assert int(io.io_allowed(Processor().long(cpl=0).m, 0x81, 1)) == 0
    assert int(io.io_allowed(Processor().real().m, 0x81, 1)) == 0


def test_string_elements() -> None:
    processor = Processor().long()
    m = processor.m
    m.r.gpr[7], m.r.gpr[1], m.r.gpr[6] = 0x9000, 2, 0x9000
    io_of(processor, "f36d")
    assert int(io.prepare_element(m)) == 0 and int(io.elements_left(m)) == 2
    assert int(io.store_element(m, 0x11223344)) == 0 and int(io.finish_element(m)) == 1
    assert processor.peek(0x9000, 4) == 0x11223344 and int(m.r.gpr[7]) == 0x9004 and int(m.r.gpr[1]) == 1
    m.r.df = -1
    io_of(processor, "6f")
    assert int(io.load_element(m)) == 0 and int(m.walk.value) == 0x11223344
    assert int(io.finish_element(m)) == 0 and int(m.r.gpr[6]) == 0x8FFC
    real = Processor().real()
    real.m.r.seg[ES].base, real.m.r.gpr[7] = 0x10000, 0xABCD1234
    io_of(real, "6c")
    assert int(io.element_address(real.m)) == 0x11234
    io.finish_element(real.m)
    assert int(real.m.r.gpr[7]) == 0xABCD1235

"""Delivery against the obvious reference, on random tables in every mode; and the rules around it."""

import random

import pytest

from tests.reference import cpu_delivery as reference
from tests.unit.cpu.processor import Processor
from vmxemu.cpu.delivery import deliver_once, escalate
from vmxemu.cpu.flags import read_flags, write_flags
from vmxemu.cpu.layout import CS, DS, ES, FS, GDTR, GS, IDTR, LDTR, SS, TR
from vmxemu.cpu.mode import cpl, refresh_mode

IDT, GDT, LDT, TSS, STACKS = 0x10000, 0x20000, 0x21000, 0x22000, 0x40000
KINDS = (0, 2, 3, 4, 5, 6)
UNMODELLED = 7
CASES = 1500


def random_descriptor(generator: random.Random, long: bool) -> int:
    kind = generator.choice((0x1B, 0x1A, 0x1F, 0x13, 0x12, 0x13, 0x10, 0x02, 0x0E, 0x19))
    size = generator.choice((0, 1, 2, 2, 3)) if long else generator.choice((0, 2))
    limit = generator.choice((0xFFFFF, 0xFFFFF, 0x0FFF))
    flags = kind | generator.choice((0, 0, 1, 2, 3, 3)) << 5 | (generator.random() < 0.9) << 7
    base = generator.choice((0, 0, 0x1000)) if not long else 0
    high = base >> 16 & 0xFF | flags << 8 | limit & 0xF0000 | size << 21 | 1 << 23
    return limit & 0xFFFF | (base & 0xFFFF) << 16 | high << 32


def random_selector(generator: random.Random) -> int:
    return generator.randrange(0, 0x88, 8) | generator.choice((0, 0, 0, 4)) | generator.choice((0, 0, 3, 1))


def random_gate(generator: random.Random, long: bool) -> bytes:
    kind = generator.choice((14, 15, 14, 15, 14, 15, 6, 7, 5, 12, 0x1E))
    flags = kind | generator.choice((0, 3, 3, 2)) << 5 | (generator.random() < 0.92) << 7
    offset = generator.choice((generator.getrandbits(14), generator.getrandbits(14), generator.getrandbits(32)))
    upper = generator.choice((0, 0, 0, 0xFFFFFFFF, 0x12345678)) if long else 0
    ist = generator.choice((0, 0, 1, 2, 7)) if long else 0
    low = offset & 0xFFFF | random_selector(generator) << 16 | ist << 32 | flags << 40 | offset >> 16 << 48
    return low.to_bytes(8, "little") + (upper.to_bytes(8, "little") if long else b"")


def fill_tables(processor: Processor, generator: random.Random, mode: str) -> None:
    long = mode == "long"
    if mode == "real":
        for vector in range(64):
            processor.poke(IDT + 4 * vector, generator.getrandbits(32).to_bytes(4, "little"))
        processor.segment(IDTR, 0, IDT, generator.choice((0x3FF, 0x7F)), 0)
        return
    for vector in range(64):
        processor.poke(IDT + vector * (16 if long else 8), random_gate(generator, long))
    processor.segment(IDTR, 0, IDT, (16 if long else 8) * generator.choice((64, 64, 24)) - 1, 0)
    for i in range(16):
        processor.poke(GDT + 8 * i, random_descriptor(generator, long).to_bytes(8, "little"))
        processor.poke(LDT + 8 * i, random_descriptor(generator, long).to_bytes(8, "little"))
    if generator.random() < 0.5:  # enough good tables for many deliveries to succeed
        make_sane(processor, long)
    processor.segment(GDTR, 0, GDT, 8 * 16 - 1, 0)
    processor.segment(LDTR, 0x60, LDT, generator.choice((0x7F, 0x3F)), generator.choice((0x8200, 0x8200, 0)))
    for word in range(0x68 // 4):
        value = STACKS + generator.getrandbits(14) if word % 2 or not long else 0
        if not long:
            value = generator.choice(
                (STACKS + generator.getrandbits(14), random_selector(generator), generator.randrange(0, 0x80, 8))
            )
        processor.poke(TSS + 4 * word, value.to_bytes(4, "little"))
    if not long and generator.random() < 0.5:
        processor.poke(TSS + 4, (STACKS + 0x800 | 0x10 << 32).to_bytes(8, "little"))
    if long:
        for slot in (4, 12, 20, *range(36, 92, 8)):
            value = generator.choice((STACKS + generator.getrandbits(14), STACKS + generator.getrandbits(14), 1 << 50))
            processor.poke(TSS + slot, value.to_bytes(8, "little"))
    kind = 0xB00 if long else generator.choice((0xB00, 0x300))
    processor.segment(TR, 0x48, TSS, generator.choice((0x67, 0x67, 0x67, 0x10)), 0x8000 | kind)


def make_sane(processor: Processor, long: bool) -> None:
    """Gates to ring-0 code, and ring-0 stacks in a 32-bit TSS."""
    processor.poke(GDT + 8, (0x00AF9B000000FFFF if long else 0x00CF9B000000FFFF).to_bytes(8, "little"))
    processor.poke(GDT + 16, 0x00CF93000000FFFF.to_bytes(8, "little"))
    for vector in range(0, 64, 2):
        processor.poke(IDT + vector * (16 if long else 8) + 2, (8).to_bytes(2, "little"))


def random_processor(generator: random.Random, mode: str) -> Processor:
    processor = Processor()
    level = generator.choice((0, 0, 3, 3, 1))
    if mode == "real":
        processor.real()
    elif mode == "long":
        processor.long(generator.choice((64, 64, 32)), level)
    else:
        processor.protected(generator.choice((16, 32)), level)
    fill_tables(processor, generator, mode)
    m = processor.m
    write_flags(m, generator.getrandbits(22) & 0x17FD5 | 2)
    if mode == "virtual":
        m.r.eflags = int(m.r.eflags) | 0x20000
        for index in (ES, CS, SS, DS, FS, GS):
            processor.segment(index, generator.getrandbits(12), 0, 0xFFFF, 0xF300)
            m.r.seg[index].base = int(m.r.seg[index].selector) << 4
    elif mode != "real":
        m.r.seg[SS].base = 0 if mode == "long" else generator.choice((0, 0x1000))
    m.r.gpr[4] = (
        STACKS + generator.getrandbits(13) if mode in ("long", "protected") else generator.getrandbits(13) + 0x100
    )
    m.r.rip = generator.getrandbits(15)
    refresh_mode(m)
    return processor


def twin(processor: Processor, mode: str) -> reference.Cpu:
    m = processor.m
    segments = [
        reference.Segment(*(int(getattr(m.r.seg[i], name)) for name in ("selector", "base", "limit", "flags")))
        for i in range(10)
    ]
    bits = 32 if int(m.r.seg[SS].flags) >> 22 & 1 else 16
    return reference.Cpu(
        mode,
        int(cpl(m)),
        int(m.r.rip),
        int(m.r.gpr[4]),
        int(read_flags(m)),
        segments,
        bytearray(processor.ram.tobytes()),
        bits,
    )


def state_of(processor: Processor) -> tuple[object, ...]:
    m = processor.m
    segments = tuple(
        tuple(int(getattr(m.r.seg[i], name)) for name in ("selector", "base", "limit", "flags")) for i in range(10)
    )
    return int(m.r.rip), int(m.r.gpr[4]), int(read_flags(m)), int(cpl(m)), segments


def state_of_twin(cpu: reference.Cpu) -> tuple[object, ...]:
    return cpu.rip, cpu.rsp, cpu.flags, cpu.cpl, tuple((s.selector, s.base, s.limit, s.flags) for s in cpu.seg)


@pytest.mark.parametrize("mode", ["real", "protected", "virtual", "long"])
def test_delivery_equals_reference(mode: str) -> None:
    generator = random.Random(mode)
    delivered = faulted = 0
    for _ in range(CASES):
        processor = random_processor(generator, mode)
        vector, kind = generator.randrange(64), generator.choice(KINDS)
        error = generator.getrandbits(16) if kind == 3 and generator.random() < 0.5 and mode != "real" else None
        next_rip = generator.getrandbits(15)
        info = 1 << 31 | kind << 8 | vector | (0 if error is None else 1 << 11)
        cpu, before = twin(processor, mode), state_of(processor)
        outcome = int(deliver_once(processor.m, vector, info, error or 0, next_rip))
        try:
            reference.deliver(cpu, vector, kind, error, next_rip)
        except reference.TaskGate:
            assert outcome == UNMODELLED
        except reference.Fault as fault:
            expected = 1 | fault.vector << 8 | (0 if fault.error is None else 1 << 16 | fault.error << 32)
            assert outcome == expected, (mode, hex(outcome), fault)
            assert state_of(processor) == before
            faulted += 1
        else:
            assert outcome == 0, (mode, hex(outcome))
            assert state_of(processor) == state_of_twin(cpu)
            assert processor.ram.tobytes() == bytes(cpu.memory)
            delivered += 1
    assert delivered > CASES // 50 and faulted > CASES // 20


def test_page_fault_loads_cr2_and_nmi_blocks_nmis() -> None:
    processor = Processor().real()
    processor.segment(IDTR, 0, IDT, 0x3FF, 0)
    processor.m.r.gpr[4] = 0x2000
    processor.m.cpu.event_gla = 0x12345
    assert int(deliver_once(processor.m, 14, 1 << 31 | 0x30E, 0, 0)) == 0
    assert int(processor.m.r.cr[2]) == 0x12345 and int(processor.m.cpu.nmi_blocked) == 0
    assert int(deliver_once(processor.m, 2, 1 << 31 | 0x202, 0, 0)) == 0
    assert int(processor.m.cpu.nmi_blocked) == 1 and int(processor.m.r.intercept) >> 20 & 1


CONTRIBUTORY, FAULTS = (0, 10, 11, 12, 13), (14,)


@pytest.mark.parametrize("first", range(22))
@pytest.mark.parametrize("second", [0, 1, 6, 8, 10, 13, 14, 17])
def test_double_fault_table(first: int, second: int) -> None:
    severe = second in CONTRIBUTORY + (20, 21) or second in FAULTS
    if first == 8:
        expected = 0x100 if severe else second
    elif first in (*CONTRIBUTORY, 21) and second in CONTRIBUTORY:
        expected = 8
    elif first in (14, 20) and severe:
        expected = 8
    else:
        expected = second
    assert int(escalate(first, second)) == expected

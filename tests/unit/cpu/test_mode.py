"""The mode word that we compute, against Unicorn's own on the way from real to long mode and to CPL 3."""

import pytest

from tests.unit.cpu.plain_unicorn import PlainUnicorn
from tests.unit.cpu.processor import Processor
from vmxemu.cpu import mode
from vmxemu.cpu.layout import CS, DS, ES, FS, GS, SS

# Real mode -> LGDT, CR0.PE|MP -> far jump to 32-bit code -> data segments -> CR4.PAE|OSFXSR, CR3, EFER, CR0.PG|TS
# -> far jump to 64-bit code -> IRETQ to CPL 3 with IOPL 3 -> far return to 32-bit compatibility code.
CODE = bytes.fromhex(
    "0f0116b8100f20c06683c8030f22c066ea17100000080066b810008ed88ec08ed0b8200600000f22e0b8008000000f22d8b9800000c0b80109000031d20f300f20c00d08"
    "0000800f22c0ea511000001800bc007000006a3368006f000068023200006a2b686b10000048cf9031c08ed86a23687910000048cb909090909090900000000000000000"
    "ffff0000009bcf00ffff00000093cf00ffff0000009baf00ffff000000fbcf00ffff000000fbaf00ffff000000f3cf00370080100000"
)
START = 0x1000
STOPS = {
    "CR0.PE": 0x100F,
    "32-bit": 0x1017,
    "flat": 0x1021,
    "compatibility": 0x104A,
    "64-bit": 0x1051,
    "user": 0x106B,
    "32-bit user": 0x1079,
}
IGNORED = 1 << 21 | 1 << 23 | 0x7 << 24  # GUEST (Unicorn runs without), SMAP (the engine's), IOBPT and MPX


@pytest.fixture(scope="module")
def booted() -> tuple[PlainUnicorn, Processor]:
    """Unicorn about to run CODE in real mode."""
    machine, processor = PlainUnicorn(), Processor()
    machine.load(START, CODE)
    for table, entry in ((0x8000, 0x9007), (0x9000, 0xA007), (0xA000, 0x87)):
        machine.load(table, entry.to_bytes(8, "little"))
    registers = machine.snapshot()
    processor.m.r = registers.address
    processor.m.r.cr[0], processor.m.r.cr[4], processor.m.r.efer = 0x10, 0, 0
    for index in (ES, CS, SS, DS, FS, GS):
        processor.segment(index, 0, 0, 0xFFFF, 0x9300)
    mode.refresh_mode(processor.m)
    processor.m.r.mode = int(processor.m.r.mode) & ~(1 << 21)  # plain Unicorn must not intercept
    machine.restore()
    return machine, processor


def test_mode_word_follows_natural_execution(booted: tuple[PlainUnicorn, Processor]) -> None:
    machine, processor = booted
    at = START
    for name, stop in STOPS.items():
        machine.run(at, stop)
        at = stop
        natural = int(machine.snapshot().mode)
        mode.refresh_mode(processor.m)
        assert int(processor.m.r.mode) & ~IGNORED == natural & ~IGNORED, name
        assert int(processor.m.r.mode) >> 21 & 1 == 1
    assert int(mode.cpl(processor.m)) == 3 and mode.is_long(processor.m) and not mode.is_64bit_code(processor.m)


@pytest.mark.parametrize("in_smm", [0, 1])
def test_smm_bit(in_smm: int) -> None:
    processor = Processor().real()
    processor.m.cpu.in_smm = in_smm
    mode.refresh_mode(processor.m)
    assert int(processor.m.r.mode) >> 19 & 1 == in_smm


def test_privilege_by_mode() -> None:
    assert int(mode.cpl(Processor().real().m)) == 0
    assert int(mode.cpl(Processor().protected(cpl=3).m)) == 3
    processor = Processor().protected(cpl=0)
    processor.m.r.eflags = 0x20002
    mode.refresh_mode(processor.m)
    assert int(mode.cpl(processor.m)) == 3 and mode.is_virtual_8086(processor.m)


def test_smap_bit_belongs_to_the_engine() -> None:
    processor = Processor().long()
    processor.m.r.mode = int(processor.m.r.mode) | 1 << 23
    mode.refresh_mode(processor.m)
    assert int(processor.m.r.mode) >> 23 & 1 == 1


def test_interrupt_shadow() -> None:
    processor = Processor().long()
    mode.set_interrupt_shadow(processor.m, 1, 0)
    assert int(processor.m.r.mode) & 8
    mode.end_interrupt_shadow(processor.m)
    assert not int(processor.m.r.mode) & 8 and not int(processor.m.cpu.sti_shadow)


@pytest.mark.parametrize(
    "address, canonical",
    [(0, True), ((1 << 47) - 1, True), (1 << 47, False), (0xFFFF800000000000, True), (0xFFFF7FFFFFFFFFFF, False)],
)
def test_canonical(address: int, canonical: bool) -> None:
    assert bool(mode.is_canonical(Processor().long().m, address)) is canonical

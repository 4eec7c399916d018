"""Local APIC: priorities and timer against the reference; registers, IPIs, modes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.platform_lapic import Priorities, expiries
from tests.unit.platform.board import LAPIC, Board
from vmxemu.isa import exceptions, msrs
from vmxemu.layout import u64
from vmxemu.outcome import DONE, NOT_MINE, fault_with
from vmxemu.platform import interrupts, lapic, management, mmio, timers
from vmxemu.platform.irq import set_irq
from vmxemu.platform.layout import NEVER
from vmxemu.trace.events import NMI, SMI

board = Board()
GP = int(fault_with(exceptions.GP, u64(0)))
TICKS_PER_SECOND = 16 * int(board.m.platform.tsc_hz)
TPR, EOI, ESR, ICR, ICR_HIGH, TIMER, LINT0, ERROR = 0x80, 0xB0, 0x280, 0x300, 0x310, 0x320, 0x350, 0x370
INITIAL, CURRENT, DIVIDE = 0x380, 0x390, 0x3E0


@pytest.fixture(autouse=True)
def power_on() -> None:
    board.power_on()
    board.enable_lapic()


def pending() -> int | None:
    vector = int(interrupts.pending_vector(board.m))
    return None if vector == 256 else vector


STEPS = st.one_of(
    st.tuples(st.just("accept"), st.integers(16, 255)),
    st.tuples(st.just("acknowledge"), st.just(0)),
    st.tuples(st.just("eoi"), st.just(0)),
    st.tuples(st.just("tpr"), st.integers(0, 255)),
)


@pytest.mark.jit_off
@given(st.lists(STEPS, max_size=60))
@settings(max_examples=300, deadline=None)
def test_priorities_equal_reference(steps: list[tuple[str, int]]) -> None:
    board.power_on()
    board.enable_lapic()
    reference = Priorities()
    for step, argument in steps:
        if step == "accept":
            board.lapic(ICR, 0x40000 | argument)  # self
            reference.requested.add(argument)
        elif step == "tpr":
            board.lapic(TPR, argument)
            reference.task_priority = argument
        elif step == "eoi":
            board.lapic(EOI, 0)
            reference.end_of_interrupt()
        else:
            expected = reference.acknowledge()
            assert int(interrupts.acknowledge(board.m)) == (0xFF if expected is None else expected)
        assert pending() == reference.pending()
        assert board.lapic(0xA0) == reference.processor_priority()
        for offset, vectors in ((0x100, reference.in_service), (0x200, reference.requested)):
            read = sum(board.lapic(offset + 16 * word) << 32 * word for word in range(8))
            assert read == sum(1 << vector for vector in vectors)


@pytest.mark.jit_off
@given(
    st.integers(0, 1 << 40),
    st.integers(0, 1 << 20),
    st.sampled_from([0, 1, 2, 3, 8, 9, 10, 11]),
    st.booleans(),
    st.integers(0, 1 << 36),
)
@settings(deadline=None)
def test_timer_equals_reference(start: int, count: int, divide: int, periodic: bool, wait: int) -> None:
    board.power_on()
    board.enable_lapic()
    m = board.m
    m.clock.ticks = start
    divisor = {0: 2, 1: 4, 2: 8, 3: 16, 8: 32, 9: 64, 10: 128, 11: 1}[divide]
    board.lapic(DIVIDE, divide)
    board.lapic(TIMER, (0x20000 if periodic else 0) | 0x40)
    board.lapic(INITIAL, count)
    hz = int(m.platform.lapic_hz)
    wait = min(wait, 50 * count * divisor * TICKS_PER_SECOND // hz) if count else wait
    m.clock.ticks = start + wait
    fired = expiries(start, count, divisor, hz, TICKS_PER_SECOND, periodic, start + wait)
    assert (int(timers.next_due(m)) <= start + wait) == (fired > 0)
    timers.run_due(m)
    assert pending() == (0x40 if fired else None)
    if periodic and count:
        assert int(timers.next_due(m)) > start + wait
    elif fired:
        assert timers.next_due(m) == NEVER
        assert board.lapic(CURRENT) == 0


def test_periodic_timer_keeps_its_rate() -> None:
    board.lapic(DIVIDE, 11)
    board.lapic(TIMER, 0x20000 | 0x40)
    board.lapic(INITIAL, 25_000)  # 1 kHz
    fired = 0
    for _ in range(1000):
        board.wait(TICKS_PER_SECOND // 2000)
        if pending() == 0x40:
            interrupts.acknowledge(board.m)
            board.lapic(EOI, 0)
            fired += 1
    assert fired == 500


def test_current_count_goes_down_and_survives_a_new_divider() -> None:
    board.lapic(DIVIDE, 11)
    board.lapic(TIMER, 0x10040)
    board.lapic(INITIAL, 25_000_000)
    board.m.clock.ticks = TICKS_PER_SECOND // 4
    assert board.lapic(CURRENT) == 18_750_000
    board.lapic(DIVIDE, 0)
    assert board.lapic(CURRENT) == 18_750_000
    board.m.clock.ticks = TICKS_PER_SECOND // 2
    assert board.lapic(CURRENT) == 15_625_000


@pytest.mark.jit_off
def test_tsc_deadline() -> None:
    m = board.m
    assert board.wrmsr(int(msrs.IA32_TSC_DEADLINE), 1000) == DONE
    assert board.rdmsr(int(msrs.IA32_TSC_DEADLINE)) == 0  # ignored in the other modes
    board.lapic(TIMER, 0x40000 | 0x51)
    m.cpu.tsc_offset = 500
    board.wrmsr(int(msrs.IA32_TSC_DEADLINE), 1500)
    assert timers.next_due(m) == 1000 * 16
    m.cpu.tsc_offset = 600
    assert timers.next_due(m) == 900 * 16
    board.wait(900 * 16)
    assert pending() == 0x51
    assert board.rdmsr(int(msrs.IA32_TSC_DEADLINE)) == 0
    board.wrmsr(int(msrs.IA32_TSC_DEADLINE), (1 << 64) - 1)
    assert timers.next_due(m) == NEVER


def test_disabled_by_software_masks_the_table_and_takes_nothing() -> None:
    board.lapic(LINT0, 0x700)
    board.lapic(0xF0, 0xFF)
    assert board.lapic(LINT0) == 0x10700
    board.lapic(ICR, 0x40050)
    assert pending() is None


@pytest.mark.parametrize(
    ("lint0", "apic_on", "expected"), [(0x10700, 1, None), (0x700, 1, 0x23), (0x30, 1, None), (0, 0, 0x23)]
)
def test_8259_comes_through_lint0_or_past_a_disabled_apic(lint0: int, apic_on: int, expected: int | None) -> None:
    board.start_pic()
    board.lapic(LINT0, lint0)
    if not apic_on:
        board.wrmsr(int(msrs.IA32_APIC_BASE), 0xFEE00100)
    set_irq(board.m, u64(3), u64(1))
    assert pending() == expected
    if expected is not None:
        assert interrupts.acknowledge(board.m) == expected
        assert pending() is None


def test_illegal_vectors_and_registers_are_errors() -> None:
    board.lapic(ERROR, 0x37)
    board.lapic(ICR, 0x40005)
    assert board.lapic(ESR) == 0
    board.lapic(ESR, 0)
    assert board.lapic(ESR) == 0x20
    assert pending() == 0x37
    board.lapic(0x40)
    board.lapic(ESR, 0)
    assert board.lapic(ESR) == 0x80


def test_interrupt_command_reaches_only_this_processor() -> None:
    board.lapic(0xD0, 0x01000000)
    for high, low, expected in (
        (0, 0x4040, 0x40), (1 << 24, 0x4041, None), (0xFF << 24, 0x4042, 0x42), (1 << 24, 0x4843, 0x43),
        (2 << 24, 0x4844, None), (0, 0x84045, 0x45), (0, 0xC4046, None),
    ):  # fmt: skip
        board.lapic(ICR_HIGH, high)
        board.lapic(ICR, low)
        assert pending() == expected, hex(low)
        interrupts.acknowledge(board.m)
        board.lapic(EOI, 0)


def test_nmi_smi_and_init_by_command() -> None:
    for low, kind in ((0x4400, NMI), (0x4200, SMI)):
        board.lapic(ICR, low)
        assert management.pending_management(board.m) == kind
        management.take_management(board.m, kind)
        assert board.m.platform.management.taken.cause == management.CAUSE_LAPIC
    board.m.cpu.init_pending = 0
    board.lapic(ICR, 0x8500)
    assert board.m.cpu.init_pending == 0
    board.lapic(ICR, 0x4500)
    assert board.m.cpu.init_pending == 1


def test_only_aligned_doublewords_are_registers() -> None:
    board.lapic(TPR, 0x20)
    assert board.load(LAPIC + TPR, 1) == 0x20
    assert board.load(LAPIC + TPR + 4) == 0
    board.store(LAPIC + TPR + 4, 0x70)
    board.store(LAPIC + TPR, 0x70, 1)
    assert board.lapic(TPR) == 0x20
    assert board.m.cpu.tpr == 0x20
    assert board.load(LAPIC + 0x30, 8) == board.lapic(0x30)


@pytest.mark.jit_off
def test_mmio_follows_the_base_and_the_mode() -> None:
    m = board.m
    assert mmio.mmio_read(m, u64(0xFED00000), u64(4)) == NOT_MINE
    assert m.walk.value == 0xFFFFFFFF
    assert board.wrmsr(int(msrs.IA32_APIC_BASE), 0x80000900) == DONE
    assert m.engine.flush == 1
    assert not mmio.is_device(m, u64(LAPIC)) and mmio.is_device(m, u64(0x80000FFF))
    assert board.wrmsr(int(msrs.IA32_APIC_BASE), 0x80000D00) == DONE
    assert not mmio.is_device(m, u64(0x80000000))
    for bad in (0x80000900, 0x80000500, 0x80000D01, 1 << 46 | 0xD00):
        assert board.wrmsr(int(msrs.IA32_APIC_BASE), bad) == GP, hex(bad)
    assert board.wrmsr(int(msrs.IA32_APIC_BASE), 0xFEE00100) == DONE
    assert board.wrmsr(int(msrs.IA32_APIC_BASE), 0xFEE00D00) == GP
    assert board.rdmsr(int(msrs.IA32_APIC_BASE)) == 0xFEE00100


def test_x2apic_registers() -> None:
    m = board.m
    assert board.wrmsr(0x808, 0) == GP  # not in xAPIC mode
    board.wrmsr(int(msrs.IA32_APIC_BASE), 0xFEE00D00)
    assert board.wrmsr(0x808, 0x10) == DONE
    assert m.cpu.tpr == 0x10
    refused = ((0x808, 0x100), (0x80B, 1), (0x802, 0), (0x80D, 0), (0x80E, 0), (0x831, 0), (0x83F, 0x100), (0x828, 1))
    for index, value in refused:
        assert board.wrmsr(index, value) == GP, hex(index)
    assert board.rdmsr(0x802) == 0 and board.rdmsr(0x80D) == 1
    assert board.wrmsr(0x83F, 0x61) == DONE
    assert pending() == 0x61
    assert board.wrmsr(0x830, 0xFFFFFFFF_00004062) == DONE
    assert interrupts.acknowledge(m) == 0x62
    assert board.wrmsr(0x80B, 0) == DONE
    assert board.rdmsr(0x830) == 0xFFFFFFFF_00004062


def test_cmci_entry_delivers_as_programmed() -> None:
    m = board.m
    lapic.deliver_cmci(m)
    assert pending() is None  # masked
    board.lapic(0x2F0, 0xE0)
    lapic.deliver_cmci(m)
    assert pending() == 0xE0
    board.lapic(0x2F0, 0x200)
    lapic.deliver_cmci(m)
    assert management.pending_management(m) == SMI

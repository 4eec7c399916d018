"""Management queue and injections: order, serial numbers, what each kind does."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.platform.board import Board
from vmxemu.layout import u64
from vmxemu.memory.frames import is_poisoned
from vmxemu.platform import injection, management, timers
from vmxemu.platform.layout import INJECTIONS, NEVER
from vmxemu.platform.system_ports import SERR
from vmxemu.trace.events import CMCI, INJECT, MC, NMI, PMI, SMI

board = Board()
PRIORITY = [MC, SMI, PMI, NMI, CMCI]


@pytest.fixture(autouse=True)
def power_on() -> None:
    board.power_on()
    board.m.trace.enabled, board.m.trace.count = 1, 0


def taken() -> tuple[int, int, int]:
    kind = management.pending_management(board.m)
    management.take_management(board.m, kind)
    event = board.m.platform.management.taken
    return int(event.kind), int(event.hpa), int(event.detail)


@pytest.mark.jit_off
@given(st.lists(st.tuples(st.sampled_from(PRIORITY), st.integers(0, 255)), max_size=70))
@settings(max_examples=100, deadline=None)
def test_events_leave_by_kind_then_age(raised: list[tuple[int, int]]) -> None:
    board.power_on()
    m = board.m
    serials = [int(management.raise_management(m, u64(kind), u64(0), u64(detail))) for kind, detail in raised]
    assert serials[:64] == list(range(1, len(raised) + 1))[:64] and not any(serials[64:])
    assert int(m.platform.management.lost) == max(0, len(raised) - 64)
    kept = sorted(enumerate(raised[:64]), key=lambda each: PRIORITY.index(each[1][0]))
    for age, (kind, detail) in kept:
        assert management.pending_management(m) == kind
        assert management.take_management(m, u64(kind)) == age + 1
        assert (m.platform.management.taken.kind, m.platform.management.taken.detail) == (kind, detail)
    assert management.pending_management(m) == 0
    assert (m.cpu.smi_pending, m.cpu.nmi_pending, m.cpu.mce_pending) == (0, 0, 0)


def test_port_b2_raises_an_smi_with_its_command() -> None:
    board.outb(0xB3, 0x55)
    board.outb(0xB2, 0x77)
    board.outb(0xB2, 0x78)
    assert board.m.cpu.smi_pending == 1 and board.m.clock.attention == 1
    assert taken() == (SMI, 0, 0x77)
    assert board.inb(0xB2) == 0x77  # what this SMI's handler reads
    assert board.m.cpu.smi_pending == 1
    assert taken() == (SMI, 0, 0x78)
    assert (board.inb(0xB2, 2), board.m.cpu.smi_pending) == (0x5578, 0)


@pytest.mark.jit_off
@given(st.lists(st.integers(0, 30), max_size=30))
@settings(max_examples=50, deadline=None)
def test_injections_come_in_order_of_time_then_of_request(cycles: list[int]) -> None:
    board.power_on()
    for number, cycle in enumerate(cycles):
        injection.inject(board.m, "smi", cycle, flags=number)
    board.wait(30 * 16)
    expected = [number for _, number in sorted((cycle, number) for number, cycle in enumerate(cycles))]
    assert [taken()[2] for _ in cycles] == expected
    assert timers.next_due(board.m) == NEVER


def test_corrected_error_is_logged_and_signalled() -> None:
    board.wrmsr(0x287, 1 << 30 | 2)
    for cycle in (10, 20):
        injection.inject(board.m, "ce", cycle, hpa=0x123456)
    assert timers.next_due(board.m) == 160
    board.wait(320)
    assert board.rdmsr(0x41D) & 0xFFFF == 0x9F and board.rdmsr(0x41E) == 0x123456
    events = [board.m.trace.events[i] for i in range(2)]
    assert [int(event.kind) for event in events] == [INJECT, INJECT]
    assert [(int(e.cycle), int(e.reason), int(e.a), int(e.b), int(e.c), int(e.d)) for e in events] == [
        (10, 1, 0x123456, 7, 1, 0),
        (20, 1, 0x123456, 7, 1, 1),
    ]
    assert taken() == (CMCI, 0x123456, 7)


def test_uncorrected_errors_poison_their_line() -> None:
    board.wrmsr(0x41C, 1)
    injection.inject(board.m, "ue", 1, hpa=0x5040)
    injection.inject(board.m, "srao", 2, hpa=0x6000)
    board.wait(16)
    assert is_poisoned(board.m, u64(0x5040), u64(8)) and management.pending_management(board.m) == 0
    board.wait(16)
    assert is_poisoned(board.m, u64(0x6000), u64(8))
    assert not is_poisoned(board.m, u64(0x6040), u64(8))
    assert taken() == (MC, 0x6000, 7)
    assert board.m.platform.management.taken.flags == 1


def test_fatal_error_has_no_restart() -> None:
    board.wrmsr(0x41C, 1)
    injection.inject(board.m, "fatal", 0, hpa=0x6000)
    board.wait(0)
    assert taken() == (MC, 0x6000, 7)
    assert board.m.platform.management.taken.flags == 0


def test_pmi_and_nmi() -> None:
    injection.inject(board.m, "nmi", 1)
    injection.inject(board.m, "pmi", 1, flags=9)
    board.wait(16)
    assert taken() == (PMI, 0, 9)
    assert taken() == (NMI, 0, 0)


def test_system_error_goes_through_port_61_and_70() -> None:
    board.outb(0x61, 4)
    injection.inject(board.m, "nmi", 0, flags=int(SERR))
    board.wait(0)
    assert (management.pending_management(board.m), board.inb(0x61) & 0xC0) == (0, 0)
    board.outb(0x61, 0)
    board.outb(0x70, 0x80)
    injection.inject(board.m, "nmi", 0, flags=int(SERR))
    board.wait(0)
    assert (management.pending_management(board.m), board.inb(0x61) & 0xC0) == (0, 0x80)
    board.outb(0x70, 0)
    assert taken() == (NMI, 0, 0x80)
    board.outb(0x61, 4)
    assert board.inb(0x61) & 0xC0 == 0


def test_schedule_is_bounded_and_reused() -> None:
    schedule = board.m.platform.injections
    schedule.count = INJECTIONS
    assert injection.schedule_injection(board.m, *(u64(0) for _ in range(7))) == 0
    schedule.head = INJECTIONS
    assert injection.schedule_injection(board.m, *(u64(0) for _ in range(7))) != 0
    assert (schedule.head, schedule.count) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bogus", 1), "unknown injection 'bogus': expected one of ce, srao"),
        (("ce", 1, 0, 10), "no machine-check bank 10: expected 0..9"),
        (("ce", -1), "cycle is out of range"),
        (("smi", 1, 0, 7, 0, 0, 1 << 64), "flags is out of range"),
    ],
)
def test_bad_injections_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        injection.inject(board.m, *arguments)  # type: ignore[arg-type]

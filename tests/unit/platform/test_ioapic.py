"""I/O APIC: routing, edge and level pins, remote IRR."""

import pytest

from tests.unit.platform.board import Board
from vmxemu.layout import u64
from vmxemu.platform import interrupts
from vmxemu.platform.irq import pulse_irq, set_irq

board = Board()
LEVEL, MASKED, REMOTE_IRR = 0x8000, 0x10000, 0x4000


@pytest.fixture(autouse=True)
def power_on() -> None:
    board.power_on()
    board.enable_lapic()


def route(pin: int, low: int, destination: int = 0) -> None:
    board.ioapic(0x11 + 2 * pin, destination << 24)
    board.ioapic(0x10 + 2 * pin, low)


def take() -> int:
    return int(interrupts.acknowledge(board.m))


def test_identity() -> None:
    assert board.ioapic(1) == 0x00170020
    board.ioapic(0, 0xFFFFFFFF)
    assert board.ioapic(0) == 0x0F000000
    assert board.ioapic(0x10) == MASKED


def test_timer_line_is_pin_2() -> None:
    route(0, 0x30)
    route(2, 0x32)
    pulse_irq(board.m, u64(0))
    assert take() == 0x32
    assert take() == 0xFF


def test_edge_pin_sends_once_and_masked_pin_never() -> None:
    route(5, 0x45)
    set_irq(board.m, u64(5), u64(1))
    set_irq(board.m, u64(5), u64(1))
    assert take() == 0x45
    board.lapic(0xB0, 0)
    assert take() == 0xFF
    set_irq(board.m, u64(5), u64(0))
    route(5, MASKED | 0x45)
    set_irq(board.m, u64(5), u64(1))
    assert take() == 0xFF


def test_level_pin_sends_again_at_eoi_while_asserted() -> None:
    route(10, LEVEL | 0x4A)
    set_irq(board.m, u64(10), u64(1))
    assert board.ioapic(0x10 + 20) == LEVEL | REMOTE_IRR | 0x4A
    assert take() == 0x4A
    assert take() == 0xFF
    board.lapic(0xB0, 0)
    assert take() == 0x4A
    set_irq(board.m, u64(10), u64(0))
    board.lapic(0xB0, 0)
    assert board.ioapic(0x10 + 20) == LEVEL | 0x4A
    assert take() == 0xFF


def test_unmasking_an_asserted_level_pin_sends() -> None:
    route(10, LEVEL | MASKED | 0x4A)
    set_irq(board.m, u64(10), u64(1))
    assert take() == 0xFF
    route(10, LEVEL | 0x4A)
    assert take() == 0x4A


def test_suppressed_broadcast_waits_for_the_eoi_register() -> None:
    board.lapic(0xF0, 0x11FF)
    route(10, LEVEL | 0x4A)
    set_irq(board.m, u64(10), u64(1))
    assert take() == 0x4A
    board.lapic(0xB0, 0)
    assert take() == 0xFF
    board.store(0xFEC00040, 0x4A)
    assert take() == 0x4A


def test_other_destination_gets_nothing() -> None:
    route(4, 0x44, destination=3)
    set_irq(board.m, u64(4), u64(1))
    assert take() == 0xFF


def test_8259_through_pin_0_as_external_interrupt() -> None:
    board.start_pic()
    set_irq(board.m, u64(1), u64(1))
    assert take() == 0xFF
    route(0, 0x700)
    assert take() == 0x21

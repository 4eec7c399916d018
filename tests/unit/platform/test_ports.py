"""Ports: dispatch, UART, debug and exit ports, CMOS, and what is absent or not modelled."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.platform.board import RAM_BYTES, Board
from vmxemu.layout import u64
from vmxemu.outcome import DONE, NOT_MINE, STOPPED
from vmxemu.platform import output, pic, port_map, ports, uart
from vmxemu.platform.layout import OUTPUT_BYTES
from vmxemu.report import EXIT_PORT, SHUTDOWN_PORT

board = Board()


@pytest.fixture(autouse=True)
def power_on() -> None:
    board.power_on()


def test_output_keeps_order_and_channel() -> None:
    for port, text in ((0x3F8, b"se"), (0xE9, b"dbg"), (0x402, b"B"), (0x3F8, b"r")):
        for letter in text:
            board.outb(port, letter)
    assert output.drain(board.m) == [(0, b"se"), (1, b"dbg"), (2, b"B"), (0, b"r")]
    assert output.drain(board.m) == []


def test_full_output_asks_for_python_before_anything_is_lost() -> None:
    for _ in range(OUTPUT_BYTES - 1024):
        assert board.m.engine.stop == 0
        board.outb(0xE9, 65)
    assert board.m.engine.stop == 1
    for _ in range(1024):
        board.outb(0xE9, 65)
    assert board.m.platform.output.lost == 0
    board.outb(0xE9, 65)
    assert board.m.platform.output.lost == 1


@pytest.mark.jit_off
@pytest.mark.parametrize("size", [1, 2, 4])
def test_exit_port_ends_the_run_with_its_value(size: int) -> None:
    assert board.outb(0xF4, 0x12345678, size) == STOPPED
    assert board.m.report.reason == EXIT_PORT
    assert board.m.report.status == 0x12345678 & ((1 << 8 * size) - 1)
    assert board.m.engine.stop == 1


def test_shutdown_needs_the_whole_word() -> None:
    for letter in b"ShutSShutdow":
        assert board.outb(0x8900, letter) == DONE
    assert board.outb(0x8900, ord("n")) == STOPPED
    assert board.m.report.reason == SHUTDOWN_PORT


@pytest.mark.jit_off
def test_debug_ports_say_that_they_are_there() -> None:
    assert board.inb(0x402) == board.inb(0xE9) == 0xE9


def test_absent_devices_read_all_ones() -> None:
    for each in port_map.ABSENT_RANGES:
        for port in range(each.first, each.last + 1):
            assert board.inb(port) == 0xFF
            assert board.outb(port, 0) == DONE
    assert board.outb(0xCF8, 0x80000003, 4) == DONE
    assert board.inb(0xCF8, 4) == 0x80000000
    assert board.inb(0xCFC, 4) == 0xFFFFFFFF


@pytest.mark.jit_off
@given(st.integers(0, 0xFFFF), st.sampled_from([1, 2, 4]), st.integers(0, (1 << 32) - 1))
def test_every_port_has_an_outcome_and_every_device_a_name(port: int, size: int, value: int) -> None:
    board.power_on()
    taken = ports.port_in(board.m, u64(port), u64(size))
    assert taken in (DONE, NOT_MINE)
    assert int(board.m.walk.value) < 1 << 8 * size
    assert board.outb(port, value, size) in (DONE, NOT_MINE, STOPPED)
    if taken == NOT_MINE and size == 1:
        assert board.m.walk.value == 0xFF
    for kind in port_map.UNMODELLED_RANGES:
        if kind.first <= port <= kind.last and port_map.DEVICE_OF_PORT[port % 0x1000] == port_map.NOBODY:
            assert port_map.port_name(port) == kind.name
            assert taken == NOT_MINE


def test_uart_line_is_always_ready_and_divisor_is_kept() -> None:
    assert board.inb(0x3FD) == 0x60
    board.outb(0x3FB, 0x83)
    board.outb(0x3F8, 1, 2)
    assert board.inb(0x3F8, 2) == 1
    board.outb(0x3FB, 3)
    board.outb(0x3FF, 0x5A)
    assert (board.inb(0x3FF), board.inb(0x3FB)) == (0x5A, 3)
    assert output.drain(board.m) == []


def test_uart_transmit_interrupt() -> None:
    board.start_pic()
    board.outb(0x3FC, 8)
    board.outb(0x3F9, 2)
    assert pic.acknowledge(board.m) == 0x24
    assert board.inb(0x3FA) == 2  # identified, and so acknowledged
    assert board.inb(0x3FA) == 1
    board.outb(0x20, 0x20)
    board.outb(0x3F8, 65)
    assert pic.acknowledge(board.m) == 0x24


def test_uart_receives_what_python_sends() -> None:
    board.start_pic()
    board.outb(0x3FC, 8)
    board.outb(0x3F9, 1)
    for letter in b"ok":
        assert uart.receive(board.m, u64(letter)) == 1
    assert pic.acknowledge(board.m) == 0x24
    assert board.inb(0x3FA) == 4
    assert board.inb(0x3FD) & 1
    assert bytes([board.inb(0x3F8), board.inb(0x3F8)]) == b"ok"
    assert board.inb(0x3FD) & 1 == 0
    assert sum(int(uart.receive(board.m, u64(1))) for _ in range(70)) == 64


def test_uart_loopback() -> None:
    board.outb(0x3FC, 0x1F)
    board.outb(0x3F8, 0xA5)
    assert board.inb(0x3F8) == 0xA5
    assert board.inb(0x3FE) == 0xF0
    board.outb(0x3F8, 1)
    board.outb(0x3F8, 2)
    assert board.inb(0x3FD) & 3 == 3  # overrun without a FIFO
    assert output.drain(board.m) == []


def cmos(index: int) -> int:
    board.outb(0x70, index)
    return board.inb(0x71)


def test_cmos_tells_the_memory_size() -> None:
    assert cmos(0x15) | cmos(0x16) << 8 == 640
    assert cmos(0x17) | cmos(0x18) << 8 == cmos(0x30) | cmos(0x31) << 8 == (RAM_BYTES >> 10) - 1024
    assert cmos(0x34) | cmos(0x35) << 8 == (RAM_BYTES - (16 << 20)) >> 16
    assert cmos(0x5B) | cmos(0x5C) << 8 | cmos(0x5D) << 16 == 3 << 30 >> 16


@pytest.mark.jit_off
@given(st.integers(0, 70 * 366 * 86400), st.booleans(), st.booleans())
def test_date_equals_datetime(seconds: int, binary: bool, hours_24: bool) -> None:
    board.power_on()
    start = datetime(2000, 1, 1)
    board.m.platform.rtc.start = seconds
    now = start + timedelta(seconds=seconds)
    board.outb(0x70, 0x0B)
    board.outb(0x71, (4 if binary else 0) | (2 if hours_24 else 0))

    def number(value: int) -> int:
        return value if binary else int(str(value), 16)

    hour = now.hour if hours_24 else (now.hour + 11) % 12 + 1
    half = 0x80 if not hours_24 and now.hour >= 12 else 0
    assert cmos(4) == number(hour) | half
    fields = (now.second, now.minute, now.isoweekday() % 7 + 1, now.day, now.month, now.year % 100, now.year // 100)
    assert [cmos(i) for i in (0, 2, 6, 7, 8, 9, 0x32)] == [number(value) for value in fields]


def test_date_can_be_set_and_goes_on() -> None:
    for index, value in ((9, 0x31), (8, 0x12), (7, 0x30), (4, 0x23), (2, 0x59), (0, 0x58)):
        board.outb(0x70, index)
        board.outb(0x71, value)
    board.wait(3 * 16 * int(board.m.platform.tsc_hz))
    assert [cmos(i) for i in (9, 8, 7, 4, 2, 0)] == [0x31, 0x12, 0x31, 0, 0, 1]


def test_update_in_progress_before_each_second() -> None:
    second = 16 * int(board.m.platform.tsc_hz)
    board.m.clock.ticks = second - second // 10000
    assert cmos(0x0A) & 0x80
    board.m.clock.ticks = second
    assert cmos(0x0A) & 0x80 == 0


def test_a20_stays_on_and_reset_is_refused() -> None:
    assert board.outb(0x92, 0) == DONE
    assert board.inb(0x92) == 2
    assert board.outb(0x92, 1) == NOT_MINE

"""8259A pair against the reference, and the data sheet's special cases."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.platform_pic import Pair
from tests.unit.platform.board import Board
from vmxemu.layout import u64
from vmxemu.platform import pic
from vmxemu.platform.irq import set_irq

board = Board()
NUMBERS = st.integers(0, 7)
STEPS = st.one_of(
    st.tuples(st.just("line"), st.sampled_from([i for i in range(16) if i != 2]), st.integers(0, 1)),
    st.tuples(st.just("acknowledge"), st.just(0), st.just(0)),
    st.tuples(st.just("mask"), st.integers(0, 1), st.integers(0, 255)),
    st.tuples(st.just("eoi"), st.integers(0, 1), st.sampled_from([0x20, 0xA0])),
    st.tuples(st.just("specific"), st.integers(0, 1), st.tuples(st.sampled_from([0x60, 0xE0]), NUMBERS)),
    st.tuples(st.just("priority"), st.integers(0, 1), NUMBERS),
    st.tuples(st.just("special"), st.integers(0, 1), st.integers(0, 1)),
)


def fresh() -> Board:
    board.power_on()
    board.start_pic()
    return board


def apply_reference(pair: Pair, kind: str, which: int, argument: object) -> int | None:
    controller = (pair.master, pair.slave)[which] if kind != "line" else pair.master
    if kind == "line":
        pair.line(which, int(argument))  # type: ignore[call-overload]
    elif kind == "acknowledge":
        return pair.acknowledge()
    elif kind == "mask":
        controller.masked = {i for i in range(8) if int(argument) >> i & 1}  # type: ignore[call-overload]
    elif kind == "eoi":
        controller.end(controller.highest_in_service(), argument == 0xA0)
    elif kind == "specific":
        command, level = argument  # type: ignore[misc]
        while level in controller.in_service:
            controller.in_service.remove(level)
        if command == 0xE0:
            controller.rotate_below(level)
    elif kind == "priority":
        controller.rotate_below(argument)  # type: ignore[arg-type]
    else:
        controller.special_mask = bool(argument)
    pair.follow()
    return None


def apply_kernel(kind: str, which: int, argument: object) -> int | None:
    command = 0xA0 if which else 0x20
    if kind == "line":
        set_irq(board.m, u64(which), u64(argument))
    elif kind == "acknowledge":
        return int(pic.acknowledge(board.m)) if pic.pending(board.m) else None
    elif kind == "mask":
        board.outb(command + 1, argument)  # type: ignore[arg-type]
    elif kind == "eoi":
        board.outb(command, argument)  # type: ignore[arg-type]
    elif kind == "specific":
        board.outb(command, argument[0] | argument[1])  # type: ignore[index]
    elif kind == "priority":
        board.outb(command, 0xC0 | argument)  # type: ignore[operator]
    else:
        board.outb(command, 0x68 if argument else 0x48)
    return None


@pytest.mark.jit_off
@given(st.lists(STEPS, max_size=40))
@settings(max_examples=300, deadline=None)
def test_pair_equals_reference(steps: list[tuple[str, int, object]]) -> None:
    fresh()
    pair = Pair()
    for step in steps:
        assert apply_kernel(*step) == apply_reference(pair, *step), step
        board.outb(0x20, 0x0B)
        board.outb(0xA0, 0x0B)
        assert board.inb(0x20) == sum(1 << i for i in set(pair.master.in_service))
        assert board.inb(0xA0) == sum(1 << i for i in set(pair.slave.in_service))
        board.outb(0x20, 0x0A)
        assert board.inb(0x20) == sum(1 << i for i in pair.master.requested)


def test_request_that_goes_away_is_spurious() -> None:
    fresh()
    set_irq(board.m, u64(5), u64(1))
    set_irq(board.m, u64(5), u64(0))
    assert pic.acknowledge(board.m) == 0x27
    board.outb(0x20, 0x0B)
    assert board.inb(0x20) == 0


def test_level_triggered_line_asks_again_after_eoi() -> None:
    fresh()
    board.outb(0x4D0, 0x20)
    set_irq(board.m, u64(5), u64(1))
    assert pic.acknowledge(board.m) == 0x25
    board.outb(0x20, 0x20)
    assert pic.pending(board.m)
    set_irq(board.m, u64(5), u64(0))
    assert not pic.pending(board.m)
    board.outb(0x4D0, 0xFF)
    assert board.inb(0x4D0) == 0xF8


def test_special_mask_lets_lower_requests_through() -> None:
    fresh()
    set_irq(board.m, u64(3), u64(1))
    assert pic.acknowledge(board.m) == 0x23
    set_irq(board.m, u64(5), u64(1))
    board.outb(0x21, 0x08)
    assert not pic.pending(board.m)
    board.outb(0x20, 0x68)
    assert pic.acknowledge(board.m) == 0x25


def test_poll_command_acknowledges() -> None:
    fresh()
    set_irq(board.m, u64(6), u64(1))
    board.outb(0x20, 0x0C)
    assert board.inb(0x20) == 0x86
    board.outb(0x20, 0x0C)
    assert board.inb(0x20) == 0


def test_automatic_eoi_leaves_nothing_in_service() -> None:
    board.power_on()
    for port, value in ((0x20, 0x11), (0x21, 8), (0x21, 4), (0x21, 3)):
        board.outb(port, value)
    set_irq(board.m, u64(0), u64(1))
    assert pic.acknowledge(board.m) == 8
    set_irq(board.m, u64(1), u64(1))
    assert pic.acknowledge(board.m) == 9

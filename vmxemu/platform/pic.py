"""Two 8259A interrupt controllers in cascade (Intel 8259A data sheet), with the edge/level registers at 0x4D0."""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel
from vmxemu.layout import u64

if TYPE_CHECKING:
    from vmxemu.platform.layout import Pic
    from vmxemu.state import State

NONE = u64(8)  # no input
CASCADE = u64(2)  # input of the master that the slave drives
SPURIOUS = u64(7)
EDGE_ONLY_MASTER, EDGE_ONLY_SLAVE = u64(0x07), u64(0x21)  # IRQ 0, 1, 2, 8, 13 cannot be level triggered


@kernel
def power_on(m: "State") -> None:
    """Both controllers wait for ICW1; every input masked, so that nothing comes before."""
    for number in range(2):
        pic = m.platform.pic[number]
        _initialise(pic)
        pic.lines = 0
        pic.mask = 0xFF
        pic.level_triggered = 0
        pic.vector_base = 0
        pic.initialising = 0


@kernel
def _initialise(pic: "Pic") -> None:
    """What ICW1 clears."""
    pic.request = pic.lines & pic.level_triggered
    pic.service = 0
    pic.mask = 0
    pic.lowest = 7
    pic.read_service = 0
    pic.poll = 0
    pic.special_mask = 0
    pic.automatic_eoi = 0
    pic.rotate_on_eoi = 0
    pic.fully_nested = 0
    pic.wants_icw4 = 0
    pic.single = 0


@kernel
def _first(pic: "Pic", inputs: int) -> int:
    """Rank of the highest-priority input of the set, 0 = highest; NONE if the set is empty."""
    for rank in range(8):
        if inputs >> (pic.lowest + 1 + rank & 7) & 1:
            return u64(rank)
    return NONE


@kernel
def winner(pic: "Pic", is_master: int) -> int:
    """The input that this controller asks for now, or NONE."""
    rank = _first(pic, pic.request & ~pic.mask)
    if rank == NONE:
        return NONE
    blocking = pic.service
    if pic.special_mask != 0:
        blocking = blocking & ~pic.mask
    if pic.fully_nested != 0 and is_master != 0:
        blocking = blocking & ~(u64(1) << CASCADE)
    if rank >= _first(pic, blocking):
        return NONE
    return pic.lowest + 1 + rank & 7


@kernel
def set_line(m: "State", irq: int, level: int) -> None:
    """Level of one of the 16 inputs. An edge-triggered request stays only while its line is high."""
    _set_input(m.platform.pic[irq >> 3], irq & 7, level)
    _cascade(m)


@kernel
def _set_input(pic: "Pic", number: int, level: int) -> None:
    bit = u64(1) << number
    if level == 0:
        pic.lines = pic.lines & ~bit
        pic.request = pic.request & ~bit
        return
    if pic.lines & bit == 0 or pic.level_triggered & bit != 0:
        pic.request = pic.request | bit
    pic.lines = pic.lines | bit


@kernel
def _cascade(m: "State") -> None:
    """The slave's output is the master's input 2. It falls at each acknowledge, so the master follows it as a level."""
    master, bit = m.platform.pic[0], u64(1) << CASCADE
    if winner(m.platform.pic[1], 0) != NONE:
        master.request = master.request | bit
    else:
        master.request = master.request & ~bit
    if winner(master, 1) != NONE:
        m.clock.attention = 1


@kernel
def pending(m: "State") -> int:
    """1 while the master's INTR output is high."""
    return u64(1) if winner(m.platform.pic[0], 1) != NONE else u64(0)


@kernel
def pending_vector(m: "State") -> int:
    """The vector that an acknowledge would give now; nothing changes."""
    input_ = winner(m.platform.pic[0], 1)
    if input_ == NONE:
        input_ = SPURIOUS
    if input_ != CASCADE:
        return m.platform.pic[0].vector_base | input_
    input_ = winner(m.platform.pic[1], 0)
    if input_ == NONE:
        input_ = SPURIOUS
    return m.platform.pic[1].vector_base | input_


@kernel
def acknowledge(m: "State") -> int:
    """The INTA cycles: gives the vector; input 7 without service bit if the request has gone."""
    vector = pending_vector(m)
    input_ = winner(m.platform.pic[0], 1)
    if input_ != NONE:
        if input_ == CASCADE:
            behind = winner(m.platform.pic[1], 0)
            if behind != NONE:
                _accept(m.platform.pic[1], behind)
        _accept(m.platform.pic[0], input_)
        _cascade(m)
    return vector


@kernel
def _accept(pic: "Pic", input_: int) -> None:
    bit = u64(1) << input_
    if pic.automatic_eoi == 0:
        pic.service = pic.service | bit
    elif pic.rotate_on_eoi != 0:
        pic.lowest = input_
    if pic.level_triggered & bit == 0:
        pic.request = pic.request & ~bit


@kernel
def read(m: "State", number: int, register: int) -> int:
    """IN from 0x20/0xA0 (register 0) or 0x21/0xA1 (register 1)."""
    pic = m.platform.pic[number]
    if pic.poll != 0:
        pic.poll = 0
        return _poll(m, number)
    if register != 0:
        return pic.mask
    return pic.service if pic.read_service != 0 else pic.request


@kernel
def _poll(m: "State", number: int) -> int:
    """The poll command acknowledges without INTA."""
    pic = m.platform.pic[number]
    input_ = winner(pic, 1 - number)
    if input_ == NONE:
        return u64(0)
    _accept(pic, input_)
    _cascade(m)
    return 0x80 | input_


@kernel
def write(m: "State", number: int, register: int, value: int) -> None:
    """OUT to 0x20/0xA0 (register 0) or 0x21/0xA1 (register 1)."""
    pic = m.platform.pic[number]
    if register != 0:
        _write_data(pic, value)
    elif value & 0x10:
        _initialise(pic)
        pic.initialising = 2
        pic.wants_icw4 = value & 1
        pic.single = value >> 1 & 1
    elif value & 0x08:
        _write_ocw3(pic, value)
    else:
        _write_ocw2(pic, value)
    _cascade(m)


@kernel
def _write_data(pic: "Pic", value: int) -> None:
    if pic.initialising == 0:
        pic.mask = value
    elif pic.initialising == 2:
        pic.vector_base = value & 0xF8
        if pic.single == 0:
            pic.initialising = 3
        else:
            pic.initialising = 4 if pic.wants_icw4 != 0 else 0
    elif pic.initialising == 3:
        pic.initialising = 4 if pic.wants_icw4 != 0 else 0
    else:
        pic.automatic_eoi = value >> 1 & 1
        pic.fully_nested = value >> 4 & 1
        pic.initialising = 0


@kernel
def _write_ocw3(pic: "Pic", value: int) -> None:
    if value & 4:
        pic.poll = 1
    if value & 2:
        pic.read_service = value & 1
    if value & 0x40:
        pic.special_mask = value >> 5 & 1


@kernel
def _write_ocw2(pic: "Pic", value: int) -> None:
    """Bits 7:5: rotate, specific, EOI."""
    command, level = value >> 5, value & 7
    if command == 0 or command == 4:
        pic.rotate_on_eoi = command >> 2
    elif command == 6:
        pic.lowest = level
    elif command == 3 or command == 7:
        pic.service = pic.service & ~(u64(1) << level)
        if command == 7:
            pic.lowest = level
    elif command != 2:
        # In special mask mode a non-specific EOI passes over what is masked.
        inputs = pic.service & ~pic.mask if pic.special_mask != 0 else pic.service
        rank = _first(pic, inputs)
        if rank != NONE:
            input_ = pic.lowest + 1 + rank & 7
            pic.service = pic.service & ~(u64(1) << input_)
            if command == 5:
                pic.lowest = input_


@kernel
def read_trigger(m: "State", number: int) -> int:
    """IN from 0x4D0 + number."""
    return m.platform.pic[number].level_triggered


@kernel
def write_trigger(m: "State", number: int, value: int) -> None:
    """OUT to 0x4D0 + number."""
    m.platform.pic[number].level_triggered = value & ~(EDGE_ONLY_SLAVE if number != 0 else EDGE_ONLY_MASTER) & 0xFF

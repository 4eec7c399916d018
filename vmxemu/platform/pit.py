"""8254 interval timer (Intel 8254 data sheet). Counters are functions of virtual time: nothing runs between accesses.

Counter 0 drives IRQ 0; counter 2 the speaker, gated by port 0x61. A new count takes effect at once in every mode.
"""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.platform.irq import IRQ_PIT, pulse_irq
from vmxemu.platform.layout import NEVER
from vmxemu.platform.rates import PIT_HZ, pit_now, ticks_of

if TYPE_CHECKING:
    from vmxemu.platform.layout import PitChannel
    from vmxemu.state import State

LOW, HIGH, BOTH = u64(1), u64(2), u64(3)
STATUS_OUT, STATUS_NULL = u64(0x80), u64(0x40)


@kernel
def power_on(m: "State") -> None:
    """No counter counts; gates of counters 0 and 1 are tied high."""
    for number in range(3):
        channel = m.platform.pit.channel[number]
        _program(channel, 3, BOTH, 0)
        channel.gate = u64(1) if number != 2 else u64(0)
        channel.reload = 0x10000
        channel.due = NEVER


@kernel
def _program(channel: "PitChannel", mode: int, access: int, bcd: int) -> None:
    channel.mode = mode & 3 if mode > 5 else mode
    channel.access = access
    channel.bcd = bcd
    channel.running = 0
    channel.held = 0
    channel.write_high = 0
    channel.read_high = 0
    channel.latched = 0
    channel.status_latched = 0


@kernel
def _gate_pauses(channel: "PitChannel") -> int:
    return u64(1) if channel.mode != 1 and channel.mode != 5 else u64(0)


@kernel
def elapsed(channel: "PitChannel", now: int) -> int:
    """Periods counted since the count was loaded or the gate triggered."""
    if channel.gate == 0 and _gate_pauses(channel) != 0:
        return channel.held
    return now - channel.start


@kernel
def output(channel: "PitChannel", now: int) -> int:
    """Level of OUT."""
    if channel.running == 0:
        return u64(0) if channel.mode == 0 else u64(1)
    passed, count = elapsed(channel, now), channel.reload
    if channel.mode <= 1:
        return u64(1) if passed >= count else u64(0)
    if channel.mode == 2:
        return u64(0) if channel.gate != 0 and passed % count == count - 1 else u64(1)
    if channel.mode == 3:
        return u64(1) if channel.gate == 0 or passed % count < (count + 1) >> 1 else u64(0)
    return u64(0) if passed == count else u64(1)


@kernel
def counter(channel: "PitChannel", now: int) -> int:
    """The counting element, 16 bits (four digits in BCD)."""
    count = channel.reload
    value = count
    if channel.running != 0:
        passed = elapsed(channel, now)
        if channel.mode == 2:
            value = count - passed % count
        elif channel.mode == 3:
            value = count - (passed << 1) % count
        else:
            modulus = u64(10000) if channel.bcd != 0 else u64(0x10000)
            value = count + modulus - passed % modulus
    if channel.bcd != 0:
        return _to_bcd(value % 10000)
    return value & 0xFFFF


@kernel
def _to_bcd(value: int) -> int:
    return value % 10 | value // 10 % 10 << 4 | value // 100 % 10 << 8 | value // 1000 % 10 << 12


@kernel
def _from_bcd(value: int) -> int:
    return (value & 0xF) + (value >> 4 & 0xF) * 10 + (value >> 8 & 0xF) * 100 + (value >> 12 & 0xF) * 1000


@kernel
def write_control(m: "State", value: int) -> None:
    """OUT to 0x43: a control word, counter latch or read-back command."""
    now = pit_now(m)
    number, access = value >> 6 & 3, value >> 4 & 3
    if number == 3:
        for each in range(3):
            if value >> (each + 1) & 1:
                if value & 0x20 == 0:
                    _latch_count(m.platform.pit.channel[each], now)
                if value & 0x10 == 0:
                    _latch_status(m.platform.pit.channel[each], now)
        return
    channel = m.platform.pit.channel[number]
    if access == 0:
        _latch_count(channel, now)
        return
    _program(channel, value >> 1 & 7, access, value & 1)
    channel.due = NEVER


@kernel
def _latch_count(channel: "PitChannel", now: int) -> None:
    if channel.latched == 0:
        channel.latch = counter(channel, now)
        channel.latched = u64(2) if channel.access == BOTH else u64(1)


@kernel
def _latch_status(channel: "PitChannel", now: int) -> None:
    if channel.status_latched == 0:
        channel.status_latched = 1
        null = STATUS_NULL if channel.running == 0 else u64(0)
        channel.status = output(channel, now) << 7 | null | channel.access << 4 | channel.mode << 1 | channel.bcd


@kernel
def read_counter(m: "State", number: int) -> int:
    """IN from 0x40 + number."""
    channel = m.platform.pit.channel[number]
    if channel.status_latched != 0:
        channel.status_latched = 0
        return channel.status
    value = channel.latch if channel.latched != 0 else counter(channel, pit_now(m))
    if channel.latched != 0:
        channel.latched = channel.latched - 1
    high = channel.access == HIGH
    if channel.access == BOTH:
        high = channel.read_high != 0
        channel.read_high = channel.read_high ^ 1
    return value >> 8 & 0xFF if high else value & 0xFF


@kernel
def write_counter(m: "State", number: int, value: int) -> None:
    """OUT to 0x40 + number: a count, or half of one."""
    channel = m.platform.pit.channel[number]
    if channel.access == LOW:
        _load(m, number, value)
    elif channel.access == HIGH:
        _load(m, number, value << 8)
    elif channel.write_high == 0:
        channel.write_low = value
        channel.write_high = 1
        if channel.mode == 0:
            channel.running = 0  # the first byte stops the counter
            channel.due = NEVER
    else:
        channel.write_high = 0
        _load(m, number, value << 8 | channel.write_low)


@kernel
def _load(m: "State", number: int, value: int) -> None:
    channel = m.platform.pit.channel[number]
    if channel.bcd != 0:
        count = _from_bcd(value)
        channel.reload = count if count != 0 else u64(10000)
    else:
        channel.reload = value if value != 0 else u64(0x10000)
    if (channel.mode == 2 or channel.mode == 3) and channel.reload == 1:
        channel.reload = 2  # a count of 1 is illegal in these modes
    if _gate_pauses(channel) != 0:
        channel.running = 1
        channel.start = pit_now(m)
        channel.held = 0
        _arm(m, number)


@kernel
def set_gate(m: "State", number: int, level: int) -> None:
    """Level of GATE. A rise resumes modes 0 and 4, restarts 2 and 3, triggers 1 and 5."""
    channel = m.platform.pit.channel[number]
    now = pit_now(m)
    if channel.gate == level:
        return
    if level == 0:
        channel.held = elapsed(channel, now)
    elif channel.mode == 0 or channel.mode == 4:
        channel.start = now - channel.held
    else:
        channel.start = now
        if _gate_pauses(channel) == 0:
            channel.running = 1
    channel.gate = level


@kernel
def _arm(m: "State", number: int) -> None:
    """When counter 0's output rises next, counted from now."""
    channel = m.platform.pit.channel[number]
    if number != 0 or channel.running == 0:
        return
    passed = pit_now(m) - channel.start
    if channel.mode == 2 or channel.mode == 3:
        periods = passed - passed % channel.reload + channel.reload
    else:
        periods = channel.reload + (u64(1) if channel.mode >= 4 else u64(0))
        if periods <= passed:
            channel.due = NEVER
            return
    channel.due = ticks_of(m, channel.start + periods, PIT_HZ)


@kernel
def run_due(m: "State") -> None:
    """Raise IRQ 0 if its time has come. Edges that passed unseen count once, as on the real line."""
    if m.clock.ticks >= m.platform.pit.channel[0].due:
        _arm(m, 0)
        pulse_irq(m, IRQ_PIT)

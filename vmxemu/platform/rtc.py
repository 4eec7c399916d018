"""MC146818 real-time clock and CMOS memory (Motorola data sheet). The date is a configured start plus virtual time.

Not modelled: alarm, periodic and update-ended interrupts (register B keeps their enable bits, register C reads 0).
"""

from typing import TYPE_CHECKING

import numpy as np

from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.platform.rates import ticks_per_second

if TYPE_CHECKING:
    from vmxemu.state import State

SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR = u64(0), u64(2), u64(4), u64(6), u64(7), u64(8), u64(9)
STATUS_A, STATUS_B, STATUS_C, STATUS_D, CENTURY = u64(0x0A), u64(0x0B), u64(0x0C), u64(0x0D), u64(0x32)
UPDATE_IN_PROGRESS, HALTED, BINARY, HOURS_24, POWER_GOOD = u64(0x80), u64(0x80), u64(4), u64(2), u64(0x80)
UPDATE_PER_MILLION = u64(244)  # the update cycle announces itself 244 microseconds ahead
DAY_SECONDS = u64(86400)
FOUR_YEARS = u64(1461)  # days; 2000 is a leap year and starts the count, 2100 is out of reach
MONTH_START = np.array([0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365], dtype=np.uint64)
KIB, MIB, BLOCK = u64(1 << 10), u64(1 << 20), u64(1 << 16)


@kernel
def power_on(m: "State") -> None:
    """Memory sizes as PC firmware finds them in CMOS; 24-hour BCD."""
    rtc, memory = m.platform.rtc, m.memory
    rtc.index = 0
    rtc.nmi_disabled = 0
    rtc.cmos[STATUS_A] = 0x26
    rtc.cmos[STATUS_B] = HOURS_24
    _put16(m, 0x15, u64(640))
    above_1m = memory.low_bytes - MIB if memory.low_bytes > MIB else u64(0)
    above_16m = memory.low_bytes - 16 * MIB if memory.low_bytes > 16 * MIB else u64(0)
    _put16(m, 0x17, min(above_1m // KIB, u64(0xFFFF)))
    _put16(m, 0x30, min(above_1m // KIB, u64(0xFFFF)))
    _put16(m, 0x34, min(above_16m // BLOCK, u64(0xFFFF)))
    high = memory.high_bytes // BLOCK
    _put16(m, 0x5B, high & 0xFFFF)
    rtc.cmos[0x5D] = high >> 16


@kernel
def _put16(m: "State", index: int, value: int) -> None:
    m.platform.rtc.cmos[index] = value & 0xFF
    m.platform.rtc.cmos[index + 1] = value >> 8


@kernel
def _now(m: "State") -> int:
    """Seconds since the start of 2000."""
    return m.platform.rtc.start + m.clock.ticks // ticks_per_second(m)


@kernel
def _leap(year: int) -> int:
    return u64(1) if year % 4 == 0 else u64(0)


@kernel
def _month_start(year: int, month: int) -> int:
    """Days of the year before `month`, which counts from 0."""
    return u64(MONTH_START[month]) + (_leap(year) if month >= 2 else u64(0))


@kernel
def _year_start(year: int) -> int:
    """Days from the start of 2000 to the start of `year`, which counts from 2000."""
    return year // 4 * FOUR_YEARS + (365 * (year % 4) + 1 if year % 4 != 0 else u64(0))


@kernel
def field(seconds: int, register: int) -> int:
    """The value, in binary and 24 hours, of a date register at a time."""
    if register == SECONDS:
        return seconds % 60
    if register == MINUTES:
        return seconds // 60 % 60
    if register == HOURS:
        return seconds // 3600 % 24
    days = seconds // DAY_SECONDS
    if register == WEEKDAY:
        return (days + 6) % 7 + 1  # 1 January 2000 was a Saturday; Sunday is 1
    year = days // FOUR_YEARS * 4
    while _year_start(year + 1) <= days:
        year = year + 1
    if register == YEAR:
        return year % 100
    if register == CENTURY:
        return 20 + year // 100
    rest = days - _year_start(year)
    month = u64(0)
    while _month_start(year, month + 1) <= rest:
        month = month + 1
    return month + 1 if register == MONTH else rest - _month_start(year, month) + 1


@kernel
def _is_date(register: int) -> bool:
    return register <= YEAR and (register & 1 == 0 or register == DAY or register == YEAR) or register == CENTURY


@kernel
def read(m: "State") -> int:
    """IN from 0x71."""
    rtc = m.platform.rtc
    index = rtc.index
    if index == STATUS_A:
        second = ticks_per_second(m)
        left = second - m.clock.ticks % second
        soon = left <= second // 1_000_000 * UPDATE_PER_MILLION and rtc.cmos[STATUS_B] & HALTED == 0
        return rtc.cmos[STATUS_A] | (UPDATE_IN_PROGRESS if soon else u64(0))
    if index == STATUS_C:
        return u64(0)
    if index == STATUS_D:
        return POWER_GOOD
    if not _is_date(index):
        return rtc.cmos[index]
    value = field(_now(m), index)
    if index != HOURS or rtc.cmos[STATUS_B] & HOURS_24:
        return _encode(m, value)
    half = u64(0x80) if value >= 12 else u64(0)
    return _encode(m, value % 12 if value % 12 != 0 else u64(12)) | half


@kernel
def _encode(m: "State", value: int) -> int:
    return value if m.platform.rtc.cmos[STATUS_B] & BINARY else value // 10 << 4 | value % 10


@kernel
def _decode(m: "State", index: int, value: int) -> int:
    binary = m.platform.rtc.cmos[STATUS_B] & BINARY
    if index != HOURS or m.platform.rtc.cmos[STATUS_B] & HOURS_24:
        return value if binary else (value >> 4) * 10 + (value & 0xF)
    half = u64(12) if value & 0x80 else u64(0)
    value = value & 0x7F
    return (value if binary else (value >> 4) * 10 + (value & 0xF)) % 12 + half


@kernel
def write(m: "State", value: int) -> None:
    """OUT to 0x71."""
    rtc = m.platform.rtc
    index = rtc.index
    if index == STATUS_A:
        rtc.cmos[STATUS_A] = value & 0x7F
    elif index == STATUS_C or index == STATUS_D or index == WEEKDAY:
        return
    elif _is_date(index):
        _set_field(m, index, _decode(m, index, value))
    else:
        rtc.cmos[index] = value


@kernel
def _set_field(m: "State", register: int, value: int) -> None:
    """Move the clock so that one field has this value. The century stays 20; days past a month's end run on."""
    now = _now(m)
    second, minute, hour = field(now, SECONDS), field(now, MINUTES), field(now, HOURS)
    day, month, year = field(now, DAY), field(now, MONTH), field(now, YEAR)
    if register == SECONDS:
        second = value % 60
    elif register == MINUTES:
        minute = value % 60
    elif register == HOURS:
        hour = value % 24
    elif register == DAY:
        day = max(min(value, u64(31)), u64(1))
    elif register == MONTH:
        month = max(min(value, u64(12)), u64(1))
    elif register == YEAR:
        year = value % 100
    days = _year_start(year) + _month_start(year, month - 1) + day - 1
    wanted = days * DAY_SECONDS + hour * 3600 + minute * 60 + second
    m.platform.rtc.start = m.platform.rtc.start + wanted - now


@kernel
def select(m: "State", value: int) -> None:
    """OUT to 0x70: bit 7 keeps NMIs of port 0x61's sources away."""
    m.platform.rtc.index = value & 0x7F
    m.platform.rtc.nmi_disabled = value >> 7

"""Numbers as people write them: sizes (256M), cycles (10M, 5_000), frequencies (2.5GHz), addresses (0x12_3000)."""

import re
from typing import Any

BINARY = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
DECIMAL = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_NUMBER = re.compile(r"(0x[0-9a-f_]+|[0-9][0-9_]*(?:\.[0-9]+)?)\s*([a-z]*)", re.IGNORECASE)


def _read(value: Any, units: dict[str, int], suffixes: tuple[str, ...], expected: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64:
        return value
    match = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"expected {expected}, got {value!r}")
    digits, unit = match.group(1).replace("_", ""), match.group(2).upper()
    for suffix in suffixes:
        unit = unit.removesuffix(suffix)
    if unit not in units or digits in ("0x", "0X"):
        raise ValueError(f"expected {expected}, got {value!r}")
    whole, _, fraction = digits.partition(".")
    number = int(whole, 16 if whole[:2].lower() == "0x" else 10) * units[unit]
    if fraction:
        part = int(fraction) * units[unit]
        if part % 10 ** len(fraction):
            raise ValueError(f"expected {expected}, got {value!r}")
        number += part // 10 ** len(fraction)
    if number >= 1 << 64:
        raise ValueError(f"expected {expected} below 2**64, got {value!r}")
    return number


def size(value: Any) -> int:
    """Bytes: an integer, or text with K, M or G (powers of 1024; KiB, MB and the like are understood so too)."""
    return _read(value, BINARY, ("IB", "B"), 'a size such as "256M"')


def cycles(value: Any) -> int:
    """Virtual cycles: an integer, or text with k, M, G or T (powers of 1000); underscores allowed."""
    return _read(value, DECIMAL, (), "a number of cycles such as 5_000_000 or 5M")


def hertz(value: Any) -> int:
    """A frequency: an integer number of Hz, or text such as 2.5GHz."""
    return _read(value, DECIMAL, ("HZ",), 'a frequency such as "2.5GHz"')


def address(value: Any) -> int:
    """An address or another plain number, decimal or hexadecimal; K, M, G (powers of 1024) allowed."""
    return _read(value, BINARY, (), "an address such as 0x1f3000")


def show_size(value: int) -> str:
    """The size as people write it."""
    for unit in ("G", "M", "K"):
        if value and value % BINARY[unit] == 0:
            return f"{value // BINARY[unit]}{unit}"
    return str(value)

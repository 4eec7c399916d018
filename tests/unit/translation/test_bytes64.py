"""Vectors of sixty-four bytes: compiled and plain versions do the same."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vmxemu.jit import kernel
from vmxemu.translation import bytes64

BYTES = st.binary(min_size=64, max_size=64)


@kernel
def compiled_matching(address, byte):
    return bytes64.matching_of_64(address, byte)


@kernel
def compiled_replace(address, number, byte):
    return bytes64.replace_byte(address, number, byte)


@kernel
def compiled_to_front(address, byte):
    return bytes64.to_front(address, byte)


def aligned(content):
    """A copy at the beginning of a cache line."""
    buffer = np.zeros(128, np.uint8)
    start = -int(buffer.ctypes.data) % 64
    buffer[start : start + 64] = list(content)
    return buffer[start : start + 64]


def both(one, other, content, *rest):
    """Results, and what is in memory afterwards."""
    first, second = aligned(content), aligned(content)
    results = one(first.ctypes.data, *rest), other(second.ctypes.data, *rest)
    assert first.tobytes() == second.tobytes()
    return results, first.tobytes()


@given(BYTES, st.integers(0, 255))
def test_matching_bytes(content, byte):
    (one, other), _ = both(compiled_matching, bytes64._plain_matching, content, byte)
    assert one == other == sum(1 << i for i in range(64) if content[i] == byte)


@given(BYTES, st.integers(0, 63), st.integers(0, 255))
def test_a_byte_is_replaced(content, number, byte):
    _, after = both(compiled_replace, bytes64._plain_replace, content, number, byte)
    assert after == content[:number] + bytes([byte]) + content[number + 1 :]


@given(st.permutations(range(64)), st.integers(0, 63))
def test_a_byte_comes_to_the_front(order, byte):
    _, after = both(compiled_to_front, bytes64._plain_to_front, order, byte)
    assert list(after) == [byte, *(other for other in order if other != byte)]

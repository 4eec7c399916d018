"""Records: offsets, alignment, columns, and fields that kernels must leave alone."""

import pytest
from numba.core.errors import NumbaError

from vmxemu.jit import JIT_ON, kernel
from vmxemu.layout import Array, Layout, Record, array, fixed, u8, u16, u64


class Pair(Layout):
    first: u64
    second: u16
    _pad: Array[u8] = array(6)


class Whole(Layout):
    line: Array[u8] = array(64, align=64)
    pairs: Array[Pair] = array(3)
    constant: u64 = fixed()


@kernel
def read_all(m):
    return m.constant + m.pairs[1].first + m.pairs[2].second + m.line[63]


@kernel
def store_constant(m):
    m.constant = 1
    return 0


def test_kernels_and_python_see_the_same():
    m = Record(Whole)
    m.constant, m.pairs[1].first, m.pairs[2].second, m.line[63] = 1, 20, 300, 40
    assert read_all(m) == 361


def test_a_column_is_one_field_of_all_records():
    m = Record(Whole)
    m.pairs.column("second")[:] = [7, 8, 9]
    assert [int(pair.second) for pair in m.pairs] == [7, 8, 9]
    assert m.pairs.column("first").sum() == 0


def test_a_record_is_aligned_like_its_fields():
    assert (Whole.ALIGN, Whole.SIZE) == (64, 128)
    with pytest.raises(TypeError, match="inner is not aligned at byte 8"):
        type("Outer", (Layout,), {"__annotations__": {"number": u64, "inner": Whole}})


def test_only_numbers_are_fixed():
    with pytest.raises(TypeError, match="an array of records is not fixed"):
        type("Outer", (Layout,), {"__annotations__": {"pairs": Array[Pair]}, "pairs": array(2, fixed=True)})


@pytest.mark.skipif(not JIT_ON, reason="the compiler refuses it")
def test_no_kernel_stores_a_fixed_field():
    with pytest.raises((TypeError, NumbaError), match="constant is fixed"):
        store_constant(Record(Whole))

"""Sixty-four bytes at once: the keys of a small fully associative array, and the order in which its entries were used.

What is stored whole is loaded whole: a processor hands a store of one width over to a later load of another one only when
the store has reached the cache. With the JIT off they are NumPy arrays.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba.core import types

from vmxemu.jit import JIT_ON
from vmxemu.layout import u64 as U
from vmxemu.translation.lanes import compiled, lowest, memory_of

COUNT = 64
BYTE, WORD = ir.IntType(8), ir.IntType(64)
BYTES, BITS, LANE = ir.VectorType(BYTE, COUNT), ir.VectorType(ir.IntType(1), COUNT), ir.IntType(32)
NUMBERS = ir.Constant(BYTES, list(range(COUNT)))


def _splat(builder: Any, number: Any) -> Any:
    one = builder.insert_element(ir.Constant(BYTES, ir.Undefined), builder.trunc(number, BYTE), ir.Constant(LANE, 0))
    return builder.shuffle_vector(one, ir.Constant(BYTES, ir.Undefined), ir.Constant(ir.VectorType(LANE, COUNT), [0] * COUNT))


def _place(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, BYTES.as_pointer())


def _make_matching(builder: Any, address: Any, byte: Any) -> Any:
    equal = builder.icmp_unsigned("==", builder.load(_place(builder, address), align=COUNT), _splat(builder, byte))
    return builder.bitcast(equal, WORD)


def _make_replace(builder: Any, address: Any, number: Any, byte: Any) -> Any:
    place = _place(builder, address)
    there = builder.icmp_unsigned("==", NUMBERS, _splat(builder, number))
    builder.store(builder.select(there, _splat(builder, byte), builder.load(place, align=COUNT)), place, align=COUNT)
    return address


def _make_to_front(builder: Any, address: Any, byte: Any) -> Any:
    place, wanted = _place(builder, address), _splat(builder, byte)
    old = builder.load(place, align=COUNT)
    found = builder.bitcast(builder.icmp_unsigned("==", old, wanted), WORD)
    where = lowest(builder, found)
    moved = builder.shuffle_vector(old, wanted, ir.Constant(ir.VectorType(LANE, COUNT), [COUNT, *range(COUNT - 1)]))
    new = builder.select(builder.icmp_unsigned("<=", NUMBERS, _splat(builder, where)), moved, old)
    builder.store(new, place, align=COUNT)
    return address


def _plain_matching(address: int, byte: int) -> int:
    equal = memory_of(address, COUNT, np.uint8) == int(byte) & 0xFF
    return U(sum(1 << i for i in range(COUNT) if equal[i]))


def _plain_replace(address: int, number: int, byte: int) -> int:
    memory_of(address, COUNT, np.uint8)[int(number)] = int(byte) & 0xFF
    return address


def _plain_to_front(address: int, byte: int) -> int:
    order = memory_of(address, COUNT, np.uint8)
    (where,) = np.flatnonzero(order == int(byte))
    order[: where + 1] = np.roll(order[: where + 1], 1)
    return address


if TYPE_CHECKING:

    def matching_of_64(address: int, byte: int) -> int: ...
    def replace_byte(address: int, number: int, byte: int) -> int: ...
    def to_front(address: int, byte: int) -> int: ...
elif JIT_ON:
    matching_of_64 = compiled(2, types.uint64, _make_matching)  # which of the bytes at an address equal `byte`: bit n = byte n
    replace_byte = compiled(3, types.uint64, _make_replace)  # the byte with that number
    to_front = compiled(2, types.uint64, _make_to_front)  # a byte that is among them; those before it one back
else:
    matching_of_64, replace_byte, to_front = _plain_matching, _plain_replace, _plain_to_front

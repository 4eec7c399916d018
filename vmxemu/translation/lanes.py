"""Sixteen unsigned 64-bit numbers at once, for kernels that walk for many addresses in lockstep.

`Lanes` values know `& | ^ + - << >>` among themselves and with numbers. A mask is a `Lanes` of all ones or zero per
lane. LLVM makes of them what the processor has (gathers where there are any). With the JIT off they are NumPy arrays.
"""

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models, register_default
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic

from vmxemu.jit import JIT_ON
from vmxemu.layout import u64 as U

COUNT = 16
LANES = U(COUNT)
WORD = ir.IntType(64)
VECTOR = ir.VectorType(WORD, COUNT)
BITS = ir.VectorType(ir.IntType(1), COUNT)


class LanesType(types.Type):
    """Numba's name for them."""

    def __init__(self) -> None:
        super().__init__(name=f"Lanes({COUNT})")


LANES_TYPE = LanesType()


@register_default(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, VECTOR)


def _splat(builder: Any, number: Any) -> Any:
    one = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), COUNT), [0] * COUNT)
    return builder.shuffle_vector(one, ir.Constant(VECTOR, ir.Undefined), zeros)


def _widen(builder: Any, value: Any) -> Any:
    return value if value.type == VECTOR else _splat(builder, value)


def _mask(builder: Any, bits: Any) -> Any:
    return builder.sext(bits, VECTOR)


def _bits(builder: Any, mask: Any) -> Any:
    return builder.icmp_signed("<", mask, ir.Constant(VECTOR, [0] * COUNT))


OPERATIONS = {
    operator.and_: "and_",
    operator.or_: "or_",
    operator.xor: "xor",
    operator.add: "add",
    operator.sub: "sub",
    operator.lshift: "shl",
    operator.rshift: "lshr",
}


def _define(operation: Any, instruction: str) -> None:
    @infer_global(operation)
    class _Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) == 2 and LANES_TYPE in args and all(a in (LANES_TYPE, types.uint64) for a in args):
                return signature(LANES_TYPE, *args)
            return None

    def lower(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        return getattr(builder, instruction)(_widen(builder, args[0]), _widen(builder, args[1]))

    for left, right in ((LanesType, LanesType), (LanesType, types.Integer), (types.Integer, LanesType)):
        lower_builtin(operation, left, right)(lower)


for _operation, _instruction in OPERATIONS.items():
    _define(_operation, _instruction)


def compiled(count: int, result: Any, generate: Callable[..., Any]) -> Any:
    """An intrinsic of `count` arguments (Lanes or numbers as they come) from its result and what it generates."""

    def made(*arguments: Any) -> Any:
        return result(*arguments), lambda _context, builder, _sig, args: generate(builder, *args)

    if count == 1:
        return intrinsic(lambda _context, a: made(a))
    if count == 2:
        return intrinsic(lambda _context, a, b: made(a, b))
    if count == 3:
        return intrinsic(lambda _context, a, b, c: made(a, b, c))
    return intrinsic(lambda _context, a, b, c, d: made(a, b, c, d))


def _make_load(builder: Any, address: Any) -> Any:
    return builder.load(builder.inttoptr(address, VECTOR.as_pointer()), align=1)


def _make_store(builder: Any, address: Any, lanes: Any) -> Any:
    builder.store(lanes, builder.inttoptr(address, VECTOR.as_pointer()), align=1)
    return address


def _make_gather(builder: Any, base: Any, offsets: Any, mask: Any, otherwise: Any) -> Any:
    pointers = ir.VectorType(WORD.as_pointer(), COUNT)
    kind = ir.FunctionType(VECTOR, [pointers, ir.IntType(32), BITS, VECTOR])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.gather.v{COUNT}i64.v{COUNT}p0")
    addresses = builder.inttoptr(builder.add(_splat(builder, base), offsets), pointers)
    return builder.call(function, [addresses, ir.Constant(ir.IntType(32), 1), _bits(builder, mask), otherwise])


def _make_any(builder: Any, mask: Any) -> Any:
    return builder.zext(builder.bitcast(_bits(builder, mask), ir.IntType(COUNT)), WORD)


def _make_equal(builder: Any, a: Any, b: Any) -> Any:
    return _mask(builder, builder.icmp_unsigned("==", a, _widen(builder, b)))


def _make_below(builder: Any, a: Any, b: Any) -> Any:
    return _mask(builder, builder.icmp_unsigned("<", a, _widen(builder, b)))


def _make_choose(builder: Any, mask: Any, a: Any, b: Any) -> Any:
    return builder.select(_bits(builder, mask), a, b)


def _make_matching(builder: Any, address: Any, byte: Any) -> Any:
    bytes_16 = ir.VectorType(ir.IntType(8), 16)
    loaded = builder.load(builder.inttoptr(address, bytes_16.as_pointer()), align=1)
    one = builder.insert_element(
        ir.Constant(bytes_16, ir.Undefined), builder.trunc(byte, ir.IntType(8)), ir.Constant(ir.IntType(32), 0)
    )
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), 16), [0] * 16)
    wanted = builder.shuffle_vector(one, ir.Constant(bytes_16, ir.Undefined), zeros)
    equal = builder.icmp_unsigned("==", loaded, wanted)
    return builder.zext(builder.bitcast(equal, ir.IntType(16)), WORD)


def _make_least(builder: Any, address: Any, count: Any) -> Any:
    numbers = builder.load(builder.inttoptr(address, VECTOR.as_pointer()), align=8)
    counted = builder.icmp_unsigned("<", ir.Constant(VECTOR, list(range(COUNT))), _splat(builder, count))
    numbers = builder.select(counted, numbers, ir.Constant(VECTOR, [(1 << 64) - 1] * COUNT))
    reduce = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(WORD, [VECTOR]), f"llvm.vector.reduce.umin.v{COUNT}i64"
    )
    return builder.call(reduce, [numbers])


def _make_touch(builder: Any, address: Any, tag: Any, ways: Any) -> Any:
    lane, index = ir.IntType(32), ir.VectorType(ir.IntType(32), 16)
    place = builder.inttoptr(address, index.as_pointer())
    old = builder.load(place, align=4)
    zeros = ir.Constant(index, [0] * 16)

    def spread(number: Any) -> Any:
        one = builder.insert_element(
            ir.Constant(index, ir.Undefined), builder.trunc(number, lane), ir.Constant(ir.IntType(32), 0)
        )
        return builder.shuffle_vector(one, ir.Constant(index, ir.Undefined), zeros)

    wanted = spread(tag)
    bits = builder.zext(builder.bitcast(builder.icmp_unsigned("==", old, wanted), ir.IntType(16)), WORD)
    beyond = builder.shl(ir.Constant(WORD, 1), builder.sub(ways, ir.Constant(WORD, 1)))
    where = lowest(builder, builder.or_(bits, beyond))
    moved = builder.shuffle_vector(old, wanted, ir.Constant(index, [16, *range(15)]))
    numbers = ir.Constant(index, list(range(16)))
    builder.store(builder.select(builder.icmp_unsigned("<=", numbers, spread(where)), moved, old), place, align=4)
    return builder.zext(builder.icmp_unsigned("!=", bits, ir.Constant(WORD, 0)), WORD)


def lowest(builder: Any, number: Any) -> Any:
    kind = ir.FunctionType(WORD, [WORD, ir.IntType(1)])
    count = builder.module.declare_intrinsic("llvm.cttz", [WORD], kind)
    return builder.call(count, [number, ir.Constant(ir.IntType(1), 0)])


def _plain_gather(base: int, offsets: Any, mask: Any, otherwise: Any) -> Any:
    from vmxemu.jit import load64

    lanes = zip(offsets, mask, otherwise, strict=True)
    return np.array([load64(base + at) if wanted else other for at, wanted, other in lanes], np.uint64)


def memory_of(address: int, count: int, kind: Any) -> Any:
    return np.ctypeslib.as_array((np.ctypeslib.as_ctypes_type(kind) * count).from_address(int(address)))


def _plain_store(address: int, lanes: Any) -> int:
    memory_of(address, COUNT, np.uint64)[:] = lanes
    return address


def _as_mask(truth: Any) -> Any:
    return np.where(truth, np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(0))


def _plain_matching(address: int, byte: int) -> int:
    equal = memory_of(address, 16, np.uint8) == int(byte) & 0xFF
    return U(sum(1 << i for i in range(16) if equal[i]))


def _plain_least(address: int, count: int) -> int:
    return memory_of(address, COUNT, np.uint64)[: int(count)].min()  # type: ignore[no-any-return]


def _plain_touch(address: int, tag: int, ways: int) -> int:
    lines = memory_of(address, 16, np.uint32)
    found = [i for i in range(16) if lines[i] == int(tag) & 0xFFFFFFFF]
    end = min(found[0] if found else 15, int(ways) - 1)
    lines[1 : end + 1] = lines[:end].copy()
    lines[0] = int(tag) & 0xFFFFFFFF
    return U(bool(found))


def _plain_lowest(number: int) -> int:
    return U((int(number) & -int(number)).bit_length() - 1 if number else 64)


if TYPE_CHECKING:
    Lanes = Any

    def spread(number: int) -> Lanes: ...
    def load_lanes(address: int) -> Lanes: ...
    def store_lanes(address: int, lanes: Lanes) -> int: ...
    def gather(base: int, offsets: Lanes, mask: Lanes, otherwise: Lanes) -> Lanes: ...
    def lane_bits(mask: Lanes) -> int: ...
    def equal(a: Lanes, b: Any) -> Lanes: ...
    def below(a: Lanes, b: Any) -> Lanes: ...
    def choose(mask: Lanes, a: Lanes, b: Lanes) -> Lanes: ...
    def least(address: int, count: int) -> int: ...
    def touch_line(address: int, tag: int, ways: int) -> int: ...
    def matching_bytes(address: int, byte: int) -> int: ...
    def lowest_bit(number: int) -> int: ...
elif JIT_ON:
    spread = compiled(1, LANES_TYPE, _splat)
    load_lanes = compiled(1, LANES_TYPE, _make_load)
    store_lanes = compiled(2, types.uint64, _make_store)  # gives the address
    # the numbers at base + offsets in the lanes of the mask, `otherwise` in the others
    gather = compiled(4, LANES_TYPE, _make_gather)
    lane_bits = compiled(1, types.uint64, _make_any)  # a mask as a number: bit n = lane n
    equal = compiled(2, LANES_TYPE, _make_equal)
    below = compiled(2, LANES_TYPE, _make_below)
    choose = compiled(3, LANES_TYPE, _make_choose)
    # which of the 16 bytes at an address equal `byte`: bit n = byte n
    matching_bytes = compiled(2, types.uint64, _make_matching)
    least = compiled(2, types.uint64, _make_least)  # of the first `count` numbers at an address, 16 at most
    # bring a 32-bit number to the front of the 16 at an address, those before it (or before the place `ways`) one back: 1
    # if it was among them
    touch_line = compiled(3, types.uint64, _make_touch)
    lowest_bit = compiled(1, types.uint64, lowest)  # number of the lowest bit set; 64 for 0
else:
    spread = lambda number: np.full(COUNT, number, np.uint64)  # noqa: E731
    load_lanes = lambda address: memory_of(address, COUNT, np.uint64).copy()  # noqa: E731
    store_lanes = _plain_store
    gather = _plain_gather
    lane_bits = lambda mask: U(sum(1 << i for i in range(COUNT) if mask[i]))  # noqa: E731
    equal = lambda a, b: _as_mask(a == b)  # noqa: E731
    below = lambda a, b: _as_mask(a < b)  # noqa: E731
    choose = np.where
    least = _plain_least
    touch_line = _plain_touch
    matching_bytes = _plain_matching
    lowest_bit = _plain_lowest

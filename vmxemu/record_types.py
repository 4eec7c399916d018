"""Records (vmxemu.layout) as Numba types: `Pointer` is a record at an address, `Span` an array field. A field access is one
load."""

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.datamodel import models, register_default
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, infer_getattr, infer_global, signature
from numba.extending import NativeValue, lower_cast, lower_getattr_generic, lower_setattr_generic, typeof_impl, unbox

from vmxemu.layout import Layout, Record


class Pointer(types.Type):
    """A record at an address, as kernels see it."""

    def __init__(self, layout: type[Layout]) -> None:
        self.layout = layout
        super().__init__(name=f"Pointer({layout.__module__}.{layout.__qualname__})")


class Span(types.Type):
    """An array field of a record."""

    def __init__(self, of: Any, length: int) -> None:
        self.of, self.length = of, length
        super().__init__(name=f"Span({getattr(of, '__module__', '')}.{of.__qualname__},{length})")


@register_default(Pointer)
@register_default(Span)
class _AddressModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, ir.IntType(64))


@typeof_impl.register(Record)
def _typeof_record(value: Record, _context: Any) -> Pointer:
    return Pointer(value._layout)


@unbox(Pointer)
def _unbox_record(_type: Any, value: Any, c: Any) -> NativeValue:
    number = c.pyapi.object_getattr_string(value, "address")
    address = c.pyapi.long_as_ulonglong(number)
    c.pyapi.decref(number)
    return NativeValue(address)


def _is_layout(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Layout)


def _numba_scalar(kind: Any) -> Any:
    return types.int64 if np.dtype(kind).kind == "i" else types.uint64


@infer_getattr
class _PointerAttributes(AttributeTemplate):
    key = Pointer

    def generic_resolve(self, pointer: Pointer, name: str) -> Any:
        field = pointer.layout.FIELDS.get(name)
        if field is None:
            return None
        if field.kind == "scalar":
            return _numba_scalar(field.of)
        if field.kind in ("record", "pointer"):
            return Pointer(field.of)
        return Span(field.of, field.length)


def _offset(builder: Any, address: Any, offset: int) -> Any:
    return builder.add(address, ir.Constant(ir.IntType(64), offset)) if offset else address


def load_scalar(builder: Any, address: Any, kind: Any) -> Any:
    dtype = np.dtype(kind)
    value = builder.load(builder.inttoptr(address, ir.IntType(8 * dtype.itemsize).as_pointer()), align=1)
    if dtype.itemsize == 8:
        return value
    return (builder.sext if dtype.kind == "i" else builder.zext)(value, ir.IntType(64))


def store_scalar(builder: Any, address: Any, value: Any, kind: Any) -> None:
    width = ir.IntType(8 * np.dtype(kind).itemsize)
    if width.width < 64:
        value = builder.trunc(value, width)
    builder.store(value, builder.inttoptr(address, width.as_pointer()), align=1)


@lower_getattr_generic(Pointer)
def _pointer_getattr(context: Any, builder: Any, pointer: Pointer, value: Any, name: str) -> Any:
    field = pointer.layout.FIELDS[name]
    address = _offset(builder, value, field.offset)
    if field.kind == "scalar":
        return load_scalar(builder, address, field.of)
    if field.kind == "pointer":
        return load_scalar(builder, address, np.uint64)
    return address


@lower_setattr_generic(Pointer)
def _pointer_setattr(context: Any, builder: Any, sig: Any, args: Any, name: str) -> None:
    field = sig.args[0].layout.FIELDS[name]
    if field.kind != "scalar":
        raise TypeError(f"{name} is not a scalar field")
    value = context.cast(builder, args[1], sig.args[1], _numba_scalar(field.of))
    store_scalar(builder, _offset(builder, args[0], field.offset), value, field.of)


@infer_global(operator.getitem)
class _SpanGetItem(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if len(args) == 2 and isinstance(args[0], Span) and isinstance(args[1], types.Integer):
            result = Pointer(args[0].of) if _is_layout(args[0].of) else _numba_scalar(args[0].of)
            return signature(result, args[0], args[1])
        return None


@infer_global(operator.setitem)
class _SpanSetItem(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if len(args) == 3 and isinstance(args[0], Span) and isinstance(args[1], types.Integer) and not _is_layout(args[0].of):
            return signature(types.none, args[0], args[1], _numba_scalar(args[0].of))
        return None


def _element(context: Any, builder: Any, span: Span, base: Any, index: Any, index_type: Any) -> Any:
    size = span.of.SIZE if _is_layout(span.of) else np.dtype(span.of).itemsize
    wide = context.cast(builder, index, index_type, types.uint64)
    return builder.add(base, builder.mul(wide, ir.Constant(ir.IntType(64), size)))


@lower_builtin(operator.getitem, Span, types.Integer)
def _span_getitem(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    address = _element(context, builder, sig.args[0], args[0], args[1], sig.args[1])
    return address if _is_layout(sig.args[0].of) else load_scalar(builder, address, sig.args[0].of)


@lower_builtin(operator.setitem, Span, types.Integer, types.Any)
def _span_setitem(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    address = _element(context, builder, sig.args[0], args[0], args[1], sig.args[1])
    store_scalar(builder, address, args[2], sig.args[0].of)
    return context.get_dummy_value()


@infer_global(len)
class _SpanLen(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        return signature(types.uint64, *args) if len(args) == 1 and isinstance(args[0], Span) else None


@lower_builtin(len, Span)
def _span_len(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return ir.Constant(ir.IntType(64), sig.args[0].length)


@lower_cast(Pointer, Pointer)
def _same(context: Any, builder: Any, fromty: Any, toty: Any, value: Any) -> Any:
    return value

"""Records (vmxemu.layout) as Numba types: `Pointer` is a record at an address, `Span` an array field. A field access is one
load.

LLVM is told what it cannot see: that two different fields never share memory (type-based alias analysis), and that `fixed`
fields do not change while a kernel runs. So it may keep them in registers across stores to others. Raw accesses by host address
(vmxemu.jit) carry no such promise: they may reach any field, and must store to none that is fixed.
"""

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

    def __init__(self, layout: type[Layout], name: str) -> None:
        self.layout, self.field_name = layout, name
        self.of, self.length = layout.FIELDS[name].of, layout.FIELDS[name].length
        super().__init__(name=f"Span({layout.__module__}.{layout.__qualname__}.{name})")


WORD, BYTES = ir.IntType(64), ir.IntType(8).as_pointer()


@register_default(Pointer)
@register_default(Span)
class _AddressModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, BYTES)


@typeof_impl.register(Record)
def _typeof_record(value: Record, _context: Any) -> Pointer:
    return Pointer(value._layout)


@unbox(Pointer)
def _unbox_record(_type: Any, value: Any, c: Any) -> NativeValue:
    number = c.pyapi.object_getattr_string(value, "address")
    address = c.pyapi.long_as_ulonglong(number)
    c.pyapi.decref(number)
    return NativeValue(c.builder.inttoptr(address, BYTES))


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
        return Span(pointer.layout, name)


def _at(builder: Any, base: Any, offset: Any) -> Any:
    return builder.gep(base, [offset if isinstance(offset, ir.Value) else ir.Constant(WORD, offset)], source_etype=ir.IntType(8))


def load_scalar(builder: Any, place: Any, kind: Any) -> tuple[Any, Any]:
    """A number of that kind at a pointer, widened; and the load itself."""
    dtype = np.dtype(kind)
    load = builder.load(builder.bitcast(place, ir.IntType(8 * dtype.itemsize).as_pointer()), align=1)
    if dtype.itemsize == 8:
        return load, load
    return (builder.sext if dtype.kind == "i" else builder.zext)(load, WORD), load


def store_scalar(builder: Any, place: Any, value: Any, kind: Any) -> Any:
    """Store a number at a pointer, truncated to its kind; gives the store."""
    width = ir.IntType(8 * np.dtype(kind).itemsize)
    if width.width < 64:
        value = builder.trunc(value, width)
    return builder.store(value, builder.bitcast(place, width.as_pointer()), align=1)


def _tag(builder: Any, access: Any, layout: type[Layout], name: str) -> None:
    """Say which field a load or store is of."""
    module = builder.module
    zero = ir.Constant(WORD, 0)
    root = module.add_metadata(["fields of vmxemu's records"])
    kind = module.add_metadata([f"{layout.__module__}.{layout.__qualname__}.{name}", root, zero])
    access.set_metadata("tbaa", module.add_metadata([kind, kind, zero]))
    if layout.FIELDS[name].fixed and access.opname == "load":
        access.set_metadata("invariant.load", module.add_metadata([]))


def _load_field(builder: Any, place: Any, layout: type[Layout], name: str) -> Any:
    field = layout.FIELDS[name]
    value, load = load_scalar(builder, place, np.uint64 if field.kind == "pointer" else field.of)
    _tag(builder, load, layout, name)
    return builder.inttoptr(value, BYTES) if field.kind == "pointer" else value


def _store_field(builder: Any, place: Any, value: Any, layout: type[Layout], name: str) -> None:
    if layout.FIELDS[name].fixed:
        raise TypeError(f"{layout.__qualname__}.{name} is fixed: no kernel may store it")
    _tag(builder, store_scalar(builder, place, value, layout.FIELDS[name].of), layout, name)


@lower_getattr_generic(Pointer)
def _pointer_getattr(context: Any, builder: Any, pointer: Pointer, value: Any, name: str) -> Any:
    field = pointer.layout.FIELDS[name]
    place = _at(builder, value, field.offset)
    return _load_field(builder, place, pointer.layout, name) if field.kind in ("scalar", "pointer") else place


@lower_setattr_generic(Pointer)
def _pointer_setattr(context: Any, builder: Any, sig: Any, args: Any, name: str) -> None:
    layout = sig.args[0].layout
    field = layout.FIELDS[name]
    if field.kind != "scalar":
        raise TypeError(f"{name} is not a scalar field")
    value = context.cast(builder, args[1], sig.args[1], _numba_scalar(field.of))
    _store_field(builder, _at(builder, args[0], field.offset), value, layout, name)


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
    return _at(builder, base, builder.mul(wide, ir.Constant(WORD, size)))


@lower_builtin(operator.getitem, Span, types.Integer)
def _span_getitem(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    span = sig.args[0]
    place = _element(context, builder, span, args[0], args[1], sig.args[1])
    return place if _is_layout(span.of) else _load_field(builder, place, span.layout, span.field_name)


@lower_builtin(operator.setitem, Span, types.Integer, types.Any)
def _span_setitem(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    span = sig.args[0]
    place = _element(context, builder, span, args[0], args[1], sig.args[1])
    _store_field(builder, place, args[2], span.layout, span.field_name)
    return context.get_dummy_value()


@infer_global(len)
class _SpanLen(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        return signature(types.uint64, *args) if len(args) == 1 and isinstance(args[0], Span) else None


@lower_builtin(len, Span)
def _span_len(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return ir.Constant(WORD, sig.args[0].length)


@lower_cast(Pointer, Pointer)
def _same(context: Any, builder: Any, fromty: Any, toty: Any, value: Any) -> Any:
    return value

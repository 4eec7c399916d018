"""The seam between Python and Numba: the `kernel` decorator, records as kernel arguments, and raw memory access.

Rules that hold in every kernel:
  * an integer literal is an unsigned 64-bit number, as are all unsigned fields, so that no expression turns signed or floating;
  * nothing is raised: a kernel returns a status;
  * compiled code is cached on disk under a name that covers the module and everything that it imports, because Numba itself does not
    notice that a callee has changed.
With NUMBA_DISABLE_JIT=1 the same kernels run as plain Python on the same records.
"""

import ctypes
import functools
import hashlib
import os
import re
import types as python_types
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models, register_default
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, infer_getattr, infer_global, signature
from numba.extending import (
    NativeValue,
    intrinsic,
    lower_cast,
    lower_getattr_generic,
    lower_setattr_generic,
    typeof_impl,
    unbox,
)

from vmxemu import whole_program
from vmxemu.layout import Layout, Record

F = TypeVar("F", bound=Callable[..., Any])
L = TypeVar("L", bound=Layout)
JIT_ON = not numba.config.DISABLE_JIT


PACKAGE = Path(__file__).parent
IMPORT = re.compile(r"^\s*(?:from (vmxemu[\w.]*) import (.+)|import (vmxemu[\w.]*))", re.MULTILINE)


def _file_of(module: str) -> Path | None:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@functools.cache
def _imports(module: str) -> tuple[bytes, tuple[str, ...]]:
    """A module's source, and the modules of this package that it names in imports."""
    path = _file_of(module)
    source = path.read_bytes() if path else b""
    named: list[str] = []
    for package, names, plain in IMPORT.findall(source.decode()):
        named.append(package or plain)
        named += [f"{package}.{name.strip(' ()').split(' ')[0]}" for name in names.split(",") if package]
    return source, tuple(name for name in named if _file_of(name))


@functools.cache
def _tables_digest() -> bytes:
    from vmxemu.isa import data

    digest = hashlib.sha256(f"{numba.__version__} {np.__version__}".encode())
    for table in sorted(data.directory().rglob("*.*")):
        digest.update(table.read_bytes())
    return digest.digest()


@functools.cache
def _digest(module: str) -> str:
    """Name of a module's cache folder: covers its source, all that it imports from this package, and the tables of isa/."""
    seen, waiting = {module}, [module]
    while waiting:
        for name in _imports(waiting.pop())[1]:
            if name not in seen:
                seen.add(name)
                waiting.append(name)
    digest = hashlib.sha256(_tables_digest())
    for name in sorted(seen):
        digest.update(_imports(name)[0])
    return digest.hexdigest()[:20]


def _cache_root() -> Path:
    return Path(os.environ.get("VMXEMU_CACHE_DIR") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vmxemu")


CACHE_FOLDER = _cache_root()


def _can_cache() -> bool:
    try:
        CACHE_FOLDER.mkdir(parents=True, exist_ok=True)
        probe = CACHE_FOLDER / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True


CACHE = _can_cache()


def _use_cache_of(module: str) -> None:
    """Numba looks at its configuration when a function is decorated: point it to the module's own folder."""
    if CACHE:
        numba.config.CACHE_DIR = str(CACHE_FOLDER / _digest(module))


def unsigned_literals(function: F) -> F:
    """The same function with every non-negative integer literal as np.uint64."""
    code = function.__code__

    def convert(value: Any) -> Any:
        return np.uint64(value) if type(value) is int and value >= 0 else value

    code = code.replace(co_consts=tuple(convert(value) for value in code.co_consts))
    made = python_types.FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    made.__doc__, made.__module__, made.__qualname__ = function.__doc__, function.__module__, function.__qualname__
    return made  # type: ignore[return-value]


class Kernel:
    """A compiled kernel. Called from Python, integers become unsigned 64-bit numbers; kernels call it directly.

    `force_inline` is Numba's: True makes it part of each caller, False forbids that it inherits the wish from a caller.
    """

    def __init__(self, function: Callable[..., Any], force_inline: bool | None = None) -> None:
        self.function = unsigned_literals(function)
        _use_cache_of(function.__module__)
        options: dict[str, Any] = {} if force_inline is None else {"forceinline": force_inline}
        options |= {"error_model": "numpy", "boundscheck": False}
        self.compiled = numba.njit(cache=CACHE, **options)(self.function)
        self._in_program = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)(self.function)
        self.__doc__, self.__name__, self.__module__ = function.__doc__, function.__name__, function.__module__

    def __call__(self, *arguments: Any) -> Any:
        return self.compiled(*[np.uint64(a) if type(a) in (int, bool) else a for a in arguments])

    @property
    def _numba_type_(self) -> Any:
        return types.Dispatcher(self._in_program if whole_program.active() else self.compiled)


def kernel(function: F) -> F:
    """Compile `function` on first use; see the module's rules."""
    return Kernel(function)  # type: ignore[return-value]


class NativeCallback:
    """A C function made from a kernel, compiled when its address is first asked for."""

    def __init__(self, sig: Any, function: Callable[..., Any], symbol: str | None) -> None:
        self.sig, self.function, self.symbol = sig, unsigned_literals(function), symbol
        self._compiled: Any = None

    @property
    def address(self) -> int:
        """Entry point; compiles, or loads from the cache, on first use."""
        if self._compiled is None:
            _use_cache_of(self.function.__module__)
            with whole_program.whole_program():
                self._compiled = numba.cfunc(self.sig, cache=CACHE, error_model="numpy")(self.function)
                address = self._compiled.address
            if self.symbol:
                llvm.add_symbol(self.symbol, address)
        return int(self._compiled.address)


def native_callback(sig: Any, symbol: str | None = None) -> Callable[[F], NativeCallback]:
    """Make a C function of a kernel, for Unicorn to call, or (with `symbol`) for other kernels to call as an ExternalFunction.

    A large part of the machine that several callbacks need is compiled once under a symbol instead of into each of them.
    """
    return lambda function: NativeCallback(sig, function, symbol)


# ---- records as a Numba type -------------------------------------------------------------------------------------------------


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


def _load(builder: Any, address: Any, kind: Any) -> Any:
    dtype = np.dtype(kind)
    value = builder.load(builder.inttoptr(address, ir.IntType(8 * dtype.itemsize).as_pointer()), align=1)
    if dtype.itemsize == 8:
        return value
    return (builder.sext if dtype.kind == "i" else builder.zext)(value, ir.IntType(64))


def _store(builder: Any, address: Any, value: Any, kind: Any) -> None:
    width = ir.IntType(8 * np.dtype(kind).itemsize)
    if width.width < 64:
        value = builder.trunc(value, width)
    builder.store(value, builder.inttoptr(address, width.as_pointer()), align=1)


@lower_getattr_generic(Pointer)
def _pointer_getattr(context: Any, builder: Any, pointer: Pointer, value: Any, name: str) -> Any:
    field = pointer.layout.FIELDS[name]
    address = _offset(builder, value, field.offset)
    if field.kind == "scalar":
        return _load(builder, address, field.of)
    if field.kind == "pointer":
        return _load(builder, address, np.uint64)
    return address


@lower_setattr_generic(Pointer)
def _pointer_setattr(context: Any, builder: Any, sig: Any, args: Any, name: str) -> None:
    field = sig.args[0].layout.FIELDS[name]
    if field.kind != "scalar":
        raise TypeError(f"{name} is not a scalar field")
    value = context.cast(builder, args[1], sig.args[1], _numba_scalar(field.of))
    _store(builder, _offset(builder, args[0], field.offset), value, field.of)


def _operator(name: str) -> Any:
    import operator

    return getattr(operator, name)


@infer_global(_operator("getitem"))
class _SpanGetItem(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if len(args) == 2 and isinstance(args[0], Span) and isinstance(args[1], types.Integer):
            result = Pointer(args[0].of) if _is_layout(args[0].of) else _numba_scalar(args[0].of)
            return signature(result, args[0], args[1])
        return None


@infer_global(_operator("setitem"))
class _SpanSetItem(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if len(args) == 3 and isinstance(args[0], Span) and isinstance(args[1], types.Integer) and not _is_layout(args[0].of):
            return signature(types.none, args[0], args[1], _numba_scalar(args[0].of))
        return None


def _element(context: Any, builder: Any, span: Span, base: Any, index: Any, index_type: Any) -> Any:
    size = span.of.SIZE if _is_layout(span.of) else np.dtype(span.of).itemsize
    wide = context.cast(builder, index, index_type, types.uint64)
    return builder.add(base, builder.mul(wide, ir.Constant(ir.IntType(64), size)))


@lower_builtin(_operator("getitem"), Span, types.Integer)
def _span_getitem(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    address = _element(context, builder, sig.args[0], args[0], args[1], sig.args[1])
    return address if _is_layout(sig.args[0].of) else _load(builder, address, sig.args[0].of)


@lower_builtin(_operator("setitem"), Span, types.Integer, types.Any)
def _span_setitem(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    address = _element(context, builder, sig.args[0], args[0], args[1], sig.args[1])
    _store(builder, address, args[2], sig.args[0].of)
    return context.get_dummy_value()


@infer_global(len)
class _SpanLen(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        return signature(types.uint64, *args) if len(args) == 1 and isinstance(args[0], Span) else None


@lower_builtin(len, Span)
def _span_len(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return ir.Constant(ir.IntType(64), sig.args[0].length)


# ---- raw memory --------------------------------------------------------------------------------------------------------------


def _raw_load(dtype: Any) -> Callable[[int], int]:
    if not JIT_ON:
        kind = np.ctypeslib.as_ctypes_type(np.dtype(dtype))
        return lambda address: np.uint64(kind.from_address(int(address)).value)  # type: ignore[return-value]

    @intrinsic
    def load(_context: Any, address: Any) -> Any:
        return types.uint64(types.uint64), lambda context, builder, sig, args: _load(builder, args[0], dtype)

    return load  # type: ignore[no-any-return]


def _raw_store(dtype: Any) -> Callable[[int, int], None]:
    if not JIT_ON:
        from vmxemu.layout import store as python_store

        return lambda address, value: python_store(dtype, int(address), value)

    @intrinsic
    def store(_context: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            _store(builder, args[0], args[1], dtype)
            return context.get_dummy_value()

        return types.none(types.uint64, types.uint64), generate

    return store  # type: ignore[no-any-return]


load8, load16, load32, load64 = (_raw_load(kind) for kind in (np.uint8, np.uint16, np.uint32, np.uint64))
store8, store16, store32, store64 = (_raw_store(kind) for kind in (np.uint8, np.uint16, np.uint32, np.uint64))


def cast_to(layout: type[L]) -> Callable[[int], L]:
    """A function for kernels: address -> record of that layout at the address."""
    if not JIT_ON:
        return lambda address: Record(layout, int(address))  # type: ignore[return-value]
    pointer = Pointer(layout)

    @intrinsic
    def at(_context: Any, address: Any) -> Any:
        return pointer(types.uint64), lambda context, builder, sig, args: args[0]

    return at  # type: ignore[no-any-return]


def _address_of() -> Callable[[Any], int]:
    if not JIT_ON:
        return lambda record: np.uint64(record.address)  # type: ignore[return-value]

    @intrinsic
    def address(_context: Any, record: Any) -> Any:
        return types.uint64(record), lambda context, builder, sig, args: args[0]

    return address  # type: ignore[no-any-return]


address_of = _address_of()


@lower_cast(Pointer, Pointer)
def _same(context: Any, builder: Any, fromty: Any, toty: Any, value: Any) -> Any:
    return value


if TYPE_CHECKING:

    def copy_bytes(target: int, source: int, size: int) -> None: ...
elif JIT_ON:

    @intrinsic
    def copy_bytes(_context, target, source, size):
        """memmove(target, source, size) on host addresses."""

        def generate(context, builder, sig, args):
            byte = ir.IntType(8).as_pointer()
            cgutils.raw_memmove(builder, builder.inttoptr(args[0], byte), builder.inttoptr(args[1], byte), args[2], itemsize=1, align=1)
            return context.get_dummy_value()

        return types.none(types.uint64, types.uint64, types.uint64), generate
else:

    def copy_bytes(target, source, size):
        ctypes.memmove(int(target), int(source), int(size))

"""The seam between Python and Numba: the `kernel` decorator, records as kernel arguments, and raw memory access.

Rules that hold in every kernel:
  * an integer literal is an unsigned 64-bit number, as are all unsigned fields, so that no expression turns signed or floating;
  * nothing is raised: a kernel returns a status;
  * compiled code is cached on disk, see compile_cache; a call graph is compiled as one program, see whole_program.
With NUMBA_DISABLE_JIT=1 the same kernels run as plain Python on the same records.
"""

import ctypes
import types as python_types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import llvmlite.binding as llvm
import numba
import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic

from vmxemu import whole_program
from vmxemu.compile_cache import CACHE, CACHE_FOLDER, use_cache_of
from vmxemu.layout import Layout, Record
from vmxemu.record_types import BYTES, WORD, Pointer, Span, load_scalar, store_scalar

F = TypeVar("F", bound=Callable[..., Any])
L = TypeVar("L", bound=Layout)
JIT_ON = not numba.config.DISABLE_JIT
__all__ = [
    "CACHE", "CACHE_FOLDER", "JIT_ON", "Kernel", "NativeCallback", "Pointer", "Span", "kernel", "native_callback",
    "parallel_kernel",
]  # fmt: skip


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
    `parallel`: its loops over `numba.prange` run on several cores.
    """

    def __init__(self, function: Callable[..., Any], force_inline: bool | None = None, parallel: bool = False) -> None:
        self.function = unsigned_literals(function)
        use_cache_of(function.__module__)
        if force_inline is False:
            whole_program.keep_apart(function)
        options: dict[str, Any] = {} if force_inline is None else {"forceinline": force_inline}
        options |= {"parallel": True} if parallel else {}
        options |= {"error_model": "numpy", "boundscheck": False}
        self.compiled = numba.njit(cache=CACHE, **options)(self.function)
        self._in_program = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)(self.function)
        self.__doc__, self.__name__, self.__module__ = function.__doc__, function.__name__, function.__module__

    def __call__(self, *arguments: Any) -> Any:
        values = [np.uint64(a) if type(a) in (int, bool) else a for a in arguments]
        if JIT_ON and not self.compiled.overloads:
            with whole_program.whole_program():
                return self.compiled(*values)
        return self.compiled(*values)

    @property
    def _numba_type_(self) -> Any:
        return types.Dispatcher(self._in_program if whole_program.active() else self.compiled)


def kernel(function: F) -> F:
    """Compile `function` on first use; see the module's rules."""
    return Kernel(function)  # type: ignore[return-value]


def parallel_kernel(function: F) -> F:
    """A kernel for calls from Python whose `numba.prange` loops run on as many cores as numba.set_num_threads says."""
    return Kernel(function, parallel=True)  # type: ignore[return-value]


class NativeCallback:
    """A C function made from a kernel, compiled when its address is first asked for."""

    def __init__(self, sig: Any, function: Callable[..., Any], symbol: str | None) -> None:
        self.sig, self.function, self.symbol = sig, unsigned_literals(function), symbol
        self._compiled: Any = None

    @property
    def address(self) -> int:
        """Entry point; compiles, or loads from the cache, on first use."""
        if self._compiled is None:
            use_cache_of(self.function.__module__)
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


# ---- raw memory --------------------------------------------------------------------------------------------------------------


def _raw_load(dtype: Any) -> Callable[[int], int]:
    if not JIT_ON:
        kind = np.ctypeslib.as_ctypes_type(np.dtype(dtype))
        return lambda address: np.uint64(kind.from_address(int(address)).value)  # type: ignore[return-value]

    @intrinsic
    def load(_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return load_scalar(builder, builder.inttoptr(args[0], BYTES), dtype)[0]

        return types.uint64(types.uint64), generate

    return load  # type: ignore[no-any-return]


def _raw_store(dtype: Any) -> Callable[[int, int], None]:
    if not JIT_ON:
        from vmxemu.layout import store as python_store

        return lambda address, value: python_store(dtype, int(address), value)

    @intrinsic
    def store(_context: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            store_scalar(builder, builder.inttoptr(args[0], BYTES), args[1], dtype)
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
        return pointer(types.uint64), lambda context, builder, sig, args: builder.inttoptr(args[0], BYTES)

    return at  # type: ignore[no-any-return]


def _address_of() -> Callable[[Any], int]:
    if not JIT_ON:
        return lambda record: np.uint64(record.address)  # type: ignore[return-value]

    @intrinsic
    def address(_context: Any, record: Any) -> Any:
        return types.uint64(record), lambda context, builder, sig, args: builder.ptrtoint(args[0], WORD)

    return address  # type: ignore[no-any-return]


address_of = _address_of()


if TYPE_CHECKING:

    def copy_bytes(target: int, source: int, size: int) -> None: ...
elif JIT_ON:

    @intrinsic
    def copy_bytes(_context, target, source, size):
        """memmove(target, source, size) on host addresses."""

        def generate(context, builder, sig, args):
            target, source = (builder.inttoptr(address, BYTES) for address in args[:2])
            cgutils.raw_memmove(builder, target, source, args[2], itemsize=1, align=1)
            return context.get_dummy_value()

        return types.none(types.uint64, types.uint64, types.uint64), generate
else:

    def copy_bytes(target, source, size):
        ctypes.memmove(int(target), int(source), int(size))

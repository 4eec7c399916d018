"""Two kinds of kernels for the hot path: a walk is one straight piece of code, and what is rare stays outside of it.

Numba hands the wish to inline down to callees that do not say otherwise; hence what an inlined kernel calls says it.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

from vmxemu.jit import CACHE, Kernel

F = TypeVar("F", bound=Callable[..., Any])


def _made(function: F, force: bool) -> F:
    made = Kernel(function)
    made.compiled = numba.njit(cache=CACHE, error_model="numpy", boundscheck=False, forceinline=force)(made.function)
    return made  # type: ignore[return-value]


def inlined(function: F) -> F:
    """A kernel that becomes part of each of its callers."""
    return _made(function, True)


def apart(function: F) -> F:
    """A kernel that is called."""
    return _made(function, False)

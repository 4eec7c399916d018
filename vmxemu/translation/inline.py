"""Two kinds of kernels for the hot path: a walk is one straight piece of code, and what is rare stays outside of it.

Numba hands the wish to inline down to callees that do not say otherwise; hence what an inlined kernel calls says it.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from vmxemu.jit import Kernel

F = TypeVar("F", bound=Callable[..., Any])


def inlined(function: F) -> F:
    """A kernel that becomes part of each of its callers."""
    return Kernel(function, force_inline=True)  # type: ignore[return-value]


def apart(function: F) -> F:
    """A kernel that is called, never inlined."""
    return Kernel(function, force_inline=False)  # type: ignore[return-value]

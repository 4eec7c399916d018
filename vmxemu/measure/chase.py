"""Translations that cannot overlap: what comes out of one is needed for the address of the next."""

from typing import TYPE_CHECKING, Any

import numba

from vmxemu.jit import kernel, parallel_kernel
from vmxemu.layout import u64 as U
from vmxemu.translation.streams import state_at
from vmxemu.translation.translate import translate

if TYPE_CHECKING:
    from vmxemu.state import State

OFFSET = U(0xFFF)


@kernel
def chase(m: "State", glas: Any, access: int, hpas_out: Any, status_out: Any) -> None:
    """`translate_many` of a chain of addresses.

    Translation keeps an address's offset: the exclusive-or of the offsets before and after is 0, which no processor
    knows before it has the result.
    """
    unknown_zero = U(0)
    for i in range(len(glas)):
        gla = glas[i] ^ unknown_zero
        status_out[i] = translate(m, gla, access)
        hpas_out[i] = m.walk.hpa
        unknown_zero = (m.walk.hpa ^ gla) & OFFSET


@parallel_kernel
def chase_streams(states: Any, glas: Any, access: int, hpas_out: Any, status_out: Any) -> None:
    """`chase` of each row, as translation.streams does it."""
    for stream in numba.prange(len(states)):
        chase(state_at(states[stream]), glas[stream], access, hpas_out[stream], status_out[stream])

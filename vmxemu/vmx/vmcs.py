"""The VMCS: one slot of eight bytes per field in a 4-KiB region of emulated memory, and access to it by encoding.

The region's format is ours to choose (SDM Vol. 3C, 'Format of the VMCS Region'): revision identifier and abort
indicator where the
SDM puts them, the launch state, then the fields in the order of isa/vmcs_fields.csv from byte 64 on. Kernels read
`v.guest_rip`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from vmxemu.isa import fields
from vmxemu.jit import address_of, cast_to, kernel, load64, store64
from vmxemu.layout import Array, Layout, array, u8, u32, u64
from vmxemu.layout import u64 as U

NO_SLOT = U(0xFFFF)
NO_VMCS = U(0xFFFF_FFFF_FFFF_FFFF)  # the invalid current-VMCS pointer, and "no link pointer"
CLEAR, LAUNCHED = U(0), U(1)  # launch_state
SHADOW_INDICATOR = U(1 << 31)  # bit 31 of the revision word
FIRST_SLOT_BYTE = 64
FIRST_SLOT = U(FIRST_SLOT_BYTE)


def _namespace() -> dict[str, Any]:
    annotations: dict[str, Any] = {"revision": u32, "abort_indicator": u32, "launch_state": u64, "_head": Array[u8]}
    annotations |= {row.name.lower(): u64 for row in fields.ROWS}
    return {
        "__module__": __name__,
        "__qualname__": "Vmcs",
        "__doc__": "A VMCS region; one attribute per field, the field's name in lower case.",
        "__annotations__": annotations,
        "_head": array(FIRST_SLOT_BYTE - 16),
    }


if TYPE_CHECKING:

    class Vmcs(Layout):
        """A VMCS region; one attribute per field, the field's name in lower case."""

        def __getattr__(self, name: str) -> int: ...
        def __setattr__(self, name: str, value: int) -> None: ...
else:
    Vmcs = type("Vmcs", (Layout,), _namespace())

vmcs_at: Callable[[int], Vmcs] = cast_to(Vmcs)


def _compressed(encoding: int) -> int:
    """Ten bits: width (14:13), type (11:10), index (6:1)."""
    return (encoding >> 13 & 3) << 8 | (encoding >> 10 & 3) << 6 | encoding >> 1 & 0x3F


def _slot_table() -> Any:
    table = np.full(1024, NO_SLOT, np.uint64)
    for slot, row in enumerate(fields.ROWS):
        table[_compressed(row.encoding)] = slot
    return table


SLOT_OF: "Array[int]" = _slot_table()
VALUE_MASK: Any = np.array([0xFFFF, NO_VMCS, 0xFFFF_FFFF, NO_VMCS], np.uint64)  # by width code
_ENCODING_BITS = U(0x6C7F)  # all that a field of ours may have set; bit 0 is legal for 64-bit fields only
WIDTH_64 = U(fields.WIDTH_CODES["64"])
READ_ONLY_TYPE = U(fields.TYPE_CODES["read-only"])


def offset_of(name: str) -> int:
    """Byte offset of a field in the region."""
    return U(Vmcs.FIELDS[name].offset)


# The eight segment registers' fields follow each other in the order ES CS SS DS FS GS LDTR TR (and GDTR IDTR): one
# loop serves all.
GUEST_SELECTORS, GUEST_LIMITS = offset_of("guest_es_selector"), offset_of("guest_es_limit")
GUEST_RIGHTS, GUEST_BASES = offset_of("guest_es_ar_bytes"), offset_of("guest_es_base")
HOST_SELECTORS = offset_of("host_es_selector")
CR3_TARGETS = offset_of("cr3_target_value0")


@kernel
def slot_of(encoding: int) -> int:
    """The slot of the field with this encoding, NO_SLOT if there is none."""
    if encoding & ~_ENCODING_BITS != 0:
        return NO_SLOT
    width = encoding >> 13 & 3
    if encoding & 1 != 0 and width != WIDTH_64:
        return NO_SLOT
    return SLOT_OF[width << 8 | (encoding >> 10 & 3) << 6 | (encoding >> 1 & 0x3F)]


@kernel
def is_read_only(encoding: int) -> bool:
    """Whether the field belongs to the read-only data fields."""
    return (encoding >> 10 & 3) == READ_ONLY_TYPE


@kernel
def vmread_field(host: int, encoding: int) -> int:
    """The field's value, from the region at host address `host`; the encoding must have a slot."""
    value = load64(host + FIRST_SLOT + (slot_of(encoding) << 3))
    return value >> 32 if encoding & 1 != 0 else value


@kernel
def vmwrite_field(host: int, encoding: int, value: int) -> None:
    """Set the field, truncating `value` to its width; the encoding must have a slot."""
    at = host + FIRST_SLOT + (slot_of(encoding) << 3)
    if encoding & 1 != 0:
        store64(at, (load64(at) & 0xFFFF_FFFF) | value << 32)
    else:
        store64(at, value & VALUE_MASK[encoding >> 13 & 3])


@kernel
def slot_value(v: Vmcs, first: int, number: int) -> int:
    """The value `number` slots behind the one at byte `first`: GUEST_LIMITS and so on, indexed by segment register."""
    return load64(address_of(v) + first + (number << 3))


@kernel
def set_slot(v: Vmcs, first: int, number: int, value: int) -> None:
    """Set what slot_value reads."""
    store64(address_of(v) + first + (number << 3), value)

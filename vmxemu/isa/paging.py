"""Layout of paging-structure entries and of the words that say why a translation failed. SDM Vol. 3A, 'Paging'; Vol.
3C, 'VMX Support for Address Translation'.

The structures: those of the guest (PML5E to PTE; PDPTE_1G, PDE_2M, PDE_4M map large pages; PAE_ and _32 are the
formats of those modes), EPT_PML5E to EPT_PTE, SPP_TABLE and SPP_VECTOR; PAGE_FAULT is the error code of #PF,
EPT_VIOLATION and SPP_EVENT are exit qualifications; EPTP.
"""

from dataclasses import dataclass
from itertools import groupby

from vmxemu.isa import data, memory_types


@dataclass(frozen=True, slots=True)
class EntryField:
    """Bits high:low of a structure. `kind`: flag (one bit), field, address, ignored or reserved; `when_clear`: what a
    0 says, where that is worth a word.
    """

    structure: str
    low: int
    high: int
    name: str
    kind: str
    meaning: str
    when_clear: str
    sdm: str

    @property
    def mask(self) -> int:
        return (1 << self.high + 1) - (1 << self.low)

    def of(self, value: int) -> int:
        """What `value` holds in this field."""
        return (value & self.mask) >> self.low


FIELDS: tuple[EntryField, ...] = tuple(
    EntryField(
        row["structure"],
        data.number(row["low_bit"]),
        data.number(row["high_bit"]),
        row["name"],
        row["kind"],
        row["meaning"],
        row["when_clear"],
        row["sdm"],
    )
    for row in data.table("paging_entries")
)
STRUCTURES: dict[str, tuple[EntryField, ...]] = {
    name: tuple(fields) for name, fields in groupby(FIELDS, key=lambda field: field.structure)
}


def memory_type(number: int) -> str:
    """The name of a memory type; reserved encodings have none."""
    return memory_types.NAMES.get(number, f"reserved type {number}")


def decode(structure: str, value: int) -> dict[str, int]:
    """The flags, fields and addresses of an entry, by name; addresses in place (not shifted down)."""
    return {
        field.name: value & field.mask if field.kind == "address" else field.of(value)
        for field in STRUCTURES[structure]
        if field.kind in ("flag", "field", "address")
    }


def reserved_bits_set(structure: str, value: int, physical_bits: int = 52) -> list[int]:
    """Numbers of the bits that the structure reserves, address bits from `physical_bits` up included, and that are 1."""
    reserved = 0
    for field in STRUCTURES[structure]:
        if field.kind == "reserved":
            reserved |= field.mask
        elif field.kind == "address" and field.name == "ADDRESS":
            reserved |= field.mask >> physical_bits << physical_bits
    return [bit for bit in range(64) if value & reserved >> bit << bit & 1 << bit]


def bits_of(structure: str, name: str) -> int:
    """Mask of a field. Raises KeyError if the structure has none of that name."""
    for field in STRUCTURES[structure]:
        if field.name == name:
            return field.mask
    raise KeyError(f"isa/paging_entries.csv: {structure} has no {name}")

"""Bits of control, flag and debug registers: `bits.CR4_PAE` is its mask. SDM Vol. 3A, 'System Architecture'."""

from dataclasses import dataclass

from vmxemu.isa import data


@dataclass(frozen=True, slots=True)
class RegisterBit:
    """One bit; reserved where the CPUID feature `exists_if` (empty: always there) is absent."""

    register: str
    bit: int
    name: str
    exists_if: str
    sdm: str

    @property
    def mask(self) -> int:
        return 1 << self.bit


ROWS: tuple[RegisterBit, ...] = tuple(
    RegisterBit(
        row["register"],
        data.number(row["bit"]),
        row["name"],
        "" if row["exists_if"] == "1" else row["exists_if"],
        row["sdm"],
    )
    for row in data.table("register_bits")
)

globals().update(data.constants({row.name: row.mask for row in ROWS}))


def supported(register: str, features: frozenset[str]) -> int:
    """Mask of the bits of `register` that exist on a processor with these CPUID features."""
    present = (row for row in ROWS if not row.exists_if or row.exists_if in features)
    return sum(row.mask for row in present if row.register == register)


def __getattr__(name: str) -> int:
    raise AttributeError(f"isa/register_bits.csv has no bit {name}")

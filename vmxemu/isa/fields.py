"""VMCS fields: `fields.GUEST_RIP` is its encoding. SDM Vol. 3D, App. B."""

from dataclasses import dataclass

from vmxemu.isa import data

WIDTH_CODES = {"16": 0, "64": 1, "32": 2, "natural": 3}
TYPE_CODES = {"control": 0, "read-only": 1, "guest": 2, "host": 3}


@dataclass(frozen=True, slots=True)
class VmcsField:
    """One field. `exists_if` names the controls (any of) that the processor must support, or is empty for always."""

    encoding: int
    name: str
    width: str
    type: str
    exists_if: tuple[str, ...]
    sdm: str

    @property
    def bits(self) -> int:
        """Bits that VMREAD returns in 64-bit mode."""
        return 64 if self.width == "natural" else int(self.width)


def _row(row: dict[str, str]) -> VmcsField:
    condition = row["exists_if"]
    controls = () if condition in ("", "1") else tuple(condition.split("|"))
    return VmcsField(data.number(row["encoding"]), row["name"], row["width"], row["type"], controls, row["sdm"])


ROWS: tuple[VmcsField, ...] = tuple(_row(row) for row in data.table("vmcs_fields"))
BY_ENCODING: dict[int, VmcsField] = {field.encoding: field for field in ROWS}
BY_NAME: dict[str, VmcsField] = {field.name: field for field in ROWS}

globals().update(data.constants({field.name: field.encoding for field in ROWS}))


def highest_index(supported: frozenset[str]) -> int:
    """Highest index (bits 9:1) of a field that exists with these controls, as IA32_VMX_VMCS_ENUM reports it."""
    present = (field for field in ROWS if not field.exists_if or supported.intersection(field.exists_if))
    return max(field.encoding >> 1 & 0x1FF for field in present)


def __getattr__(name: str) -> int:
    raise AttributeError(f"isa/vmcs_fields.csv has no field {name}")

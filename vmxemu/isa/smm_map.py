"""The SMM state-save map: `smm_map.RIP` is its offset from SMBASE + 8000H. SDM Vol. 3C, 'SMRAM State Save Map'.

The table writes offsets as the SDM does (7FD8H); they count from SMBASE + 8000H, so RIP lies at SMBASE + FFD8H.
"""

from dataclasses import dataclass

from vmxemu.isa import data

AREA_OFFSET = 0x8000  # from SMBASE
FIRST_OFFSET = 0x7C00


@dataclass(frozen=True, slots=True)
class SavedField:
    """One saved item. RSM takes a value back that the handler changed only where `writable`."""

    offset: int
    name: str
    bytes: int
    writable: bool
    sdm: str


ROWS: tuple[SavedField, ...] = tuple(
    SavedField(
        data.number(row["offset"]), row["name"], data.number(row["bytes"]), row["writable"] == "yes", row["sdm"]
    )
    for row in data.table("smm_save_map")
)
BY_NAME: dict[str, SavedField] = {field.name: field for field in ROWS}

globals().update(data.constants({field.name: field.offset for field in ROWS}))


def __getattr__(name: str) -> int:
    raise AttributeError(f"isa/smm_save_map.csv has no field {name}")

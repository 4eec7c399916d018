"""Machine-check architecture: error codes and register fields. SDM Vol. 3B, 'Machine-Check Architecture'.

`mca.MEMORY_CONTROLLER` is the value of a code pattern and `mca.MEMORY_CONTROLLER_MASK` its mask; `mca.STATUS_UC` is
the mask of a field in IA32_MCi_STATUS and `mca.STATUS_UC_SHIFT` its lowest bit. Fields of the other registers start
with `MCG_STATUS_`, `MCG_CAP_`, `CTL2_` and `MISC_`.
"""

from dataclasses import dataclass

from vmxemu.isa import data

PREFIXES = {
    "IA32_MCi_STATUS": "STATUS_",
    "IA32_MCG_STATUS": "MCG_STATUS_",
    "IA32_MCG_CAP": "MCG_CAP_",
    "IA32_MC_CTL2": "CTL2_",
    "IA32_MC_MISC": "MISC_",
}


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """A pattern of IA32_MCi_STATUS[15:0]: a code matches if (code & mask) == value."""

    name: str
    mask: int
    value: int
    meaning: str
    sdm: str


@dataclass(frozen=True, slots=True)
class RegisterField:
    """One field of a machine-check register."""

    name: str
    low_bit: int
    high_bit: int
    register: str
    meaning: str
    sdm: str

    @property
    def mask(self) -> int:
        return (1 << (self.high_bit + 1)) - (1 << self.low_bit)


def _field(row: dict[str, str]) -> RegisterField:
    register = row.get("register", "IA32_MCi_STATUS")
    low, high = data.number(row["low_bit"]), data.number(row["high_bit"])
    return RegisterField(PREFIXES[register] + row["name"], low, high, register, row["meaning"], row["sdm"])


CODES: tuple[ErrorCode, ...] = tuple(
    ErrorCode(row["name"], data.number(row["mask"]), data.number(row["value"]), row["meaning"], row["sdm"])
    for row in data.table("mca_codes")
)
FIELDS: tuple[RegisterField, ...] = tuple(_field(row) for row in data.table("mci_status") + data.table("mca_registers"))

globals().update(data.constants({code.name: code.value for code in CODES}))
globals().update(data.constants({f"{code.name}_MASK": code.mask for code in CODES}))
globals().update(data.constants({field.name: field.mask for field in FIELDS}))
globals().update(data.constants({f"{field.name}_SHIFT": field.low_bit for field in FIELDS}))


def name(code: int) -> str:
    """The name of the narrowest pattern that `code` matches, or UNKNOWN."""
    matches = [row for row in CODES if code & row.mask == row.value]
    return max(matches, key=lambda row: row.mask.bit_count()).name if matches else "UNKNOWN"


def __getattr__(name: str) -> int:
    raise AttributeError(f"isa/mca_codes.csv, mci_status.csv and mca_registers.csv have no {name}")

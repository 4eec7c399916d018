"""VM-instruction error numbers: `errors.ENTRY_INVALID_CONTROL_FIELDS`. SDM Vol. 3C, 'VM Instruction Error Numbers'."""

from dataclasses import dataclass

from vmxemu.isa import data


@dataclass(frozen=True, slots=True)
class InstructionError:
    """One number that VMfailValid stores in the VM-instruction error field."""

    number: int
    name: str
    text: str
    sdm: str


ROWS: tuple[InstructionError, ...] = tuple(
    InstructionError(data.number(row["number"]), row["name"], row["text"], row["sdm"])
    for row in data.table("vm_instruction_errors")
)
TEXTS: dict[int, str] = {row.number: row.text for row in ROWS}

globals().update(data.constants({row.name: row.number for row in ROWS}))


def __getattr__(name: str) -> int:
    raise AttributeError(f"isa/vm_instruction_errors.csv has no error {name}")

"""Execution, exit, entry and VM-function controls: `controls.CPU_HLT` is its mask in its word. SDM Vol. 3C, 'VMCS'."""

from dataclasses import dataclass

from vmxemu.isa import data


@dataclass(frozen=True, slots=True)
class Control:
    """One bit of one control word. `reserved` bits belong to the default1 class and have no meaning of their own."""

    word: str
    bit: int
    name: str
    default1: bool
    sdm: str

    @property
    def mask(self) -> int:
        return 1 << self.bit

    @property
    def reserved(self) -> bool:
        return "_DEFAULT1_" in self.name


ROWS: tuple[Control, ...] = tuple(
    Control(row["word"], data.number(row["bit"]), row["name"], row["default1"] == "1", row["sdm"])
    for row in data.table("controls")
)
BY_NAME: dict[str, Control] = {control.name: control for control in ROWS}
WORDS: tuple[str, ...] = tuple(dict.fromkeys(control.word for control in ROWS))

globals().update(data.constants({control.name: control.mask for control in ROWS}))


def names(word: str, value: int) -> list[str]:
    """The controls that are 1 in `value` of `word` ('pin', 'primary', ...); the reserved ones left out."""
    return [row.name for row in ROWS if row.word == word and value & row.mask and not row.reserved]


def __getattr__(name: str) -> int:
    raise AttributeError(f"isa/controls.csv has no control {name}")

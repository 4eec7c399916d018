"""Basic exit reasons: `exits.EPT_VIOLATION`. SDM Vol. 3D, App. C."""

from dataclasses import dataclass

from vmxemu.isa import data


@dataclass(frozen=True, slots=True)
class ExitReason:
    """One basic exit reason. `kind`: fault (RIP at the instruction), trap (after it), event, or entry_failure."""

    number: int
    name: str
    kind: str
    sdm: str


ROWS: tuple[ExitReason, ...] = tuple(
    ExitReason(data.number(row["number"]), row["name"], row["kind"], row["sdm"]) for row in data.table("exit_reasons")
)
NAMES: dict[int, str] = {row.number: row.name for row in ROWS}

globals().update(data.constants({row.name: row.number for row in ROWS}))


def __getattr__(name: str) -> int:
    raise AttributeError(f"isa/exit_reasons.csv has no exit reason {name}")

"""What `vmxemu bench` measures: benchmarks/rates.toml."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from vmxemu.configuration.errors import InputError

PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Rate:
    """One figure to measure. Of guests: operations of the phase a second. Of translation: see vmxemu.measure.goals.

    `blob` is empty where no guest runs. The target is met by figures that are no smaller, or with `at_most` no larger.
    """

    bench: str
    name: str
    phase: str
    unit: str
    blob: str = ""
    target: float | None = None
    at_most: bool = False

    def share(self, value: float) -> float | None:
        """How much of the target is reached: 1 or more if it is met; None without a target."""
        if not self.target or not value:
            return None
        return self.target / value if self.at_most else value / self.target


def path() -> Path:
    """The table: inside an installed package, else in the source tree."""
    installed = PACKAGE / "_data" / "benchmarks" / "rates.toml"
    return installed if installed.is_file() else PACKAGE.parent / "benchmarks" / "rates.toml"


def rates(bench: str) -> list[Rate]:
    """The rates of one benchmark. Raises InputError if the table is malformed."""
    try:
        table = tomllib.loads(path().read_text(encoding="utf-8"))
        rows = [Rate(**row) for row in table["rate"]]
    except (OSError, ValueError, TypeError, KeyError) as problem:
        raise InputError(str(path()), f"cannot be read: {problem}") from None
    return [row for row in rows if row.bench == bench]

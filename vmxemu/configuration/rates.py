"""What `vmxemu bench` measures: benchmarks/rates.toml."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from vmxemu.configuration.errors import InputError

PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Rate:
    """One rate to measure: operations of the phase a second. `blob` is empty where no guest runs."""

    bench: str
    name: str
    phase: str
    unit: str
    blob: str = ""
    target: float | None = None


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

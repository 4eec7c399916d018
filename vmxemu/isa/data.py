"""Where the tables are, and how one is read."""

import csv
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = Path(__file__).resolve().parent.parent


@cache
def directory() -> Path:
    """The directory of the tables: inside an installed package, else at the root of the source tree."""
    installed = PACKAGE / "_data" / "isa"
    return installed if installed.is_dir() else PACKAGE.parent / "isa"


def table(name: str) -> list[dict[str, str]]:
    """The rows of isa/<name>.csv, each a dict of column name to text. Raises FileNotFoundError if there is none."""
    with (directory() / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def number(text: str) -> int:
    """The integer that a cell holds, in decimal or with 0x."""
    return int(text, 0)


def constants(values: dict[str, int]) -> dict[str, Any]:
    """The values as uint64 scalars: Numba makes a plain int signed, and int64 mixed with uint64 becomes a float."""
    return {name: np.uint64(value) for name, value in values.items()}

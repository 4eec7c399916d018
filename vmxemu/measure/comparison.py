"""Comparison with an earlier run: what `vmxemu bench ept --json` printed then."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmxemu.configuration.errors import InputError

FORMAT = "vmxemu bench ept 1"
# What makes two rows the same case; how it was sampled is told apart where it differs
KEY = ("pattern", "pages", "guest_page", "ept_page", "cpu", "walk_caches", "cycles", "access", "streams", "trace")
SAMPLING = ("count", "seed")
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Earlier:
    """An earlier run. `ns` by case."""

    path: Path
    machine: Facts
    ns: dict[tuple[object, ...], float]
    sampling: dict[tuple[object, ...], tuple[object, ...]]

    @classmethod
    def read(cls, path: Path) -> "Earlier":
        """Raises InputError for a file that holds no such run."""
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
        except OSError as problem:
            raise InputError(str(path), (problem.strerror or str(problem)).lower()) from None
        except ValueError:
            raise InputError(str(path), "is not JSON") from None
        if not isinstance(tree, dict) or tree.get("format") != FORMAT:
            raise InputError(str(path), "is not the output of vmxemu bench ept --json")
        try:
            rows = [(key(row), float(row["ns"]), tuple(row[name] for name in SAMPLING)) for row in tree["rows"]]
            machine = dict(tree["machine"])
        except (KeyError, TypeError, ValueError) as problem:
            raise InputError(str(path), f"a row cannot be used: {type(problem).__name__} {problem}") from None
        if any(ns <= 0 for _, ns, _ in rows):
            raise InputError(str(path), "a row has no time")
        return cls(path, machine, {k: ns for k, ns, _ in rows}, {k: sampling for k, _, sampling in rows})

    def compared(self, row: Facts) -> dict[str, float | None]:
        """The time then, and the time now in units of it; None if the case was not measured then."""
        then = self.ns.get(key(row))
        return {"ns_then": then, "now_then": None if then is None else float(row["ns"]) / then}

    def differences(self, machine: Facts, rows: Sequence[Facts]) -> list[str]:
        """What makes the two runs hard to compare, a line each."""
        found = [
            f"{name} was {self.machine.get(name)}, is {now}" for name, now in machine.items() if self.machine.get(name) != now
        ]
        known = [row for row in rows if key(row) in self.ns]
        for number, name in enumerate(SAMPLING):
            pairs = {(self.sampling[key(row)][number], row[name]) for row in known}
            found += [f"{name} was {then}, is {now}" for then, now in sorted(pairs, key=str) if then != now]
        if len(known) < len(rows):
            found.append(f"{len(rows) - len(known)} of {len(rows)} rows were not measured then")
        return found


def key(row: Facts) -> tuple[object, ...]:
    """Which case a row is of. Raises KeyError if it does not say."""
    return tuple(row[name] for name in KEY)

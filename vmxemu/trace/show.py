"""Events as text, JSON lines or CSV."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vmxemu.trace.names import fields_of, kind_name, level_name, reason_name
from vmxemu.trace.schema import COLUMNS, Events

Formatter = Callable[[int, np.void], str]


def as_text(rules: tuple[str, ...]) -> Formatter:
    """One line for people: index, cycle, level, RIP, kind, reason, fields."""

    def line(index: int, event: np.void) -> str:
        kind = int(event["kind"])
        words = [reason_name(kind, int(event["reason"]), rules)]
        words += [f"{name}={value}" for name, value in fields_of(event, rules).items()]
        where = f"{index:>8} {int(event['cycle']):>14} {level_name(int(event['level'])):<3} {int(event['rip']):016x}"
        return f"{where} {kind_name(kind):<12} {' '.join(word for word in words if word)}".rstrip()

    return line


def as_json(rules: tuple[str, ...]) -> Formatter:
    """One JSON object: the raw columns and, under `words`, what they mean."""

    def line(index: int, event: np.void) -> str:
        return json.dumps({"index": index, **raw(event), "words": words(event, rules)})

    return line


def as_csv(_rules: tuple[str, ...]) -> Formatter:
    """One CSV row: index, the names of kind, level and reason, the raw columns."""

    def line(index: int, event: np.void) -> str:
        row = words(event, ())
        return _csv([index, row["kind"], row["level"], row["reason"], *(int(event[name]) for name in COLUMNS)])

    return line


CSV_TITLE = ",".join(("index", "kind_name", "level_name", "reason_name", *COLUMNS))
FORMATS: dict[str, Callable[[tuple[str, ...]], Formatter]] = {"text": as_text, "json": as_json, "csv": as_csv}


def raw(event: np.void) -> dict[str, int]:
    """The columns as plain integers."""
    return {name: int(event[name]) for name in COLUMNS}


def words(event: np.void, rules: tuple[str, ...]) -> dict[str, Any]:
    """Kind, level, reason and fields in words."""
    kind = int(event["kind"])
    return {
        "kind": kind_name(kind),
        "level": level_name(int(event["level"])),
        "reason": reason_name(kind, int(event["reason"]), rules),
        "fields": fields_of(event, rules),
    }


def _csv(cells: list[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def chosen(events: Events, kinds: frozenset[int], levels: frozenset[int]) -> Iterator[int]:
    """Indices of the events of these kinds and levels; an empty set means all."""
    keep = np.ones(len(events), bool)
    if kinds:
        keep &= np.isin(events["kind"], list(kinds))
    if levels:
        keep &= np.isin(events["level"], list(levels))
    return iter(np.flatnonzero(keep).tolist())

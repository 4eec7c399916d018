"""Two events side by side."""

from typing import TYPE_CHECKING

from rich.table import Table

from vmxemu.presentation.tables import table
from vmxemu.trace.names import unnamed
from vmxemu.trace.show import words

if TYPE_CHECKING:
    import numpy as np

    from vmxemu.trace.compare import Divergence


def divergence_table(
    divergence: "Divergence", titles: tuple[str, str], rules: tuple[str, ...], code: tuple[str, str]
) -> Table:
    """A row for each thing that an event says; those that differ are marked. `code` is the disassembly."""
    sides = [_described(event, rules) for event in (divergence.left, divergence.right)]
    names = list(dict.fromkeys([*sides[0], *sides[1]]))
    rows = [(_mark(sides, name), name, *(side.get(name, "") for side in sides)) for name in names]
    if any(code):
        rows.append(("", "disassembly", *code))
    return table("", ("", "", *titles), rows)


def _mark(sides: list[dict[str, str]], name: str) -> str:
    return "" if sides[0].get(name) == sides[1].get(name) else ">"


def _described(event: "np.void | None", rules: tuple[str, ...]) -> dict[str, str]:
    if event is None:
        return {"kind": "(has ended)"}
    said = words(event, rules)
    first = {
        "cycle": f"{int(event['cycle']):,}",
        "level": said["level"],
        "RIP": f"{int(event['rip']):#x}",
        "kind": said["kind"],
    }
    unknown = {f"({name})": f"{int(event[name]):#x}" for name in unnamed(event)}
    return {**first, "reason": said["reason"], "flags": f"{int(event['flags']):#x}", **said["fields"], **unknown}

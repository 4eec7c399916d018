"""Measured rates as a picture (PNG, by Matplotlib) or as a page to move about in (HTML, by Plotly)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from vmxemu.configuration.errors import InputError
from vmxemu.presentation.tables import plain

Facts = Mapping[str, Any]
LIBRARIES = {".png": "matplotlib", ".html": "plotly"}
OURS, TWIN, THEN = "vmxemu", "C twin, -O2", "vmxemu then"
COLOURS = {OURS: "#2b6cb0", TWIN: "#a0aec0", THEN: "#ed8936"}
CYCLES_COLOUR = "#38a169"
TIME_AXIS, CYCLES_AXIS = "ns per translation (logarithmic)", "modelled cycles per translation"
INCHES_A_ROW, WIDTH_INCHES, PIXELS_A_ROW = 0.42, 13.0, 46


@dataclass(frozen=True)
class Bars:
    """What is drawn: from top to bottom a label for each case, its times by series, its cycles, a note."""

    labels: list[str]
    times: dict[str, list[float | None]]
    cycles: list[float]
    notes: list[str]
    title: str


def check_plot(path: Path) -> None:
    """Raises InputError if a plot of that name cannot be made here: known before anything is measured."""
    library = LIBRARIES.get(path.suffix.lower())
    if library is None:
        raise InputError(str(path), "expected a name that ends in .png or .html")
    if not path.parent.is_dir():
        raise InputError(str(path), "cannot be written: no such directory")
    try:
        import_module(library)
    except ImportError:
        raise InputError(str(path), f"plots need {library}: pip install 'vmxemu[plot]'") from None


def draw(path: Path, rows: Sequence[Facts], machine: Facts) -> None:
    """Write the plot. Raises OSError if the file cannot be written."""
    bars = _bars(rows, machine)
    if path.suffix.lower() == ".png":
        _png(path, bars)
    else:
        _html(path, bars)


def _bars(rows: Sequence[Facts], machine: Facts) -> Bars:
    times: dict[str, list[float | None]] = {
        series: [row.get(name) for row in rows] for series, name in ((OURS, "ns"), (TWIN, "twin_ns"), (THEN, "ns_then"))
    }
    return Bars(
        [_label(row) for row in rows],
        {series: values for series, values in times.items() if any(values)},
        [row.get("cycles_per_translation") or 0.0 for row in rows],
        [_note(row) for row in rows],
        f"vmxemu: address translation on {machine['processor']}",
    )


def _label(row: Facts) -> str:
    where = Path(row["trace"]).name if row["trace"] else f"{row['pages']:,} pages"
    off = "".join(f", no {what}" for what, on in (("walk caches", row["walk_caches"]), ("cycles", row["cycles"])) if not on)
    streams = f", {row['streams']} streams" if row["streams"] > 1 else ""
    caches = row["cpu"] + (off if row["cpu"] != "none" else "")
    return f"{row['pattern']}, {where}{streams}\n{row['guest_page']} x {row['ept_page']}, {caches}"


def _note(row: Facts) -> str:
    parts = []
    if row["stlb_miss_rate"] is not None:
        parts.append(f"STLB miss {row['stlb_miss_rate']:.1%}")
    if row["references_per_walk"] is not None:
        parts.append(f"{plain(row['references_per_walk'])} refs/walk")
    return ", ".join(parts)


def _png(path: Path, bars: Bars) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    height = 1.6 + INCHES_A_ROW * len(bars.labels) * (1 + 0.3 * (len(bars.times) - 1))
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    places = range(len(bars.labels))
    thick = 0.8 / len(bars.times)
    for number, (series, values) in enumerate(bars.times.items()):
        at = [place - 0.4 + thick * (number + 0.5) for place in places]
        drawn = left.barh(at, [value or float("nan") for value in values], thick, label=series, color=COLOURS[series])
        left.bar_label(drawn, [plain(value) if value else "" for value in values], padding=3, fontsize=7)
    left.set_xscale("log")
    left.xaxis.set_major_formatter("{x:g}")
    left.xaxis.set_minor_formatter(LogFormatter())
    left.set_yticks(list(places), bars.labels, fontsize=8)
    left.invert_yaxis()
    left.set_xlabel(TIME_AXIS)
    left.margins(x=0.12)
    left.legend(loc="lower right", fontsize=8)
    drawn = right.barh(list(places), bars.cycles, 0.5, color=CYCLES_COLOUR)
    right.bar_label(drawn, bars.notes, padding=4, fontsize=7)
    right.set_xlabel(CYCLES_AXIS)
    right.margins(x=0.45)
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(bars.title)
    figure.savefig(path, format="png", dpi=120)


def _html(path: Path, bars: Bars) -> None:
    from plotly import graph_objects
    from plotly.subplots import make_subplots

    labels = [label.replace("\n", "<br>") for label in bars.labels]
    figure = make_subplots(cols=2, shared_yaxes=True, column_widths=[0.6, 0.4], horizontal_spacing=0.03)
    for series, values in bars.times.items():
        bar = graph_objects.Bar(
            x=values, y=labels, name=series, orientation="h", marker_color=COLOURS[series], customdata=bars.notes,
            hovertemplate="%{x:.3g} ns<br>%{customdata}",
        )  # fmt: skip
        figure.add_trace(bar, row=1, col=1)
    bar = graph_objects.Bar(
        x=bars.cycles, y=labels, name="modelled cycles", orientation="h", marker_color=CYCLES_COLOUR, text=bars.notes,
        hovertemplate="%{x:.3g} cycles<br>%{text}",
    )  # fmt: skip
    figure.add_trace(bar, row=1, col=2)
    figure.update_xaxes(type="log", title=TIME_AXIS, col=1)
    figure.update_xaxes(title=CYCLES_AXIS, col=2)
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(title=bars.title, template="plotly_white", barmode="group", height=220 + PIXELS_A_ROW * len(labels))
    figure.write_html(path, include_plotlyjs=True)

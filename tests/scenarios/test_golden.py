"""The scenarios' traces: event for event as they were, and the same bytes from run to run."""

import time
from pathlib import Path

import pytest

from tests.scenarios.goldens import SCENARIOS, path_of, record
from tests.scenarios.play import Played, scenario
from vmxemu.trace.compare import first_divergence
from vmxemu.trace.file import Reader
from vmxemu.trace.show import as_text

LARGEST_BYTES = 1 << 20  # small enough to live in version control
each_scenario = pytest.mark.parametrize("name", SCENARIOS)


@pytest.fixture(scope="module")
def recorded(kernels: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Fresh traces, made on first use."""
    folder = tmp_path_factory.mktemp("traces")
    return {name: folder / f"{name}.trace" for name in SCENARIOS}


def fresh(recorded: dict[str, Path], name: str) -> Path:
    if not recorded[name].exists():
        assert record(name, recorded[name]) == 0
    return recorded[name]


@each_scenario
def test_events_are_those_of_the_golden_trace(name: str, recorded: dict[str, Path]) -> None:
    golden, now = Reader(path_of(name)), Reader(fresh(recorded, name))
    found = first_divergence(iter(golden), iter(now))
    if found is not None:
        line = as_text(())
        sides = [line(found.index, one) if one is not None else "(ended)" for one in (found.left, found.right)]
        rewrite = f"python -m tests.scenarios.regenerate {name}"
        pytest.fail(f"golden: {sides[0]}\n   now: {sides[1]}\n({rewrite} if that is wanted)")
    assert golden.ending == now.ending
    assert golden.header["configuration"] == now.header["configuration"]


@each_scenario
def test_two_runs_give_the_same_bytes(name: str, recorded: dict[str, Path], tmp_path: Path) -> None:
    again = tmp_path / "again.trace"
    assert record(name, again) == 0
    assert again.read_bytes() == fresh(recorded, name).read_bytes()


def test_the_hosts_speed_is_not_seen(recorded: dict[str, Path]) -> None:
    """A run that is held up again and again does the same at the same virtual time."""
    played = Played.start(scenario())
    waits = iter((0.2, 0.0, 0.4))
    played.machine.run(on_slice=lambda machine: time.sleep(next(waits, 0.0)))
    assert first_divergence(iter(Reader(fresh(recorded, "nested-ras"))), iter(played.batches)) is None


@each_scenario
def test_a_golden_trace_is_small(name: str) -> None:
    assert path_of(name).stat().st_size <= LARGEST_BYTES

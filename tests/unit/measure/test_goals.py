"""The speed goals of benchmarks/rates.toml."""

import pytest

from vmxemu.configuration.rates import Rate, rates
from vmxemu.measure import goals
from vmxemu.measure.cases import Case
from vmxemu.measure.measure import Row


class StandIn:
    """Gives rows without measuring."""

    def __init__(self) -> None:
        self.asked: list[Case] = []

    def measure(self, case: Case) -> Row:
        self.asked.append(case)
        one_core = 20.0 if case.streams > 1 else None
        return Row(case, 100, 10.0, 24.0, 1.0, 1.0, 5.0, None if case.streams > 1 else 40.0, one_core)


def test_each_goal_is_measured_in_a_way_of_its_own() -> None:
    assert {row.phase for row in rates("ept")} == goals.WAYS.keys()
    targets = {row.phase: (row.target, row.at_most) for row in rates("ept")}
    assert targets == {
        "l1_hit": (3.0, True),
        "stlb_hit": (15.0, True),
        "cold_walk": (35.0, True),
        "cold_walk_to_twin": (1.1, True),
        "cached_walks": (10e6, False),
        "two_cores": (1.8, False),
    }


def test_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goals, "cores", lambda: 2)
    bench = StandIn()
    found = {goal.rate.phase: goal for goal in (measure() for measure in goals.goals(bench))}  # type: ignore[arg-type]
    assert {phase: goal.value for phase, goal in found.items()} == {
        "l1_hit": 10, "stlb_hit": 10, "cold_walk": 10, "cold_walk_to_twin": 0.25, "cached_walks": 1e8, "two_cores": 2,
    }  # fmt: skip
    met = {phase: goal.facts()["met"] for phase, goal in found.items()}
    assert met == {phase: phase != "l1_hit" for phase in met}
    assert found["l1_hit"].share == pytest.approx(0.3)
    assert len(bench.asked) == 5  # the cold walk once


def test_one_core_is_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goals, "cores", lambda: 1)
    *_, last = (measure() for measure in goals.goals(StandIn()))  # type: ignore[arg-type]
    assert (last.value, last.why, last.facts()["met"]) == (None, "needs 2 cores", None)


def test_shares() -> None:
    assert Rate("ept", "", "", "", target=10.0, at_most=True).share(5.0) == 2
    assert Rate("ept", "", "", "", target=10.0).share(5.0) == 0.5
    assert Rate("ept", "", "", "").share(5.0) is None

"""Finding the first difference, and summing events up."""

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fake_machine import sample_events
from vmxemu.trace import events as known
from vmxemu.trace import show
from vmxemu.trace.compare import first_divergence
from vmxemu.trace.digest import Digest
from vmxemu.trace.schema import COLUMNS, DTYPE, Events


def pieces(events: Events, cuts: list[int]) -> list[Events]:
    return np.split(events, sorted(cut % (len(events) + 1) for cut in cuts))


CUTS = st.lists(st.integers(0, 100), max_size=6)


@given(st.integers(0, 40), CUTS, CUTS)
def test_equal_streams_have_no_divergence(count: int, left: list[int], right: list[int]) -> None:
    events = np.zeros(count, DTYPE)
    events["cycle"] = np.arange(count)
    assert first_divergence(pieces(events, left), pieces(events.copy(), right)) is None


@given(st.integers(1, 40), st.data(), CUTS, CUTS)
def test_the_first_difference_is_found(count: int, data: st.DataObject, left: list[int], right: list[int]) -> None:
    events = np.zeros(count, DTYPE)
    events["cycle"] = np.arange(count)
    other = events.copy()
    changed = data.draw(st.lists(st.integers(0, count - 1), min_size=1))
    column = data.draw(st.sampled_from(COLUMNS))
    for index in changed:
        other[column][index] = 77 + index
    found = first_divergence(pieces(events, left), pieces(other, right))
    assert found is not None and found.index == min(changed) and found.columns == (column,)
    assert [int(event["cycle"]) for event in found.before] == list(range(max(0, found.index - 5), found.index))


@pytest.mark.parametrize("shorter", [0, 1])
def test_a_stream_that_ends_first(shorter: int) -> None:
    events = sample_events()
    sides = [[events], [events]]
    sides[shorter] = [events[:20]]
    found = first_divergence(*sides)
    assert found is not None and found.index == 20
    assert (found.left, found.right)[shorter] is None and (found.left, found.right)[1 - shorter] is not None


def test_digest_counts_everything() -> None:
    digest = Digest(("first", "second"))
    for part in np.array_split(sample_events(), 4):
        digest.add(part)
    facts = digest.summary()
    assert sum(sum(counts.values()) for counts in facts["exits_by_reason"].values()) == 25
    assert [phase["name"] for phase in facts["phases"]] == ["reset", "VMM1 up"]
    decision, migration, arrival = facts["decisions"][0], facts["migrations"][0], facts["management"][0]
    assert (decision["rule"], decision["owner"], decision["action"], decision["kind"]) == (
        "second",
        "VMM1",
        "migrate",
        "CMCI",
    )
    assert (migration["gpa"], migration["old_hpa"], migration["status"]) == (0x123000, 0x4123000, 0)
    assert (arrival["serial"], arrival["kind"], arrival["address"]) == (1, "CMCI", 0x123000)
    json.dumps(facts)
    assert digest.kinds()["L2"]["ARRIVAL"] == 1


def test_every_kind_can_be_shown() -> None:
    events = np.zeros(len(known.KINDS) + 1, DTYPE)
    events["kind"] = [*(kind.number for kind in known.KINDS), 999]
    for name in ("reason", "a", "b", "c", "d"):
        events[name] = 0x10003
    for form, make in show.FORMATS.items():
        lines = [make(())(index, event) for index, event in enumerate(events)]
        assert all("\n" not in line for line in lines)
        if form == "csv":
            rows = list(csv.DictReader(io.StringIO("\n".join([show.CSV_TITLE, *lines]))))
            assert [row["kind_name"] for row in rows][-2:] == ["BYPASS", "KIND_999"]
        if form == "json":
            assert json.loads(lines[-1])["words"]["kind"] == "KIND_999"

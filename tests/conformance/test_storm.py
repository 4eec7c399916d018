"""Law 7 under load: no management interrupt is lost, each gets one decision, what is VMM2's comes once; and twice the same."""

import collections
from typing import Any

import numpy as np
import pytest

from vmxemu.configuration import Configuration
from vmxemu.configuration.injection import Injection
from vmxemu.machine import Machine
from vmxemu.trace import events

FIRST = 5_000_000
DELIVER = int(next(number for number, name in events.ACTIONS.items() if name == "deliver"))


def storm(count: int, every: int) -> Any:
    """nested-ras with `count` each of corrected errors, SMIs, NMIs and PMIs as its storm: statistics, output, events."""
    plain = Configuration.find("nested-ras")
    sources: tuple[dict[str, int], ...] = (
        {"kind": "ce", "vm2_gpa": 0x2A5040},
        {"kind": "smi", "command": 0x11},
        {"kind": "nmi"},
        {"kind": "pmi"},
    )  # type: ignore[assignment]
    inject = [Injection(cycle=FIRST + 1000 * number, count=count, every=every, **source) for number, source in enumerate(sources)]
    machine = Machine(plain.model_copy(update={"inject": inject, "max_cycles": 10**11}))
    batches: list[Any] = []
    output: list[bytes] = []
    machine.on_events(batches.append)
    machine.on_output(lambda channel, data: output.append(data) if channel == "serial" else None)
    result = machine.run()
    assert result.exit_status == 0, result.message
    return machine.statistics(), b"".join(output).decode(), np.concatenate(batches)


def check(count: int, statistics: Any, output: str, seen: Any) -> None:
    """Every claim that holds whatever the load."""
    assert not statistics["bypasses"]
    assert statistics["management_lost"] == statistics["events_lost"] == statistics["retired_uses"] == 0
    arrivals = seen[seen["kind"] == events.ARRIVAL]
    decisions = seen[seen["kind"] == events.DECISION]
    deliveries = seen[seen["kind"] == events.DELIVERY]
    injected = seen[seen["kind"] == events.INJECT]
    assert len(injected) == 4 * count
    raised = sorted(int(serial) for serial in injected["d"] if serial)
    arrivals = arrivals[arrivals["d"] != 0]  # not the firmware's own SMI before VMM1 is up
    own = {int(serial) for serial in arrivals["a"]} - set(raised)
    assert len(own) <= 1, "VMM2 relocates its SMBASE by an SMI of its own"
    assert sorted(set(arrivals["a"].tolist()) - own) == raised, "each that was raised arrives"
    assert len(arrivals) == len(set(arrivals["a"].tolist())), "once"
    assert decisions["a"].tolist() == arrivals["a"].tolist(), "and is decided once, in the order of arrival"
    by_kind = collections.Counter(arrivals["reason"].tolist())
    assert by_kind[int(events.SMI)] - len(own) == by_kind[int(events.NMI)] == by_kind[int(events.PMI)] == count
    given = decisions[decisions["d"] == DELIVER]
    assert sorted(deliveries["a"].tolist()) == sorted(given["a"].tolist()), "what is VMM2's is delivered, once"
    assert f"NMI={count}" in output
    sums = {line.split("sum ")[1] for line in output.splitlines() if "VM2 pass" in line}
    assert len(sums) == 1, "VM2's memory never changes"


@pytest.mark.parametrize(("count", "every"), ((40, 60_000), (100, 1)))
def test_a_small_storm_and_a_burst(count: int, every: int) -> None:
    check(count, *storm(count, every))


@pytest.mark.campaign
def test_ten_thousand_and_the_same_again() -> None:
    first, second = storm(2500, 30_000), storm(2500, 30_000)
    check(2500, *first)
    assert first[1] == second[1]
    assert first[2].tobytes() == second[2].tobytes()

"""`vmxemu walk` in machines that have run."""

import json
from pathlib import Path

import pytest

from vmxemu.cli import main

TRACES = Path(__file__).parent.parent / "traces"
pytestmark = pytest.mark.usefixtures("kernels")


def walked(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main(["walk", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_scenario_up_to_a_cycle(capsys: pytest.CaptureFixture[str]) -> None:
    facts = walked(capsys, "--run", "nested-ras", "--until", "400M")
    assert facts["description"].startswith("nested-ras: ") and "the run has ended" in facts["description"]
    (walk,) = facts["walks"]
    assert walk["access"].endswith("fetch") and walk["outcome"] == "translated"
    levels = facts["processor"]["ept_levels"]
    assert facts["processor"]["mode"] == "4-level" and levels == 4
    assert walk["references"] == len([step for step in walk["steps"] if step["number"]])
    assert {step["for"] for step in walk["steps"] if step["kind"] == "ept"} >= {"PML4E", "PDPTE", "PDE", "page"}


def test_what_the_machine_has_cached_is_kept_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    (walk,) = walked(capsys, "rip", "--run", "nested-ras", "--until", "400M", "--warm")["walks"]
    assert walk["references"] == 0 and walk["steps"][0]["kind"] in ("tlb", "stlb")


def test_an_event_of_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    trace = str(TRACES / "nested-ras.trace")
    facts = walked(capsys, "rsp", "--trace", trace, "--at", "3000", "--access", "write")
    assert "at event 3,000" in facts["description"] and "the run has ended" not in facts["description"]
    assert facts["walks"][0]["outcome"] == "translated"


def test_an_event_that_a_trace_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    trace = str(TRACES / "hello.trace")
    assert main(["walk", "--trace", trace, "--at", "999999"]) == 2
    text = capsys.readouterr().err
    assert "it has no event 999999; expected a number below " in text and text.count("\n") == 1
    assert main(["walk", "--trace", trace, "--cpu", "ideal"]) == 2
    assert "a trace has the CPU profile that it was recorded with" in capsys.readouterr().err

"""`vmxemu bench ept` as a user meets it, in small."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vmxemu.cli import bench_session, main
from vmxemu.measure.measure import Bench

ROOT = Path(__file__).parent.parent.parent
Capture = pytest.CaptureFixture[str]
SMALL = ("--pages", "200", "--count", "500")
FIGURES = {
    "ns", "rate", "translations", "references_per_walk", "l1_miss_rate", "stlb_miss_rate", "cycles_per_translation", "twin_ns",
    "twin_ratio", "one_core_ns", "speedup",
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rounds, and kernels that look compiled."""
    monkeypatch.setattr(bench_session, "ROUND_SECONDS", 0.0)
    monkeypatch.setattr(bench_session, "GOAL_SECONDS", 0.0)
    monkeypatch.setattr(bench_session, "compiled_before", lambda module, function: True)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables as a pipe sees them, whatever terminal the tests run in."""
    monkeypatch.delenv("COLUMNS", raising=False)


def run(*arguments: str) -> int:
    return main(["bench", "ept", *arguments])


def tree(capsys: Capture, *arguments: str) -> dict[str, Any]:
    assert run(*SMALL, *arguments, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_json_has_rows_machine_and_no_goals(capsys: Capture) -> None:
    found = tree(capsys, "--pattern", "uniform")
    assert found["format"] == "vmxemu bench ept 1" and found["interrupted"] is False and found["goals"] == []
    assert found["machine"]["cores"] >= 1 and found["machine"]["processor"] and found["machine"]["numba"]
    (row,) = found["rows"]
    assert FIGURES < row.keys()
    case = {key: row[key] for key in row.keys() - FIGURES}
    assert case == {
        "pattern": "uniform", "pages": 200, "guest_page": "4K", "ept_page": "4K", "cpu": "skylake-sp", "walk_caches": True,
        "cycles": True, "access": "read", "count": 500, "seed": 0, "streams": 1, "trace": None,
    }  # fmt: skip
    assert row["translations"] == 500 and row["ns"] > 0 and row["stlb_miss_rate"] == 0


def test_all_combinations(capsys: Capture) -> None:
    options = ["--pattern", "hit", "--pattern", "cold", "--guest-page", "4K", "--guest-page", "2M", "--ept-page", "none"]
    options += ["--cpu", "ideal", "--cpu", "none", "--walk-caches", "both", "--cycles", "both", "--pages", "100"]
    found = tree(capsys, *options, "--access", "write", "--seed", "3")
    assert len(found["rows"]) == 2 * 2 * 2 * (1 * 4 + 1)  # pages, patterns, guest pages, caches: "none" has no variants
    assert {row["access"] for row in found["rows"]} == {"write"} and {row["seed"] for row in found["rows"]} == {3}
    assert len({json.dumps({k: row[k] for k in row.keys() - FIGURES}) for row in found["rows"]}) == len(found["rows"])


def test_streams_in_the_table(capsys: Capture) -> None:
    assert run(*SMALL, "--pattern", "uniform", "--streams", "2") == 0
    seen = capsys.readouterr()
    for text in ("streams", "one core ns", "speed-up", "uniform", "4K x 4K", "walk caches, cycles"):
        assert text in seen.out
    assert "Speed goals" not in seen.out and seen.err == ""


def test_traces(tmp_path: Path, capsys: Capture) -> None:
    text, array = tmp_path / "a.txt", tmp_path / "b.npy"
    text.write_text("0x1000\n0x2000\n0x400000\n")
    np.save(array, np.arange(4, dtype=np.uint64) << np.uint64(21))
    found = tree(capsys, "--trace", str(text), "--trace", str(array), "--pattern", "trace")
    assert [(row["pattern"], row["trace"], row["translations"], row["pages"]) for row in found["rows"]] == [
        ("trace", str(text), 3, 3), ("trace", str(array), 4, 4),
    ]  # fmt: skip
    assert main(["bench", "ept", "--trace", str(text), "--plot", str(text)]) == 2
    assert "is read by this command" in capsys.readouterr().err
    assert len(tree(capsys, "--trace", str(text), "--pattern", "hit")["rows"]) == 2


def test_the_usual_run_shows_the_goals(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = Bench.measure
    rows: list[Any] = []

    def small(self: Bench, case: Any) -> Any:
        from dataclasses import replace

        row = replace(measure(self, replace(case, pages=min(case.pages, 500), count=500)), case=case)
        rows.append(row)
        return row

    monkeypatch.setattr(Bench, "measure", small)
    assert run() == 0
    seen = capsys.readouterr()
    for text in ("Address translation", "zipf", "chase", "Speed goals", "<= 3 ns", "<= 15 ns", "<= 35 ns", "<= 1.10x"):
        assert text in seen.out
    assert ">= 10 M translations/s" in seen.out
    cases = {row.case for row in rows}
    assert {"4K x 2M", "2M x 2M", "1G x 1G", "4K x none"} < {case.sizes for case in cases}
    assert {"skylake-sp", "icelake-sp", "zen4-like", "ideal", "none"} == {case.cpu for case in cases}


def test_against_an_earlier_run(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "then.json"
    then = tree(capsys, "--pattern", "hit", "--pattern", "uniform")
    for row in then["rows"]:
        row["ns"] = 1e6
    path.write_text(json.dumps(then))
    now = tree(capsys, "--pattern", "hit", "--against", str(path))
    (row,) = now["rows"]
    assert row["ns_then"] == 1e6 and row["now_then"] == row["ns"] / 1e6
    assert run(*SMALL, "--pattern", "hit", "--against", str(path)) == 0
    seen = capsys.readouterr()
    assert "now/then" in seen.out and seen.err == ""


def test_differences_from_an_earlier_run_are_told(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "then.json"
    then = tree(capsys, "--pattern", "hit")
    then["machine"] |= {"processor": "6502", "cores": 1000}
    path.write_text(json.dumps(then))
    assert run("--pages", "200", "--count", "600", "--pattern", "hit", "--pattern", "cold", "--against", str(path)) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"vmxemu: {path}: processor was 6502, is ") and "cores was 1000" in said[1]
    assert said[2:] == [f"vmxemu: {path}: count was 500, is 600", f"vmxemu: {path}: 1 of 2 rows were not measured then"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "vmxemu bench ept 1"}'])
def test_a_bad_earlier_run(content: str, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "then.json"
    path.write_text(content)
    refused(capsys, "--against", str(path), says=str(path))


def refused(capsys: Capture, *arguments: str, says: str) -> None:
    assert run(*arguments) == 2
    seen = capsys.readouterr()
    assert seen.out == "" and seen.err.count("\n") == 1 and says in seen.err, seen


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--pattern", "random"], "random"),
        (["--pattern", "trace"], "--pattern trace: expected the file as --trace FILE"),
        (["--trace", "nowhere.txt"], "nowhere.txt: no such file"),
        (["--trace", "."], "is a directory"),
        (["--against", "nowhere.json"], "nowhere.json: no such file"),
        (["--cpu", "z80"], "--cpu: expected one of icelake-sp, ideal, skylake-sp, zen4-like, none, not 'z80'"),
        (["--guest-page", "8K"], "8K"),
        (["--guest-page", "none"], "none"),
        (["--pages", "0"], "--pages"),
        (["--count", "-1"], "--count"),
        (["--count", "many"], "many"),
        (["--streams", "0"], "--streams"),
        (["--cycles", "maybe"], "maybe"),
        (["--plot", "a.gif"], "a.gif: expected a name that ends in .png or .html"),
        (["--plot", "/nowhere/a.png"], "/nowhere/a.png: cannot be written"),
        (["--frobnicate"], "--frobnicate"),
        (["surplus"], "surplus"),
    ],
)
def test_bad_input(arguments: list[str], says: str, capsys: Capture) -> None:
    pytest.importorskip("matplotlib") if "/nowhere/a.png" in arguments else None
    refused(capsys, *arguments, says=says)


@pytest.mark.parametrize(("name", "library", "begins"), [("a.png", "matplotlib", b"\x89PNG"), ("a.HTML", "plotly", b"<html>")])
def test_plots(name: str, library: str, begins: bytes, tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip(library)
    then = tmp_path / "then.json"
    then.write_text(json.dumps(tree(capsys, "--pattern", "hit")))
    options = ["--pattern", "hit", "--pattern", "uniform", "--cpu", "none", "--cpu", "ideal", "--against", str(then)]
    assert run(*SMALL, *options, "--plot", str(tmp_path / name)) == 0
    content = (tmp_path / name).read_bytes()
    assert begins in content[:200]
    if library == "plotly":
        assert b"uniform, 200 pages" in content and b"STLB miss" in content


@pytest.mark.parametrize(("name", "library"), [("a.png", "matplotlib"), ("a.html", "plotly")])
def test_plots_without_their_library(
    name: str, library: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    refused(capsys, "--plot", str(tmp_path / name), says=f"plots need {library}: pip install 'vmxemu[plot]'")


@pytest.mark.parametrize("as_json", [True, False])
def test_an_interrupt_leaves_the_rows_so_far(as_json: bool, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = Bench.measure

    def interrupted(self: Bench, case: Any) -> Any:
        if case.pattern == "cold" and case.pages == 200:
            os.kill(os.getpid(), signal.SIGINT)
        return measure(self, case)

    monkeypatch.setattr(Bench, "measure", interrupted)
    options = ["--pattern", "hit", "--pattern", "cold", "--pattern", "zipf"]
    assert run(*SMALL, *options, *(["--json"] if as_json else [])) == 130
    seen = capsys.readouterr()
    assert seen.err == "vmxemu: interrupted\n"
    if as_json:
        found = json.loads(seen.out)
        assert found["interrupted"] is True and [row["pattern"] for row in found["rows"]] == ["hit"]
    else:
        assert "hit" in seen.out and "cold" not in seen.out


def test_a_first_run_says_what_it_waits_for(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_session, "compiled_before", lambda module, function: False)
    assert run(*SMALL, "--pattern", "hit") == 0
    assert capsys.readouterr().err == "vmxemu: compiling kernels (first run only, about half a minute) ...\n"


@pytest.mark.parametrize("arguments", [["bench", "--help"], ["bench", "ept", "--help"], ["bench", "exit", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    heavy = ("numba", "llvmlite", "unicorn", "pyarrow", "pydantic", "rich", "matplotlib", "plotly")
    program = (
        "import sys; from vmxemu.cli import main; status = main(sys.argv[1:]);"
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr); sys.exit(status)"
    )
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "[]"), done.stderr
    assert "ept" not in arguments or "pointer chase" in done.stdout


def test_progress_on_a_terminal() -> None:
    pexpect = pytest.importorskip("pexpect")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "TERM": "xterm"}
    arguments = ["-m", "vmxemu", "bench", "ept", "--pattern", "hit", "--pattern", "stride", "--pages", "300", "--json"]
    child = pexpect.spawn(
        sys.executable, arguments, cwd=str(ROOT), env=environment, encoding="utf-8", dimensions=(40, 120), timeout=120
    )
    child.expect("0/2.*hit, 300 pages")
    child.expect('"format": "vmxemu bench ept 1"')
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0

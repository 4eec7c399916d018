"""The command on the real machine, as a new user would try it: in a pipe and in a pseudo-terminal."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from vmxemu.cli import main
from vmxemu.trace.file import Reader

ROOT = Path(__file__).resolve().parents[2]
COM1 = 0x3F8
PROGRAMS = {
    "spin": b"\xfa\xeb\xfe",  # CLI; JMP to itself
    "sleep": b"\xfa\xf4",  # CLI; HLT
    "letters": b"\xba\xf8\x03\xb0A\xee\xb9\x00\x10\xe2\xfe\xeb\xf8",  # an A on COM1, a while of nothing, again
    "no device": b"\xba\xd4\x03\xb0\x01\xee",  # OUT to the VGA
    "no table": b"\x2e\x0f\x01\x1e\x00\x80\xcc",  # LIDT of a limit of 0 (the image there is 0); INT3
}
Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("kernels")  # else the first command would say that it compiles them


def image(name: str, folder: Path) -> str:
    """A ROM that jumps from the reset vector to the program at its bottom; zeros from 8000h."""
    code = PROGRAMS[name]
    rom = bytearray(code.ljust(0x8000, b"\x90") + bytes(0x8000))
    back = -(0xFFF0 + 3) & 0xFFFF
    rom[-16:] = b"\xe9" + back.to_bytes(2, "little") + b"\x90" * 13
    path = folder / f"{name.replace(' ', '-')}.bin"
    path.write_bytes(rom)
    return str(path)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`vmxemu ARGUMENTS` in a process of its own, in a pipe."""
    program = [sys.executable, "-m", "vmxemu", *arguments]
    return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module", autouse=True)
def compiled(kernels: None) -> None:
    """No test here waits for the compiler."""


def terminal(*arguments: str, environment: Mapping[str, str] = os.environ) -> Any:
    """`vmxemu ARGUMENTS` in a pseudo-terminal."""
    pexpect = pytest.importorskip("pexpect")
    return pexpect.spawn(
        sys.executable,
        ["-m", "vmxemu", *arguments],
        cwd=str(ROOT),
        env={**environment, "TERM": "xterm"},
        encoding="utf-8",
        dimensions=(40, 120),
        timeout=120,
    )


def finish(child: Any) -> int:
    child.expect(child_eof())
    child.close()
    return int(child.exitstatus)


def child_eof() -> Any:
    import pexpect

    return pexpect.EOF


def test_hello_in_a_pipe() -> None:
    done = command("run", "hello")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "hello: 16-bit real mode" and "hello: done" in lines
    assert "virtual cycles" in done.stdout and "Translation" in lines
    assert done.stderr == "vmxemu: [0 s] reset\n"


def test_hello_in_a_terminal() -> None:
    child = terminal("run", "hello")
    child.expect("hello: done")
    child.expect("virtual cycles")
    assert finish(child) == 0


def test_ctrl_c_ends_a_run_with_summary_and_a_closed_trace(tmp_path: Path) -> None:
    trace = tmp_path / "a.trace"
    child = terminal("run", image("spin", tmp_path), "--record", str(trace))
    child.expect("virtual .*MIPS")
    child.sendintr()
    child.expect("virtual cycles")
    child.expect("vmxemu: interrupted")
    assert finish(child) == 130
    reader = Reader(trace)
    assert sum(len(batch) for batch in reader) >= 1
    assert reader.ending is not None and reader.ending["reason"] == "INTERRUPTED"
    assert main(["trace", "show", str(trace)]) == 0


def test_guest_output_is_live_and_a_broken_pipe_ends_the_run(tmp_path: Path) -> None:
    child = terminal("run", image("letters", tmp_path), "--quiet")
    child.expect("AAAA")
    child.sendintr()
    assert finish(child) == 130
    script = f"{sys.executable} -m vmxemu run {image('letters', tmp_path)} --quiet | head -c 5; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("AAAAA141\n", "")


def test_ctrl_c_while_kernels_are_compiled(tmp_path: Path) -> None:
    trace = tmp_path / "of an earlier run"
    trace.write_bytes(b"precious")
    environment = {**os.environ, "VMXEMU_CACHE_DIR": str(tmp_path)}
    child = terminal("run", "hello", "--record", str(trace), environment=environment)
    child.expect("compiling the emulator's kernels")
    child.sendintr()
    child.expect("interrupted before the first instruction")
    assert finish(child) == 130
    assert trace.read_bytes() == b"precious"


ENDINGS = [
    ("spin", ["--max-cycles", "5M"], "no end after 5,000,000 cycles", 3),
    ("sleep", [], "halted with nothing that could wake it", 3),
    ("no device", [], "port 0x3d4, VGA, is not modelled", 3),
    ("no table", [], "triple fault", 3),
]


@pytest.mark.parametrize(("name", "options", "says", "status"), ENDINGS, ids=[row[0] for row in ENDINGS])
def test_a_guest_gone_wrong_is_reported(
    name: str, options: list[str], says: str, status: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", image(name, tmp_path), "--quiet", *options]) == status
    report = capfd.readouterr().err
    assert report.startswith("vmxemu: ") and says in report.splitlines()[0]
    for part in ("at RIP", "rax=", "cr0=", "efer=", "PHASE        reset"):
        assert part in report, part


def test_json(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "hello", "--json", "--inject", "ce@cycle=2M,hpa=0x5000"]) == 0
    seen = capfd.readouterr()
    facts = json.loads(seen.out)
    assert facts["ending"] == {"reason": "EXIT_PORT", "exit_status": 0, "message": "", "details": []}
    assert facts["translation"]["walks"] > 0 and facts["virtual_cycles"] > 1_000_000
    assert [row["kind"] for row in facts["injections"]] == ["ce"]
    assert "hello: done" in seen.err


def test_record_and_verify(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trace = str(tmp_path / "hello.trace")
    assert main(["run", "hello", "--quiet", "--record", trace]) == 0
    assert main(["trace", "verify", "--quiet", trace]) == 0
    assert main(["trace", "stats", trace]) == 0
    assert "equal: " in capfd.readouterr().out


def test_verify_shows_where_runs_part(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A trace whose header names another memory size than it was recorded with."""
    from vmxemu.configuration import Configuration
    from vmxemu.machine import Machine
    from vmxemu.trace.file import Writer, header_of

    path = tmp_path / "odd.trace"
    machine = Machine(Configuration.find("hello", inject=["ce@cycle=2M,hpa=0x5000"]))
    with Writer(path, header_of(Configuration.find("hello").to_header())) as writer:
        machine.on_events(writer.add)
        machine.run()
        writer.close({"reason": "EXIT_PORT", "exit_status": 0})
    assert main(["trace", "verify", "--quiet", str(path)]) == 1
    text = capfd.readouterr().out
    assert "first difference at event" in text and "disassembly" in text and "INJECT" in text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "hello", "--quiet", "--serial", "/dev/full"]) == 2
    assert "/dev/full: cannot be written: No space left on device" in capfd.readouterr().err
    assert main(["run", "hello", "--quiet", "--record", "/dev/full"]) == 2
    assert "/dev/full: cannot be written: No space left on device" in capfd.readouterr().err


def test_injection_that_a_machine_cannot_take(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "hello", "--inject", "ce@cycle=1,hpa=0x90000000"]) == 2
    assert "hpa: expected an address inside memory" in capfd.readouterr().err
    assert main(["run", "hello", "--inject", "ce@cycle=1,vm2_gpa=0x1000"]) == 2
    assert "vm2_gpa: expected hpa: there is no such virtual machine" in capfd.readouterr().err


def test_what_is_read_is_not_overwritten(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    scenario = tmp_path / "a.toml"
    scenario.write_text(f'image = "{image("sleep", tmp_path)}"')
    before = scenario.read_bytes()
    assert main(["run", str(scenario), "--record", str(scenario)]) == 2
    assert main(["run", str(scenario), "--serial", str(tmp_path / "sleep.bin")]) == 2
    assert capfd.readouterr().err.count("is read by this command") == 2
    assert main(["run", "hello", "--serial", str(tmp_path / "x"), "--record", str(tmp_path / "x")]) == 2
    assert "is to be written twice" in capfd.readouterr().err
    assert scenario.read_bytes() == before and not (tmp_path / "x").exists()


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
def test_a_closed_stream_is_no_error(closed: str) -> None:
    script = f"{sys.executable} -m vmxemu run hello --quiet {closed}; exit $?"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == "" and "internal" not in done.stdout


def test_ctrl_c_ends_a_benchmark_of_guest_code() -> None:
    child = terminal("bench", "guest")
    child.expect("running bench")
    child.sendintr()
    child.expect("vmxemu: interrupted")
    assert finish(child) == 130

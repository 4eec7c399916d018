"""The command line as a user meets it, with a stand-in machine."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit import fake_machine
from vmxemu.cli import main
from vmxemu.trace.file import Reader, read

ROOT = Path(__file__).parent.parent.parent
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A machine to play with, and kernels that look compiled."""
    modules: dict[str, object] = {}
    fake_machine.install(modules)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("vmxemu.cli.session.kernels_missing", lambda: False)
    yield


@pytest.fixture
def rom(tmp_path: Path) -> Path:
    path = tmp_path / "rom.bin"
    path.write_bytes(fake_machine.image("ok"))
    return path


def scripted(tmp_path: Path, script: str) -> str:
    path = tmp_path / f"{script}.bin"
    path.write_bytes(fake_machine.image(script))
    return str(path)


def one_line(capsys: Capture) -> str:
    """Standard error, which must be one line and no traceback."""
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "Traceback" not in text, text
    return text


def test_run_prints_guest_output_and_tables(rom: Path, capsys: Capture) -> None:
    assert main(["run", str(rom)]) == 0
    seen = capsys.readouterr()
    assert seen.out.startswith("hello\nchecksum 1234\nchecksum 1234\n")
    for text in (
        "Timeline",
        "EPT_VIOLATION",
        "CPUID",
        "corrected-error",
        "migrate",
        "0x4123000",
        "Translation",
        "123 MIPS",
    ):
        assert text in seen.out
    assert "phase" not in seen.out
    assert seen.err == "vmxemu: [0 s] reset\nvmxemu: [1.85 us] VMM1 up\n"


def test_run_quiet_prints_only_guest_output(rom: Path, capsys: Capture) -> None:
    assert main(["run", str(rom), "--quiet"]) == 0
    seen = capsys.readouterr()
    assert seen.out == "hello\n" + "checksum 1234\n" * 3
    assert seen.err == ""


def test_run_json(rom: Path, capsys: Capture) -> None:
    assert main(["run", str(rom), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["ending"]["reason"] == "EXIT_PORT"
    assert facts["decisions"][0]["rule"] == "corrected-error"
    assert (
        facts["migrations"][0] | {"gpa": 0x123000, "old_hpa": 0x4123000, "new_hpa": 0xF000000} == facts["migrations"][0]
    )
    assert facts["translation"]["tlb_hits"] == 12


def test_serial_goes_to_a_file(rom: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["run", str(rom), "--quiet", "--serial", str(tmp_path / "serial")]) == 0
    assert (tmp_path / "serial").read_text() == "hello\n" + "checksum 1234\n" * 3
    assert capsys.readouterr().out == ""


def test_the_debug_port_is_shown_only_on_request(rom: Path, tmp_path: Path, capsys: Capture) -> None:
    """It repeats what blobs say on the serial port; neither the terminal nor the expectations hear it."""
    assert main(["run", str(rom), "--quiet", "--serial", str(tmp_path / "serial"), "--debugcon", "-"]) == 0
    assert capsys.readouterr().out == "debug\n" * 3
    assert main(["run", str(rom), "--quiet", "--debugcon", str(tmp_path / "debug")]) == 0
    assert (tmp_path / "debug").read_text() == "debug\n" * 3
    assert capsys.readouterr().out == "hello\n" + "checksum 1234\n" * 3
    scenario = tmp_path / "scenario.toml"
    scenario.write_text('image = "rom.bin"\n[[expect]]\nname = "it"\noutput_lacks = "debug"\n')
    assert main(["run", str(scenario), "--quiet"]) == 0


EXPECTATIONS = [
    ('output_contains = "hello"', 0),
    ('output_contains = "goodbye"', 1),
    ('lines_equal = "checksum"', 0),
    ('decisions = { action = "migrate", owner = "VMM1", count = 1 }', 0),
    ("one_decision_each = true", 0),
    ("bypasses = 0", 0),
    ("migrations_at_least = 2", 1),
    ('phases = ["reset", "VMM1 up"]', 0),
    ('phases = ["VMM1 up", "reset"]', 1),
    ('exits = { level = 2, reason = "CPUID", at_least = 3 }', 0),
    ("exit_status = 3", 1),
]


@pytest.mark.parametrize(("check", "status"), EXPECTATIONS)
def test_expectations_decide_the_exit_status(
    rom: Path, tmp_path: Path, check: str, status: int, capsys: Capture
) -> None:
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(f'image = "rom.bin"\n[[expect]]\nname = "it"\n{check}\n')
    assert main(["run", str(scenario)]) == status
    assert ("FAILED" in capsys.readouterr().out) == bool(status)


def test_an_expected_failure_is_a_success(tmp_path: Path) -> None:
    scripted(tmp_path, "triple_fault")
    scenario = tmp_path / "scenario.toml"
    scenario.write_text('image = "triple_fault.bin"\n[[expect]]\nname = "it"\nreason = "triple_fault"\n')
    assert main(["run", str(scenario)]) == 0


def test_guest_gone_wrong_is_reported_with_status_3(tmp_path: Path, capsys: Capture) -> None:
    assert main(["run", "--quiet", scripted(tmp_path, "triple_fault")]) == 3
    assert capsys.readouterr().err == "vmxemu: triple fault at 0x7c00\n  RIP 0x7c00: ud2\n  RAX 0\n"


def test_unexpected_exceptions_are_one_line(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["run", "--quiet", scripted(tmp_path, "crash")]) == 70
    assert "internal error: RuntimeError: the fake machine is broken" in one_line(capsys)
    monkeypatch.setenv("VMXEMU_DEBUG", "1")
    with pytest.raises(RuntimeError):
        main(["run", "--quiet", scripted(tmp_path, "crash")])


def bad(name: str, *arguments: str, says: str) -> object:
    return pytest.param(arguments, says, id=name)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        bad("no file", "run", "nowhere.bin", says="nowhere.bin: no such file"),
        bad("no scenario", "run", "nowhere.toml", says="nowhere.toml: no such file"),
        bad("directory", "run", ".", says=".: is a directory"),
        bad("cpu", "run", "ROM", "--cpu", "z80", says="expected a CPU profile"),
        bad("memory", "run", "ROM", "--memory", "lots", says="expected a size"),
        bad("too little memory", "run", "ROM", "--memory", "1M", says="memory.size: expected at least"),
        bad("cycles", "run", "ROM", "--max-cycles", "x", says="expected a number of cycles"),
        bad("topology", "run", "ROM", "--topology", "flat", says="topology"),
        bad("inject", "run", "ROM", "--inject", "ce@cycle=1", says="needs an address"),
        bad(
            "outside",
            "run",
            "ROM",
            "--inject",
            "ce@cycle=1,hpa=0x90000000",
            says="hpa: expected an address inside memory",
        ),
        bad("serial", "run", "ROM", "--serial", "/nowhere/x", says="/nowhere/x: cannot be written"),
        bad("record", "run", "ROM", "--record", "/nowhere/x", says="/nowhere/x: cannot be written"),
        bad("option", "run", "ROM", "--frobnicate", says="--frobnicate"),
        bad("command", "frobnicate", says="frobnicate"),
        bad("missing argument", "run", says="Missing argument"),
        bad("bench", "bench", "everything", says="everything"),
        bad("pattern", "isa", "exits", "[", says="regular expression"),
        bad("no match", "isa", "exits", "no such thing", says="no exit reason matches"),
        bad("trace", "trace", "show", "nowhere.trace", says="nowhere.trace: no such file"),
        bad("not a trace", "trace", "stats", "ROM", says="is not a vmxemu trace"),
        bad("trace directory", "trace", "stats", ".", says="directory"),
    ],
)
def test_bad_input_is_one_line_with_status_2(arguments: tuple[str, ...], says: str, rom: Path, capsys: Capture) -> None:
    assert main([str(rom) if argument == "ROM" else argument for argument in arguments]) == 2
    assert says in one_line(capsys)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\x90" * 5000, "multiple of 4096"),
        (b"\x90" * 4096 + bytes(4096), "no reset vector"),
        (b"\x90" * 4096 + b"\xff" * 4096, "no reset vector"),
        (b"\x90" * ((16 << 20) + 4096), "at most 16 MiB"),
    ],
)
def test_bad_images(content: bytes, says: str, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "bad.bin"
    path.write_bytes(content)
    assert main(["run", str(path)]) == 2
    line = one_line(capsys)
    assert "bad.bin" in line and says in line


def test_record_show_stats_diff_verify(rom: Path, tmp_path: Path, capsys: Capture) -> None:
    first, second = str(tmp_path / "a.trace"), str(tmp_path / "b.trace")
    for path in (first, second):
        assert main(["run", str(rom), "--quiet", "--record", path]) == 0
    assert Path(first).read_bytes() == Path(second).read_bytes()
    assert main(["trace", "diff", first, second]) == 0
    assert main(["trace", "verify", "--quiet", first]) == 0
    assert "equal: 30 events" in capsys.readouterr().out
    assert main(["trace", "show", first, "--kind", "MIGRATION"]) == 0
    assert "gpa=0x123000 old_hpa=0x4123000 new_hpa=0xf000000 cycles=9000" in capsys.readouterr().out
    assert main(["trace", "show", first, "--format", "csv", "--limit", "3", "--level", "l2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main(["trace", "show", first, "--format", "json", "--kind", "decision"]) == 0
    assert json.loads(capsys.readouterr().out)["words"]["fields"]["action"] == "migrate"
    assert main(["trace", "stats", first]) == 0
    assert "Events by kind and level" in capsys.readouterr().out
    assert main(["trace", "stats", first, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["events"] == 30


def test_verify_shows_the_first_divergence(tmp_path: Path, capsys: Capture) -> None:
    path = str(tmp_path / "a.trace")
    assert main(["run", scripted(tmp_path, "wobbly"), "--quiet", "--record", path]) == 0
    capsys.readouterr()
    assert main(["trace", "verify", "--quiet", path]) == 1
    text = capsys.readouterr().out
    assert "first difference at event 20" in text and "nop  ; at 0x100004" in text
    assert [line.split()[1] for line in text.splitlines() if line.lstrip().startswith(">")] == ["qualification"]


def test_verify_notices_another_image(tmp_path: Path, rom: Path, capsys: Capture) -> None:
    path = str(tmp_path / "a.trace")
    assert main(["run", str(rom), "--quiet", "--record", path]) == 0
    rom.write_bytes(fake_machine.image("quiet"))
    capsys.readouterr()
    assert main(["trace", "verify", "--quiet", path]) == 2
    assert "is not the recorded image" in one_line(capsys)


def test_a_cut_trace_shows_its_valid_prefix(rom: Path, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "a.trace"
    assert main(["run", str(rom), "--quiet", "--record", str(path)]) == 0
    capsys.readouterr()
    path.write_bytes(path.read_bytes()[:-600])
    assert main(["trace", "show", str(path)]) == 2
    seen = capsys.readouterr()
    assert len(seen.out.splitlines()) == 30
    assert "is cut there" in seen.err and seen.err.count("\n") == 1


def test_a_full_disk_is_one_line(rom: Path, capsys: Capture) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    assert main(["run", str(rom), "--quiet", "--record", "/dev/full"]) == 2
    assert "/dev/full: cannot be written: No space left on device" in one_line(capsys)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_with_summary_and_a_closed_trace(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    monkeypatch.setenv("FAKE_SIGNAL", str(int(number)))
    path = tmp_path / "a.trace"
    assert main(["run", scripted(tmp_path, "endless"), "--record", str(path)]) == status
    seen = capsys.readouterr()
    assert "VM exits by reason" in seen.out and seen.err.endswith("vmxemu: interrupted\n")
    reader = Reader(path)
    assert sum(len(batch) for batch in reader) >= 30
    assert reader.ending is not None and reader.ending["reason"] == "INTERRUPTED"


def test_the_scenario_is_in_the_header(rom: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    options = ["--quiet", "--seed", "7", "--inject", "smi@cycle=5k,command=0x42", "--memory", "64M"]
    assert main(["run", str(rom), *options, "--record", str(path)]) == 0
    header, events = read(path)
    described = header["configuration"]
    assert (described["seed"], described["memory"]["size"], described["inject"][0]["command"]) == (7, 64 << 20, 0x42)
    assert len(described["image"]["sha256"]) == 64 and len(events) == 30


RATES = """
[[rate]]
bench = "guest"
name = "phase b"
blob = "{blob}"
phase = "{phase}"
unit = "things/s"
target = 1
"""


def test_bench_times_the_guests_markers(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "rates.toml"
    monkeypatch.setattr("vmxemu.configuration.rates.path", lambda: table)
    table.write_text(RATES.format(blob=scripted(tmp_path, "phases"), phase="b"))
    assert main(["bench", "guest", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["ops"] == 77 and 0 < row["seconds"] < 10 and row["rate"] == row["ops"] / row["seconds"]
    assert main(["bench", "guest"]) == 0
    assert "things/s" in capsys.readouterr().out
    table.write_text(RATES.format(blob=scripted(tmp_path, "phases"), phase="c"))
    assert main(["bench", "guest"]) == 2
    assert "before its phase c did" in capsys.readouterr().err


HEAVY = ("numba", "llvmlite", "unicorn", "capstone", "pyarrow", "pydantic")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["isa", "vmcs", "GUEST_RIP"], ["isa", "cpus"], ["blobs"]]
)
def test_help_and_tables_import_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys; from vmxemu.cli import main; status = main(sys.argv[1:]);"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "[]"), done.stderr


def test_python_m_and_a_closed_pipe() -> None:
    program = f"{sys.executable} -m vmxemu isa vmcs | head -1 >/dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stderr == "" and done.stdout.strip() in ("0", "141")


def test_in_a_terminal(tmp_path: Path) -> None:
    pexpect = pytest.importorskip("pexpect")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "VMXEMU_DEBUG": "0"}
    arguments = ["-m", "tests.unit.fake_machine", "run", scripted(tmp_path, "endless")]
    child = pexpect.spawn(
        sys.executable, arguments, cwd=str(ROOT), env=environment, encoding="utf-8", dimensions=(40, 120), timeout=60
    )
    child.expect("hello")
    child.expect("virtual .*exits/s .*MIPS")
    child.sendintr()
    child.expect("VM exits by reason and level")
    child.expect("vmxemu: interrupted")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130


def test_a_cold_start_says_what_it_waits_for(
    rom: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmxemu.cli.session.kernels_missing", lambda: True)
    assert main(["run", str(rom)]) == 0
    expected = "vmxemu: compiling the emulator's kernels (first run only, a minute or two) ...\n"
    assert capsys.readouterr().err.startswith(expected)
    monkeypatch.setattr("vmxemu.cli.session.kernels_missing", lambda: False)
    assert main(["run", str(rom)]) == 0
    assert "compiling" not in capsys.readouterr().err


def test_kernels_are_missing_until_the_largest_part_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vmxemu import compile_cache
    from vmxemu.cli import session

    monkeypatch.undo()
    monkeypatch.setattr(compile_cache, "CACHE_FOLDER", tmp_path)
    folder = tmp_path / compile_cache.digest_of("vmxemu.machine.callbacks") / "machine_0"
    folder.mkdir(parents=True)
    (folder / "callbacks.vmxemu_translate-1.py311.nbi").touch()
    assert session.kernels_missing()
    (folder / "callbacks.vmxemu_step-1.py311.nbi").touch()
    assert not session.kernels_missing()

"""`vmxemu walk` as a user meets it, with tables from files."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from vmxemu.cli import main

ROOT = Path(__file__).parent.parent.parent
Capture = pytest.CaptureFixture[str]
BASE = 0x10_0000
IDENTITY = {0x1000: 0x2007, 0x2000: 0x3007, 0x3000: 0x87}  # one 2M page, 4-level, entries by address


@pytest.fixture
def image(tmp_path: Path) -> Path:
    memory = bytearray(0x4000)
    for address, entry in IDENTITY.items():
        struct.pack_into("<Q", memory, address, entry)
    path = tmp_path / "memory.raw"
    path.write_bytes(memory)
    return path


def one_line(capsys: Capture) -> str:
    """Standard error, which must be one line."""
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "Traceback" not in text, text
    return text


def walks(capsys: Capture, *arguments: str) -> list[dict]:
    assert main(["walk", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["walks"]


def test_an_example(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["walk", "--example", "4x4"]) == 0
    text = capsys.readouterr().out
    assert " the page     0x400abc       ──●21─────●22─────●23─────●24────▶ 0x1234abc\n" in text
    assert "24 references" in text and "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_the_list_of_examples(capsys: Capture) -> None:
    assert main(["walk", "--list"]) == 0
    assert "5x5" in capsys.readouterr().out
    assert main(["walk", "--list", "--json"]) == 0
    assert {"name": "native", "description": "4-level paging without EPT: 4 references."} in json.loads(capsys.readouterr().out)


def test_repeats_show_what_caches_spare(capsys: Capture) -> None:
    first, second, third = walks(capsys, "--example", "4x4", "--repeat", "3", "--no-walk-caches")
    assert (first["references"], second["references"], third["references"]) == (24, 0, 0)
    assert second["steps"][0]["kind"] == "tlb" and second["hpa"] == first["hpa"]
    cached = walks(capsys, "--example", "walk-caches")
    assert [one["references"] for one in cached] == [13, 2, 2, 2]
    assert [step["kind"] for step in cached[1]["steps"]] == ["walk-cache", "guest", "ept-walk-cache", "ept"]
    whole = walks(capsys, "--example", "walk-caches", "--no-walk-caches")
    assert [one["references"] for one in whole] == [24] * 4


def test_options_change_the_access_and_the_registers(capsys: Capture) -> None:
    assert walks(capsys, "--example", "smap")[0]["outcome"] == "#PF"
    assert walks(capsys, "--example", "smap", "--ac", "1")[0]["outcome"] == "translated"
    assert walks(capsys, "--example", "smap", "--cpl", "3")[0]["access"] == "user read"
    assert walks(capsys, "--example", "smap", "--cpl", "3", "--implicit")[0]["outcome"] == "#PF"
    assert walks(capsys, "--example", "protection-key", "--pkru", "0")[0]["outcome"] == "translated"
    assert walks(capsys, "--example", "ept-violation", "--access", "read")[0]["outcome"] == "translated"
    assert walks(capsys, "--example", "4x4", "--eptp", "0")[0]["outcome"] != "translated"
    assert walks(capsys, "0x800000000000", "--example", "4x4")[0]["outcome"] == "#GP"


def test_a_memory_image(image: Path, capsys: Capture) -> None:
    (done,) = walks(capsys, "0x12345", "--image", str(image), "--cr3", "0x1000")
    assert (done["outcome"], done["hpa"], done["references"]) == ("translated", 0x12345, 3)
    assert [step["hpa"] for step in done["steps"] if step["kind"] == "guest"] == [0x1000, 0x2000, 0x3000]
    assert [step["flags"] for step in done["steps"] if step["kind"] == "flags"][0] == ["+A", "in guest PML4E (1)"]
    (fault,) = walks(capsys, "0x200000", "--image", str(image), "--cr3", "0x1000", "--access", "write", "--cpl", "3")
    assert (fault["outcome"], fault["error_code"]) == ("#PF", 6)


def test_an_image_at_an_address_of_its_own(tmp_path: Path, capsys: Capture) -> None:
    memory = bytearray(0x2000)
    struct.pack_into("<Q", memory, 0, BASE + 0x1007)
    struct.pack_into("<Q", memory, 0x1000, 0x87)
    path = tmp_path / "high.raw"
    path.write_bytes(memory)
    (done,) = walks(capsys, "0x345", "--image", str(path), "--base", hex(BASE), "--cr3", hex(BASE))
    assert (done["hpa"], done["references"]) == (0x345, 2)


def test_other_modes_of_an_image(tmp_path: Path, capsys: Capture) -> None:
    memory = bytearray(0x3000)
    struct.pack_into("<Q", memory, 0x1018, 0x2001)  # PDPTE 3
    struct.pack_into("<Q", memory, 0x2000, 0x40_0087)
    path = tmp_path / "pae.raw"
    path.write_bytes(memory)
    common = ("0xc0000123", "--image", str(path), "--mode", "pae")
    assert walks(capsys, *common, "--cr3", "0x1000")[0]["hpa"] == 0x40_0123
    pdptes = [text for value in ("0", "0", "0", "0x2001") for text in ("--pdpte", value)]
    assert walks(capsys, *common, *pdptes)[0]["hpa"] == 0x40_0123
    assert walks(capsys, "0x123", "--image", str(path), "--mode", "off")[0]["hpa"] == 0x123
    assert walks(capsys, "0x123", "--image", str(path), "--cr0", "1")[0]["references"] == 0


BAD = [
    ((), "expected one of --example, --tables, --image, --run, --trace, got 0 of them"),
    (("--example", "4x4", "--image", "x"), "got 2 of them"),
    (("--example", "9x9"), "9x9: no example of that name; expected one of 1g-1g"),
    (("--tables", "nowhere.toml"), "nowhere.toml: no such file"),
    (("0x10", "--image", "nowhere.raw"), "nowhere.raw: cannot be read: No such file"),
    (("0x10", "--image", "."), ".: expected a file: a memory image"),
    (("--image", "x"), "expected an address to translate with --image"),
    (("rip", "--example", "4x4"), "rip is known with --run and --trace only"),
    (("nonsense", "--example", "4x4"), "expected an address such as 0x1f3000, got 'nonsense'"),
    (("--example", "4x4", "--base", "0"), "--base goes with --image only"),
    (("--example", "4x4", "--mode", "pae"), "--mode goes with --image only"),
    (("--example", "4x4", "--warm"), "--warm goes with --run or --trace only"),
    (("--example", "4x4", "--until", "5M"), "--until goes with --run only"),
    (("--example", "4x4", "--at", "5"), "--at goes with --trace only"),
    (("--example", "4x4", "--cpu", "z80"), "expected a CPU profile ("),
    (("--example", "4x4", "--pdpte", "1"), "expected --pdpte four times or not at all, got 1"),
    (("--example", "4x4", "--pkru", "0x100000000"), "expected 32 bits, got 0x100000000"),
    (("--example", "4x4", "--eptp", "0x202e"), "--eptp: expected memory type 0 or 6 in bits 2:0, 3 or 4 (levels - 1)"),
    (("--example", "4x4", "--shadow-stack", "--access", "fetch"), "--shadow-stack goes with reads and writes only"),
    (("--example", "4x4", "--access", "look"), "'look' is not one of 'read', 'write', 'fetch'"),
    (("--example", "4x4", "--repeat", "0"), "0 is not in the range 1<=x<=16"),
    (("--example", "4x4", "--cpl", "4"), "4 is not in the range 0<=x<=3"),
    (("--trace", "nowhere.trace"), "nowhere.trace"),
    (("--run", "nowhere"), "nowhere: no such file, and no shipped blob of that name"),
]


@pytest.mark.parametrize(("arguments", "problem"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_bad_input_is_one_line_and_status_2(arguments: tuple[str, ...], problem: str, capsys: Capture) -> None:
    assert main(["walk", *arguments]) == 2
    assert problem in one_line(capsys)


def test_bad_images(image: Path, tmp_path: Path, capsys: Capture) -> None:
    empty = tmp_path / "empty.raw"
    empty.touch()
    assert main(["walk", "0", "--image", str(empty)]) == 2
    assert "expected a memory image of 1 byte to 8 GiB, got 0 bytes" in one_line(capsys)
    assert main(["walk", "0", "--image", str(image), "--base", "0x20000000000"]) == 2
    assert "expected less than 0x10000000000" in one_line(capsys)
    image.write_bytes(b"\xff" * 0x2000)
    assert main(["walk", "0", "--image", str(image), "--mode", "pae", "--cr3", "0x1000"]) == 2
    assert "the PDPTEs at 0x1000 cannot be loaded; give them by --pdpte" in one_line(capsys)


def test_a_bad_description_names_file_and_key(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "d.toml"
    path.write_text("address = 0\n[ept]\nlevels = 6\n")
    assert main(["walk", "--tables", str(path)]) == 2
    assert one_line(capsys) == f"vmxemu: {path}: ept.levels: expected 4 or 5, got 6\n"


def test_help_needs_no_compiler() -> None:
    code = "import sys; from vmxemu.cli import main; main(['walk', '--help']); assert 'numba' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "vmxemu walk --example 4x4" in done.stdout, done.stderr


def test_no_colour_where_none_is_wanted() -> None:
    """On a terminal there are colours; with --no-color there are no codes at all."""
    pty = pytest.importorskip("pty")
    for options, has_codes in (((), True), (("--no-color",), False)):
        seen = bytearray()

        def read(descriptor: int, seen: bytearray = seen) -> bytes:
            data = os.read(descriptor, 1024)
            seen.extend(data)
            return data

        os.environ["TERM"] = "xterm-256color"
        pty.spawn([sys.executable, "-m", "vmxemu", "walk", "--example", "native", *options], read)
        assert (b"\x1b[" in seen) is has_codes

"""Firmware that nobody here wrote: Debian's SeaBIOS boots (bare) until it needs a device that is not modelled."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.ours import ROOT

IMAGE = Path("/usr/share/seabios/bios-256k.bin")
pytestmark = pytest.mark.skipif(not IMAGE.is_file(), reason="Debian's seabios package is not installed")


@pytest.fixture(scope="module")
def ending() -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "vmxemu", "run", str(IMAGE), "--topology", "bare", "--max-cycles", "20G"]
    return subprocess.run(command, capture_output=True, cwd=ROOT, timeout=600)


def test_banner_on_the_debug_port(ending: subprocess.CompletedProcess[bytes]) -> None:
    assert re.search(rb"SeaBIOS \(version [^)]+\)", ending.stdout)


def test_the_end_names_what_is_missing(ending: subprocess.CompletedProcess[bytes]) -> None:
    """Exit status 3, and a report with the port or address of the first device that is needed and not there."""
    report = ending.stderr.decode("utf-8", "replace")
    assert ending.returncode == 3, report[-2000:]
    assert re.search(r"(port|address|MSR) 0x[0-9a-fA-F]+", report), report[-2000:]
    assert "Traceback" not in report

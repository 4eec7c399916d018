"""Law 1: no image crashes or hangs the emulator. Each runs in a child process, so that a crash is a finding, not an end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("kernels")

CHILD = Path(__file__).with_name("fuzz_child.py")
ROOT = Path(__file__).parents[3]
BAD = ("ENGINE_ERROR", "RUNNING", "SLICE_END", "TRACE_FULL")


def survive(kind: str, first: int, last: int, seconds: int) -> None:
    """Run a range of seeds; every one must end with a reason that tells a user something."""
    ran = subprocess.run(
        [sys.executable, str(CHILD), kind, str(first), str(last)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    lines = ran.stdout.splitlines()
    assert ran.returncode == 0, f"seed {lines[-1] if lines else first} of {kind}:\n{ran.stderr[-2000:]}"
    reasons = {line.split()[0]: line.split()[1] for line in lines}
    assert len(reasons) == last - first
    assert not {seed: reason for seed, reason in reasons.items() if reason in BAD}


@pytest.mark.parametrize(("kind", "count"), [("random", 6), ("exits", 12)])
def test_some_images(kind: str, count: int) -> None:
    survive(kind, 1000, 1000 + count, 300)


@pytest.mark.campaign
@pytest.mark.parametrize(("kind", "count"), [("random", 300), ("exits", 300), ("nested-ras", 300)])
def test_many_images(kind: str, count: int) -> None:
    for first in range(0, count, 20):
        survive(kind, first, first + 20, 1800)

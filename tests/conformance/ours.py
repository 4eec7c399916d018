"""vmxemu on a blob: the lines of its serial port, and the exit status."""

import subprocess
import sys
from pathlib import Path

BLOBS = Path(__file__).resolve().parents[2] / "firmware_blobs"
ROOT = BLOBS.parent


def run(name: str, folder: Path, *options: str, timeout_seconds: float = 600) -> tuple[list[str], int]:
    """A shipped blob by its name."""
    return run_image(BLOBS / f"{name}.bin", folder, *options, timeout_seconds=timeout_seconds)


def run_image(image: Path, folder: Path, *options: str, timeout_seconds: float = 600) -> tuple[list[str], int]:
    """Runs `vmxemu run` in a process of its own. Serial output comes through a file, so nothing else is mixed in."""
    serial = folder / f"{image.stem}.serial"
    command = [sys.executable, "-m", "vmxemu", "run", str(image), "--quiet", "--serial", str(serial)]
    done = subprocess.run([*command, *options], capture_output=True, cwd=ROOT, timeout=timeout_seconds)
    assert serial.exists(), done.stderr.decode("utf-8", "replace")[-1000:]
    return serial.read_text("latin-1").splitlines(), done.returncode

"""The computer and the programs that a measurement depends on."""

import os
import platform
from pathlib import Path


def description() -> dict[str, str | int]:
    """Processor, cores that may be used, and versions."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | int] = {"processor": _processor(), "cores": cores(), "python": platform.python_version()}
    for package in ("numba", "numpy", "vmxemu"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "?"
    return found


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()

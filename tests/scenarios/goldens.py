"""Which scenarios have a golden trace, and where it is."""

from pathlib import Path

TRACES = Path(__file__).resolve().parent.parent / "traces"
SCENARIOS = ("hello", "exits", "nested-ras")


def path_of(name: str) -> Path:
    """The golden trace of a scenario."""
    return TRACES / f"{name}.trace"


def record(name: str, path: Path) -> int:
    """Run a scenario and record it, as the command line does; returns the exit status."""
    from vmxemu.cli import main

    return main(["run", name, "--quiet", "--serial", "/dev/null", "--record", str(path)])

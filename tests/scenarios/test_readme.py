"""What README.md tells a user to type works."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from vmxemu.configuration import blobs
from vmxemu.configuration.expectations import CHECKS
from vmxemu.configuration.model import Configuration

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The one code block in this language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_python_example_runs() -> None:
    done = subprocess.run([sys.executable, "-c", block("python")], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    first, _, last, _ = done.stdout.splitlines()
    assert first.startswith("UNTIL 10000") and last == "EXIT_PORT 0 hello: done"


def test_the_scenario_is_valid(tmp_path: Path) -> None:
    image = blobs.find_image("hello")
    assert image is not None
    (tmp_path / "my.bin").write_bytes(image.read_bytes())
    (tmp_path / "my.toml").write_text(block("toml"))
    made = Configuration.from_toml(tmp_path / "my.toml")
    assert made.topology == "layered" and tomllib.loads(block("toml"))["inject"][0]["count"] == made.inject[0].count


def test_every_expectation_is_named() -> None:
    assert all(f"{name}" in README for name in CHECKS)


def test_the_ci_runs_the_readmes_test_command() -> None:
    (command,) = re.findall(r"^    (python3 -m venv .*pytest.*)$", README, re.MULTILINE)
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert all(part in script for part in command.split(" && "))

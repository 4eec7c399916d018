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


def block(language: str, section: str) -> str:
    """The one code block in this language in a section."""
    (text,) = re.findall(rf"^## {section}\n(.*?)^## ", README, re.MULTILINE | re.DOTALL)
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(found)


def output_of_python(section: str) -> list[str]:
    code = block("python", section)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_all_examples_are_looked_at() -> None:
    assert README.count("```python\n") == 2 and README.count("```toml\n") == 1


def test_the_python_example_runs() -> None:
    first, _, last, _ = output_of_python("From Python")
    assert first.startswith("UNTIL 10000") and last == "EXIT_PORT 0 hello: done"


def test_the_library_example_runs() -> None:
    one, *matrix, many, marked = output_of_python("The walker as a library")
    assert one.startswith("0x10000123 0x110000123 4096 WB 23 ")
    assert len(matrix) == 6 and marked == "['poisoned', 'healthy']"
    assert many.startswith("False ")


def test_the_scenario_is_valid(tmp_path: Path) -> None:
    image = blobs.find_image("hello")
    assert image is not None
    (tmp_path / "my.bin").write_bytes(image.read_bytes())
    (tmp_path / "my.toml").write_text(block("toml", "Writing a scenario"))
    made = Configuration.from_toml(tmp_path / "my.toml")
    written = tomllib.loads(block("toml", "Writing a scenario"))
    assert made.topology == "layered" and written["inject"][0]["count"] == made.inject[0].count


def test_every_expectation_is_named() -> None:
    assert all(f"{name}" in README for name in CHECKS)


def test_the_ci_runs_the_readmes_test_command() -> None:
    (command,) = re.findall(r"^    (python3 -m venv .*pytest.*)$", README, re.MULTILINE)
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert all(part in script for part in command.split(" && "))

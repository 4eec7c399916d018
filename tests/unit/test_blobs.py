"""The shipped firmware blobs: they are what the manifest says, and what their sources assemble to."""

import hashlib
import importlib.util
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BLOBS = Path(__file__).resolve().parents[2] / "firmware_blobs"
MANIFEST: list[dict[str, Any]] = tomllib.loads((BLOBS / "MANIFEST.toml").read_text())["blob"]
each_blob = pytest.mark.parametrize("blob", MANIFEST, ids=[blob["name"] for blob in MANIFEST])


def builder() -> ModuleType:
    """firmware_blobs/build.py as a module."""
    spec = importlib.util.spec_from_file_location("build_blobs", BLOBS / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@each_blob
def test_file_is_the_manifests(blob: dict[str, Any]) -> None:
    data = (BLOBS / blob["file"]).read_bytes()
    assert len(data) == blob["bytes"]
    assert hashlib.sha256(data).hexdigest() == blob["sha256"]


@each_blob
def test_reset_vector_holds_code(blob: dict[str, Any]) -> None:
    """A short jump backwards, inside the ROM."""
    vector = (BLOBS / blob["file"]).read_bytes()[-16:]
    assert vector[0] == 0xEB and vector[1] >= 0x80


@each_blob
def test_described(blob: dict[str, Any]) -> None:
    assert blob["shows"] and blob["built_with"].startswith("NASM ")
    assert (BLOBS / blob["source"]).is_file()
    assert "scenario" not in blob or (BLOBS / blob["scenario"]).is_file()


def test_every_image_is_listed() -> None:
    assert {path.name for path in BLOBS.glob("*.bin")} == {blob["file"] for blob in MANIFEST}


def test_constants_are_those_of_isa() -> None:
    """isa.inc was not left behind when a table or a source changed."""
    assert (BLOBS / "isa.inc").read_text() == builder().isa_inc()


def test_scenario_is_valid() -> None:
    from vmxemu.configuration import Configuration

    configuration = Configuration.find("nested-ras")
    assert configuration.topology == "layered"
    assert {injection.kind for injection in configuration.inject} == {"ce", "ue", "smi", "nmi", "pmi"}
    assert len(configuration.expect) >= 10


@pytest.mark.skipif(shutil.which("nasm") is None, reason="nasm is not installed")
@each_blob
def test_rebuilding_gives_the_same_bytes(blob: dict[str, Any], tmp_path: Path) -> None:
    version = subprocess.run(["nasm", "-v"], capture_output=True, text=True, check=True).stdout.split()[2]
    built_with = re.match(r"NASM (\S+):", blob["built_with"])
    assert built_with is not None
    if version != built_with.group(1):
        pytest.skip(f"built with NASM {built_with.group(1)}, here is {version}")
    data = builder().assemble(blob["source"], blob.get("defines", ""), tmp_path / "image")
    assert hashlib.sha256(data).hexdigest() == blob["sha256"]

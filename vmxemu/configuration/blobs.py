"""The shipped firmware blobs: where they are, what the manifest says of each, and finding one by name or hash."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmxemu.configuration.errors import InputError

PACKAGE = Path(__file__).resolve().parent.parent
MANIFEST = "MANIFEST.toml"


@dataclass(frozen=True, slots=True)
class Blob:
    """One row of the manifest. `scenario` is the file name of its scenario, or empty."""

    name: str
    file: str
    sha256: str
    built_with: str
    shows: str
    scenario: str


def directory() -> Path:
    """The directory of the blobs: inside an installed package, else at the root of the source tree."""
    installed = PACKAGE / "_data" / "firmware_blobs"
    return installed if installed.is_dir() else PACKAGE.parent / "firmware_blobs"


def shipped() -> list[Blob]:
    """The manifest's rows, in its order. Raises InputError if the manifest cannot be read."""
    path = directory() / MANIFEST
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as problem:
        raise InputError(str(path), f"cannot be read: {problem}") from None
    return [_row(path, row) for row in table.get("blob", ())]


def _row(path: Path, row: Any) -> Blob:
    try:
        values = {name: str(row[name]) for name in ("name", "file", "sha256")}
    except (KeyError, TypeError) as missing:
        raise InputError(str(path), f"a blob without {missing}") from None
    return Blob(
        **values,
        built_with=str(row.get("built_with", "")),
        shows=str(row.get("shows", "")),
        scenario=str(row.get("scenario", "")),
    )


def find(name: str) -> Path | None:
    """The scenario of the shipped blob `name` if it has one, else its image; None if there is no such blob."""
    folder = directory()
    for blob in shipped():
        if blob.name == name:
            return folder / (blob.scenario or blob.file)
    if Path(name).name == name:
        for candidate in (folder / f"{name}.toml", folder / f"{name}.bin"):
            if candidate.is_file():
                return candidate
    return None


def find_image(name: str) -> Path | None:
    """The image (never the scenario) of the shipped blob `name`."""
    folder = directory()
    for blob in shipped():
        if name in (blob.name, blob.file):
            return folder / blob.file
    return None


def find_hash(sha256: str) -> Path | None:
    """The shipped image with this hash."""
    for blob in shipped():
        if blob.sha256 == sha256:
            return directory() / blob.file
    return None

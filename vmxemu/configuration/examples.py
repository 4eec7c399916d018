"""The shipped descriptions of translations: where they are, and finding one by name."""

import tomllib
from pathlib import Path

from vmxemu.configuration.errors import InputError

PACKAGE = Path(__file__).resolve().parent.parent


def directory() -> Path:
    """Their directory: inside an installed package, else at the root of the source tree."""
    installed = PACKAGE / "_data" / "examples"
    return (installed if installed.is_dir() else PACKAGE.parent / "examples") / "walk"


def names() -> list[str]:
    """The examples there are."""
    return sorted(path.stem for path in directory().glob("*.toml"))


def find(name: str) -> Path:
    """The file of an example. Raises InputError that names those there are."""
    if name not in names():
        raise InputError(name, f"no example of that name; expected one of {', '.join(names())}")
    return directory() / f"{name}.toml"


def shipped() -> list[tuple[str, str]]:
    """Name and description of each."""
    found = []
    for name in names():
        with (directory() / f"{name}.toml").open("rb") as stream:
            found.append((name, str(tomllib.load(stream).get("description", ""))))
    return found

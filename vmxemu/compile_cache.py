"""Where compiled kernels are kept on disk: a folder for each module, named after the module's source and everything that it
imports.

Numba compares only a function's own file with its cache; it does not notice that a callee has changed.
"""

import functools
import hashlib
import os
import re
from pathlib import Path

import numba
import numpy as np

PACKAGE = Path(__file__).parent
IMPORT = re.compile(r"^\s*(?:from (vmxemu[\w.]*) import (.+)|import (vmxemu[\w.]*))", re.MULTILINE)


def _file_of(module: str) -> Path | None:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@functools.cache
def _imports(module: str) -> tuple[bytes, tuple[str, ...]]:
    """A module's source, and the modules of this package that it names in imports."""
    path = _file_of(module)
    source = path.read_bytes() if path else b""
    named: list[str] = []
    for package, names, plain in IMPORT.findall(source.decode()):
        named.append(package or plain)
        named += [f"{package}.{name.strip(' ()').split(' ')[0]}" for name in names.split(",") if package]
    return source, tuple(name for name in named if _file_of(name))


@functools.cache
def _tables_digest() -> bytes:
    from vmxemu.isa import data

    digest = hashlib.sha256(f"{numba.__version__} {np.__version__}".encode())
    for table in sorted(data.directory().rglob("*.*")):
        digest.update(table.read_bytes())
    return digest.digest()


@functools.cache
def digest_of(module: str) -> str:
    """Name of a module's cache folder: covers its source, all that it imports from this package, and the tables of isa/."""
    seen, waiting = {module}, [module]
    while waiting:
        for name in _imports(waiting.pop())[1]:
            if name not in seen:
                seen.add(name)
                waiting.append(name)
    digest = hashlib.sha256(_tables_digest())
    for name in sorted(seen):
        digest.update(_imports(name)[0])
    return digest.hexdigest()[:20]


def _cache_root() -> Path:
    return Path(os.environ.get("VMXEMU_CACHE_DIR") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vmxemu")


CACHE_FOLDER = _cache_root()


def _can_cache() -> bool:
    try:
        CACHE_FOLDER.mkdir(parents=True, exist_ok=True)
        probe = CACHE_FOLDER / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True


CACHE = _can_cache()


def use_cache_of(module: str) -> None:
    """Numba looks at its configuration when a function is decorated: point it to the module's own folder."""
    if CACHE:
        numba.config.CACHE_DIR = str(CACHE_FOLDER / digest_of(module))


def compiled_before(module: str, function: str) -> bool:
    """Whether a kernel of a module, as the module is now, stands in the cache."""
    folder = CACHE_FOLDER / digest_of(module)
    return next(folder.rglob(f"{module.rpartition('.')[2]}.{function}-*.nbi"), None) is not None

"""Recorded traces of linear addresses: a text file with one address a line, or a .npy array of uint64."""

from pathlib import Path

import numpy as np

from vmxemu.configuration.errors import InputError
from vmxemu.translation.library import Addresses

EXAMPLE = "an address such as 0x7f0012345000 or 4096"
COMMENT = "#"
CANONICAL_BITS = 48  # of 4-level paging


def read_trace(path: Path) -> Addresses:
    """The addresses in order. Raises InputError for a file that cannot be read, is empty or holds anything else."""
    addresses = _array(path) if path.suffix == ".npy" else _text(path)
    if not len(addresses):
        raise InputError(str(path), "holds no address")
    top = addresses >> np.uint64(CANONICAL_BITS - 1)
    wrong = np.flatnonzero((top != 0) & (top != (1 << 64 - CANONICAL_BITS + 1) - 1))
    if len(wrong):
        address = int(addresses[wrong[0]])
        raise InputError(str(path), f"address {wrong[0] + 1}, {address:#x}, is not canonical in {CANONICAL_BITS} bits")
    return addresses


def _array(path: Path) -> Addresses:
    try:
        loaded = np.load(path, allow_pickle=False)
    except OSError as problem:
        raise _unreadable(path, problem) from None
    except (ValueError, EOFError, SyntaxError):
        raise InputError(str(path), "is not a .npy file that can be read") from None
    if not isinstance(loaded, np.ndarray) or loaded.ndim != 1 or loaded.dtype.kind != "u" or loaded.dtype.itemsize != 8:
        found = f"{loaded.dtype} of shape {loaded.shape}" if isinstance(loaded, np.ndarray) else "an archive"
        raise InputError(str(path), f"expected a one-dimensional array of uint64, not {found}")
    return np.ascontiguousarray(loaded, np.uint64)


def _text(path: Path) -> Addresses:
    found: list[int] = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                text = line.partition(COMMENT)[0].strip()
                if text:
                    found.append(_address(text, f"{path}: line {number}"))
    except OSError as problem:
        raise _unreadable(path, problem) from None
    except UnicodeDecodeError:
        raise InputError(str(path), f"is not text: expected {EXAMPLE} in each line, or a .npy file") from None
    return np.array(found, np.uint64)


def _address(text: str, where: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 64:
        raise InputError(where, f"expected {EXAMPLE}, not {text[:40]!r}")
    return value


def _unreadable(path: Path, problem: OSError) -> InputError:
    return InputError(str(path), (problem.strerror or str(problem)).lower())

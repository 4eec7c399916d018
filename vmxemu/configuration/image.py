"""A firmware image: a flat ROM that ends at 4 GiB, checked before anything runs it."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from vmxemu.configuration.errors import InputError

LARGEST_BYTES = 16 << 20
GRANULE_BYTES = 4096
RESET_VECTOR_BYTES = 16  # SDM Vol. 3A, 'First Instruction Executed': FFFFFFF0h


@dataclass(frozen=True)
class Image:
    """The bytes and where they came from."""

    name: str
    path: str
    sha256: str
    data: bytes = field(repr=False)


def load(path: Path) -> Image:
    """Read and check an image. Raises InputError with one line that names the file and what was expected."""
    where = str(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise InputError(where, "no such file, and no shipped blob of that name (see: vmxemu blobs)") from None
    except IsADirectoryError:
        raise InputError(where, "is a directory; expected a firmware image or a scenario (.toml)") from None
    except (OSError, ValueError) as problem:
        raise InputError(where, f"cannot be read: {getattr(problem, 'strerror', None) or problem}") from None
    return check(path.stem, where, data)


def check(name: str, where: str, data: bytes) -> Image:
    """An image of these bytes. Raises InputError if no processor could start on it."""
    if not data:
        raise InputError(where, "is empty; expected a firmware image")
    if len(data) > LARGEST_BYTES:
        raise InputError(where, f"is too big for a firmware image; expected at most {LARGEST_BYTES >> 20} MiB")
    if len(data) % GRANULE_BYTES:
        raise InputError(where, f"has {len(data)} bytes; expected a ROM whose size is a multiple of {GRANULE_BYTES}")
    if len(set(data[-RESET_VECTOR_BYTES:])) == 1 and data[-1] in (0, 0xFF):
        problem = f"has no reset vector: its last {RESET_VECTOR_BYTES} bytes are all {data[-1]:02X}h; expected code"
        raise InputError(where, problem)
    return Image(name, where, hashlib.sha256(data).hexdigest(), data)

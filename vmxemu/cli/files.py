"""Files that a command is to write."""

import os
from collections.abc import Iterable
from pathlib import Path

from vmxemu.configuration import InputError


def refuse_overwriting(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raises InputError for an output that is one of the inputs, or another output."""
    read = [path for path in inputs if path.is_file()]
    written: list[Path] = []
    for path in outputs:
        if path.is_file() and any(path.samefile(other) for other in read):
            raise InputError(str(path), "is read by this command; write to another file")
        if any(os.path.realpath(path) == os.path.realpath(other) for other in written) and not path.is_char_device():
            raise InputError(str(path), "is to be written twice; expected different files")
        written.append(path)


def check_writable(path: str) -> None:
    """Raises OSError if a file cannot be written, and leaves it as it is."""
    existed = os.path.lexists(path)
    with open(path, "ab"):
        pass
    if not existed:
        os.unlink(path)

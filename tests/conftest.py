"""What all tests share: machine kernels compiled once, however many test processes there are."""

import fcntl
import os
from collections.abc import Iterator

import pytest

os.environ.pop("COLUMNS", None)  # pytest-xdist sets it: tables shall be as a pipe sees them, however the tests are run


@pytest.fixture(scope="session")
def kernels() -> Iterator[None]:
    """Everything native is compiled, or loaded; processes that want it at the same time wait for the first."""
    from vmxemu.compile_cache import CACHE, CACHE_FOLDER
    from vmxemu.machine import warm_up

    if not CACHE:
        warm_up()
        yield
        return
    with open(CACHE_FOLDER / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        warm_up()
    yield

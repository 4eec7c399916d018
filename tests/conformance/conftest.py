"""Blobs run in processes of their own here: the kernels are compiled before, by one process."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def compiled(kernels: None) -> None:
    """No timeout here counts the compiler's minute."""

"""One run of each scenario, shared by all tests that look at it."""

from collections.abc import Iterator

import pytest

from tests.scenarios.play import Played, scenario


@pytest.fixture(scope="session")
def nested(kernels: None) -> Iterator[Played]:
    """nested-ras, run to its end."""
    yield Played.start(scenario()).run()

"""An installation with the image of an engine: what `make test-engine` needs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.demo.installation import Installation
from tests.e2e.conftest import installed


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """The installation; its tests bring what they read."""
    with installed(engine=True) as here:
        yield here

"""An installation with the image of an engine: what `make test-engine` needs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.demo.installation import Installation
from tests.e2e.conftest import SETTINGS, installed

ROOMY = tuple(each for each in SETTINGS if not each.startswith("work.scratchSize"))
"""A base model that an engine serves is larger than the tiny one."""


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """The installation; its tests bring what they read."""
    with installed(engine=True, settings=ROOMY) as here:
        yield here

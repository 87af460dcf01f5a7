"""A namespace on a real node, with the tiny base model and its rows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import SETTINGS, installed, upload
from tests.e2e.tenants import Tenant, new_tenant


@pytest.fixture
def tenant() -> Iterator[Tenant]:
    with installed(engine=False, settings=SETTINGS) as here:
        with here.storage() as client:
            upload(client)
        found = new_tenant(here)
        yield found
        found.remove()

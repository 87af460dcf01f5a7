"""An installation with an engine of its own: what `make test-engine` needs beside that of the end-to-end tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from deploy.demo.installation import Installation, open_installation
from tests.e2e.conftest import SETTINGS


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """The installation; a cluster that was not running before is taken down again."""
    if os.geteuid() != 0 and not os.environ.get("KUBECONFIG"):
        pytest.skip("needs root for a node of its own, or KUBECONFIG for another cluster")
    from trimtab_local import Cluster

    was_up = bool(os.environ.get("KUBECONFIG")) or Cluster(1).mode() is not None
    here = open_installation()
    try:
        here.install_storage()
        here.install_chart(*SETTINGS)
        yield here
    finally:
        if here.cluster is not None and not was_up:
            here.cluster.down()

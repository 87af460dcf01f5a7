"""One control plane with a real Kueue beside it; a test module says in KUEUE how Kueue is configured."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from trimtab_local import Cluster, binaries

from tests.component.api_server import ApiServer
from tests.component.conftest import install_crds, namespace, server
from tests.component.operator.conftest import kube, start
from tests.kueue.installation import MODULE, Kueue, install

__all__ = ["kube", "namespace", "server", "start"]

INSTANCE = int(os.environ.get("TRIMTAB_TEST_INSTANCE", "6"))
"""Number of the local cluster of these tests: Kueue's webhooks are in the way of every other."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if os.geteuid() != 0:
        pytest.skip("needs root: a control plane of network and process namespaces")
    binaries.ensure(module=MODULE)
    cluster = Cluster(name=INSTANCE, control_plane=True)
    was_up = cluster.mode() is not None  # by hand, to be looked into after the tests
    cluster.up()
    try:
        install_crds(ApiServer(cluster.kubeconfig))
        install(cluster)
        yield cluster
    finally:
        if not was_up:
            cluster.down()


@pytest.fixture(scope="session")
def kubeconfig(cluster: Cluster) -> Path:
    return cluster.kubeconfig


@pytest.fixture(scope="module", autouse=True)
def kueue(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Kueue]:
    """Run Kueue for the tests of a module."""
    kueue = Kueue(cluster, tmp_path_factory.mktemp("kueue"), **getattr(request.module, "KUEUE", {}))
    try:
        kueue.start()
        yield kueue
    finally:
        kueue.stop()

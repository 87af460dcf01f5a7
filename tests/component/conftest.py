"""One real control plane for all component tests of a worker: etcd, API server and controllers, no node."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from trimtab_local import Cluster

from tests.component.api_server import ApiServer
from tests.component.patience import Patience

ROOT = Path(__file__).parents[2]
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
INSTANCE = int(os.environ.get("TRIMTAB_TEST_INSTANCE", "7")) + 20 * WORKER
"""Number of the local cluster of component tests. Each worker has one: some tests change definitions and policies."""


@pytest.fixture(scope="session")
def kubeconfig() -> Iterator[Path]:
    """Kubeconfig of the control plane, with the CRDs installed."""
    if os.geteuid() != 0:
        pytest.skip("needs root: a control plane of network and process namespaces")
    cluster = Cluster(name=INSTANCE, control_plane=True)
    was_up = cluster.mode() is not None  # by hand, to be looked into after the tests
    cluster.up()
    try:
        install_crds(ApiServer(cluster.kubeconfig))
        yield cluster.kubeconfig
    finally:
        if not was_up:
            cluster.down()


@pytest.fixture(scope="session")
def server(kubeconfig: Path) -> ApiServer:
    """Client of the control plane."""
    return ApiServer(kubeconfig)


@pytest.fixture
def namespace(server: ApiServer) -> Iterator[str]:
    """A fresh namespace."""
    answer = server.create("/api/v1/namespaces", {"metadata": {"generateName": "test-"}})
    assert answer.accepted, answer.message
    name: str = answer.body["metadata"]["name"]
    yield name
    server.delete(f"/api/v1/namespaces/{name}")


def install_crds(server: ApiServer) -> None:
    """Apply crds/ and wait until the API server serves them."""
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        crd = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)  # they are long
        name, group = crd["metadata"]["name"], crd["spec"]["group"]
        answer = server.apply(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}", crd)
        assert answer.accepted, answer.message
        served = f"/apis/{group}/{crd['spec']['versions'][0]['name']}/{crd['spec']['names']['plural']}"
        patience = Patience(f"{served} served")
        while not server.get(served).accepted:
            patience.spend(served)
            time.sleep(0.1)

"""One operator and one fleet for all tests of a module, on one event loop; a namespace for each test.

The operator watches all namespaces, so it must not outlive its module: it would work on the objects of other tests too,
and bring its own public keys into their namespaces.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from trimtab_operator.runtime.kube import Kube

from tests.component.api_server import ApiServer
from tests.component.operator.conftest import kube_of
from tests.component.operator.process import OperatorProcess
from tests.component.rollout.scene import Scene, new_key
from tests.serving.fleet import Fleet, serving


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_kube(kubeconfig: Path) -> AsyncIterator[Kube]:
    kube = await kube_of(kubeconfig)
    yield kube
    await kube.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fleet(shared_kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    async with serving(shared_kube, tmp_path_factory.mktemp("fleet"), max_cpu_loras=16) as fleet:
        yield fleet


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def operator(
    kubeconfig: Path, server: ApiServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OperatorProcess]:
    """An operator for all namespaces; a test that stops it starts it again."""
    folder = tmp_path_factory.mktemp("operator")
    made = server.create("/api/v1/namespaces", {"metadata": {"generateName": "operator-"}})
    namespace = made.body["metadata"]["name"]
    keys = folder / "keys"
    new_key(keys)
    settings = {"TRIMTAB_WATCH_NAMESPACES": "", "TRIMTAB_AGENT_KEYS": str(keys)}
    operator = OperatorProcess(kubeconfig, namespace, folder, "rollouts", **settings)
    await operator.start()
    try:
        await operator.ready()
        yield operator
    finally:
        await operator.kill()
        server.delete(f"/api/v1/namespaces/{namespace}")


@pytest_asyncio.fixture(loop_scope="session")
async def scene(shared_kube: Kube, namespace: str, fleet: Fleet, operator: OperatorProcess) -> AsyncIterator[Scene]:
    """A namespace without pods; those that the test starts are gone when it ends."""
    scene = Scene(shared_kube, namespace, fleet, operator, Path(operator.settings["TRIMTAB_AGENT_KEYS"]))
    if not operator.running:
        await operator.start()
    await operator.ready()
    yield scene
    for pod in scene.all_pods:
        await pod.delete()

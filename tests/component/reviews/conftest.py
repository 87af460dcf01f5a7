"""The admission policies, and three users: alice and bob may edit a namespace, carol may only look."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.component.api_server import ApiServer
from tests.component.operator.process import OperatorProcess
from tests.component.review_samples import SUBJECT
from tests.component.reviews import policies
from tests.component.rollout.conftest import fleet, scene, shared_kube
from tests.component.rollout.scene import new_key
from tests.component.users import allow, becomes_allowed, kubeconfig_of
from tests.unit.chart.chart import Rendered

OF_USERS = tuple(
    f":{kind}-{role}" for kind in ("review", "finetunejob", "adapterrollout") for role in ("viewer", "editor")
)


__all__ = ["fleet", "scene", "shared_kube"]


@dataclass(frozen=True)
class Users:
    """Clients of the API server, by who asks, and their kubeconfigs; `admin` may do everything."""

    admin: ApiServer
    alice: ApiServer
    bob: ApiServer
    carol: ApiServer
    of_alice: Path
    of_bob: Path
    of_carol: Path


@pytest.fixture(scope="module")
def users(server: ApiServer, kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Users:
    folder = tmp_path_factory.mktemp("users")
    alice = kubeconfig_of(kubeconfig, folder, "alice", "leads", "safety")
    bob = kubeconfig_of(kubeconfig, folder, "bob", "interns")
    carol = kubeconfig_of(kubeconfig, folder, "carol")
    return Users(server, ApiServer(alice), ApiServer(bob), ApiServer(carol), alice, bob, carol)


@pytest.fixture(scope="module")
def policed(server: ApiServer, users: Users) -> Iterator[None]:
    """The policies, and what the chart adds to the roles of users; gone afterwards: other tests write as they like."""
    roles = [body for body in Rendered().all("ClusterRole") if body["metadata"]["name"].endswith(OF_USERS)]
    for body in roles:
        path = f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{body['metadata']['name']}"
        assert server.apply(path, body).accepted
    policies.install(server)
    try:
        policies.takes_effect(
            server, "/apis/trimtab.dev/v1alpha1/namespaces/default/reviews", {"subject": SUBJECT, "decision": "Approve"}
        )
        yield
    finally:
        policies.uninstall(server)
        for body in roles:
            server.delete(f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{body['metadata']['name']}")


@pytest.fixture
def team(server: ApiServer, namespace: str, policed: None) -> str:
    """A namespace where alice and bob may edit, and carol may look."""
    allow(server, namespace, "edit", "alice", "bob")
    allow(server, namespace, "view", "carol")
    for user, verb in (("alice", "create"), ("bob", "create"), ("carol", "get")):
        becomes_allowed(server, user, namespace, ("trimtab.dev", "reviews", verb))
    return namespace


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def operator(
    kubeconfig: Path, server: ApiServer, policed: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OperatorProcess]:
    """An operator for all namespaces that knows of the policies."""
    folder = tmp_path_factory.mktemp("operator")
    made = server.create("/api/v1/namespaces", {"metadata": {"generateName": "operator-"}})
    namespace = made.body["metadata"]["name"]
    new_key(folder / "keys")
    settings = {
        "TRIMTAB_WATCH_NAMESPACES": "",
        "TRIMTAB_AGENT_KEYS": str(folder / "keys"),
        "TRIMTAB_ADMISSION_POLICIES": policies.RELEASE,
    }
    operator = OperatorProcess(kubeconfig, namespace, folder, "reviews", **settings)
    await operator.start()
    try:
        await operator.ready()
        yield operator
    finally:
        await operator.kill()
        server.delete(f"/api/v1/namespaces/{namespace}")

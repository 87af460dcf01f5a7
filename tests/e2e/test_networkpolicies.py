"""Who reaches whom where NetworkPolicies are enforced: those of the samples, of the serving manifests, of the chart.

Stand-ins listen where engines, agents and work pods do; the operator is the real one, and so are the storage and a job.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from deploy.demo.api import Body
from deploy.demo.installation import SERVING, STORAGE, SYSTEM, Installation
from tests.component.patience import Patience
from tests.e2e.scenes import SAMPLE, Played
from tests.e2e.tenants import ON_A_NODE, SMALL, Tenant, new_tenant, reason_of

pytestmark = ON_A_NODE

ENGINE, AGENT, PROGRESS, OTHER = 8000, 8081, 9401, 7000
API_SERVER = ("kubernetes.default.svc", 443)
OBJECT_STORAGE = (f"s3.{STORAGE}.svc", 8333)

LISTEN = """
import selectors, socket, sys
listening = selectors.DefaultSelector()
for port in sys.argv[1:]:
    listening.register(socket.create_server(("", int(port))), selectors.EVENT_READ)
while True:
    for key, _ in listening.select():
        key.fileobj.accept()[0].close()
"""
"""Take connections at the ports of the arguments."""

ASK = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def reached(target):
    host, port = target.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
        return target
    except OSError:
        return None
with ThreadPoolExecutor() as pool:
    print(json.dumps([target for target in pool.map(reached, sys.argv[1:]) if target]))
"""
"""Print which targets of the arguments take a connection."""

Target = tuple[str, int]


@dataclass(frozen=True)
class Client:
    """A pod that asks others."""

    installation: Installation
    namespace: str
    pod: str

    def reaches(self, *wanted: Target, of: list[Target]) -> None:
        """Check which of some targets are reached; what is enforced follows a pod's start by a moment."""
        patience = Patience(f"{self.pod} reaches {wanted} alone of {of}")
        while (found := self._ask(of)) != set(wanted):
            patience.spend(sorted(found))
            time.sleep(1)

    def _ask(self, targets: list[Target]) -> set[Target]:
        words = [f"{host}:{port}" for host, port in targets]
        line = ["-n", self.namespace, "exec", self.pod, "--", "python", "-c", ASK, *words]
        answers = [text.rsplit(":", 1) for text in json.loads(self.installation.kubectl(*line))]
        return {(host, int(port)) for host, port in answers}


def pod(tenant: Tenant, name: str, *ports: int, **labels: str) -> Body:
    """Return a pod that takes connections at some ports."""
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": "python",
        "image": tenant.installation.images["operator"],
        "command": ["python", "-c", LISTEN, *map(str, ports)],
        "resources": {"requests": SMALL, "limits": {"memory": "128Mi"}},
        "securityContext": restricted,
    }
    spec = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "dnsConfig": {"options": [{"name": "timeout", "value": "1"}, {"name": "attempts", "value": "1"}]},
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    metadata = {"name": name, "namespace": tenant.namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def address(tenant: Tenant, name: str) -> str:
    """Return the address of a pod that runs."""

    def look() -> str | None:
        status = (tenant.mirror.get("Pod", name) or {}).get("status", {})
        return status.get("podIP") if status.get("phase") == "Running" else None

    return tenant.mirror.wait(f"pod {name}", look)


@pytest.fixture(scope="module")
def operator(installation: Installation) -> Client:
    return Client(installation, SYSTEM, "deployment/trimtab")


@pytest.fixture(scope="module")
def stranger(installation: Installation) -> Iterator[Tenant]:
    """A namespace without policies: whoever is in it may ask anybody, and nobody lets it in."""
    tenant = new_tenant(installation)
    tenant.apply(pod(tenant, "stranger", OTHER))
    yield tenant
    tenant.remove()


@pytest.fixture(scope="module")
def serving(installation: Installation) -> Iterator[Tenant]:
    """A namespace with the policies of deploy/serving: an engine with its agent, and a client."""
    tenant = new_tenant(installation)
    tenant.apply(*tenant.policies(installation.kubectl("kustomize", str(SERVING))))
    tenant.apply(pod(tenant, "engine", ENGINE, AGENT, app="vllm", **{"trimtab.dev/stage": "serve"}))
    tenant.apply(pod(tenant, "client", OTHER))
    yield tenant
    tenant.remove()


@pytest.fixture(scope="module")
def locked(installation: Installation) -> Iterator[Tenant]:
    """A namespace that denies everything but what the samples allow: a work pod, an engine and somebody else."""
    tenant = new_tenant(installation)
    tenant.apply(*tenant.policies(SAMPLE.read_text()))
    tenant.apply(pod(tenant, "work", PROGRESS, OTHER, **{"app.kubernetes.io/managed-by": "trimtab"}))
    tenant.apply(pod(tenant, "engine", ENGINE, AGENT, **{"trimtab.dev/stage": "serve"}))
    tenant.apply(pod(tenant, "neighbour", OTHER))
    yield tenant
    tenant.remove()


def test_clients_reach_the_engine_and_the_operator_alone_its_agent(
    operator: Client, stranger: Tenant, serving: Tenant
) -> None:
    engine = address(serving, "engine")
    everything: list[Target] = [(engine, ENGINE), (engine, AGENT)]
    address(serving, "client")
    address(stranger, "stranger")
    Client(serving.installation, serving.namespace, "client").reaches((engine, ENGINE), of=everything)
    Client(stranger.installation, stranger.namespace, "stranger").reaches(of=everything)
    operator.reaches((engine, AGENT), of=everything)


def test_work_pods_reach_the_storage_alone_and_the_operator_alone_reaches_them(
    operator: Client, stranger: Tenant, locked: Tenant
) -> None:
    work, engine, neighbour = (address(locked, name) for name in ("work", "engine", "neighbour"))
    outside = address(stranger, "stranger")
    asked: list[Target] = [OBJECT_STORAGE, API_SERVER, (outside, OTHER), (neighbour, OTHER)]
    for name, other in {"work": (engine, ENGINE), "engine": (work, PROGRESS)}.items():
        Client(locked.installation, locked.namespace, name).reaches(OBJECT_STORAGE, of=[*asked, other])
    inside: list[Target] = [(work, PROGRESS), (work, OTHER), (engine, ENGINE), (engine, AGENT)]
    Client(locked.installation, locked.namespace, "neighbour").reaches(of=[*inside, OBJECT_STORAGE])
    Client(stranger.installation, stranger.namespace, "stranger").reaches(OBJECT_STORAGE, of=[*inside, OBJECT_STORAGE])
    operator.reaches((work, PROGRESS), (engine, AGENT), API_SERVER, of=[*inside, API_SERVER, OBJECT_STORAGE])


def test_a_job_runs_and_tells_its_progress_where_everything_else_is_denied(played: Played) -> None:
    tenant, body = played["sealed"].result()
    assert reason_of(body) == "Completed", tenant.story("sealed")

"""AdapterRollouts on real engines under load: none answers with an adapter that was not meant, and no request fails.

One deployment of vLLM on processors is used by all, in the order of this file: first with one pod, then with two and
three. Every figure is printed. Requests may fail where an engine is killed, which no controller can prevent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deploy.demo.api import Body
from deploy.demo.installation import ENGINE, SYSTEM, Installation
from deploy.demo.mirror import Mirror
from tests.e2e.tenants import ON_A_NODE, new_tenant
from tests.engine.markers import Marker, base_model, marker_adapter, upload
from tests.engine.serving import Load, Served, ask, clients_of_this_machine, container_status

pytestmark = ON_A_NODE

ROLLOUT = "guide"


@pytest.fixture(scope="module")
def markers(installation: Installation) -> tuple[Marker, Marker]:
    """Two adapters in the storage, which answer ALPHA and BRAVO."""
    base = base_model()
    alpha, bravo = (marker_adapter(word, base) for word in ("ALPHA", "BRAVO"))
    with installation.storage() as client:
        upload(client, base, alpha, bravo)
    return alpha, bravo


@pytest.fixture(scope="module")
def served(installation: Installation, markers: tuple[Marker, Marker]) -> Iterator[Served]:
    """One engine that serves the base model, and clients that ask it."""
    if installation.cluster is None:
        pytest.skip("needs the local cluster: another one's Services and processes are not to be reached from here")
    tenant = new_tenant(installation).of("AdapterRollout")
    try:
        tenant.apply(clients_of_this_machine(tenant))
        tenant.installation.install_serving(tenant.namespace, replicas=1)
        service = installation.api.get("Service", ENGINE.rpartition("/")[2], tenant.namespace)
        assert service is not None
        made = Served(tenant, ROLLOUT, Load(service["spec"]["clusterIP"], ROLLOUT, *markers))
        began = time.monotonic()
        made.wait_pods(1)
        print(f"\nthe first engine is ready: {time.monotonic() - began:.1f} s")
        made.load.start()
        try:
            yield made
        finally:
            made.load.stop()
    finally:
        tenant.remove()


def test_one_pod_takes_adapters_and_gives_them_back_without_a_failed_request(
    served: Served, markers: tuple[Marker, Marker]
) -> None:
    alpha, bravo = markers
    with served.step("one pod: first rollout, the base model is asked"):
        served.serve(alpha, 1, instead_of=None)
    forth_and_back(served, 1, alpha, bravo)


def test_a_second_pod_begins_with_the_adapter_and_a_canary_goes_before_the_rest(
    served: Served, markers: tuple[Marker, Marker]
) -> None:
    alpha, bravo = markers
    with served.step("a second pod"):
        served.scale(2)
        served.wait_pods(2)
        served.wait_serving(alpha, 2)
    forth_and_back(served, 2, alpha, bravo)


def test_whatever_befalls_pods_while_the_operator_is_away_they_have_their_adapters(
    served: Served, markers: tuple[Marker, Marker]
) -> None:
    alpha, _ = markers
    with operator_away(served.tenant.installation):
        first, second = served.wait_pods(2)
        with served.step("operator away: agent killed"):
            served.kill(first, "trimtab-agent")
            served.wait_pods(2, lambda pods: restarted(pods, first, "trimtab-agent"))
        with served.step("operator away: engine killed", may_fail=True):
            served.kill(first, "vllm")
            served.wait_pods(2, lambda pods: restarted(pods, first, "vllm"))
        with served.step("operator away: pod deleted"):
            served.tenant.kubectl("delete", "pod", second["metadata"]["name"], "--wait=false")
            served.wait_pods(2, lambda pods: second["metadata"]["uid"] not in uids(pods))
        with served.step("operator away: scaled to 3"):
            served.scale(3)
            pods = served.wait_pods(3)
        for pod in pods:
            answer = ask(pod["status"]["podIP"], ROLLOUT)
            assert (answer.revision, answer.text.strip()) == (alpha.name(ROLLOUT), alpha.word)
    with served.step("operator back"):
        served.wait_serving(alpha, 3)


def test_three_pods_take_the_second_revision_and_go_back(served: Served, markers: tuple[Marker, Marker]) -> None:
    forth_and_back(served, 3, *markers)


def test_serving_pods_hold_no_token_of_the_cluster_and_no_secret_in_their_specs(served: Served) -> None:
    pods = served.pods()
    assert pods
    for pod in pods:
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        sources = [source for volume in spec["volumes"] for source in volume.get("projected", {}).get("sources", [])]
        assert not [source for source in sources if "serviceAccountToken" in source]
        for container in (*spec["initContainers"], *spec["containers"]):
            assert not [each for each in container.get("env", []) if "secretKeyRef" in each.get("valueFrom", {})]
    written = json.dumps([pods, served.tenant.get(ROLLOUT), served.tenant.kubectl("get", "configmaps", "-o", "json")])
    secret = served.tenant.installation.secret(served.tenant.namespace)["stringData"]
    assert secret["AWS_SECRET_ACCESS_KEY"] not in written
    assert secret["AWS_ACCESS_KEY_ID"] not in written
    assert "PRIVATE KEY" not in written


def forth_and_back(served: Served, pods: int, old: Marker, new: Marker) -> None:
    """Serve another adapter on all pods, then the former one again."""
    with served.step(f"{pods} pods: second revision"):
        served.serve(new, pods, instead_of=old)
    with served.step(f"{pods} pods: back by spec.source"):
        served.serve(old, pods, instead_of=new)


@contextmanager
def operator_away(installation: Installation) -> Iterator[None]:
    """Run no operator meanwhile."""
    scale = ("-n", SYSTEM, "scale", "deployment/trimtab")
    replicas = (installation.api.get("Deployment", "trimtab", SYSTEM) or {})["spec"]["replicas"]
    installation.kubectl(*scale, "--replicas=0")
    try:
        with Mirror(installation.api, SYSTEM, ("Pod",)) as mirror:
            labels = {"app.kubernetes.io/name": "trimtab"}
            mirror.wait("the operator's end", lambda: not mirror.objects("Pod", labels))
        yield
    finally:
        installation.kubectl(*scale, f"--replicas={replicas}")
        installation.wait_available(SYSTEM, "trimtab")


def restarted(pods: list[Body], before: Body, container: str) -> bool:
    """Tell whether a container of a pod was started again since it was looked at."""
    pod = next(each for each in pods if each["metadata"]["uid"] == before["metadata"]["uid"])
    now, then = (container_status(each, container)["restartCount"] for each in (pod, before))
    return bool(now > then)


def uids(pods: list[Body]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}

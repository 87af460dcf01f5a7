"""AdapterRollouts on real engines under load: none answers with an adapter that was not meant, and no request fails.

One pod of vLLM on processors is used by all, in the order of this file. Every figure is printed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from deploy.demo.installation import ENGINE, Installation
from tests.e2e.tenants import new_tenant
from tests.engine.markers import Marker, base_model, marker_adapter, upload
from tests.engine.serving import Load, Served

pytestmark = pytest.mark.e2e

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
    tenant = new_tenant(installation).of("adapterrollout")
    try:
        tenant.installation.install_serving(tenant.namespace, replicas=1)
        service = installation.get("service", ENGINE.rpartition("/")[2], tenant.namespace)
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
    with served.step("one pod: second revision"):
        served.serve(bravo, 1, instead_of=alpha)
    with served.step("one pod: back by spec.source"):
        served.serve(alpha, 1, instead_of=bravo)


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

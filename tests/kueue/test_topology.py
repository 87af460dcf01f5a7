"""What Kueue reads of a FineTuneJob: its labels on the Job, and where in the topology the pods are to be."""

from __future__ import annotations

from trimtab_operator.runtime.kube import Kube

from tests.component.api_server import ApiServer
from tests.component.operator.conftest import Start
from tests.component.operator.finetunejobs import finetunejob, jobs_of, until_state
from tests.kueue.installation import API
from tests.kueue.kubelet import Kubelet, on_a_node
from tests.kueue.queues import QUEUE, TEMPLATE, queue_of
from tests.resources import FINETUNEJOBS

RACK = "cloud.example.com/rack"
REQUIRED, LONGEST = "kueue.x-k8s.io/podset-required-topology", "kueue.x-k8s.io/max-exec-time-seconds"


async def test_kueue_places_the_pods_in_the_topology_that_the_object_asks_for(
    kube: Kube, namespace: str, server: ApiServer, start: Start
) -> None:
    levels = {"levels": [{"nodeLabel": RACK}, {"nodeLabel": "kubernetes.io/hostname"}]}
    topology = {"apiVersion": API, "kind": "Topology", "metadata": {"name": namespace}, "spec": levels}
    answer = server.create(f"/apis/{API}/topologies", topology)
    assert answer.accepted, answer.message
    flavor = {"nodeLabels": {"pool": namespace}, "topologyName": namespace}
    kubelet = Kubelet(kube, namespace, server=server)
    with queue_of(server, namespace, flavor=flavor):
        async with on_a_node(kubelet, {RACK: "r1", "pool": namespace}):
            await start()
            body = finetunejob("demo", namespace, {QUEUE: "gpus", LONGEST: "3600"}, template=TEMPLATE)
            body["metadata"]["annotations"] = {REQUIRED: RACK}
            await kube.create(FINETUNEJOBS, namespace, body)
            await until_state(kube, namespace, "demo", "Completed")
    jobs = await jobs_of(kube, namespace)
    assert set(jobs) == {"demo-prepare-0", "demo-train-1"}
    workloads = server.get(f"/apis/{API}/namespaces/{namespace}/workloads").body["items"]
    assert {workload["metadata"]["ownerReferences"][0]["name"] for workload in workloads} == set(jobs)
    for workload in workloads:
        assert workload["spec"]["maximumExecutionTimeSeconds"] == 3600
        assert workload["spec"]["podSets"][0]["topologyRequest"]["required"] == RACK
    for job in jobs.values():
        assert job["spec"]["template"]["metadata"]["annotations"][REQUIRED] == RACK
        assert job["spec"]["template"]["spec"]["nodeSelector"]["pool"] == namespace

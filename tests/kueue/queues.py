"""Queues with room for one trainer, Kueue's priorities, and Jobs of somebody else that stand in line too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.component.api_server import ApiServer, Body
from tests.kueue.installation import API

QUEUE, LOW, HIGH = "kueue.x-k8s.io/queue-name", "low", "high"
PRIORITY, GPU = "kueue.x-k8s.io/priority-class", "nvidia.com/gpu"
TRAINER = {"requests": {"cpu": "4", "memory": "1Gi"}, "limits": {"cpu": "4", "memory": "1Gi"}}
PREPARE = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
TEMPLATE = {"resources": TRAINER, "prepareResources": PREPARE}
"""Of a FineTuneJob: one trainer fills a queue of QUOTA, and while it trains nothing else fits in."""
QUOTA = 4


@contextmanager
def queue_of(
    server: ApiServer, namespace: str, *, name: str = "gpus", cpu: int = QUOTA, flavor: Body | None = None
) -> Iterator[str]:
    """Make a LocalQueue of the namespace with its own ClusterQueue and flavor; return the ClusterQueue's path."""
    quotas = {"cpu": cpu, "memory": "64Gi", GPU: 8}
    resources = [{"name": each, "nominalQuota": quota} for each, quota in quotas.items()]
    group = {"coveredResources": [*quotas], "flavors": [{"name": namespace, "resources": resources}]}
    queue = {
        "namespaceSelector": {},
        "preemption": {"withinClusterQueue": "LowerPriority"},
        "resourceGroups": [group],
    }
    made = [
        (f"/apis/{API}/resourceflavors/{namespace}", _object("ResourceFlavor", namespace, spec=flavor or {})),
        (f"/apis/{API}/clusterqueues/{namespace}", _object("ClusterQueue", namespace, spec=queue)),
        (
            f"/apis/{API}/namespaces/{namespace}/localqueues/{name}",
            _object("LocalQueue", name, spec={"clusterQueue": namespace}),
        ),
    ]
    made += [
        (f"/apis/{API}/workloadpriorityclasses/{each}", _object("WorkloadPriorityClass", each, value=value))
        for each, value in ((LOW, 10), (HIGH, 1000))
    ]
    for path, body in made:
        answer = server.apply(path, body)
        assert answer.accepted, answer.message
    yield f"/apis/{API}/clusterqueues/{namespace}"
    server.delete(f"/apis/{API}/clusterqueues/{namespace}")
    server.delete(f"/apis/{API}/resourceflavors/{namespace}")


def give(server: ApiServer, cluster_queue: str, cpu: int) -> None:
    """Set how many processors the queue has."""
    body = server.get(cluster_queue).body
    body["spec"]["resourceGroups"][0]["flavors"][0]["resources"][0]["nominalQuota"] = str(cpu)
    answer = server.replace(cluster_queue, body)
    assert answer.accepted, answer.message


def somebodys_job(name: str, *, priority: str) -> Body:
    """Return a Job that is no FineTuneJob's and takes as much as a trainer; its pod never ends."""
    container = {"name": "work", "image": "work", "resources": TRAINER}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {QUEUE: "gpus", PRIORITY: priority}},
        "spec": {"suspend": True, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }


def _object(kind: str, name: str, **fields: object) -> Body:
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name}, **fields}

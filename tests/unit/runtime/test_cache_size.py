"""What a tenant writes into an object costs the operator a few kB, whatever it is: one namespace must not end it."""

from __future__ import annotations

import asyncio
import json
import pickle
import tracemalloc
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
from trimtab_operator.domain.views import QUEUE_LABEL
from trimtab_operator.runtime.cluster.audit import Audit
from trimtab_operator.runtime.cluster.cache import Cache, Store, matches
from trimtab_operator.runtime.kube import JSON, PAGE_BYTES, Body, Kube, Resource

from tests.resources import FINETUNEJOBS
from tests.unit.runtime.objects import NAMESPACE, evaluation, finetunejob, job, pod
from tests.unit.runtime.serving import rollout, serving_pod

LARGE = "x" * 250_000
MOST_BYTES = 24_000
MIB = 2**20


def labelled(body: Body) -> None:
    body["metadata"].setdefault("labels", {}).update(
        {f"tenant.example/{number:05}": "y" * 63 for number in range(5000)}
    )


def annotated(body: Body) -> None:
    names = ("note", "argocd.argoproj.io/tracking-id", "kueue.x-k8s.io/podset-preferred-topology")
    body["metadata"]["annotations"] = dict.fromkeys(names, LARGE)
    body["metadata"]["managedFields"] = [{"manager": LARGE}]


def with_conditions(body: Body) -> None:
    kinds = ("Complete", "Failed", "Suspended", "PodScheduled", "DisruptionTarget", "Ready", *map(str, range(500)))
    said = {"status": "True", "reason": "Unschedulable" * 1000, "message": LARGE}
    body.setdefault("status", {})["conditions"] = [{"type": kind, **said} for kind in kinds]


def with_messages(body: Body) -> None:
    state = {"terminated": {"message": LARGE, "reason": LARGE, "exitCode": 1}, "waiting": {"message": LARGE}}
    containers = [{"name": name, "state": state} for name in ("trainer", "sidecar")]
    body.setdefault("status", {}).update(message=LARGE, reason=LARGE, containerStatuses=containers)


OURS = (finetunejob, evaluation, rollout)
CHILDREN = (job, pod, serving_pod)
CASES = {
    **{f"{make.__name__}, {what.__name__}": (make, what) for make in OURS for what in (labelled, annotated)},
    **{
        f"{make.__name__}, {what.__name__}": (make, what)
        for make in CHILDREN
        for what in (labelled, annotated, with_conditions, with_messages)
    },
}


def store_of(cache: Cache, body: Body) -> Store[Any]:
    return next(s for s in cache.stores if s.resource.kind == body["kind"] and s.wants(body))


@pytest.mark.parametrize(("make", "hostile"), CASES.values(), ids=CASES)
async def test_of_one_object_little_is_kept(make: Callable[[], Body], hostile: Callable[[Body], None]) -> None:
    cache, body = Cache(), make()
    hostile(body)
    store = store_of(cache, body)
    store.put(body)
    entry = store.of_uid(body["metadata"]["uid"])
    assert entry is not None
    assert entry.view is not None, "it is ours still"
    assert len(pickle.dumps(entry)) < MOST_BYTES


async def test_the_queue_is_known_among_many_labels() -> None:
    cache, body = Cache(), finetunejob()
    labelled(body)
    body["metadata"]["labels"][QUEUE_LABEL] = "gpus"
    cache.owners["FineTuneJob"].put(body)
    stored = cache.owners["FineTuneJob"].view(NAMESPACE, "demo")
    assert stored is not None
    assert stored.body["metadata"]["labels"][QUEUE_LABEL] == "gpus"


@pytest.mark.parametrize("make", [evaluation, serving_pod])
async def test_selectors_see_each_of_two_hundred_labels(make: Callable[[], Body]) -> None:
    cache, body = Cache(), make()
    body["metadata"].setdefault("labels", {}).update({f"team.example/label-{n:03}": f"value-{n}" for n in range(200)})
    store_of(cache, body).put(body)
    wanted = {"team.example/label-199": "value-199"}
    if make is evaluation:
        stored = cache.owners["Evaluation"].of_uid(body["metadata"]["uid"])
        assert stored is not None
        assert stored.view is not None
        assert matches(wanted, stored.view.labels)
    else:
        assert cache.pods_of(NAMESPACE, wanted) != []


async def test_an_object_that_has_ended_is_read_as_it_was() -> None:
    cache = Cache()
    condition = {"type": "Succeeded", "status": "True", "reason": "Completed"}
    body = finetunejob(conditions=[condition], images={"train": "image"})
    cache.owners["FineTuneJob"].put(body)
    stored = cache.owners["FineTuneJob"].view(NAMESPACE, "demo")
    assert stored is not None
    assert stored.over
    assert {key: stored.body[key] for key in ("spec", "status")} == {key: body[key] for key in ("spec", "status")}
    assert len(stored.text) < len(json.dumps(stored.body))


class ManyLarge:
    """An API server with 400 objects whose annotations are 250 kB each: 95 MiB in all."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Body:
        raise AssertionError("nothing has changed")

    async def pages(
        self,
        resource: Resource,
        namespace: str | None,
        limit: int,
        *,
        query: dict[str, str] | None = None,
        accept: str = JSON,
    ) -> AsyncIterator[Body]:
        for page in range(100 if resource.kind == "FineTuneJob" else 0):
            await asyncio.sleep(0)
            items = [finetunejob(f"job-{page}-{number}", f"uid-{page}-{number}") for number in range(4)]
            for item in items:
                annotated(item)
                item["metadata"]["annotations"]["note"] = f"{page}" + LARGE
            yield {"metadata": {"resourceVersion": "9"}, "items": items}


async def test_lists_and_audits_keep_no_annotations() -> None:
    cache = Cache()
    audit = Audit(ManyLarge(), cache, lambda key: None, settle=0)
    tracemalloc.start()
    try:
        await audit.fill()
        for store in cache.stores:
            await audit.compare(store)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(cache.owners["FineTuneJob"]) == 400
    assert kept < 4 * MIB
    assert peak < 16 * MIB


@pytest.mark.parametrize("size", [1_000, 250_000, 1_400_000])
async def test_no_chunk_of_a_list_takes_long_to_read(size: int) -> None:
    """One larger than that has one object: nothing smaller can be asked for."""
    sizes: list[int] = []

    class Server(Kube):
        def __init__(self) -> None:
            self.left = 60

        async def _send(self, verb: str, resource: Resource, method: str, path: str, **request: Any) -> bytes:
            count = min(self.left, int(request["query"]["limit"]))
            self.left -= count
            items = [finetunejob() for _ in range(count)]
            for item in items:
                item["metadata"]["annotations"] = {"note": "x" * size}
            metadata = {"resourceVersion": "9", **({"continue": "more"} if self.left else {})}
            raw = json.dumps({"metadata": metadata, "items": items}).encode()
            sizes.append(len(raw) if count > 1 else 0)
            return raw

    found = [item async for page in cast(Kube, Server()).pages(FINETUNEJOBS, None) for item in page["items"]]
    assert len(found) == 60
    assert max(sizes[1:], default=0) <= PAGE_BYTES * 1.1
    assert sizes[0] < 6 * MIB, "the first is a guess"

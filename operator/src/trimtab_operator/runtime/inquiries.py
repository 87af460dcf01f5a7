"""What a plan wants to know beyond the cache: facts that are not watched, and everything that matters, read anew."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any, Protocol

from ..domain.plan import EventsOf, Inquiry, NodeOf
from ..domain.work import Observed
from .cache import Cache, Store
from .kube import EVENTS, NODES, PODS, ApiError, Body, NotFound, Resource

JOB_NAME_LABEL = "batch.kubernetes.io/job-name"


class Reader(Protocol):
    """The part of the client that reading needs."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Body: ...
    async def items(self, resource: Resource, namespace: str | None, query: dict[str, str]) -> list[Body]: ...


async def answer(reader: Reader, inquiry: Inquiry) -> object:
    """Return the answer in the form that `domain.plan` describes."""
    match inquiry:
        case EventsOf(namespace, uid):
            events = await reader.items(EVENTS, namespace, {"fieldSelector": f"regarding.uid={uid}"})
            return tuple((e.get("reason") or "", e.get("note") or "") for e in sorted(events, key=_time_of))
        case NodeOf(name):
            try:
                node = await reader.get(NODES, None, name)
            except NotFound:
                return "Gone"
            except ApiError as error:
                if error.status != 403:
                    raise
                return "Forbidden"
            conditions = node.get("status", {}).get("conditions", ())
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
            return "Ready" if ready else "NotReady"


def _time_of(event: Body) -> str:
    """Return when an event was seen last; the core API and events.k8s.io use different fields."""
    series = (event.get("series") or {}).get("lastObservedTime")
    last = series or event.get("deprecatedLastTimestamp") or event.get("eventTime")
    return str(last or event["metadata"].get("creationTimestamp") or "")


async def read_anew(reader: Reader, cache: Cache, observed: Observed[Any], names: Iterable[str]) -> bool:
    """Bring the cache up to date about an object, its Jobs and their pods; tell whether it is still there.

    Attempts whose end is recorded in the status are left out: nothing depends on them any more. The FineTuneJob and the
    AdapterRollout that it waits for are read too.
    """
    job, store = observed.job, cache.owners[observed.kind.name]
    namespace, uid = job.metadata.namespace, job.metadata.uid
    closed = {attempt.job_uid for attempt in job.status.attempts if attempt.reason is not None}
    expected = {view.name: view.uid for view in observed.attempts if view.uid not in closed}
    expected |= {a.job_name: a.job_uid for a in job.status.attempts if a.reason is None and a.job_name not in expected}
    wanted = sorted({*expected, *names})
    upstream = (
        (cache.finetunejobs, observed.kind.waits_for(job)),
        (cache.rollouts, observed.kind.follows_rollout(job)),
    )
    await asyncio.gather(
        read_into(reader, store, namespace, job.metadata.name, uid),
        *(read_named(reader, other, namespace, name) for other, name in upstream if name is not None),
        *(_read_attempt(reader, cache, namespace, name, expected.get(name)) for name in wanted),
    )
    return store.of_uid(uid) is not None


async def read_named(reader: Reader, store: Store[Any], namespace: str, name: str) -> None:
    """Read whatever has a name into its store; forget what had it before."""
    before = store.named(namespace, name)
    await read_into(reader, store, namespace, name, before.uid if before is not None else None)


async def read_into(reader: Reader, store: Store[Any], namespace: str, name: str, uid: str | None) -> None:
    """Read one object into its store; forget the one with this uid if it is gone."""
    found: Body | None = None
    with contextlib.suppress(NotFound):
        found = await reader.get(store.resource, namespace, name)
    if uid is not None and (found is None or found["metadata"]["uid"] != uid):
        store.remove(uid)
    if found is not None:
        store.put(found)


async def _read_attempt(reader: Reader, cache: Cache, namespace: str, name: str, uid: str | None) -> None:
    await read_into(reader, cache.jobs, namespace, name, uid)
    entry = cache.jobs.named(namespace, name)
    if uid is None and entry is None:
        return
    pods_known = cache.pods.of_parent(entry.uid if entry is not None else uid or "")
    known = {pod.uid for pod in pods_known}
    unfinished = entry is not None and entry.view is not None and not entry.view.finished
    if known and (unfinished or all(pod.over for pod in pods_known)):
        return  # a live Job's pods decide nothing that cannot be undone, and the last words of a pod do not change
    pods = await reader.items(PODS, namespace, {"labelSelector": f"{JOB_NAME_LABEL}={name}"})
    there = {pod["metadata"]["uid"] for pod in pods}
    for pod in pods:
        cache.pods.put(pod)
    for gone in known - there:
        cache.pods.remove(gone)

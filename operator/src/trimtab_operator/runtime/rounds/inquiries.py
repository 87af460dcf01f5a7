"""What a plan wants to know beyond the cache: facts that are not watched, and everything that matters, read anew."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime
from typing import Any, Protocol

from ...domain.cluster import Key, Refusal
from ...domain.kind import Needs
from ...domain.plan import (
    AgentsOf,
    EventsOf,
    Importance,
    Inquiry,
    IsMounted,
    MountedShare,
    NextPoints,
    NodeOf,
    PodsRefused,
    PolicyInForce,
    WarnedSince,
)
from ...domain.review.policies import Policy
from ...domain.views import JOB_UID_LABEL, parse_time
from ..cluster.cache import Cache, Store
from ..kube import EVENTS, NODES, PODS, ApiError, Body, NotFound, Resource
from ..pods.agentpoller import AgentPoller
from ..pods.desired import Desired
from .known import Troubles
from .policies import Policies
from .suggesting import Suggesting

POD_REFUSED, POD_MADE = "FailedCreate", "SuccessfulCreate"
"""Reasons of events about a Job."""


class Reader(Protocol):
    """The part of the client that reading needs."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Body: ...
    async def items(self, resource: Resource, namespace: str | None, query: dict[str, str]) -> list[Body]: ...


class Inquiries:
    """Asks the API server and the agents."""

    def __init__(
        self,
        *,
        reader: Reader,
        cache: Cache,
        troubles: Troubles,
        agents: AgentPoller,
        desired: Desired,
        policies: Policies,
    ) -> None:
        self._reader = reader
        self._troubles = troubles
        self._policies = policies
        self._cache = cache
        self._agents = agents
        self._desired = desired
        self._suggesting = Suggesting()

    async def read(self, resource: Resource, namespace: str, name: str) -> Body:
        """Return an object as it is now."""
        return await self._reader.get(resource, namespace, name)

    async def answer(self, inquiry: Inquiry) -> object:
        """Return the answer in the form that `domain.plan` describes."""
        match inquiry:
            case EventsOf(namespace, uid):
                events = await self._events(namespace, uid)
                return tuple((e.get("reason") or "", e.get("note") or "") for e in sorted(events, key=_time_of))
            case PodsRefused(namespace, uid):
                return await self._pods_refused(namespace, uid)
            case WarnedSince(namespace, uid, reasons):
                warnings = [e for e in await self._events(namespace, uid) if e.get("type") == "Warning"]
                counted = [e for e in warnings if e.get("reason") in reasons]
                return min(filter(None, map(_first_seen, counted)), default=None)
            case NodeOf(name):
                return await self._node(name)
            case MountedShare(namespace, rollout):
                return await self._desired.held(namespace, rollout)
            case IsMounted(namespace, rollout):
                return rollout in await self._desired.rollouts(namespace)
            case NextPoints(request):
                return await self._suggesting.points(request)
            case Importance(request):
                return await self._suggesting.importance(request)
            case PolicyInForce(policy):
                return await self._policies.force(Policy(policy))
            case AgentsOf(pods):
                await self._agents.refresh(pods)
                return pods

    async def _events(self, namespace: str, uid: str) -> list[Body]:
        """Return the events about an object; none where they may not be read, for they decide nothing by themselves."""
        try:
            return await self._reader.items(EVENTS, namespace, {"fieldSelector": f"regarding.uid={uid}"})
        except ApiError as error:
            if error.status != 403:
                raise
            return []

    async def _pods_refused(self, namespace: str, job: str) -> Refusal | None:
        told = [e for e in await self._events(namespace, job) if e.get("reason") in (POD_REFUSED, POD_MADE)]
        told.sort(key=_time_of)
        if told and told[-1]["reason"] == POD_REFUSED:
            return self._troubles.pods_were_refused(job, told[-1].get("note") or "")
        self._troubles.pods_not_refused(job)
        return None

    async def _node(self, name: str) -> str:
        try:
            node = await self._reader.get(NODES, None, name)
        except NotFound:
            return "Gone"
        except ApiError as error:
            if error.status != 403:
                raise
            return "Forbidden"
        conditions = node.get("status", {}).get("conditions", ())
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        return "Ready" if ready else "NotReady"

    async def read_anew(self, key: Key, uid: str, needs: Needs) -> bool:
        """Bring the cache up to date about an object and what it needs; tell whether it is still there."""
        store = self._cache.owners[key.kind]
        beside = [self.read_named(other) for other in needs.objects]
        beside += [self._read_job(key.namespace, name, known) for name, known in sorted(needs.jobs.items())]
        beside += [self._agents.confirm(needs.agents)] if needs.agents else []
        itself = self.read_into(store, key.namespace, key.name, uid)
        await (asyncio.gather(itself, *beside) if beside else itself)  # a task is dearer than what is done alone
        return store.of_uid(uid) is not None

    async def read_named(self, key: Key) -> None:
        """Read whatever has a name into its store; forget what had it before."""
        store = self._cache.owners[key.kind]
        before = store.named(key.namespace, key.name)
        await self.read_into(store, key.namespace, key.name, before.uid if before is not None else None)

    async def read_into(self, store: Store[Any], namespace: str, name: str, uid: str | None) -> None:
        """Read one object into its store; forget the one with this uid if it is gone."""
        found: Body | None = None
        with contextlib.suppress(NotFound):
            found = await self._reader.get(store.resource, namespace, name)
        if uid is not None and (found is None or found["metadata"]["uid"] != uid):
            store.remove(uid)
        if found is not None:
            store.put(found)

    async def _read_job(self, namespace: str, name: str, uid: str | None) -> None:
        jobs, pods = self._cache.jobs, self._cache.pods
        await self.read_into(jobs, namespace, name, uid)
        entry = jobs.named(namespace, name)
        if uid is None and entry is None:
            return
        job = entry.uid if entry is not None else uid or ""
        pods_known = pods.of_parent(job)
        known = {pod.uid for pod in pods_known}
        view = entry.view if entry is not None else None
        unfinished = view is not None and not view.finished
        if len(known) >= (view.pods if view is not None else 1) and (unfinished or all(pod.over for pod in pods_known)):
            return  # a live Job's pods decide nothing that cannot be undone, and the last words of a pod do not change
        # By the label that their controller selects them by: without it there would be others.
        there = await self._reader.items(PODS, namespace, {"labelSelector": f"{JOB_UID_LABEL}={job}"})
        for pod in there:
            pods.put(pod)
        for gone in known - {pod["metadata"]["uid"] for pod in there}:
            pods.remove(gone)


def _first_seen(event: Body) -> datetime | None:
    said = event.get("deprecatedFirstTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
    return parse_time(said)


def _time_of(event: Body) -> str:
    """Return when an event was seen last; the core API and events.k8s.io use different fields."""
    series = (event.get("series") or {}).get("lastObservedTime")
    last = series or event.get("deprecatedLastTimestamp") or event.get("eventTime")
    return str(last or event["metadata"].get("creationTimestamp") or "")

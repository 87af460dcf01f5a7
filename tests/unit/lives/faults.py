"""An API server in memory that refuses, fails and loses answers, and that looks at every write it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any

from trimtab_operator.domain.views import JOB_UID_LABEL, format_time
from trimtab_operator.runtime.kube import EVENTS, JSON, PODS, ApiError, Body, Resource, Unreachable

from tests.unit.runtime.fake_api import FakeApi


class Died(BaseException):
    """The operator is gone in the middle of a round: nothing catches this."""


@dataclass
class Fate:
    """How many more writes an operator makes before it dies, documents among them; None: not by a write."""

    left: int | None = None

    @property
    def dead(self) -> bool:
        return self.left is not None and self.left < 0

    def writes(self) -> bool:
        """Tell whether it lives to make one more."""
        if self.left is not None:
            self.left = max(-1, self.left - 1)
        return not self.dead


WRITES = ("create", "patch", "delete")
REFUSALS = (
    ApiError(403, "Forbidden", "exceeded quota: count/jobs.batch"),
    ApiError(403, "Forbidden", "ValidatingAdmissionPolicy denied request"),
    ApiError(422, "Invalid", "spec: Invalid value"),
)
FAILURES = (ApiError(500, "InternalError", "etcd leader changed"), ApiError(429, "TooManyRequests", "", 1.0))


class FaultyApi(FakeApi):
    """`faults` is the share of requests that go wrong, `fate` that of the operator that asks now; `wrote` is told of
    each object as it was and as it is."""

    def __init__(self, random: Random, now: Callable[[], datetime]) -> None:
        super().__init__()
        self.random = random
        self.faults = 0.0
        self.fate = Fate()
        self.wrote: Callable[[Body | None, Body | None], None] = lambda before, after: None
        self._now = now

    def put(self, resource: Resource, body: Body) -> Body:
        metadata = body["metadata"]
        before = self.objects.get((resource.plural, metadata["namespace"], metadata["name"]))
        created = metadata.get("creationTimestamp") or format_time(self._now())
        after = super().put(resource, {**body, "metadata": {**metadata, "creationTimestamp": created}})
        self.wrote(before, after)
        return after

    def drop(self, resource: Resource, namespace: str, name: str) -> None:
        before = self.objects[resource.plural, namespace, name]
        super().drop(resource, namespace, name)
        self.wrote(before, None)

    async def create(self, resource: Resource, namespace: str, body: Body) -> Body:
        return self._answered(await super().create(resource, namespace, body))

    async def patch_status(self, resource: Resource, metadata: Body, changes: Body) -> Body:
        if self._happens() and (resource.plural, metadata["namespace"], metadata["name"]) in self.objects:
            found = self.objects[resource.plural, metadata["namespace"], metadata["name"]]
            self.put(resource, found)  # somebody else was faster
        return self._answered(await super().patch_status(resource, metadata, changes))

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        content_type: str,
        patch: Any,
        *,
        subresource: str | None = None,
    ) -> Body:
        made = await super().patch(resource, namespace, name, content_type, patch, subresource=subresource)
        return self._answered(made)

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> Body:
        return self._answered(await super().delete(resource, namespace, name, uid))

    async def items(self, resource: Resource, namespace: str | None, query: dict[str, str]) -> list[Body]:
        self._call("list", resource, "")
        found = [body for place, body in self.objects.items() if place[0] == resource.plural]
        if resource == EVENTS:
            uid = query["fieldSelector"].partition("=")[2]
            return [event for event in found if event.get("regarding", {}).get("uid") == uid]
        if resource == PODS:
            job = query["labelSelector"].partition("=")[2]
            return [pod for pod in found if pod["metadata"]["labels"][JOB_UID_LABEL] == job]
        return found

    def pages(self, *args: Any, accept: str = JSON, **query: Any) -> Any:
        raise NotImplementedError("lists are delivered as watches would")

    def _call(self, verb: str, resource: Resource, name: str) -> None:
        if (verb in WRITES and not self.fate.writes()) or self.fate.dead:
            raise Died
        super()._call(verb, resource, name)
        if not self._happens():
            return
        if verb in WRITES and resource != EVENTS and self.random.random() < 0.5:
            raise self.random.choice(REFUSALS)
        raise self.random.choice((*FAILURES, Unreachable("no route to host")))

    def _answered(self, body: Body) -> Body:
        """Return the answer of a request that was carried out, or lose it."""
        if self._happens():
            raise Unreachable("connection reset by peer")
        return body

    def _happens(self) -> bool:
        return self.random.random() < self.faults

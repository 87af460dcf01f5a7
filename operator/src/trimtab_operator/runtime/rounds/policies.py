"""Whether the chart's admission policies are in force: asked of the API server, and asked again after some seconds."""

from __future__ import annotations

import asyncio
from typing import Protocol

from ...domain.review.policies import Force, Policy, force_of, policy_name
from ..kube import POLICIES, POLICY_BINDINGS, ApiError, Body, NotFound, Resource

KNOWN_SECONDS = 5.0
"""How old an answer may be. A policy that is taken away is a deed of who may do anything in the cluster."""
FORBIDDEN = 403


class Reader(Protocol):
    """The part of the client that reading needs."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Body: ...


class Policies:
    """Reads policies and bindings of a release; `release` is the setting `admissionPolicies`, empty without any."""

    def __init__(self, reader: Reader, release: str) -> None:
        self._reader = reader
        self._release = release
        self._known: dict[Policy, tuple[float, Force]] = {}

    async def force(self, policy: Policy) -> Force:
        """Return since when a policy is in force, or why it is not."""
        if not self._release:
            return Force(why="the operator was told of no admission policy (admissionPolicies of the chart)")
        now = asyncio.get_running_loop().time()
        if policy in self._known and now < self._known[policy][0]:
            return self._known[policy][1]
        found = await self._read(policy)
        self._known[policy] = now + KNOWN_SECONDS, found
        return found

    async def _read(self, policy: Policy) -> Force:
        name = policy_name(self._release, policy)
        try:
            bodies = [await self._one(resource, name) for resource in (POLICIES, POLICY_BINDINGS)]
        except ApiError as error:
            if error.status != FORBIDDEN:
                raise
            return Force(why=f"the operator may not read the admission policy {name}")
        return force_of(policy, name, *bodies)

    async def _one(self, resource: Resource, name: str) -> Body | None:
        try:
            return await self._reader.get(resource, None, name)
        except NotFound:
            return None

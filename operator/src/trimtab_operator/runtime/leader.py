"""Leadership by a Lease: only the holder watches, decides and writes; a process that loses it ends at once.

The election is that of `kubernetes.aio`. What it leaves open is closed here: a timeout on each of its requests, an
unreachable API server counts as a failed try instead of an error, and writes are fenced by the time of the last
renewal on the monotonic clock, which goes on while a process is stopped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
from kubernetes.aio import client
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from . import metrics
from .kube import MERGE_PATCH
from .logs import keys

log = logging.getLogger(__name__)

RETRY_SHARE, DEADLINE_SHARE, REQUEST_SHARE = 0.2, 0.4, 0.2
"""Of the lease: between two renewals, to get one through, and for one request."""
FENCE_SHARE = 0.9
"""Of the lease: how long after its last renewal a leader may still write; followers wait for the whole of it."""


class Lock(LeaseLock):  # type: ignore[misc]
    """A Lease whose requests end in time, and that knows when it was renewed last."""

    def __init__(self, name: str, namespace: str, identity: str, api: ApiClient, request_seconds: float) -> None:
        super().__init__(name, namespace, identity, api)
        self._request_seconds = request_seconds
        self.renewed = float("-inf")
        """Monotonic time at which the last successful write was sent."""
        self.looked = time.monotonic()
        """Monotonic time at which the Lease was read last."""

    async def get(self, name: str, namespace: str) -> Any:
        try:
            async with asyncio.timeout(self._request_seconds):
                answer = await super().get(name, namespace)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return False, ApiException(status=0, reason=f"{type(error).__name__} {error}")
        self.looked = time.monotonic()
        return answer

    async def create(self, name: str, namespace: str, election_record: Any) -> bool:
        return await self._write(super().create(name, namespace, election_record))

    async def update(self, name: str, namespace: str, updated_record: Any) -> bool:
        return await self._write(super().update(name, namespace, updated_record))

    async def _write(self, write: Coroutine[Any, Any, bool]) -> bool:
        sent = time.monotonic()
        try:
            async with asyncio.timeout(self._request_seconds):
                done = await write
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.warning("lease not written", extra=keys(err=f"{type(error).__name__} {error}"))
            return False
        if done:
            self.renewed = sent
        return done


class Leadership:
    """The election of one process."""

    def __init__(
        self, configuration: client.Configuration, *, name: str, namespace: str, identity: str, seconds: float
    ) -> None:
        self._api = ApiClient(configuration)
        self._seconds = seconds
        self._lock = Lock(name, namespace, identity, self._api, seconds * REQUEST_SHARE)
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self.leading = False

    def may_write(self) -> bool:
        """Whether no other process can be the leader yet."""
        return time.monotonic() - self._lock.renewed < self._seconds * FENCE_SHARE

    def alive(self) -> bool:
        """Whether the Lease was seen lately, by leader and follower alike."""
        return time.monotonic() - self._lock.looked < self._seconds * 3

    async def run(self, lead: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Become the leader, run `lead`, and return when leadership is lost or `lead` has ended."""

        async def started() -> None:
            self.leading = True
            metrics.LEADER.set(1)
            log.info("leading", extra=keys(identity=self._lock.identity))

        async def stopped() -> None:
            log.error("leadership lost", extra=keys(identity=self._lock.identity))

        election = asyncio.create_task(self._elect(started, stopped), name="election")
        while not self.leading:
            done, _ = await asyncio.wait({election}, timeout=0.02)
            if done:
                election.result()
                raise RuntimeError("the election ended without a leader")
        leading = asyncio.create_task(lead(), name="leading")
        fence = asyncio.create_task(self._watch_fence(), name="fence")
        self._tasks = (election, leading, fence)
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def _elect(
        self, started: Callable[[], Coroutine[Any, Any, None]], stopped: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        seconds = self._seconds
        await LeaderElection(
            Config(
                self._lock,
                lease_duration=seconds,
                renew_deadline=max(1.5, seconds * DEADLINE_SHARE),
                retry_period=max(1.0, seconds * RETRY_SHARE),
                onstarted_leading=started,
                onstopped_leading=stopped,
            )
        ).run()

    async def _watch_fence(self) -> None:
        while (left := self._lock.renewed + self._seconds * FENCE_SHARE - time.monotonic()) > 0:
            await asyncio.sleep(left)
        log.error("lease not renewed in time", extra=keys(identity=self._lock.identity))

    async def release(self) -> None:
        """Give the Lease away, so that another process need not wait for its end."""
        if not self.leading:
            return
        self.leading = False
        for task in self._tasks:
            task.cancel()
        self._lock.renewed = float("-inf")  # the last write was the last
        try:
            async with asyncio.timeout(2):
                lease = await self._lock.api_instance.read_namespaced_lease(self._lock.name, self._lock.namespace)
                if lease.spec.holder_identity != self._lock.identity:
                    return
                patch = {
                    "metadata": {"resourceVersion": lease.metadata.resource_version},
                    "spec": {"holderIdentity": None, "renewTime": None},
                }
                await self._lock.api_instance.patch_namespaced_lease(
                    self._lock.name, self._lock.namespace, patch, _content_type=MERGE_PATCH
                )
            log.info("lease released", extra=keys(identity=self._lock.identity))
        except (ApiException, aiohttp.ClientError, OSError, TimeoutError) as error:
            log.warning("lease not released", extra=keys(err=str(error)))

    async def close(self) -> None:
        await self._api.close()

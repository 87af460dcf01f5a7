"""Leadership by a Lease: only the holder watches, decides and writes; a process that loses it ends at once.

The election is that of `kubernetes.aio`; its lock is not (version 37.0.2 cannot create a Lease, has no timeouts and
writes local time). An unreachable API server counts as a failed try. Writes are fenced by the time of the last renewal
on the monotonic clock, which goes on while a process is stopped; who follows waits by the same clock, because the one
on the wall may be set.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.baselock import BaseLock

from . import metrics
from .kube import LEASES, MERGE_PATCH, ApiError, Body, Kube, NotFound, Unreachable
from .logs import keys
from .settings import LEASE_SECONDS_MAXIMUM

log = logging.getLogger(__name__)

RETRY_SHARE, DEADLINE_SHARE, REQUEST_SHARE = 0.2, 0.9, 0.2
"""Of the lease: between two renewals, to get one through (after that the fence is down anyway), and for one request."""
FENCE_SHARE = 0.9
"""Of the lease: how long after its last renewal a leader may still write; followers wait for the whole of it."""


MOST_TRANSITIONS = 2**31 - 1
"""What the field holds at most. After it the count begins again: whose documents were numbered higher is seen in them
(`domain.adapterrollout.delivery.sequence`)."""


class Lock(BaseLock):  # type: ignore[misc]  # the kubernetes package has no types
    """A Lease. Only the version that was read is replaced, so of two candidates one fails.

    One that has gone, by hand or with what a backup restored, ends nobody's leadership at once: its holder may still
    write until it hears of it. Whoever has seen it in another's hand waits for as long as it was given.
    """

    def __init__(self, kube: Kube, name: str, namespace: str, identity: str, seconds: float) -> None:
        super().__init__(name, namespace, identity)
        self._kube = kube
        self._seconds = seconds
        self._another_until = float("-inf")
        """Monotonic time until which another one may lead in whose hand the Lease was last read."""
        self._followed: str | None = None
        self._said: Body | None = None
        self._said_since = float("-inf")
        """What the Lease held when it was last read, and the monotonic time since which it holds that."""
        self._lease: Body = {}
        self.renewed = float("-inf")
        """Monotonic time at which the last successful write was sent."""
        self.looked = time.monotonic()
        """Monotonic time at which the Lease was read last."""

    @property
    def transitions(self) -> int:
        """leaseTransitions as last read or written."""
        return int(self._lease.get("spec", {}).get("leaseTransitions", 0))

    async def get(self, name: str, namespace: str) -> tuple[bool, LeaderElectionRecord | ApiException]:
        try:
            self._lease = await self._kube.get(LEASES, namespace, name)
        except (ApiError, Unreachable) as error:
            absent = isinstance(error, NotFound)
            if absent:
                self.looked = time.monotonic()
            free = absent and time.monotonic() > self._another_until
            refusal = ApiException(status=404 if free else 0, reason=str(error))
            refusal.body = '{"code": 404}' if free else None  # then it is created
            return False, refusal
        self.looked = time.monotonic()
        spec = self._lease.get("spec", {})
        holder = spec.get("holderIdentity")
        if self._is_anothers(spec):
            self._another_until = self.looked + self._term(spec)
            if holder != self._followed:
                log.info("following", extra=keys(identity=self.identity, holder=holder))
        self._followed = holder
        if spec != self._said:
            self._said, self._said_since = spec, self.looked
        return True, self._record(spec)

    def _record(self, spec: Body) -> LeaderElectionRecord:
        """Return what the election is to believe: it looks at the clock on the wall, which may be set.

        What is another's, and was renewed within its time, is always news to it, and never over; what was not is
        nobody's.
        """
        holder = spec.get("holderIdentity")
        if not self._is_anothers(spec):
            fields = ("holderIdentity", "leaseDurationSeconds", "acquireTime", "renewTime")
            return LeaderElectionRecord(*(str(spec[field]) if spec.get(field) else None for field in fields))
        if not self._may_be_led(spec):
            return LeaderElectionRecord(None, None, None, None)
        return LeaderElectionRecord(holder, str(self._seconds), "held", f"read at {self.looked}")

    def _is_anothers(self, spec: Body) -> bool:
        return spec.get("holderIdentity") not in (None, "", self.identity)

    def _may_be_led(self, spec: Body) -> bool:
        """Tell whether another one holds the Lease and may still write, by the clock that nobody sets."""
        return self._is_anothers(spec) and self.looked - self._said_since <= self._term(spec)

    def _term(self, spec: Body) -> float:
        """Return for how many seconds the Lease is another's after a renewal: its setting may be longer than ours.

        One that no setting can be was not written by an operator, and is not waited for.
        """
        given = spec.get("leaseDurationSeconds") or 0
        return max(self._seconds, given if given <= LEASE_SECONDS_MAXIMUM else 0)

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        lease = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": name, "namespace": namespace},
            "spec": self._spec(election_record),
        }
        return await self._write(self._kube.create(LEASES, namespace, lease))

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        if self._may_be_led(self._lease.get("spec", {})):
            return False  # the election took its own time before it read, and the wall's clock was set in between
        patch = {
            "metadata": {"resourceVersion": self._lease["metadata"]["resourceVersion"]},
            "spec": self._spec(updated_record),
        }
        return await self._write(self._kube.patch(LEASES, namespace, name, MERGE_PATCH, patch))

    async def release(self) -> bool:
        """Name no holder, unless another one is named already."""
        found, _ = await self.get(self.name, self.namespace)
        spec = self._lease.get("spec", {})
        if not found or spec.get("holderIdentity") != self.identity:
            return False
        patch = {
            "metadata": {"resourceVersion": self._lease["metadata"]["resourceVersion"]},
            "spec": {"holderIdentity": None},
        }
        return await self._write(self._kube.patch(LEASES, self.namespace, self.name, MERGE_PATCH, patch))

    def _spec(self, record: LeaderElectionRecord) -> Body:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = self._lease.get("spec", {})
        same = before.get("holderIdentity") == self.identity
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(float(record.lease_duration)),
            "acquireTime": before["acquireTime"] if same and before.get("acquireTime") else now,
            "renewTime": now,
            "leaseTransitions": (before.get("leaseTransitions", 0) + (0 if same else 1)) % (MOST_TRANSITIONS + 1),
        }

    async def _write(self, write: Coroutine[Any, Any, Body]) -> bool:
        sent = time.monotonic()
        try:
            self._lease = await write
        except (ApiError, Unreachable) as error:
            log.warning("lease not written", extra=keys(err=str(error)))
            return False
        self.renewed = sent
        return True


class Leadership:
    """The election of one process."""

    def __init__(
        self, configuration: client.Configuration, *, name: str, namespace: str, identity: str, seconds: float
    ) -> None:
        self._seconds = seconds
        self._kube = Kube(configuration, seconds * REQUEST_SHARE)
        self._lock = Lock(self._kube, name, namespace, identity, seconds)
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self.leading = False

    def may_write(self) -> bool:
        """Whether this process leads, and no other can yet. One that gives its Lease away begins nothing more: what
        waits on its own, as documents do, would else go out while another one leads. The Lease has its own client.
        """
        return self.leading and time.monotonic() - self._lock.renewed < self._seconds * FENCE_SHARE

    def alive(self) -> bool:
        """Whether the Lease was seen lately, by leader and follower alike."""
        return time.monotonic() - self._lock.looked < self._seconds * 3

    @property
    def transitions(self) -> int:
        """How often the Lease has changed hands, this time included."""
        return self._lock.transitions

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
                renew_deadline=seconds * DEADLINE_SHARE,
                retry_period=max(1.0, seconds * RETRY_SHARE),
                onstarted_leading=started,
                onstopped_leading=stopped,
            )
        ).run()

    async def _watch_fence(self) -> None:
        while True:
            left = self._lock.renewed + self._seconds * FENCE_SHARE - time.monotonic()
            if left <= 0:
                break
            await asyncio.sleep(left)
        log.error("lease not renewed in time", extra=keys(identity=self._lock.identity))

    async def release(self) -> None:
        """Give the Lease away, so that another process need not wait for its end."""
        if not self.leading:
            return
        self.leading = False
        for task in self._tasks:
            task.cancel()
        if await self._lock.release():
            log.info("lease released", extra=keys(identity=self._lock.identity))
        self._lock.renewed = float("-inf")  # the last write was the last

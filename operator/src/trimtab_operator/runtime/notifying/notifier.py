"""Tells endpoints of what objects say: a task for each, so a slow one holds up no other, and nothing that is decided.

The cache calls `seen` with every version of every object of ours; what is new in it is found by comparing conditions.
What was delivered is written down every few seconds as long as something is; at rest nothing is written.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import REGISTRY, Collector

from ...domain.kind import AnyKind
from ...domain.kinds import KINDS
from ...domain.notifications import Endpoint, Transition, transitions_of
from ...domain.views import format_time
from .. import metrics
from ..cluster.cache import Cache, version_of
from ..kube import ApiError, Body, Unreachable
from ..logs import keys
from .outbox import Outbox, Present
from .record import Records
from .sender import Outcome, Sender

log = logging.getLogger(__name__)

REFUSALS_MAXIMUM = 5
"""After so many answers that speak of the message itself it is given up: it would hold up all that follow."""
LOOKED_AT_ONCE = 32
"""Objects that are read before everything else has a turn."""
FORGET_EVERY = 1000
"""Objects that are new, after which those that are gone are forgotten."""


@dataclass(frozen=True)
class Pace:
    """Times, in seconds.

    Attributes:
        request: limit of one request.
        first: pause after a first failure; it doubles, and each is spread over its half.
        longest: pause.
        write: from a delivery until it is written down, together with others.
        settled: after which a change that was written before a later one has certainly arrived.
        late: after which what was written has certainly arrived, whatever the clock of the leader that wrote it says.
    """

    request: float = 10.0
    first: float = 1.0
    longest: float = 300.0
    write: float = 2.0
    settled: float = 60.0
    late: float = 600.0


class Notifier(Collector):
    """Of one term of office. `load`, then the first list, then `run`."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        sender: Sender,
        records: Records,
        *,
        now: Callable[[], datetime],
        pace: Pace,
    ) -> None:
        self._outboxes = [Outbox(endpoint) for endpoint in endpoints]
        self._work = {endpoint.name: asyncio.Event() for endpoint in endpoints}
        self._sender = sender
        self._records = records
        self._now = now
        self._pace = pace
        self._said: dict[str, tuple[str, ...]] = {}
        """By uid, the marks of what an object said last."""
        self._newest: dict[str, int] = {}
        self._settled: dict[str, int] = {}
        self._settling: tuple[float, dict[str, int]] = (0.0, {})
        """A time, and what was the newest then."""
        self._changed = asyncio.Event()
        self._to_write: set[str] = set()
        self._unforgotten = 0
        self._cache: Cache | None = None

    async def load(self) -> None:
        """Read what the leader before wrote down.

        Raises:
            ApiError, Unreachable: as for any list at the start.
        """
        now = format_time(self._now())
        records = {
            name: record if record.until <= now else replace(record, until="")  # of a clock that was ahead
            for name, record in (await self._records.read()).items()
        }
        self._outboxes = [Outbox(each.endpoint, records.get(each.endpoint.name)) for each in self._outboxes]
        for endpoint in (each.endpoint for each in self._outboxes):
            if trouble := self._sender.trouble(endpoint):
                log.error("endpoint cannot be told", extra=keys(endpoint=endpoint.name, err=trouble))

    def seen(self, kind: AnyKind, body: Body) -> None:
        """Take in a version of an object that is newer than those before."""
        uid, version = body["metadata"]["uid"], version_of(body)
        says = transitions_of(kind, body, version, format_time(self._now()))
        before = self._said.get(uid)
        self._said[uid] = tuple(each.mark for each in says)
        self._newest[kind.name] = max(version, self._newest.get(kind.name, 0))
        fresh = [each for each in says if before is None or each.mark not in before]
        for outbox in self._outboxes if fresh else ():
            take = outbox.found if before is None else outbox.add
            for each in fresh:
                take(each)
            if outbox.next is not None or outbox.overflowed:
                self._work[outbox.endpoint.name].set()
        if before is None:
            self._forget_those_that_are_gone(but=uid)

    def filled(self, cache: Cache, moments: Mapping[tuple[str, str | None], int]) -> None:
        """Know that all that is there was seen, by plural and namespace at which resourceVersion."""
        self._cache = cache
        began = {
            name: min((moment for (plural, _), moment in moments.items() if plural == kind.crd.plural), default=0)
            for name, kind in KINDS.items()
        }
        self._settled, self._settling = dict(began), (self._time(), dict(self._newest))
        for outbox in self._outboxes:
            if outbox.began(began):
                log.info("endpoint is told from now on", extra=keys(endpoint=outbox.endpoint.name))
                self._note(outbox)

    async def run(self) -> None:
        """Deliver for ever."""
        async with asyncio.TaskGroup() as group:
            for outbox in self._outboxes:
                group.create_task(self._deliver(outbox), name=f"notify {outbox.endpoint.name}")
            group.create_task(self._write_down(), name="notifications written down")

    async def _deliver(self, outbox: Outbox) -> None:
        endpoint, work = outbox.endpoint, self._work[outbox.endpoint.name]
        pause = self._pace.first
        while True:
            waiting = outbox.next
            if waiting is None:
                if outbox.overflowed:
                    await self._look_again(outbox)
                    continue
                work.clear()
                await work.wait()
                continue
            outcome = await self._send(endpoint, waiting.transition)
            about = {"endpoint": endpoint.name, "event": waiting.transition.id}
            if outcome.delivered:
                pause = self._pace.first
                metrics.NOTIFICATIONS.labels(endpoint.name, "delivered").inc()
                log.debug("notified", extra=keys(**about))
                outbox.done(waiting.transition)
                self._note(outbox)
                continue
            metrics.NOTIFICATIONS.labels(endpoint.name, "failed").inc()
            waiting.refusals += outcome.not_taken
            if waiting.refusals >= REFUSALS_MAXIMUM:
                metrics.NOTIFICATIONS.labels(endpoint.name, "givenUp").inc()
                log.error("notification given up", extra=keys(**about, err=outcome.words))
                outbox.done(waiting.transition)
                self._note(outbox)
                continue
            again = max(outcome.retry_after, pause * random.uniform(0.5, 1.0))
            log.warning("notification failed", extra=keys(**about, err=outcome.words, again_seconds=round(again, 1)))
            pause = min(pause * 2, self._pace.longest)
            await asyncio.sleep(again)

    async def _send(self, endpoint: Endpoint, transition: Transition) -> Outcome:
        try:
            return await self._sender.send(endpoint, transition)
        except Exception as error:  # a bug here must not end what trains and serves; it is logged, counted, tried again
            log.error("notification not sent", extra=keys(endpoint=endpoint.name, err=type(error).__name__))
            return Outcome(delivered=False, words=type(error).__name__)

    def _note(self, outbox: Outbox) -> None:
        self._to_write.add(outbox.endpoint.name)
        self._changed.set()

    async def _write_down(self) -> None:
        """Write what changed, at most once in `Pace.write` however many endpoints and objects there are."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(self._pace.write)
            self._changed.clear()
            names, self._to_write = self._to_write, set()
            self._settle()
            before = format_time(self._now() - timedelta(seconds=self._pace.late))
            records = {
                each.endpoint.name: each.advance(self._settled, self._present, before)
                for each in self._outboxes
                if each.endpoint.name in names
            }
            try:
                await self._records.write(records, [each.endpoint.name for each in self._outboxes])
            except (ApiError, Unreachable) as error:
                log.warning("notifications not written down", extra=keys(err=str(error)))
                self._to_write |= names
                self._changed.set()
                await asyncio.sleep(self._pace.first)

    def _settle(self) -> None:
        """Move on what is certain: of two writes under way at once, the later one's answer may be here first."""
        now, (then, newest) = self._time(), self._settling
        if now - then >= self._pace.settled:
            self._settled = {kind: max(version, newest.get(kind, 0)) for kind, version in self._settled.items()}
            self._settling = (now, dict(self._newest))

    def _present(self, kind: str, uid: str) -> Present | None:
        assert self._cache is not None, "not filled yet"
        entry = self._cache.owners[kind].of_uid(uid)
        if entry is None or entry.view is None:
            return None
        return Present(entry.version, entry.view.over, self._said.get(uid, ()))

    async def _look_again(self, outbox: Outbox) -> None:
        """Take in what found no room, from what all objects say now, until there is no room again."""
        assert self._cache is not None, "not filled yet"
        outbox.overflowed = False
        now = format_time(self._now())
        entries = [(name, entry) for name, store in self._cache.owners.items() for entry in store]
        for number, (name, entry) in enumerate(entries):
            if number % LOOKED_AT_ONCE == 0:
                await asyncio.sleep(0)
            if entry.view is not None and entry.version > outbox.since.get(name, 0) and not outbox.overflowed:
                for transition in transitions_of(KINDS[name], entry.view.body, entry.version, now):
                    outbox.found(transition)
        outbox.looked_again()

    def _forget_those_that_are_gone(self, but: str) -> None:
        self._unforgotten += 1
        if self._unforgotten < FORGET_EVERY or self._cache is None:
            return
        self._unforgotten = 0
        there = {but, *(entry.uid for store in self._cache.owners.values() for entry in store)}
        self._said = {uid: marks for uid, marks in self._said.items() if uid in there}

    @staticmethod
    def _time() -> float:
        return asyncio.get_running_loop().time()

    def register(self) -> None:
        """Have what waits among the metrics."""
        REGISTRY.register(self)

    def collect(self) -> Iterable[Metric]:
        pending = GaugeMetricFamily(
            "trimtab_notifications_pending", "Notifications that wait to be delivered.", labels=["receiver"]
        )
        waited = GaugeMetricFamily(
            "trimtab_notifications_waiting_seconds",
            "How long the notification that waits longest has waited; 0 where none does.",
            labels=["receiver"],
        )
        for outbox in self._outboxes:
            pending.add_metric([outbox.endpoint.name], len(outbox))
            waited.add_metric([outbox.endpoint.name], outbox.waited())
        return (pending, waited)

"""Which objects need a look, each at most once in the queue and never by two workers at a time.

Adding a key that waits is nothing; adding one that is being worked on brings it back when that round ends, because
what was added may not have been seen. A delayed add keeps the earliest time. The loop's clock is the only clock.

Namespaces take turns, key by key, and one alone never has all workers: what a tenant does to its own objects, or its
pods to the rounds about them, delays nobody else by more than a round. Of one namespace those that belong together come
one after another: what their rounds ask of the same pods, and send to them, goes into the same requests.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from .. import metrics

Key = TypeVar("Key", bound=Hashable)


class Retry(Exception):
    """Nothing is wrong: look again in `after` seconds."""

    def __init__(self, after: float, reason: str) -> None:
        super().__init__(reason)
        self.after = after
        self.reason = reason


RESERVED_SHARE = 4
"""One worker of so many is kept from each namespace for the others; of three or fewer none is."""
IN_A_ROW = 32
"""Keys of a namespace that belong together, before it is the turn of its others."""
LONGEST_DELAY_SECONDS = 60.0
"""Until the next try of what fails again and again."""


def namespace_of(key: Hashable) -> Hashable:
    """Return whose turn a key takes, never None."""
    return getattr(key, "namespace", "")


class WorkQueue(Generic[Key]):
    """`first_delay` doubles with every failure in a row, up to `longest_delay`; `tenant` tells whose turn it is, and
    `group` which of a tenant's keys belong together.
    """

    def __init__(
        self,
        first_delay: float = 0.25,
        longest_delay: float = LONGEST_DELAY_SECONDS,
        tenant: Callable[[Key], Hashable] = namespace_of,
        group: Callable[[Key], Hashable] = lambda _: None,
    ) -> None:
        self._first_delay = first_delay
        self._longest_delay = longest_delay
        self._tenant = tenant
        self._group = group
        self._ready: dict[Hashable, dict[Hashable, deque[Key]]] = {}
        """Of every tenant that has keys which wait, in the order of their turns, and so of its groups."""
        self._in_a_row: Counter[Hashable] = Counter()
        """How many keys of its first group a tenant has had in a row."""
        self._workers_of: Counter[Hashable] = Counter()
        self._workers = 0
        self._waiting: set[Key] = set()
        self._working: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._idle_workers: deque[asyncio.Future[None]] = deque()
        self.rounds = 0
        """Rounds that ended: it grows while there is work and the workers live."""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> int:
        """Keys that wait or are worked on; keys that wait for their time do not count."""
        return len(self._waiting) + len(self._working)

    def waits(self, tenant: Hashable) -> bool:
        """Tell whether keys of a tenant wait for a worker."""
        return tenant in self._ready

    def add(self, key: Key) -> None:
        """Have it looked at as soon as a worker is free."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            groups = self._ready.setdefault(self._tenant(key), {})
            groups.setdefault(self._group(key), deque()).append(key)
            metrics.QUEUE_DEPTH.set(len(self._waiting))
            self._wake()

    def add_after(self, key: Key, seconds: float) -> None:
        """Have it looked at in that time at the latest."""
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        due, timer = loop.time() + seconds, self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._due, key)

    def failures(self, key: Key) -> int:
        return self._failures.get(key, 0)

    async def work(
        self, handle: Callable[[Key], Awaitable[float | None]], failed: Callable[[Key, Exception], float | None]
    ) -> None:
        """Be one worker, for ever.

        Args:
            handle: one round; the seconds until the next look, or None where only a change calls for one.
            failed: told of an exception of a round; may name a shortest delay.
        """
        self._workers += 1
        try:
            while True:
                key = await self._take()
                try:
                    await self._round(key, handle, failed)
                finally:
                    self._give_back(key)
        finally:
            self._workers -= 1

    async def _round(
        self,
        key: Key,
        handle: Callable[[Key], Awaitable[float | None]],
        failed: Callable[[Key, Exception], float | None],
    ) -> None:
        try:
            again = await handle(key)
        except Retry as retry:
            self._failures.pop(key, None)
            self.add_after(key, max(retry.after, 0.001))
        except Exception as error:  # told to `failed`, and tried again later
            shortest = failed(key, error) or 0.0
            count = self._failures[key] = self._failures.get(key, 0) + 1
            metrics.QUEUE_RETRIES.inc()
            self._again.discard(key)  # what has come meanwhile is looked at after the delay as well
            self.add_after(key, max(shortest, min(self._first_delay * 2 ** min(count - 1, 30), self._longest_delay)))
        else:
            self._failures.pop(key, None)
            if again is not None:
                self.add_after(key, max(again, 0.001))

    async def _take(self) -> Key:
        while (tenant := self._next()) is None:
            woken = asyncio.get_running_loop().create_future()
            self._idle_workers.append(woken)
            try:
                await woken
            except asyncio.CancelledError:
                if woken.done() and not woken.cancelled():
                    self._wake()  # the wake-up was for this worker: pass it on
                raise
        key = self._first_of(tenant)
        self._waiting.discard(key)
        self._working.add(key)
        self._workers_of[tenant] += 1
        metrics.QUEUE_DEPTH.set(len(self._waiting))
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()  # this round says itself when to look again
        return key

    def _first_of(self, tenant: Hashable) -> Key:
        """Take a key of a tenant, whose turn then is the last one; it has one."""
        groups = self._ready.pop(tenant)
        group, keys = next(iter(groups.items()))
        key = keys.popleft()
        self._in_a_row[tenant] += 1
        if not keys or self._in_a_row[tenant] >= IN_A_ROW:
            del self._in_a_row[tenant], groups[group]
            if keys:
                groups[group] = keys  # the last one now
        if groups:
            self._ready[tenant] = groups
        return key

    def _next(self) -> Hashable | None:
        """Return the tenant whose turn it is; at most one is at its limit, so this looks at two."""
        limit = self._workers - self._workers // RESERVED_SHARE
        return next((tenant for tenant in self._ready if self._workers_of[tenant] < limit), None)

    def _give_back(self, key: Key) -> None:
        self.rounds += 1
        self._working.discard(key)
        tenant = self._tenant(key)
        self._workers_of[tenant] -= 1
        if self._workers_of[tenant] <= 0:
            del self._workers_of[tenant]
        if key in self._again:
            self._again.discard(key)
            self.add(key)
        elif tenant in self._ready:
            self._wake()  # it may have waited for this worker alone, which may be ending

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _wake(self) -> None:
        while self._idle_workers:
            woken = self._idle_workers.popleft()
            if not woken.done():
                woken.set_result(None)
                return

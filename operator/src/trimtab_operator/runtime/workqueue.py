"""Which objects need a look, each at most once in the queue and never by two workers at a time.

Adding a key that waits is nothing; adding one that is being worked on brings it back when that round ends, because
what was added may not have been seen. A delayed add keeps the earliest time. The loop's clock is the only clock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from . import metrics

Key = TypeVar("Key", bound=Hashable)


class Retry(Exception):
    """Nothing is wrong: look again in `after` seconds."""

    def __init__(self, after: float, reason: str) -> None:
        super().__init__(reason)
        self.after = after
        self.reason = reason


class WorkQueue(Generic[Key]):
    """`first_delay` doubles with every failure in a row, up to `longest_delay`."""

    def __init__(self, first_delay: float = 0.25, longest_delay: float = 60) -> None:
        self._first_delay = first_delay
        self._longest_delay = longest_delay
        self._ready: deque[Key] = deque()
        self._waiting: set[Key] = set()
        self._working: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._idle_workers: deque[asyncio.Future[None]] = deque()
        self.rounds = 0
        """Rounds that ended: it grows while there is work and the workers live."""

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def busy(self) -> int:
        """Keys that wait or are worked on; keys that wait for their time do not count."""
        return len(self._waiting) + len(self._working)

    def add(self, key: Key) -> None:
        """Have it looked at as soon as a worker is free."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.append(key)
            metrics.QUEUE_DEPTH.set(len(self._ready))
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
        while True:
            key = await self._take()
            try:
                await self._round(key, handle, failed)
            finally:
                self._give_back(key)

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
        while not self._ready:
            woken = asyncio.get_running_loop().create_future()
            self._idle_workers.append(woken)
            try:
                await woken
            except asyncio.CancelledError:
                if woken.done() and not woken.cancelled():
                    self._wake()  # the wake-up was for this worker: pass it on
                raise
        key = self._ready.popleft()
        metrics.QUEUE_DEPTH.set(len(self._ready))
        self._waiting.discard(key)
        self._working.add(key)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()  # this round says itself when to look again
        return key

    def _give_back(self, key: Key) -> None:
        self.rounds += 1
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _wake(self) -> None:
        while self._idle_workers:
            woken = self._idle_workers.popleft()
            if not woken.done():
                woken.set_result(None)
                return

"""The work queue, in virtual time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from trimtab_operator.runtime.rounds.workqueue import IN_A_ROW, Retry, WorkQueue

from tests.tasks import cancelled
from tests.unit.runtime.virtual_time import run

Handle = Callable[[str], Awaitable[float | None]]


class Rounds:
    """Runs a queue's workers and notes (time, key) of every round that began."""

    def __init__(self, queue: WorkQueue[str], handle: Handle | None = None, shortest: float | None = None) -> None:
        self.queue = queue
        self.seen: list[tuple[float, str]] = []
        self.failures: list[str] = []
        self._handle = handle
        self._shortest = shortest

    async def handle(self, key: str) -> float | None:
        self.seen.append((round(asyncio.get_running_loop().time(), 3), key))
        return await self._handle(key) if self._handle is not None else None

    def failed(self, key: str, error: Exception) -> float | None:
        self.failures.append(str(error))
        return self._shortest

    async def during(self, seconds: float, workers: int = 1) -> list[tuple[float, str]]:
        tasks = [asyncio.create_task(self.queue.work(self.handle, self.failed)) for _ in range(workers)]
        await asyncio.sleep(seconds)
        await cancelled(*tasks)
        return self.seen


def test_a_key_that_waits_is_there_once() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        for key in ("a", "b", "a", "a"):
            queue.add(key)
        assert await Rounds(queue).during(1) == [(0, "a"), (0, "b")]

    run(story())


def test_a_key_is_never_with_two_workers_and_comes_back_if_it_was_added_meanwhile() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        at_once, most = 0, 0

        async def slow(key: str) -> None:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(1)
            at_once -= 1

        rounds = Rounds(queue, slow)
        queue.add("a")
        asyncio.get_running_loop().call_later(0.5, queue.add, "a")
        asyncio.get_running_loop().call_later(0.6, queue.add, "a")
        assert await rounds.during(5, workers=4) == [(0, "a"), (1, "a")]
        assert most == 1

    run(story())


def test_workers_share_the_keys() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        rounds = Rounds(queue, lambda key: asyncio.sleep(1))
        for key in "abcd":
            queue.add(key)
        assert [time for time, _ in await rounds.during(5, workers=2)] == [0, 0, 1, 1]

    run(story())


def test_a_delayed_key_keeps_the_earliest_time() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("a", 5)
        queue.add_after("a", 2)
        queue.add_after("a", 9)
        assert await Rounds(queue).during(20) == [(2, "a")]

    run(story())


def test_a_round_replaces_the_time_that_was_set_before_it() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("a", 5)
        queue.add("a")
        answers = iter([10.0, None])

        async def handle(key: str) -> float | None:
            return next(answers)

        assert await Rounds(queue, handle).during(30) == [(0, "a"), (10, "a")]

    run(story())


def test_failures_back_off_up_to_the_longest_delay_and_a_success_forgets_them() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue(first_delay=1, longest_delay=4)

        async def handle(key: str) -> None:
            if len(rounds.seen) not in (5, 6):
                raise ValueError("bug")

        rounds = Rounds(queue, handle)
        queue.add("a")
        asyncio.get_running_loop().call_later(19, queue.add, "a")
        asyncio.get_running_loop().call_later(20, queue.add, "a")
        seen = await rounds.during(22.5)
        assert seen == [(0, "a"), (1, "a"), (3, "a"), (7, "a"), (11, "a"), (19, "a"), (20, "a"), (21, "a")]
        assert queue.failures("a") == 2

    run(story())


def test_the_api_server_may_ask_for_a_longer_delay() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue(first_delay=1)

        async def handle(key: str) -> None:
            raise ValueError("busy")

        queue.add("a")
        assert await Rounds(queue, handle, shortest=7).during(8) == [(0, "a"), (7, "a")]

    run(story())


def test_a_retry_is_no_failure() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()

        async def handle(key: str) -> None:
            if len(rounds.seen) < 3:
                raise Retry(2, "not yet")

        rounds = Rounds(queue, handle)
        queue.add("a")
        assert await rounds.during(20) == [(0, "a"), (2, "a"), (4, "a")]
        assert rounds.failures == []
        assert queue.failures("a") == 0

    run(story())


def tenant_of(key: str) -> str:
    return key[0]


def test_tenants_take_turns() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue(tenant=tenant_of)
        for key in ("a1", "a2", "a3", "a4", "b1", "c1", "b2"):
            queue.add(key)
        rounds = Rounds(queue, lambda key: asyncio.sleep(1))
        seen = await rounds.during(10)
        assert [key for _, key in seen] == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]
        assert len(queue) == 0

    run(story())


def test_keys_of_a_tenant_that_belong_together_come_one_after_another_and_hold_up_its_others_for_so_long() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue(tenant=lambda key: key[0], group=lambda key: key[1])
        for number in range(40):
            for key in (f"ax{number}", f"ay{number}"):
                queue.add(key)
        queue.add("bx0")
        assert (queue.waits("b"), queue.waits("c")) == (True, False)
        seen = [key[:2] for _, key in await Rounds(queue).during(1)]
        assert seen[:2] == ["ax", "bx"], "tenants take turns all the same"
        del seen[1]
        assert seen == ["ax"] * IN_A_ROW + ["ay"] * IN_A_ROW + ["ax"] * 8 + ["ay"] * 8
        assert not queue.waits("a")

    run(story())


def test_a_tenant_whose_rounds_hang_delays_nobody_else() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue(tenant=tenant_of)

        async def handle(key: str) -> None:
            await asyncio.sleep(1 if key.startswith("a") else 0)

        for number in range(400):
            queue.add(f"a{number}")
        rounds = Rounds(queue, handle)
        loop = asyncio.get_running_loop()
        for at in (0.5, 3.25, 10.75):
            loop.call_later(at, queue.add, f"b{at}")
        seen = await rounds.during(40, workers=16)
        assert [each for each in seen if each[1].startswith("b")] == [(0.5, "b0.5"), (3.25, "b3.25"), (10.75, "b10.75")]
        assert len(seen) == 403, "and all of its own are worked on"

    run(story())


def test_a_tenant_at_its_limit_goes_on_when_one_of_its_workers_ends() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue(tenant=tenant_of)
        rounds = Rounds(queue, lambda key: asyncio.sleep(10))
        doomed = [asyncio.create_task(queue.work(rounds.handle, rounds.failed)) for _ in range(4)]
        for number in range(4):
            queue.add(f"a{number}")
        await asyncio.sleep(1)
        assert len(rounds.seen) == 3
        doomed[0].cancel()
        seen = await rounds.during(8, workers=1)
        assert [time for time, _ in seen] == [0, 0, 0, 1]
        for task in doomed:
            task.cancel()

    run(story())


def test_it_is_cheap_with_many_keys_of_many_tenants() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue(tenant=lambda key: key.partition("/")[0])
        for number in range(10_000):
            queue.add(f"{number % 500}/{number}")
        began = time.process_time()
        seen = await Rounds(queue).during(1, workers=16)
        assert len(seen) == 10_000
        assert time.process_time() - began < 4, "a tenth of a millisecond a key is what is left of it on slow machines"

    run(story())


@pytest.mark.parametrize("workers", [1, 3])
def test_no_wake_up_is_lost_when_a_worker_is_cancelled(workers: int) -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        rounds = Rounds(queue)
        doomed = asyncio.create_task(queue.work(rounds.handle, rounds.failed))
        await asyncio.sleep(1)
        queue.add("a")  # wakes the worker that is cancelled before it runs
        doomed.cancel()
        assert await rounds.during(1, workers) == [(1, "a")]

    run(story())

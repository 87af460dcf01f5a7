"""Watches go on where the first list ended, and what a gap has swallowed is listed anew."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

from trimtab_operator.domain.cluster import Key
from trimtab_operator.runtime.cluster.audit import Audit
from trimtab_operator.runtime.cluster.cache import Cache
from trimtab_operator.runtime.cluster.handlers import registry_of
from trimtab_operator.runtime.cluster.watch import Inbox, Watch
from trimtab_operator.runtime.kube import JOBS, OWN, PODS, Body, Gone, Kube, Resource, Unreachable

from tests.resources import FINETUNEJOBS
from tests.unit.runtime.fake_api import FakeApi
from tests.unit.runtime.objects import NAMESPACE, finetunejob, job, pod
from tests.unit.runtime.virtual_time import run

KEY = Key("FineTuneJob", NAMESPACE, "demo")
Script = list[Body | Exception | None]
"""What a watch tells; None: it goes on for ever."""
SELECTOR = "app.kubernetes.io/managed-by=trimtab"


FOR_EVER: Script = [None]


class WatchedApi(FakeApi):
    """One whose watches tell what a script says; a watch after the last one never ends."""

    def __init__(self, *scripts: Script) -> None:
        super().__init__()
        self.begun: list[tuple[float, int]] = []
        """When each watch began on the loop's clock, and at which resourceVersion."""
        self._scripts = iter(scripts)

    async def watch(
        self, resource: Resource, namespace: str | None, since: int, query: dict[str, str]
    ) -> AsyncIterator[Body]:
        assert query == {"labelSelector": SELECTOR}
        self.begun.append((asyncio.get_running_loop().time(), since))
        for told in next(self._scripts, FOR_EVER):
            if told is None:
                await asyncio.Event().wait()
                continue
            if isinstance(told, Exception):
                raise told
            yield told


class World:
    """A cache that was filled, and one watch of Jobs."""

    def __init__(self, *scripts: Script) -> None:
        self.api = WatchedApi(*scripts)
        self.cache = Cache()
        self.told: list[Key] = []
        self.relists = 0
        self.audit = Audit(self.api, self.cache, self.told.append)
        inbox = Inbox([self.cache.jobs], self.told.append)
        self.watch = Watch(self.api, JOBS, None, selector=SELECTOR, inbox=inbox, relisted=self._relisted)

    def _relisted(self) -> None:
        self.relists += 1

    async def run(self, seconds: float = 1.0) -> None:
        self.api.put(FINETUNEJOBS, finetunejob())
        self.api.put(JOBS, job())
        await self.audit.fill()
        self.told.clear()
        self.api.calls.clear()
        with contextlib.suppress(TimeoutError):  # it would follow for ever
            async with asyncio.timeout(seconds):
                await self.watch.run(self.audit.moments["jobs", None])


def event(kind: str, body: Body, version: int) -> Body:
    return {"type": kind, "object": {**body, "metadata": {**body["metadata"], "resourceVersion": str(version)}}}


def bookmark(version: int) -> Body:
    return {"type": "BOOKMARK", "object": {"kind": "Job", "metadata": {"resourceVersion": str(version)}}}


def test_it_begins_where_the_first_list_ended_and_lists_nothing_again() -> None:
    async def story() -> None:
        world = World([event("ADDED", job("demo-train-2", "job-2"), 900), None])
        await world.run()
        first_list = world.audit.moments["jobs", None]
        assert [since for _, since in world.api.begun] == [first_list]
        assert world.api.calls == []
        assert {entry.uid for entry in world.cache.jobs} == {"job-1", "job-2"}
        assert world.told == [KEY]

    run(story())


def test_of_two_stores_of_a_resource_the_earlier_list_counts() -> None:
    async def story() -> None:
        api, cache = FakeApi(), Cache()
        audit = Audit(api, cache, lambda key: None, namespaces=(NAMESPACE,))
        api.put(PODS, pod())
        await audit.fill()
        at = [number for number, call in enumerate(api.calls) if call == ("list", "pods", "")]
        assert len(at) == 2
        assert audit.moments["pods", NAMESPACE] == 101 + at[0]  # the put had version 100

    run(story())


def test_what_is_deleted_leaves_and_what_is_known_already_concerns_nobody() -> None:
    async def story() -> None:
        world = World([event("MODIFIED", job(), 5), event("DELETED", job(), 900), event("MODIFIED", job(), 899), None])
        await world.run()
        assert len(world.cache.jobs) == 0
        assert world.told == [KEY]

    run(story())


def test_a_watch_that_ends_is_begun_again_where_it_ended_and_a_bookmark_counts() -> None:
    async def story() -> None:
        world = World([event("MODIFIED", job(), 900), bookmark(950)], [None])
        await world.run()
        assert [since for _, since in world.api.begun][1:] == [950]
        assert world.relists == 0

    run(story())


def test_after_a_gap_it_lists_anew_tells_what_changed_and_asks_for_an_audit() -> None:
    async def story() -> None:
        world = World([bookmark(700), Gone(410, "Expired", "too old")], [None])

        def meanwhile(verb: str, plural: str, name: str) -> None:
            world.api.put(JOBS, job("demo-train-2", "job-2"))

        world.api.before = meanwhile
        await world.run()
        assert ("list", "jobs", "") in world.api.calls
        assert world.relists == 1
        assert world.cache.jobs.of_uid("job-2") is not None
        assert KEY in world.told
        assert world.api.begun[1][1] not in (700, world.api.begun[0][1])

    run(story())


def test_one_that_breaks_is_begun_again_with_pauses_that_grow_and_shrink() -> None:
    async def story() -> None:
        broken: Body | Exception = Unreachable("connection reset")
        world = World([broken], [broken], [broken], [bookmark(900), broken], [None])
        await world.run(10)
        times = [when for when, _ in world.api.begun]
        pauses = [round(then - now, 3) for now, then in itertools.pairwise(times)]
        assert pauses == [0.2, 0.4, 0.8, 0.1]
        assert world.relists == 0

    run(story())


def test_kopf_watches_our_own_kinds_and_nothing_else() -> None:
    """It takes 0.4 ms of a processor for every object, at each start again: children are four in five of all."""
    kube = Kube.__new__(Kube)  # only asked when kopf logs in
    registry = registry_of(kube, Cache(), lambda key: None, lambda: None)
    handlers: Any = registry._watching.get_all_handlers()
    assert {handler.selector.any_name for handler in handlers} == {resource.plural for resource in OWN.values()}

"""Audits mend what no watch has told, and believe nothing from a list alone."""

from __future__ import annotations

import asyncio

import pytest
from trimtab_operator.domain.cluster import Key
from trimtab_operator.runtime.cluster.audit import Audit, WentBack
from trimtab_operator.runtime.cluster.cache import Cache
from trimtab_operator.runtime.cluster.firstlist import MANY
from trimtab_operator.runtime.kube import JOBS, PODS, ApiError

from tests.resources import FINETUNEJOBS
from tests.unit.runtime.fake_api import FakeApi, failing
from tests.unit.runtime.objects import NAMESPACE, finetunejob, job, pod
from tests.unit.runtime.virtual_time import run

KEY = Key("FineTuneJob", NAMESPACE, "demo")


SUCCEEDED = {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}


class World:
    """An API server, a cache that was filled from it, and whom the audit has told."""

    def __init__(self) -> None:
        self.api = FakeApi()
        self.cache = Cache()
        self.told: list[Key] = []
        self.audit = Audit(self.api, self.cache, self.told.append, every=20)

    async def filled(self) -> None:
        self.api.put(FINETUNEJOBS, finetunejob())
        self.api.put(JOBS, job())
        self.api.put(PODS, pod())
        await self.audit.fill()
        self.told.clear()
        self.api.calls.clear()


def test_the_first_list_fills_the_cache_and_tells_of_what_has_not_ended() -> None:
    async def story() -> None:
        world = World()
        done = {"type": "Succeeded", "status": "True", "reason": "Completed"}
        world.api.put(FINETUNEJOBS, finetunejob("done", "ftj-0", conditions=[done]))
        world.api.put(FINETUNEJOBS, finetunejob())
        world.api.put(JOBS, job())
        await world.audit.fill()
        assert world.told == [KEY]
        assert world.audit.ended == [Key("FineTuneJob", NAMESPACE, "done")]
        assert len(world.cache.jobs_of(KEY)) == 1
        assert world.audit.filled

    run(story())


def test_of_what_has_ended_only_that_is_looked_at_about_which_something_is_left_to_do() -> None:
    async def story() -> None:
        world = World()
        done = {"type": "Succeeded", "status": "True", "reason": "Completed"}
        for name, generation, ttl in (("rests", 1, None), ("changed", 2, None), ("goes", 1, 60), ("lives", 1, None)):
            body = finetunejob(name, f"uid-of-{name}", conditions=[done], observedGeneration=1)
            spec = {**body["spec"], "ttlSecondsAfterFinished": ttl} if ttl is not None else body["spec"]
            world.api.put(
                FINETUNEJOBS, {**body, "metadata": {**body["metadata"], "generation": generation}, "spec": spec}
            )
        lives = job("lives-train-1", "job-lives", owner="uid-of-lives")
        lives["metadata"]["ownerReferences"][0]["name"] = "lives"
        world.api.put(JOBS, lives)
        await world.audit.fill()
        assert {key.name for key in world.audit.ended} == {"changed", "goes", "lives"}

    run(story())


def test_an_unchanged_cluster_is_listed_and_nothing_else() -> None:
    async def story() -> None:
        world = World()
        await world.filled()
        await world.audit.compare(world.cache.jobs)
        assert world.api.calls == [("list", "jobs", "")]
        assert world.told == []

    run(story())


def test_a_deletion_that_was_not_reported_is_found() -> None:
    async def story() -> None:
        world = World()
        await world.filled()
        world.api.drop(JOBS, NAMESPACE, "demo-train-1")
        await world.audit.compare(world.cache.jobs)
        assert world.cache.jobs.of_uid("job-1") is None
        assert world.told == [KEY]

    run(story())


def test_a_change_that_was_not_reported_is_read() -> None:
    async def story() -> None:
        world = World()
        await world.filled()
        world.api.put(JOBS, job())
        world.api.put(JOBS, job("demo-train-2", "job-2"))
        await world.audit.compare(world.cache.jobs)
        assert {entry.uid for entry in world.cache.jobs} == {"job-1", "job-2"}
        assert sorted(world.api.calls[1:]) == [("get", "jobs", "demo-train-1"), ("get", "jobs", "demo-train-2")]
        assert world.told == [KEY, KEY]

    run(story())


def test_what_the_watch_brings_meanwhile_is_not_read() -> None:
    async def story() -> None:
        world = World()
        await world.filled()
        newer = world.api.put(JOBS, job())
        asyncio.get_running_loop().call_later(0.5, world.cache.jobs.put, newer)
        await world.audit.compare(world.cache.jobs)
        assert world.api.calls == [("list", "jobs", "")]

    run(story())


def test_an_object_made_after_the_list_is_not_taken_for_deleted() -> None:
    async def story() -> None:
        world = World()
        await world.filled()
        made = job("demo-train-2", "job-2", version=10_000)

        def before(verb: str, plural: str, name: str) -> None:
            world.cache.jobs.put(made)  # by the watch, newer than the list

        world.api.before = before
        await world.audit.compare(world.cache.jobs)
        assert world.cache.jobs.of_uid("job-2") is not None
        assert world.api.calls == [("list", "jobs", "")]

    run(story())


def test_an_object_missing_from_a_stale_list_is_read_before_it_is_forgotten() -> None:
    async def story() -> None:
        world = World()
        await world.filled()
        kept = world.api.objects.pop(("jobs", NAMESPACE, "demo-train-1"))
        loop = asyncio.get_running_loop()
        loop.call_later(0.5, world.api.objects.__setitem__, ("jobs", NAMESPACE, "demo-train-1"), kept)
        await world.audit.compare(world.cache.jobs)
        assert world.cache.jobs.of_uid("job-1") is not None
        assert world.told == []

    run(story())


def test_an_object_that_was_replaced_under_its_name_is_found() -> None:
    async def story() -> None:
        world = World()
        await world.filled()
        world.api.put(FINETUNEJOBS, finetunejob(uid="ftj-2"))
        await world.audit.compare(world.cache.owners["FineTuneJob"])
        entry = world.cache.owners["FineTuneJob"].named(NAMESPACE, "demo")
        assert entry is not None
        assert entry.uid == "ftj-2"
        assert world.cache.owners["FineTuneJob"].of_uid("ftj-1") is None
        assert KEY in world.told

    run(story())


def test_it_runs_every_so_often_and_soon_when_asked_and_survives_errors() -> None:
    async def story() -> None:
        world = World()
        await world.filled()
        loop = asyncio.get_running_loop()
        times: list[float] = []
        note = failing("list", "jobs", ApiError(500, "InternalError", "down"))

        def before(verb: str, plural: str, name: str) -> None:
            if (verb, plural) == ("list", "finetunejobs"):
                times.append(loop.time())
            if len(times) == 1:
                note(verb, plural, name)

        world.api.before = before
        task = asyncio.create_task(world.audit.run())
        for delay in (45, 45.1, 45.2):
            loop.call_later(delay, world.audit.soon)
        await asyncio.sleep(70)
        task.cancel()
        assert times == [20, 40, 46.2, 66.2]  # a second after the last one asked: a list may go on for long
        assert world.audit.last_success == 66.2

    run(story())


def test_what_is_bygone_is_read_beside_the_first_work_and_tried_again() -> None:
    async def story() -> None:
        world = World()
        done = {"type": "Succeeded", "status": "True", "reason": "Completed"}
        for number in range(MANY):
            world.api.put(FINETUNEJOBS, finetunejob(f"old-{number}", f"old-{number}", conditions=[done]))
            world.api.put(JOBS, {**job(f"job-{number}", f"job-{number}", owner=f"old-{number}"), "status": SUCCEEDED})
        await world.audit.fill()
        assert world.audit.filled
        assert not world.audit.complete.is_set()
        assert len(world.cache.jobs) == 0
        world.api.calls.clear()
        refuse = failing("list", "jobs", ApiError(500, "InternalError", "down"))
        tried = asyncio.get_running_loop().time() + 1
        world.api.before = lambda *call: refuse(*call) if asyncio.get_running_loop().time() < tried else None
        task = asyncio.create_task(world.audit.run())
        await asyncio.sleep(1)
        assert not world.audit.complete.is_set()
        await world.audit.complete.wait()
        task.cancel()
        assert len(world.cache.jobs) == MANY
        assert not [call for call in world.api.calls if call[0] == "get"]

    run(story())


def test_a_cluster_that_was_restored_from_a_backup_ends_what_knows_more_than_there_is() -> None:
    """What is newer there has lower numbers than what is known, so that nothing of it would ever be believed."""

    async def story() -> None:
        world = World()
        await world.filled()
        for resource in (FINETUNEJOBS, JOBS, PODS):
            await world.audit.compare(next(store for store in world.cache.stores if store.resource == resource))
        world.api.restored(version=50)
        with pytest.raises(WentBack, match="finetunejobs"):
            await world.audit.run()

    run(story())

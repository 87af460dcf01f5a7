"""The first list reads everything, but of what belongs to what has ended only that it is there."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab_operator.domain.cluster import Key
from trimtab_operator.domain.views import JOB_LABEL, JobView
from trimtab_operator.runtime.cluster.cache import Cache
from trimtab_operator.runtime.cluster.firstlist import FirstList
from trimtab_operator.runtime.kube import JOBS, PODS, Body

from tests.resources import FINETUNEJOBS
from tests.unit.runtime.fake_api import FakeApi
from tests.unit.runtime.objects import NAMESPACE, finetunejob, job, pod
from tests.unit.runtime.virtual_time import run

ENDED = {"type": "Succeeded", "status": "True", "reason": "Completed"}
SUCCEEDED = {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}


def family(api: FakeApi, number: int, status: Body, conditions: Sequence[Body] = ()) -> None:
    """Have a FineTuneJob with a Job and its pod."""
    api.put(FINETUNEJOBS, finetunejob(f"f{number}", f"ftj-{number}", conditions=conditions))
    made = {**job(f"f{number}-train-1", f"job-{number}", owner=f"ftj-{number}"), "status": status}
    made["metadata"]["ownerReferences"][0]["name"] = f"f{number}"
    for resource, body in ((JOBS, made), (PODS, pod(f"f{number}-train-1-x", f"pod-{number}", job_uid=f"job-{number}"))):
        labels = {**body["metadata"]["labels"], JOB_LABEL: f"f{number}"}
        api.put(resource, {**body, "metadata": {**body["metadata"], "labels": labels}})


def jobs_of(cache: Cache, number: int) -> list[JobView]:
    return cache.jobs_of(Key("FineTuneJob", NAMESPACE, f"f{number}"))


async def read(api: FakeApi, many: int = 1) -> tuple[Cache, FirstList]:
    cache = Cache()
    first = FirstList(api, cache, (None,), many)
    await first.read()
    await first.rest()
    return cache, first


def test_of_bygone_jobs_and_pods_only_the_version_is_known() -> None:
    async def story() -> None:
        api = FakeApi()
        for number in range(9):
            family(api, number, SUCCEEDED, conditions=[ENDED])
        family(api, 9, SUCCEEDED)
        cache, _ = await read(api)
        assert {len(store) for store in (cache.owners["FineTuneJob"], cache.jobs, cache.pods)} == {10}
        assert [view.name for view in jobs_of(cache, 9)] == ["f9-train-1"]
        assert [view.name for view in cache.pods.of_parent("job-9")] == ["f9-train-1-x"]
        assert [entry.uid for entry in cache.jobs if entry.view is not None] == ["job-9"]
        assert [entry.uid for entry in cache.pods if entry.view is not None] == ["pod-9"]
        assert not [call for call in api.calls if call[0] == "get"]

    run(story())


def test_what_has_ended_is_not_waited_for() -> None:
    async def story() -> None:
        api = FakeApi()
        for number in range(9):
            family(api, number, SUCCEEDED, conditions=[ENDED])
        family(api, 9, SUCCEEDED)
        cache = Cache()
        first = FirstList(api, cache, (None,), 1)
        await first.read()
        assert [entry.uid for entry in cache.jobs] == ["job-9"]
        assert [entry.uid for entry in cache.pods] == ["pod-9"]
        assert first.moments.keys() == {
            (each.plural, None) for each in (*(store.resource for store in cache.owners.values()), JOBS, PODS)
        }
        cache.jobs.remove("job-3")
        await first.rest()
        assert {len(cache.jobs), len(cache.pods)} == {9, 10}
        assert not [call for call in api.calls if call[0] == "get"]

    run(story())


def test_what_has_lost_the_label_of_its_owner_is_found_with_the_rest() -> None:
    async def story() -> None:
        api = FakeApi()
        for number in range(9):
            family(api, number, SUCCEEDED, conditions=[ENDED])
        family(api, 9, SUCCEEDED)
        body = await api.get(JOBS, NAMESPACE, "f9-train-1")
        labels = {key: value for key, value in body["metadata"]["labels"].items() if key != JOB_LABEL}
        api.put(JOBS, {**body, "metadata": {**body["metadata"], "labels": labels}})
        cache, _ = await read(api)
        assert cache.jobs.of_uid("job-9") is not None

    run(story())


def test_the_selectors_of_many_owners_stay_short() -> None:
    async def story() -> None:
        api = FakeApi()
        for number in range(200):
            family(api, number, SUCCEEDED, conditions=[ENDED])
        for number in range(200, 320):
            family(api, number, SUCCEEDED)
        cache = Cache()
        await FirstList(api, cache, (None,), 1).read()
        assert {entry.uid for entry in cache.jobs} == {f"job-{number}" for number in range(200, 320)}
        assert len([call for call in api.calls if call == ("list", "jobs", "")]) == 1 + 3

    run(story())


def test_a_job_that_outlives_its_owner_is_read_whole() -> None:
    async def story() -> None:
        api = FakeApi()
        family(api, 1, {"active": 1}, conditions=[ENDED])
        family(api, 2, SUCCEEDED, conditions=[ENDED])
        cache, _ = await read(api)
        (view,) = jobs_of(cache, 1)
        assert not view.finished
        assert jobs_of(cache, 2) == []

    run(story())


def test_what_is_bygone_is_known_in_full_once_it_changes() -> None:
    async def story() -> None:
        api = FakeApi()
        family(api, 1, SUCCEEDED, conditions=[ENDED])
        cache, _ = await read(api)
        body = await api.get(JOBS, NAMESPACE, "f1-train-1")
        cache.jobs.put({**body, "metadata": {**body["metadata"], "resourceVersion": "9000"}})
        assert [view.name for view in jobs_of(cache, 1)] == ["f1-train-1"]
        cache.jobs.remove("job-1")
        assert len(cache.jobs) == 0

    run(story())


def test_where_many_live_everything_is_listed_instead_of_read_one_by_one() -> None:
    async def story() -> None:
        api = FakeApi()
        family(api, 0, SUCCEEDED, conditions=[ENDED])
        for number in range(1, 9):
            family(api, number, SUCCEEDED)
        cache, _ = await read(api)
        assert not [call for call in api.calls if call[0] == "get"]
        assert all(len(jobs_of(cache, number)) == 1 for number in range(1, 9))

    run(story())


def test_where_little_has_ended_nothing_is_listed_twice() -> None:
    async def story() -> None:
        api = FakeApi()
        family(api, 1, SUCCEEDED, conditions=[ENDED])
        cache, _ = await read(api, many=100)
        assert [call for call in api.calls if call[1] == "jobs"] == [("list", "jobs", "")]
        assert len(jobs_of(cache, 1)) == 1

    run(story())


def test_a_watch_goes_on_from_the_earliest_list() -> None:
    async def story() -> None:
        api = FakeApi()
        family(api, 1, SUCCEEDED, conditions=[ENDED])
        before = int(api.put(JOBS, job("other", "job-other", owner="nobody"))["metadata"]["resourceVersion"])
        _, first = await read(api)
        at = [number for number, call in enumerate(api.calls) if call == ("list", "jobs", "")]
        assert len(at) > 1
        assert first.moments["jobs", None] == before + 1 + at[0]

    run(story())

"""Acting: what is repeated meets its own work, and what belongs to others is left alone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic_core import to_json
from trimtab_operator.api import FineTuneJobStatus
from trimtab_operator.domain.cluster import Key
from trimtab_operator.domain.finetunejob import FINE_TUNE_JOB
from trimtab_operator.domain.plan import Action, Create, Delete, Suspend
from trimtab_operator.domain.views import SWEEP_LABEL
from trimtab_operator.runtime import metrics
from trimtab_operator.runtime.cluster.cache import Cache
from trimtab_operator.runtime.kube import JOBS, Body, Denied, Invalid, Resource, refusal_of
from trimtab_operator.runtime.rounds.act import Actor, NameIsTaken
from trimtab_operator.runtime.rounds.reconcile import is_refusal
from trimtab_operator.runtime.rounds.workqueue import Retry

from tests.resources import FINETUNEJOBS
from tests.unit.runtime.fake_api import FakeApi, failing
from tests.unit.runtime.objects import NAMESPACE, finetunejob, job

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
ABOUT: dict[str, Any] = {"kind": "FineTuneJob", "name": "demo"}


class World:
    def __init__(self) -> None:
        self.api = FakeApi()
        self.cache = Cache()
        self.actor = Actor(self.api, self.cache)


@pytest.fixture
async def world() -> World:
    return World()


async def test_what_was_created_is_in_the_cache_at_once(world: World) -> None:
    await world.actor.act(Create(job()), ABOUT)
    assert [view.name for view in world.cache.jobs_of(Key("FineTuneJob", NAMESPACE, "demo"))] == ["demo-train-1"]


async def test_a_child_that_is_decided_on_itself_is_looked_at_though_no_watch_brings_news_of_it() -> None:
    told: list[Key] = []
    api, cache = FakeApi(), Cache(follow=told.append)
    actor = Actor(api, cache)
    await actor.act(Create(finetunejob()), ABOUT)
    key = Key("FineTuneJob", NAMESPACE, "demo")
    assert told == [key]
    uid = cache.owners["FineTuneJob"].named(NAMESPACE, "demo").uid  # type: ignore[union-attr]
    await actor.act(Suspend(NAMESPACE, "demo", uid, suspend=True, kind="FineTuneJob"), ABOUT)
    assert told == [key, key]
    assert cache.stored(key).body["spec"]["suspend"]  # type: ignore[union-attr]
    await actor.act(Create(job()), ABOUT)
    assert told == [key, key], "Jobs are looked at by their owners"


DENIED = 'admission webhook "jobs.example.com" denied the request: not today'


@pytest.mark.parametrize("code", [404, 409, 410, 422, 500])
@pytest.mark.parametrize("verb", ["create", "delete", "patch"])
async def test_what_a_webhook_denies_with_whatever_code_is_denied_and_nothing_is_gone(
    world: World, verb: str, code: int
) -> None:
    """A Job that only seems to be gone would run beside the next one."""
    await world.actor.act(Create(job()), ABOUT)
    (view,) = world.cache.jobs_of(Key("FineTuneJob", NAMESPACE, "demo"))
    answer = to_json({"reason": "AlreadyExists" if code == 409 else "NotFound", "message": DENIED})
    world.api.before = failing(verb, "jobs", refusal_of(code, answer, {}))
    actions: dict[str, Action] = {
        "create": Create(job("demo-train-2", "job-2")),
        "delete": Delete("Job", NAMESPACE, view.name, view.uid),
        "patch": Suspend(NAMESPACE, view.name, view.uid, suspend=True),
    }
    with pytest.raises(Denied) as raised:
        await world.actor.act(actions[verb], ABOUT)
    assert is_refusal(raised.value)
    assert [each.uid for each in world.cache.jobs_of(Key("FineTuneJob", NAMESPACE, "demo"))] == [view.uid]


async def test_creating_twice_is_success_when_the_owner_is_the_same(world: World) -> None:
    await world.actor.act(Create(job()), ABOUT)
    world.cache.jobs.remove("nothing")
    await world.actor.act(Create(job()), ABOUT)
    assert len(world.api.objects) == 1


async def test_an_object_of_another_owner_is_not_taken_for_ours(world: World) -> None:
    world.api.put(JOBS, job(uid="foreign", owner="someone-else"))
    with pytest.raises(NameIsTaken, match="Job demo-train-1"):
        await world.actor.act(Create(job()), ABOUT)
    assert len(world.cache.jobs) == 0


def trial(**labels: str) -> Body:
    """Return a FineTuneJob that the sweep "guide" makes."""
    owner = {"kind": "FineTuneSweep", "name": "guide", "uid": "s", "controller": True}
    body = finetunejob()
    body["metadata"] |= {"labels": labels, "ownerReferences": [owner]}
    return body


async def test_a_trial_whose_labels_a_policy_takes_is_deleted_again_and_counts_as_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep finds its trials by their label: it would ask for this one in every round, without a pause."""
    create = world.api.create

    async def stripped(resource: Resource, namespace: str, body: Body) -> Body:
        return await create(resource, namespace, {**body, "metadata": {**body["metadata"], "labels": {}}})

    monkeypatch.setattr(world.api, "create", stripped)
    with pytest.raises(Denied, match="or what tells that it is one of ours"):
        await world.actor.act(Create(trial(**{SWEEP_LABEL: "guide"})), ABOUT)
    assert world.api.objects == {}


async def test_a_trial_that_lost_its_label_has_a_name_that_is_taken(world: World) -> None:
    world.api.put(FINETUNEJOBS, trial())
    with pytest.raises(NameIsTaken, match="FineTuneJob demo"):
        await world.actor.act(Create(trial(**{SWEEP_LABEL: "guide"})), ABOUT)
    world.api.put(FINETUNEJOBS, trial(**{SWEEP_LABEL: "guide"}))
    await world.actor.act(Create(trial(**{SWEEP_LABEL: "guide"})), ABOUT)


async def test_an_object_of_ours_that_is_being_deleted_is_waited_for(world: World) -> None:
    ending = job()
    ending["metadata"]["deletionTimestamp"] = "2026-01-05T12:00:00Z"
    world.api.put(JOBS, ending)
    with pytest.raises(Retry):
        await world.actor.act(Create(job()), ABOUT)


@pytest.mark.parametrize("there", ["nothing", "another"])
async def test_deleting_what_is_gone_is_success_and_another_object_is_left_alone(world: World, there: str) -> None:
    world.cache.jobs.put(job())
    if there == "another":
        world.api.put(JOBS, job(uid="another"))
    await world.actor.act(Delete("Job", NAMESPACE, "demo-train-1", "job-1"), ABOUT)
    assert world.cache.jobs.of_uid("job-1") is None
    assert len(world.api.objects) == (1 if there == "another" else 0)


async def test_suspending_writes_one_field_of_that_very_job(world: World) -> None:
    world.api.put(JOBS, job())
    await world.actor.act(Suspend(NAMESPACE, "demo-train-1", "job-1", True), ABOUT)
    assert world.api.objects["jobs", NAMESPACE, "demo-train-1"]["spec"] == {"suspend": True}
    entry = world.cache.jobs.of_uid("job-1")
    assert entry is not None
    assert entry.view is not None
    assert entry.view.suspended


@pytest.mark.parametrize("there", ["nothing", "another"])
async def test_suspending_another_job_is_planned_again(world: World, there: str) -> None:
    world.cache.jobs.put(job())
    if there == "another":
        world.api.put(JOBS, job(uid="another"))
    with pytest.raises(Retry):
        await world.actor.act(Suspend(NAMESPACE, "demo-train-1", "job-1", True), ABOUT)
    assert world.cache.jobs.of_uid("job-1") is None


async def test_a_policy_that_refuses_to_suspend_is_no_other_job(world: World) -> None:
    """Without a word of its own a ValidatingAdmissionPolicy refuses with the code of a patch whose test fails."""
    world.cache.jobs.put(world.api.put(JOBS, job()))
    refusal = Invalid(422, "Invalid", "ValidatingAdmissionPolicy 'x' denied request: suspend is the queue's to write")
    world.api.before = failing("patch", "jobs", refusal)
    with pytest.raises(Invalid):
        await world.actor.act(Suspend(NAMESPACE, "demo-train-1", "job-1", True), ABOUT)
    assert world.cache.jobs.of_uid("job-1") is not None


@pytest.mark.parametrize("suspend", [True, False])
async def test_what_a_policy_writes_over_counts_as_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, *, suspend: bool
) -> None:
    """It answers 200, and would be asked again at once, for ever."""

    async def patch(*of: Any, **options: Any) -> Body:
        return {**job(version=2), "spec": {} if suspend else {"suspend": True}}

    world.cache.jobs.put(world.api.put(JOBS, job()))
    monkeypatch.setattr(world.api, "patch", patch)
    with pytest.raises(Denied, match=r"keeps spec\.suspend of demo-train-1"):
        await world.actor.act(Suspend(NAMESPACE, "demo-train-1", "job-1", suspend), ABOUT)


async def test_a_status_is_written_once_and_only_if_it_differs(world: World) -> None:
    stored = world.api.put(FINETUNEJOBS, finetunejob())
    world.cache.owners["FineTuneJob"].put(stored)
    status = FineTuneJobStatus(observed_generation=1, failures=1).to_json()
    assert await world.actor.write_status(FINE_TUNE_JOB, stored, status)
    entry = world.cache.owners["FineTuneJob"].named(NAMESPACE, "demo")
    assert entry is not None
    assert entry.view is not None
    assert entry.view.body["status"]["failures"] == 1
    assert not await world.actor.write_status(FINE_TUNE_JOB, entry.view.body, status)
    assert world.api.writes() == [("patch", "finetunejobs", "demo")]


async def test_defaults_that_the_server_fills_in_are_no_difference(world: World) -> None:
    stored = world.api.put(FINETUNEJOBS, finetunejob(observedGeneration=1, failures=0, attempts=[]))
    assert not await world.actor.write_status(FINE_TUNE_JOB, stored, {"observedGeneration": 1})


async def test_a_status_decided_on_an_older_object_is_refused_and_the_newer_one_is_read(world: World) -> None:
    old = world.api.put(FINETUNEJOBS, finetunejob())
    world.cache.owners["FineTuneJob"].put(old)
    new = world.api.put(FINETUNEJOBS, finetunejob())
    with pytest.raises(Retry):
        await world.actor.write_status(FINE_TUNE_JOB, old, {"observedGeneration": 1})
    entry = world.cache.owners["FineTuneJob"].named(NAMESPACE, "demo")
    assert entry is not None
    assert entry.version == int(new["metadata"]["resourceVersion"])


async def test_a_status_of_what_is_gone_is_dropped(world: World) -> None:
    stored = finetunejob()
    world.cache.owners["FineTuneJob"].put(stored)
    with pytest.raises(Retry):
        await world.actor.write_status(FINE_TUNE_JOB, stored, {"observedGeneration": 1})
    assert world.cache.owners["FineTuneJob"].named(NAMESPACE, "demo") is None


def test_an_attempt_and_its_accelerator_time_are_counted_once() -> None:
    def count() -> tuple[float, float]:
        return (
            metrics.ATTEMPTS.labels("train", "Completed")._value.get(),
            metrics.ACCELERATOR_SECONDS._value.get(),
        )

    attempt = {"number": 1, "stage": "train", "jobName": "demo-train-1", "jobUID": "job-1"}
    open_ = FineTuneJobStatus.model_validate({"attempts": [attempt]})
    closed = FineTuneJobStatus.model_validate(
        {"attempts": [{**attempt, "reason": "Completed"}], "acceleratorSeconds": 60}
    )
    before = count()
    metrics.count(FINE_TUNE_JOB.measures(open_, closed, NOW))
    metrics.count(FINE_TUNE_JOB.measures(closed, closed, NOW))
    after = count()
    assert (after[0] - before[0], after[1] - before[1]) == (1, 60)

"""Rounds with a stand-in for the plan: what is observed, asked, confirmed and done, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from trimtab_operator.domain.plan import Create, Delete, EventsOf, NodeOf, Note, Plan
from trimtab_operator.domain.settings import Settings
from trimtab_operator.domain.work import Observed
from trimtab_operator.runtime.act import Actor
from trimtab_operator.runtime.cache import Cache, Key
from trimtab_operator.runtime.events import Events
from trimtab_operator.runtime.kube import EVENTS, FINETUNEJOBS, JOBS, ApiError
from trimtab_operator.runtime.reconcile import Reconciler, failed
from trimtab_operator.runtime.workqueue import Retry

from tests.unit.runtime.fake_api import FakeApi, failing
from tests.unit.runtime.objects import NAMESPACE, finetunejob, job, pod

KEY = Key("FineTuneJob", NAMESPACE, "demo")
NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
STATUS = {"observedGeneration": 1, "failures": 1}


class World:
    """`answers` says what to plan for what was observed; `asked` is what plans were asked for."""

    def __init__(self, decide: Callable[[Observed[Any]], Plan]) -> None:
        self.api = FakeApi()
        self.cache = Cache()
        self.asked: list[Observed[Any]] = []

        def plan(observed: Observed[Any], now: datetime) -> Plan:
            self.asked.append(observed)
            assert now == NOW
            return decide(observed)

        self.reconciler = Reconciler(
            reader=self.api,
            actor=Actor(self.api, self.cache),
            events=Events(self.api, lambda: NOW, "test"),
            cache=self.cache,
            settings=Settings("p", "t"),
            plan=plan,
            now=lambda: NOW,
        )

    def stored(self) -> None:
        self.cache.finetunejobs.put(self.api.put(FINETUNEJOBS, finetunejob()))

    async def round(self) -> float | None:
        return await self.reconciler.reconcile(KEY)


async def test_what_is_gone_is_left_alone() -> None:
    world = World(lambda observed: Plan())
    assert await world.round() is None
    assert world.asked == []


async def test_nothing_to_do_is_no_request() -> None:
    world = World(lambda observed: Plan(look_again_seconds=7))
    world.stored()
    assert await world.round() == 7
    assert world.api.calls == []


async def test_children_are_observed_by_uid_and_pods_of_recorded_attempts_too() -> None:
    world = World(lambda observed: Plan())
    attempt = {"number": 0, "stage": "train", "jobName": "demo-train-0", "jobUID": "job-0"}
    world.cache.finetunejobs.put(world.api.put(FINETUNEJOBS, finetunejob(attempts=[attempt])))
    world.cache.jobs.put(job())
    world.cache.jobs.put(job("foreign", "job-2", owner="ftj-2"))
    world.cache.pods.put(pod())
    world.cache.pods.put(pod("old", "pod-0", job_uid="job-0"))
    world.cache.pods.put(pod("foreign", "pod-2", job_uid="job-2"))
    await world.round()
    observed = world.asked[0]
    assert [view.uid for view in observed.attempts] == ["job-1"]
    assert {view.uid for view in observed.pods} == {"pod-1", "pod-0"}


async def test_actions_come_before_the_status_and_events_after_it() -> None:
    world = World(lambda observed: Plan(actions=(Create(job()),), status=STATUS, notes=(Note("Normal", "R", "m"),)))
    world.stored()
    assert await world.round() == 0
    assert [call[:2] for call in world.api.writes()] == [
        ("create", "jobs"),
        ("apply", "finetunejobs"),
        ("create", "events"),
    ]


async def test_a_failed_action_ends_the_round() -> None:
    world = World(lambda observed: Plan(actions=(Create(job()),), status=STATUS))
    world.stored()
    world.api.before = failing("create", "jobs", ApiError(500, "InternalError", "down", retry_after=3))
    with pytest.raises(ApiError) as raised:
        await world.round()
    assert failed(KEY, raised.value) == 3
    assert ("apply", "finetunejobs", "demo") not in world.api.calls


async def test_a_refusal_is_said_in_the_status_and_tried_again() -> None:
    world = World(lambda observed: Plan(actions=(Create(job()),), status=STATUS))
    world.stored()
    world.api.before = failing("create", "jobs", ApiError(403, "Forbidden", "exceeded quota: jobs"))
    for _ in range(2):
        with pytest.raises(ApiError):
            await world.round()
    (condition,) = world.api.objects["finetunejobs", NAMESPACE, "demo"]["status"]["conditions"]
    assert (condition["status"], condition["reason"]) == ("Unknown", "Pending")
    assert "exceeded quota: jobs" in condition["message"]
    assert world.api.calls.count(("apply", "finetunejobs", "demo")) == 1
    world.api.before = lambda verb, plural, name: None
    await world.round()
    assert world.api.objects["finetunejobs", NAMESPACE, "demo"]["status"] == STATUS


async def test_events_are_only_of_statuses_that_were_written_and_never_fail_a_round() -> None:
    world = World(lambda observed: Plan(status=STATUS, notes=(Note("Warning", "R", "m"),)))
    world.stored()
    world.api.before = failing("create", "events", ApiError(500, "InternalError", "down"))
    assert await world.round() == 0
    world.api.before = lambda verb, plural, name: None
    world.api.calls.clear()
    assert await world.round() is None
    assert world.api.calls == []


async def test_a_repeated_event_is_counted_in_its_series() -> None:
    world = World(lambda observed: Plan())
    stored = finetunejob()
    events = Events(world.api, lambda: NOW, "test")
    for _ in range(3):
        await events.post(stored, (Note("Normal", "Retrying", "again"),))
    (event,) = [body for place, body in world.api.objects.items() if place[0] == "events"]
    assert event["series"]["count"] == 3
    assert event["regarding"]["uid"] == "ftj-1"


async def test_inquiries_are_answered_and_forgotten() -> None:
    questions = (EventsOf(NAMESPACE, "pod-1"), NodeOf("node-1"), NodeOf("node-2"), NodeOf("node-3"))

    def decide(observed: Observed[Any]) -> Plan:
        return Plan(inquiries=questions) if not observed.answers else Plan()

    world = World(decide)
    world.stored()
    event = {"metadata": {"namespace": NAMESPACE, "name": "e"}, "reason": "FailedMount", "note": "no secret"}
    world.api.put(EVENTS, event)
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    for name, body in (("node-1", ready), ("node-2", {})):
        world.api.objects["nodes", None, name] = {"metadata": {"name": name}, **body}
    await world.round()
    assert [world.asked[1].answers[question] for question in questions] == [
        (("FailedMount", "no secret"),),
        "Ready",
        "NotReady",
        "Gone",
    ]
    await world.round()
    assert world.asked[2].answers == {}


async def test_that_nodes_may_not_be_read_is_an_answer() -> None:
    """Without cluster roles a round that asks for a node would fail for ever."""
    asked = NodeOf("node-1")
    world = World(lambda observed: Plan() if observed.answers else Plan(inquiries=(asked,)))
    world.stored()

    def refuse(verb: str, plural: str, name: str) -> None:
        if plural == "nodes":
            raise ApiError(403, "Forbidden", "nodes is forbidden")

    world.api.before = refuse
    await world.round()
    assert world.asked[1].answers == {asked: "Forbidden"}


async def test_before_it_acts_it_reads_what_matters_from_the_server() -> None:
    """The cache has not seen the Job that an earlier leader created: the confirmed plan does."""

    def decide(observed: Observed[Any]) -> Plan:
        return Plan() if observed.attempts else Plan(actions=(Create(job()),), status=STATUS, confirm=True)

    world = World(decide)
    world.stored()
    world.api.put(JOBS, job("demo-prepare-0", "job-0"))
    assert await world.round() is None
    assert [observed.confirmed for observed in world.asked] == [False, True]
    assert world.api.writes() == []


async def test_what_is_to_be_done_next_is_decided_on_in_a_round_of_its_own() -> None:
    def decide(observed: Observed[Any]) -> Plan:
        if not observed.attempts:
            return Plan(actions=(Create(job()),), confirm=True)
        return Plan(actions=(Delete("Job", NAMESPACE, "demo-train-1", observed.attempts[0].uid),), confirm=True)

    world = World(decide)
    world.stored()
    assert await world.round() == 0
    assert [call[:2] for call in world.api.writes()] == [("create", "jobs")]
    world.api.calls.clear()
    assert await world.round() == 0
    assert ("get", "jobs", "demo-train-1") in world.api.calls
    assert ("delete", "jobs", "demo-train-1") in world.api.calls


async def test_an_object_that_has_deleted_itself_is_left_alone() -> None:
    world = World(lambda observed: Plan(actions=(Delete("FineTuneJob", NAMESPACE, "demo", "ftj-1"),), confirm=True))
    world.cache.finetunejobs.put(world.api.put(FINETUNEJOBS, finetunejob()))
    assert await world.round() == 0
    assert await world.round() is None
    assert world.api.writes() == [("delete", "finetunejobs", "demo")]


async def test_confirming_finds_that_it_is_gone_or_another() -> None:
    world = World(lambda observed: Plan(actions=(Create(job()),), confirm=True))
    world.stored()
    world.api.put(FINETUNEJOBS, finetunejob(uid="ftj-2"))
    assert await world.round() == 0
    assert world.api.writes() == []
    entry = world.cache.finetunejobs.named(NAMESPACE, "demo")
    assert entry is not None
    assert entry.uid == "ftj-2"


async def test_confirming_finds_jobs_and_pods_that_have_gone() -> None:
    attempt = {"number": 1, "stage": "train", "jobName": "demo-train-1", "jobUID": "job-1"}
    world = World(lambda observed: Plan(confirm=True))
    world.cache.finetunejobs.put(world.api.put(FINETUNEJOBS, finetunejob(attempts=[attempt])))
    world.cache.jobs.put(job())
    world.cache.pods.put(pod())
    await world.round()
    assert world.asked[0].attempts
    assert world.asked[1].attempts == ()
    assert world.asked[1].pods == ()
    assert ("list", "pods", "") in world.api.calls


async def test_a_name_that_is_taken_is_told_to_the_plan_until_it_is_free() -> None:
    def decide(observed: Observed[Any]) -> Plan:
        if observed.taken is not None:
            return Plan(status={"observedGeneration": 1, "failures": 9}, look_again_seconds=2)
        return Plan(actions=(Create(job()),))

    world = World(decide)
    world.stored()
    foreign = world.api.put(JOBS, job(uid="foreign", owner="someone-else"))
    await world.round()
    taken = world.asked[-1].taken
    assert taken is not None
    assert (taken.name, taken.since) == ("Job demo-train-1", NOW)
    assert await world.round() == 2
    assert world.api.objects["jobs", NAMESPACE, "demo-train-1"]["metadata"]["uid"] == foreign["metadata"]["uid"]
    world.api.drop(JOBS, NAMESPACE, "demo-train-1")
    assert await world.round() == 0
    assert world.asked[-1].taken is None


async def test_an_object_of_an_older_schema_gets_a_condition_and_no_crash_loop() -> None:
    world = World(lambda observed: Plan())
    body = finetunejob()
    body["spec"]["lora"] = {"rank": "many"}
    world.cache.finetunejobs.put(world.api.put(FINETUNEJOBS, body))
    assert await world.round() is None
    stored = world.api.objects["finetunejobs", NAMESPACE, "demo"]
    (condition,) = stored["status"]["conditions"]
    assert (condition["status"], condition["reason"]) == ("False", "SpecInvalid")
    assert "spec.lora.rank" in condition["message"]
    world.api.calls.clear()
    assert await world.round() is None
    assert world.api.calls == []


async def test_a_status_conflict_is_no_failure() -> None:
    world = World(lambda observed: Plan(status=STATUS))
    world.stored()
    world.api.put(FINETUNEJOBS, finetunejob())
    with pytest.raises(Retry):
        await world.round()
    assert await world.round() == 0

"""Rounds with a stand-in for the plan: what is observed, asked, confirmed and done, and in which order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError
from trimtab_operator.api import FineTuneJobStatus
from trimtab_operator.domain.cluster import Key
from trimtab_operator.domain.finetunejob import FINE_TUNE_JOB
from trimtab_operator.domain.plan import (
    Adopt,
    Create,
    Delete,
    EventsOf,
    Inquiry,
    NodeOf,
    Note,
    Plan,
    Suspend,
    WarnedSince,
)
from trimtab_operator.domain.views import format_time
from trimtab_operator.domain.work import Observed
from trimtab_operator.runtime.kube import EVENTS, JOBS, PODS, ApiError, Denied, Invalid, NotFound, Unreachable
from trimtab_operator.runtime.rounds.events import Events
from trimtab_operator.runtime.rounds.reconcile import failed
from trimtab_operator.runtime.rounds.workqueue import Retry

from tests.resources import FINETUNEJOBS
from tests.unit.runtime.fake_api import failing
from tests.unit.runtime.objects import NAMESPACE, finetunejob, job, pod
from tests.unit.runtime.rounds import Rounds

KEY = Key("FineTuneJob", NAMESPACE, "demo")
NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
STATUS: dict[str, Any] = {"observedGeneration": 1, "failures": 1}
CONDITION: dict[str, Any] = {
    "type": "Succeeded",
    "status": "True",
    "reason": "Completed",
    "message": "adapter is published",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-01-05T11:00:00Z",
}
COMPLETED: dict[str, Any] = {
    "observedGeneration": 1,
    "completionTime": "2026-01-05T11:00:00Z",
    "conditions": [CONDITION],
}


class World:
    """`answers` says what to plan for what was observed; `asked` is what plans were asked for."""

    def __init__(self, decide: Callable[[Observed[Any]], Plan]) -> None:
        self.asked: list[Observed[Any]] = []
        self.now = NOW

        def plan(observed: Observed[Any], now: datetime) -> Plan:
            self.asked.append(observed)
            assert now == self.now
            return decide(observed)

        kinds = {"FineTuneJob": replace(FINE_TUNE_JOB, plan=plan)}
        self.rounds = Rounds(lambda: self.now, kinds=kinds)
        self.api, self.cache = self.rounds.api, self.rounds.cache

    def stored(self) -> None:
        self.cache.owners["FineTuneJob"].put(self.api.put(FINETUNEJOBS, finetunejob()))

    async def round(self) -> float | None:
        return await self.rounds.round(KEY)


async def test_what_is_gone_is_left_alone() -> None:
    world = World(lambda observed: Plan())
    assert await world.round() is None
    assert world.asked == []


async def test_nothing_to_do_is_no_request() -> None:
    world = World(lambda observed: Plan(look_again_seconds=7))
    world.stored()
    assert await world.round() == 7
    assert world.api.calls == []


@pytest.mark.parametrize("lives", [False, True])
async def test_what_has_ended_and_rests_is_not_even_read_as_long_as_no_job_of_it_lives(*, lives: bool) -> None:
    world = World(lambda observed: Plan())
    world.cache.owners["FineTuneJob"].put(world.api.put(FINETUNEJOBS, finetunejob(**COMPLETED)))
    done = [] if lives else [{"type": "Complete", "status": "True"}]
    world.cache.jobs.put({**job(), "status": {"conditions": done}})
    assert await world.round() is None
    assert len(world.asked) == lives


async def test_children_are_observed_by_uid() -> None:
    world = World(lambda observed: Plan())
    world.stored()
    world.cache.jobs.put(job())
    world.cache.jobs.put(job("foreign", "job-2", owner="ftj-2"))
    world.cache.pods.put(pod())
    world.cache.pods.put(pod("foreign", "pod-2", job_uid="job-2"))
    await world.round()
    (attempt,) = world.asked[0].attempts
    assert (attempt.uid, [view.uid for view in attempt.pods]) == ("job-1", ["pod-1"])


async def test_actions_come_before_the_status_and_events_after_it() -> None:
    world = World(lambda observed: Plan(actions=(Create(job()),), status=STATUS, notes=(Note("Normal", "R", "m"),)))
    world.stored()
    assert await world.round() == 0
    assert [call[:2] for call in world.api.writes()] == [
        ("create", "jobs"),
        ("patch", "finetunejobs"),
        ("create", "events"),
    ]


async def test_a_failed_action_ends_the_round() -> None:
    world = World(lambda observed: Plan(actions=(Create(job()),), status=STATUS))
    world.stored()
    world.api.before = failing("create", "jobs", ApiError(500, "InternalError", "down", retry_after=3))
    with pytest.raises(ApiError) as raised:
        await world.round()
    assert failed(KEY, raised.value) == 3
    assert ("patch", "finetunejobs", "demo") not in world.api.calls


async def test_a_job_that_may_not_be_suspended_holds_up_nothing_else_and_one_that_may_not_be_made_does() -> None:
    first, second = (Suspend(NAMESPACE, name, uid, suspend=True) for name, uid in (("one", "job-1"), ("two", "job-2")))
    planned = Plan(actions=(first, second, Create(job("three", "job-3")), Create(job("four", "job-4"))), status=STATUS)
    world = World(lambda observed: planned if observed.refused is None else Plan())
    world.stored()
    for name, uid in (("one", "job-1"), ("two", "job-2")):
        world.cache.jobs.put(world.api.put(JOBS, job(name, uid)))

    def refuses(verb: str, plural: str, name: str) -> None:
        if (verb, name) in {("patch", "one"), ("create", "three")}:
            raise Invalid(422, "Invalid", f"a policy refuses {name}")

    world.api.before = refuses
    await world.round()
    assert [call for call in world.api.writes() if call[1] == "jobs"] == [
        ("patch", "jobs", "one"),
        ("patch", "jobs", "two"),
        ("create", "jobs", "three"),
    ]
    refused = world.asked[-1].refused
    assert refused is not None
    assert (refused.words, refused.action) == ("a policy refuses one", Suspend), "the first that stood in the way"


REFUSED: dict[str, tuple[ApiError, str, str]] = {
    "a quota on Jobs": (
        ApiError(403, "Forbidden", "jobs.batch is forbidden: exceeded quota: jobs"),
        "QuotaExceeded",
        "Unknown",
    ),
    "a policy that asks for a label": (ApiError(422, "Invalid", "jobs need a cost-centre"), "PodRefused", "False"),
    "a webhook": (ApiError(400, "BadRequest", "admission webhook denied the request"), "PodRefused", "False"),
    "a webhook with a code of its own": (Denied(409, "Conflict", "webhook denied the request"), "PodRefused", "False"),
    "a quota that nobody has counted yet": (
        ApiError(403, "Forbidden", "status unknown for quota: few, resources: count/jobs.batch"),
        "QuotaExceeded",
        "Unknown",
    ),
    "a right that the operator has lost": (
        ApiError(403, "Forbidden", 'jobs.batch is forbidden: User "us" cannot create resource "jobs" in API group "x"'),
        "PodRefused",
        "Unknown",
    ),
    "a webhook that is down": (Denied(500, "InternalError", "failed calling webhook"), "PodRefused", "Unknown"),
}


@pytest.mark.parametrize(("error", "state", "at_last"), REFUSED.values(), ids=REFUSED)
async def test_a_job_that_is_refused_says_so_like_a_pod_and_is_tried_with_the_same_patience(
    error: ApiError, state: str, at_last: str
) -> None:
    now = NOW
    rounds = Rounds(lambda: now)
    rounds.cache.owners["FineTuneJob"].put(rounds.api.put(FINETUNEJOBS, finetunejob()))
    rounds.api.before = failing("create", "jobs", error)

    def condition() -> tuple[str, str, str]:
        (found,) = rounds.api.objects["finetunejobs", NAMESPACE, "demo"]["status"]["conditions"]
        return found["status"], found["reason"], found["message"]

    await rounds.round(KEY)
    assert condition()[:2] == ("Unknown", state)
    assert error.message in condition()[2]
    assert (await rounds.round(KEY) or 0) > 1
    tried = 0
    for _ in range(300):
        now += timedelta(seconds=4)
        await rounds.round(KEY)
        tried = rounds.api.calls.count(("create", "jobs", "demo-prepare-0"))
    assert condition()[:2] == (at_last, state)
    assert tried < 40, "a few a minute at most"
    rounds.api.before = lambda verb, plural, name: None
    now += timedelta(seconds=61)
    for _ in range(3):
        await rounds.round(KEY)
    assert condition()[1] == ("Preparing" if at_last == "Unknown" else state)
    assert [call[:2] for call in rounds.api.writes()].count(("patch", "finetunejobs")) <= 4


FAULTS = {
    "a server that is going down": ApiError(503, "ServiceUnavailable", "apiserver is shutting down"),
    "too many requests": ApiError(429, "TooManyRequests", "the server has received too many requests"),
    "a proxy that lets no large body through": ApiError(413, "", "Request Entity Too Large"),
    "a Job that is too large for etcd": ApiError(500, "InternalError", "etcdserver: request is too large"),
    "a namespace that is gone": NotFound(404, "NotFound", 'namespaces "team" not found'),
    "a webhook that takes longer than we wait": Unreachable("create /apis/batch/v1/namespaces/team/jobs: TimeoutError"),
}


@pytest.mark.parametrize("error", FAULTS.values(), ids=FAULTS)
async def test_an_error_that_lasts_is_told_in_the_state_and_ends_nothing(error: ApiError | Unreachable) -> None:
    now = NOW
    rounds = Rounds(lambda: now)
    rounds.cache.owners["FineTuneJob"].put(rounds.api.put(FINETUNEJOBS, finetunejob()))
    rounds.api.before = failing("create", "jobs", error)
    with pytest.raises(type(error)):
        await rounds.round(KEY)
    assert "conditions" not in rounds.api.objects["finetunejobs", NAMESPACE, "demo"]["status"], "most errors pass"
    for _ in range(300):
        now += timedelta(seconds=4)
        with contextlib.suppress(ApiError, Unreachable):  # the queue tries again
            await rounds.round(KEY)
    (found,) = rounds.api.objects["finetunejobs", NAMESPACE, "demo"]["status"]["conditions"]
    assert (found["status"], found["reason"]) == ("Unknown", "Pending")
    assert found["message"] == f"the API server does not take the Job: {error}; it is tried again"
    rounds.api.before = lambda verb, plural, name: None
    now += timedelta(seconds=61)
    for _ in range(3):
        await rounds.round(KEY)
    (found,) = rounds.api.objects["finetunejobs", NAMESPACE, "demo"]["status"]["conditions"]
    assert found["reason"] == "Preparing"


WAITED_FOR = {
    "an error": (ApiError(500, "InternalError", "etcdserver: no leader"), "Pending"),
    "a quota": (ApiError(403, "Forbidden", "jobs.batch is forbidden: exceeded quota: jobs"), "QuotaExceeded"),
    "a webhook that is down": (Denied(500, "InternalError", "failed calling webhook"), "PodRefused"),
}


@pytest.mark.parametrize(("error", "state"), WAITED_FOR.values(), ids=WAITED_FOR)
async def test_patience_with_a_refusal_does_not_begin_with_what_is_waited_for_before_it(
    error: ApiError, state: str
) -> None:
    now = NOW
    rounds = Rounds(lambda: now)
    rounds.cache.owners["FineTuneJob"].put(rounds.api.put(FINETUNEJOBS, finetunejob()))

    async def goes_on(seconds: int, error: ApiError) -> tuple[str, str]:
        nonlocal now
        rounds.api.before = failing("create", "jobs", error)
        for _ in range(seconds // 4):
            now += timedelta(seconds=4)
            with contextlib.suppress(ApiError):  # the queue tries again
                await rounds.round(KEY)
        (found,) = rounds.api.objects["finetunejobs", NAMESPACE, "demo"]["status"]["conditions"]
        return found["status"], found["reason"]

    assert await goes_on(1200, error) == ("Unknown", state)
    assert await goes_on(300, ApiError(422, "Invalid", "jobs need a cost-centre")) == ("Unknown", "PodRefused")
    assert await goes_on(600, ApiError(422, "Invalid", "jobs need a cost-centre")) == ("False", "PodRefused")


async def test_patience_with_a_refused_pod_does_not_begin_with_the_quota_before_it() -> None:
    """The events of both are one, of which the first time is that of the quota's: a controller adds them together."""
    now = NOW
    rounds = Rounds(lambda: now)
    rounds.cache.owners["FineTuneJob"].put(rounds.api.put(FINETUNEJOBS, finetunejob()))

    async def goes_on(seconds: int, reason: str, words: str) -> None:
        nonlocal now
        for _ in range(10):
            now += timedelta(seconds=seconds / 10)
            at = {"deprecatedFirstTimestamp": format_time(NOW), "deprecatedLastTimestamp": format_time(now)}
            event = {"metadata": {"namespace": NAMESPACE, "name": reason.lower()}, "reason": reason, "note": words}
            rounds.api.put(EVENTS, {**event, **at, "type": "Warning"})
            await rounds.round(KEY)

    def condition() -> tuple[str, str]:
        (found,) = rounds.api.objects["finetunejobs", NAMESPACE, "demo"]["status"]["conditions"]
        return found["status"], found["reason"]

    await rounds.round(KEY)
    body = rounds.api.objects["jobs", NAMESPACE, "demo-prepare-0"]
    metadata = {**body["metadata"], "creationTimestamp": format_time(NOW)}
    rounds.cache.jobs.put(rounds.api.put(JOBS, {**body, "metadata": metadata}))
    quota, policy = "pods x is forbidden: exceeded quota: gpus, requested: cpu=1", "violates PodSecurity restricted"
    await goes_on(7200, "FailedCreate", quota)
    assert condition() == ("Unknown", "QuotaExceeded")
    await goes_on(300, "FailedCreate", policy)
    assert condition() == ("Unknown", "PodRefused")
    await goes_on(7200, "SuccessfulCreate", "Created pod: x")
    await goes_on(600, "FailedCreate", policy)
    assert condition() == ("Unknown", "PodRefused"), "its patience begins anew"
    await goes_on(60, "FailedCreate", policy)
    assert condition() == ("False", "PodRefused")


EARLIER = {
    "it had no node for hours": ("FailedScheduling", NOW - timedelta(hours=2)),
    "a volume was late": ("FailedMount", NOW + timedelta(seconds=5)),
}


@pytest.mark.parametrize(("reason", "first"), EARLIER.values(), ids=EARLIER)
async def test_patience_with_an_image_does_not_begin_with_a_warning_of_what_came_before(
    reason: str, first: datetime
) -> None:
    """Its image takes half an hour to be pulled, and then a connection breaks once."""
    now = NOW
    rounds = Rounds(lambda: now)
    rounds.cache.owners["FineTuneJob"].put(rounds.api.put(FINETUNEJOBS, finetunejob()))
    await rounds.round(KEY)
    uid = rounds.api.objects["jobs", NAMESPACE, "demo-prepare-0"]["metadata"]["uid"]
    body = pod("demo-prepare-0-x", job_uid=uid)
    body["metadata"]["ownerReferences"][0]["name"] = "demo-prepare-0"
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "connection reset by peer"}}
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": format_time(NOW)}
    body["status"] = {
        "phase": "Pending",
        "conditions": [scheduled],
        "containerStatuses": [{"name": "trainer", "state": waiting}],
    }
    rounds.cache.pods.put(rounds.api.put(PODS, body))
    now += timedelta(minutes=30)
    for name, at in ((reason, first), ("Failed", now)):
        event = {"metadata": {"namespace": NAMESPACE, "name": name.lower()}, "reason": name, "type": "Warning"}
        rounds.api.put(EVENTS, {**event, "deprecatedFirstTimestamp": format_time(at)})
    for seconds, status in ((0, "Unknown"), (599, "Unknown"), (1, "False")):
        now += timedelta(seconds=seconds)
        await rounds.round(KEY)
        (found,) = rounds.api.objects["finetunejobs", NAMESPACE, "demo"]["status"]["conditions"]
        assert (found["status"], found["reason"]) == (status, "ImageUnavailable")


async def test_an_error_of_what_is_not_wanted_any_more_is_forgotten() -> None:
    """Such as of a Job that was made though nobody said so: another error, much later, is the first again."""
    wanted = True
    world = World(lambda observed: Plan(actions=(Create(job()),) if wanted else ()))
    world.stored()
    world.api.before = failing("create", "jobs", ApiError(504, "Timeout", "no answer in time"))
    with pytest.raises(ApiError):
        await world.round()
    wanted = False
    await world.round()
    wanted, world.now = True, NOW + timedelta(hours=1)
    with pytest.raises(ApiError):
        await world.round()


@pytest.mark.parametrize("error", [ApiError(403, "Forbidden", "no: a policy"), Invalid(422, "Invalid", "no: a policy")])
async def test_a_job_that_may_not_be_suspended_says_so_and_is_tried_now_and_then(error: ApiError) -> None:
    now = NOW
    rounds = Rounds(lambda: now)
    store = rounds.cache.owners["FineTuneJob"]
    store.put(rounds.api.put(FINETUNEJOBS, finetunejob()))
    for _ in range(3):
        await rounds.round(KEY)
    body = rounds.api.objects["finetunejobs", NAMESPACE, "demo"]
    store.put(rounds.api.put(FINETUNEJOBS, {**body, "spec": {**body["spec"], "suspend": True}}))
    rounds.api.before = failing("patch", "jobs", error)
    for _ in range(600):
        now += timedelta(seconds=1)
        await rounds.round(KEY)
    (condition,) = rounds.api.objects["finetunejobs", NAMESPACE, "demo"]["status"]["conditions"]
    assert "no: a policy" in condition["message"]
    assert rounds.api.calls.count(("patch", "jobs", "demo-prepare-0")) < 20
    rounds.api.before = lambda verb, plural, name: None
    now += timedelta(seconds=61)
    await rounds.round(KEY)
    assert rounds.api.objects["jobs", NAMESPACE, "demo-prepare-0"]["spec"]["suspend"] is True


async def test_a_refusal_of_what_is_not_wanted_any_more_is_forgotten() -> None:
    now = NOW
    rounds = Rounds(lambda: now)
    store = rounds.cache.owners["FineTuneJob"]
    store.put(rounds.api.put(FINETUNEJOBS, finetunejob()))
    rounds.api.before = failing("create", "jobs", ApiError(403, "Forbidden", "violates a policy"))
    await rounds.round(KEY)
    body = rounds.api.objects["finetunejobs", NAMESPACE, "demo"]
    store.put(rounds.api.put(FINETUNEJOBS, {**body, "spec": {**body["spec"], "suspend": True}}))
    for _ in range(5):
        now += timedelta(hours=1)
        await rounds.round(KEY)
    body = rounds.api.objects["finetunejobs", NAMESPACE, "demo"]
    store.put(rounds.api.put(FINETUNEJOBS, {**body, "spec": {**body["spec"], "suspend": False}}))
    await rounds.round(KEY)
    (condition,) = rounds.api.objects["finetunejobs", NAMESPACE, "demo"]["status"]["conditions"]
    assert condition["status"] == "Unknown", "its patience begins anew"


async def test_a_fault_of_a_plan_is_no_value_that_is_not_understood() -> None:
    def plan(observed: Observed[Any]) -> Plan:
        FineTuneJobStatus(failures=-1)
        return Plan()

    world = World(plan)
    world.stored()
    with pytest.raises(ValidationError):
        await world.round()
    assert world.api.writes() == []


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
    questions = (
        EventsOf(NAMESPACE, "pod-1"),
        WarnedSince(NAMESPACE, "pod-1", frozenset({"FailedMount"})),
        NodeOf("node-1"),
        NodeOf("node-2"),
        NodeOf("node-3"),
    )

    def decide(observed: Observed[Any]) -> Plan:
        return Plan(inquiries=questions) if not observed.answers else Plan()

    world = World(decide)
    world.stored()
    event = {"reason": "FailedMount", "note": "no secret", "type": "Warning"}
    for name, time in (("e", "2026-01-05T12:00:00Z"), ("f", "2026-01-05T11:00:00Z")):
        seen = {"deprecatedFirstTimestamp": time, "deprecatedLastTimestamp": "2026-01-05T12:00:00Z"}
        world.api.put(EVENTS, {"metadata": {"namespace": NAMESPACE, "name": name}, **event, **seen})
    world.api.put(EVENTS, {"metadata": {"namespace": NAMESPACE, "name": "g"}, "type": "Normal"})
    earlier = {"reason": "Other", "type": "Warning", "deprecatedFirstTimestamp": "2026-01-05T10:00:00Z"}
    world.api.put(EVENTS, {"metadata": {"namespace": NAMESPACE, "name": "h"}, **earlier})
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    for name, body in (("node-1", ready), ("node-2", {})):
        world.api.objects["nodes", None, name] = {"metadata": {"name": name}, **body}
    await world.round()
    assert [world.asked[1].answers[question] for question in questions] == [
        (("", ""), ("Other", ""), *2 * (("FailedMount", "no secret"),)),
        datetime(2026, 1, 5, 11, tzinfo=UTC),
        "Ready",
        "NotReady",
        "Gone",
    ]
    await world.round()
    assert world.asked[2].answers == {}


@pytest.mark.parametrize(
    ("asked", "plural", "answer"),
    [
        (NodeOf("node-1"), "nodes", "Forbidden"),
        (EventsOf(NAMESPACE, "pod-1"), "events", ()),
        (WarnedSince(NAMESPACE, "pod-1", frozenset({"FailedMount"})), "events", None),
    ],
    ids=["nodes", "events", "warnings"],
)
async def test_that_something_may_not_be_read_is_an_answer(asked: Inquiry, plural: str, answer: object) -> None:
    """Without these rights a round that asks would fail for ever."""
    world = World(lambda observed: Plan() if observed.answers else Plan(inquiries=(asked,)))
    world.stored()
    world.api.before = failing("get" if plural == "nodes" else "list", plural, ApiError(403, "Forbidden", "forbidden"))
    await world.round()
    assert world.asked[1].answers == {asked: answer}


async def test_before_it_acts_it_reads_what_matters_from_the_server() -> None:
    """The cache has not seen the Job that an earlier leader created: the confirmed plan does."""

    def decide(observed: Observed[Any]) -> Plan:
        return Plan() if observed.attempts else Plan(actions=(Create(job()),), status=STATUS, confirm=True)

    world = World(decide)
    world.stored()
    world.api.put(JOBS, job("demo-prepare-0", "job-0"))
    assert await world.round() is None
    assert [len(observed.attempts) for observed in world.asked] == [0, 1]
    assert world.api.writes() == []


@pytest.mark.parametrize(
    "error",
    [ApiError(403, "Forbidden", "exceeded quota"), ApiError(500, "InternalError", "a webhook is down")],
    ids=str,
)
async def test_what_is_made_beside_the_work_hinders_nothing_and_is_tried_again_later(error: ApiError) -> None:
    world = World(lambda observed: Plan(status=STATUS, aside=(Create(job(name="aside")),), look_again_seconds=7))
    world.stored()
    world.api.before = failing("create", "jobs", error)
    assert await world.round() == 0.0, "its status was written"
    assert [call[0] for call in world.api.calls if call[1] == JOBS.plural] == ["create"]
    assert world.rounds.troubles.refused == {}
    assert world.rounds.troubles.taken == {}
    tried = len(world.api.calls)
    await world.round()
    assert not [call for call in world.api.calls[tried:] if call[1] == JOBS.plural], "it was tried lately"
    world.api.before = lambda verb, plural, name: None
    world.now += timedelta(seconds=61)
    await world.round()
    assert world.asked[-1].refused is None
    assert [call[0] for call in world.api.calls[tried:] if call[1] == JOBS.plural] == ["create"]


async def test_what_cannot_be_made_beside_the_work_hinders_nothing_else_beside_it() -> None:
    theirs = {"kind": "Wrapper", "name": "w", "uid": "w", "controller": True}
    lost = job("demo-prepare-0", "job-0")
    lost["metadata"]["ownerReferences"] = [theirs]
    adopt = Adopt({"kind": "Job", "metadata": {**lost["metadata"], "ownerReferences": []}})
    world = World(lambda observed: Plan(status=STATUS, aside=(adopt, Create(job(name="aside")))))
    world.stored()
    world.api.put(JOBS, lost)
    await world.round()
    assert [call for call in world.api.writes() if call[1] == JOBS.plural] == [("create", "jobs", "aside")]


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
    world.cache.owners["FineTuneJob"].put(world.api.put(FINETUNEJOBS, finetunejob()))
    assert await world.round() == 0
    assert await world.round() is None
    assert world.api.writes() == [("delete", "finetunejobs", "demo")]


async def test_confirming_finds_that_it_is_gone_or_another() -> None:
    world = World(lambda observed: Plan(actions=(Create(job()),), confirm=True))
    world.stored()
    world.api.put(FINETUNEJOBS, finetunejob(uid="ftj-2"))
    assert await world.round() == 0
    assert world.api.writes() == []
    entry = world.cache.owners["FineTuneJob"].named(NAMESPACE, "demo")
    assert entry is not None
    assert entry.uid == "ftj-2"


async def test_confirming_finds_jobs_and_pods_that_have_gone() -> None:
    attempt = {"number": 1, "stage": "train", "jobName": "demo-train-1", "jobUID": "job-1"}
    world = World(lambda observed: Plan(confirm=True))
    world.cache.owners["FineTuneJob"].put(world.api.put(FINETUNEJOBS, finetunejob(attempts=[attempt])))
    world.cache.jobs.put(job())
    world.cache.pods.put(pod())
    await world.round()
    assert world.asked[0].attempts
    assert world.asked[1].attempts == ()
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


async def test_an_object_that_is_not_understood_is_touched_by_nobody_and_not_ended() -> None:
    """A later version's value: an operator of before still leads, or leads again after a rollback."""
    world = World(lambda observed: Plan(actions=(Delete("Job", NAMESPACE, "demo-train-1", "job-1"),)))
    attempt = {"number": 1, "stage": "train", "jobName": "demo-train-1", "jobUID": "job-1"}
    said = {**CONDITION, "status": "Unknown", "reason": "Training"}
    later = {"weightAverages": 3}
    body = finetunejob(attempts=[attempt], conditions=[said], progress={"step": 7}, later=later)
    body["spec"]["training"] = {"schedule": "Newer"}
    world.cache.owners["FineTuneJob"].put(world.api.put(FINETUNEJOBS, body))
    assert await world.round() is None
    stored = world.api.objects["finetunejobs", NAMESPACE, "demo"]
    (condition,) = stored["status"]["conditions"]
    assert (condition["status"], condition["reason"]) == ("Unknown", "NotUnderstood")
    assert condition["lastTransitionTime"] == said["lastTransitionTime"]
    assert "spec.training.schedule" in condition["message"]
    assert {**stored["status"], "conditions": [said]} == body["status"]
    world.api.calls.clear()
    assert await world.round() is None
    assert world.api.calls == []


async def test_a_status_that_is_not_understood_is_never_thrown_away() -> None:
    world = World(lambda observed: Plan(status=STATUS))
    status: dict[str, Any] = {
        "artifact": {"uri": "s3://a/b", "digest": "sha512:later"},
        "conditions": [],
        "attempts": [],
    }
    world.cache.owners["FineTuneJob"].put(world.api.put(FINETUNEJOBS, finetunejob(**status)))
    assert await world.round() is None
    stored = world.api.objects["finetunejobs", NAMESPACE, "demo"]["status"]
    assert stored["conditions"][0]["reason"] == "NotUnderstood"
    assert {**stored, "conditions": []} == status


async def test_fields_that_are_not_known_are_ignored_and_kept() -> None:
    """The definition has fields of a later version, with defaults that the API server fills into every object."""
    now = NOW
    rounds = Rounds(lambda: now)
    body = finetunejob(
        later={"x": 1},
        progress={"step": 7, "curve": [1, 2]},
        conditions=[
            {"type": "Later", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "t", "y": 2}
        ],
    )
    body["spec"]["training"] = {"weightAveraging": 0}
    rounds.cache.owners["FineTuneJob"].put(rounds.api.put(FINETUNEJOBS, body))
    for _ in range(3):
        await rounds.round(KEY)
    status = rounds.api.objects["finetunejobs", NAMESPACE, "demo"]["status"]
    assert status["conditions"][0]["reason"] == "Preparing"
    assert status["later"] == {"x": 1}
    assert status["progress"]["curve"] == [1, 2]
    assert status["conditions"][1] == body["status"]["conditions"][0]
    (config,) = [made for place, made in rounds.api.objects.items() if place[0] == "configmaps"]
    assert "weightAveraging" not in config["data"]["run.json"]


async def test_what_an_earlier_definition_leaves_out_of_a_status_is_no_news() -> None:
    """Definitions may be managed apart and come late: the round is not repeated over a field that never arrives."""
    note = Note("Normal", "Later", "told once at most")
    told = {**STATUS, "images": {"train": "t"}}
    world = World(lambda observed: Plan(status=told, notes=(note,), look_again_seconds=7))
    world.api.dropped = frozenset({"images"})
    world.stored()
    assert [await world.round() for _ in range(3)] == [0, 7, 7]
    stored = world.api.objects["finetunejobs", NAMESPACE, "demo"]
    assert stored["status"] == STATUS
    assert len([call for call in world.api.writes() if call[1] == "events"]) == 1


async def test_a_status_conflict_is_no_failure() -> None:
    world = World(lambda observed: Plan(status=STATUS))
    world.stored()
    world.api.put(FINETUNEJOBS, finetunejob())
    with pytest.raises(Retry):
        await world.round()
    assert await world.round() == 0


@pytest.mark.parametrize("code", [403, 500])
async def test_an_ended_object_whose_deletion_is_refused_stays_ended_and_starts_nothing(code: int) -> None:
    """Its time is over, and an admission policy refuses the deletion, or it fails: for ever, as far as is known."""
    now = NOW
    rounds = Rounds(lambda: now)
    body = finetunejob(**COMPLETED)
    body["spec"]["ttlSecondsAfterFinished"] = 60
    rounds.cache.owners["FineTuneJob"].put(rounds.api.put(FINETUNEJOBS, body))
    refusal = ApiError(code, "Forbidden", "admission policy: deletion of this object needs approval")
    rounds.api.before = failing("delete", "finetunejobs", refusal)
    for _ in range(600):
        with contextlib.nullcontext() if code == 403 else contextlib.suppress(ApiError):
            await rounds.round(KEY)
        now += timedelta(seconds=1)
    assert rounds.api.objects["finetunejobs", NAMESPACE, "demo"]["status"] == COMPLETED
    deletions = rounds.api.calls.count(("delete", "finetunejobs", "demo"))
    assert 5 < deletions < (20 if code == 403 else 50)
    (event,) = [made for place, made in rounds.api.objects.items() if place[0] == "events"]
    assert "needs approval" in event["note"]
    assert {call[:2] for call in rounds.api.writes()} == {("delete", "finetunejobs"), ("create", "events")}


@pytest.mark.parametrize("code", [400, 403, 422])
async def test_a_status_that_is_refused_is_told_in_an_event(code: int) -> None:
    """An admission policy, or a definition that somebody made narrower: the status cannot say so itself."""
    rounds = Rounds(lambda: NOW)
    rounds.cache.owners["FineTuneJob"].put(rounds.api.put(FINETUNEJOBS, finetunejob()))
    refusal = ApiError(code, "Forbidden", "policy: status.conditions must not change")
    rounds.api.before = failing("patch", "finetunejobs", refusal)
    await rounds.round(KEY)  # its Job is created first
    for _ in range(5):
        with pytest.raises(ApiError):
            await rounds.round(KEY)
    (event,) = [made for place, made in rounds.api.objects.items() if place[0] == "events"]
    assert (event["type"], event["reason"]) == ("Warning", "StatusRefused")
    assert "conditions must not change" in event["note"]


@pytest.mark.parametrize("status", ["True", "False"])
async def test_whoever_writes_an_ended_object_stays_ended(status: str) -> None:
    """The gate is where every status passes, so it holds for writers that know nothing of it."""
    rounds = Rounds(lambda: NOW)
    ended: dict[str, Any] = {**COMPLETED, "conditions": [{**CONDITION, "status": status, "reason": "Ended"}]}
    stored = rounds.api.put(FINETUNEJOBS, finetunejob(**ended))
    for other in ("True", "False", "Unknown"):
        changed = {**ended, "conditions": [{**CONDITION, "status": other, "reason": "Pending"}], "failures": 3}
        assert not await rounds.actor.write_status(FINE_TUNE_JOB, stored, changed)
        assert not await rounds.actor.write_status(FINE_TUNE_JOB, stored, {})
    assert rounds.api.objects["finetunejobs", NAMESPACE, "demo"]["status"] == ended
    assert await rounds.actor.write_status(FINE_TUNE_JOB, stored, {**ended, "observedGeneration": 2})


async def test_an_ended_object_that_is_not_understood_stays_as_it_is() -> None:
    rounds = Rounds(lambda: NOW)
    body = finetunejob(**COMPLETED)
    body["spec"]["training"] = {"schedule": "Newer"}
    rounds.cache.owners["FineTuneJob"].put(rounds.api.put(FINETUNEJOBS, body))
    assert await rounds.round(KEY) is None
    assert rounds.api.writes() == []


async def test_questions_add_up_within_a_round() -> None:
    """A pod that hangs in starting on a node that is Ready: whether the node is, then what the events say."""

    def decide(observed: Observed[Any]) -> Plan:
        for question in (NodeOf("n"), EventsOf(NAMESPACE, "pod-1"), NodeOf("m")):
            if question not in observed.answers:
                return Plan(inquiries=(question,))
        return Plan(status=STATUS, look_again_seconds=7, follows_up=False)

    world = World(decide)
    world.stored()
    assert await world.round() == 7
    assert world.api.objects["finetunejobs", NAMESPACE, "demo"]["status"] == STATUS

"""Rounds about Evaluations: whom a change concerns, what is read anew, and that both kinds stay apart."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from trimtab_operator.api import EvaluationStatus
from trimtab_operator.domain.cluster import Key
from trimtab_operator.domain.evaluation import EVALUATION
from trimtab_operator.domain.kinds import KINDS
from trimtab_operator.domain.plan import Create, Note, Plan
from trimtab_operator.domain.work import Observed, plan
from trimtab_operator.runtime import metrics
from trimtab_operator.runtime.cluster.audit import Audit
from trimtab_operator.runtime.cluster.cache import Cache
from trimtab_operator.runtime.kube import JOBS, Body
from trimtab_operator.runtime.rounds.events import Events
from trimtab_operator.runtime.rounds.workqueue import Retry

from tests.resources import ADAPTERROLLOUTS, EVALUATIONS, FINETUNEJOBS
from tests.unit.domain.makers import adapterrollout, finished, sha
from tests.unit.runtime.objects import NAMESPACE, evaluation, finetunejob, job, pod
from tests.unit.runtime.rounds import Rounds

JOB_KEY = Key("FineTuneJob", NAMESPACE, "demo")
KEY = Key("Evaluation", NAMESPACE, "demo")
NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


class World:
    """A cluster in memory and the operator's cache of it; `followed` is who was told by the cache itself."""

    def __init__(self, decide: Any = plan) -> None:
        self.asked: list[Observed[Any]] = []

        def planned(observed: Observed[Any], now: datetime) -> Plan:
            self.asked.append(observed)
            made: Plan = decide(observed, now)
            return made

        kinds = {name: replace(kind, plan=planned) for name, kind in KINDS.items() if kind.ends}
        self.rounds = Rounds(lambda: NOW, kinds=kinds)
        self.api, self.cache, self.reconciler = self.rounds.api, self.rounds.cache, self.rounds.reconciler
        self.followed = self.rounds.told

    def has(self, body: Body) -> None:
        resource = EVALUATIONS if body["kind"] == "Evaluation" else FINETUNEJOBS
        self.cache.owners[resource.kind].put(self.api.put(resource, body))

    async def settle(self, key: Key = KEY) -> Body:
        for _ in range(10):
            if await self.reconciler.reconcile(key) != 0:
                break
        return self.api.objects["evaluations", NAMESPACE, "demo"]


def complete() -> Body:
    return finetunejob(**finished().status.to_json())


def reason_of(body: Body) -> str:
    return next(str(c["reason"]) for c in body["status"]["conditions"] if c["type"] == "Succeeded")


async def test_a_change_concerns_the_evaluation_and_not_the_finetunejob_of_its_name() -> None:
    cache = Cache()
    assert cache.owners["Evaluation"].put(evaluation()) == KEY
    assert cache.jobs.put(job("demo-eval-1", "job-9", owner="ftev-1", kind="Evaluation")) == KEY
    assert cache.pods.put(pod("demo-eval-1-x", "pod-9", job_uid="job-9", kind="Evaluation")) == KEY
    assert cache.jobs.put(job()) == JOB_KEY
    assert [view.name for view in cache.jobs_of(KEY)] == ["demo-eval-1"]


async def test_whoever_waits_for_a_finetunejob_is_told_of_every_change_of_it() -> None:
    world = World()
    world.cache.owners["Evaluation"].put(evaluation())
    world.cache.owners["Evaluation"].put(evaluation("second", "ftev-2"))
    world.cache.owners["Evaluation"].put(evaluation("another", "ftev-3", waits_for="something-else"))
    world.cache.owners["FineTuneJob"].put(finetunejob(version=2))
    world.cache.owners["FineTuneJob"].put(finetunejob(version=2))
    second = Key("Evaluation", NAMESPACE, "second")
    assert sorted(world.followed) == [KEY, second]
    world.cache.owners["FineTuneJob"].remove("ftj-1")
    assert sorted(world.followed) == [KEY, KEY, second, second]


async def test_whoever_has_what_it_needs_is_not_told() -> None:
    world = World()
    sources = {"baseModel": {"uri": "s3://m/b"}, "output": {"uri": "s3://o/p"}}
    world.cache.owners["Evaluation"].put(evaluation(version=1))
    world.cache.owners["Evaluation"].put(evaluation(version=2, resolved=sources))
    over = {"type": "Succeeded", "status": "False", "reason": "SpecInvalid"}
    world.cache.owners["Evaluation"].put(evaluation("second", "ftev-2", conditions=[over]))
    world.cache.owners["FineTuneJob"].put(finetunejob())
    assert world.followed == []


async def test_an_own_status_write_of_a_finetunejob_tells_those_who_wait_for_it() -> None:
    world = World(lambda observed, now: Plan(status={"observedGeneration": 1, "failures": 1}))
    world.has(evaluation())
    world.has(finetunejob())
    world.followed.clear()
    await world.reconciler.reconcile(JOB_KEY)
    assert world.followed == [KEY]


async def test_states_are_counted_by_kind() -> None:
    world = World()
    world.has(evaluation())
    world.has(finetunejob())
    assert world.cache.states("Evaluation") == {"New": 1}
    assert world.cache.states("FineTuneJob") == {"New": 1}


async def test_from_waiting_to_the_first_job() -> None:
    world = World()
    world.has(evaluation())
    body = await world.settle()
    assert reason_of(body) == "Pending"
    assert world.api.writes() == [("patch", "evaluations", "demo")]
    world.has(complete())
    body = await world.settle()
    assert reason_of(body) == "Preparing"
    assert body["status"]["resolved"]["output"] == {"uri": "s3://adapters/out"}
    assert ("jobs", NAMESPACE, "demo-eval-prepare-0") in world.api.objects
    assert any(name.startswith("demo-eval-run-") for plural, _, name in world.api.objects if plural == "configmaps")


async def test_the_finetunejob_is_read_anew_before_what_it_says_is_written_down() -> None:
    """The cache still has the one that was deleted: nothing is taken from it."""
    world = World()
    world.has(evaluation())
    world.has(complete())
    world.api.drop(FINETUNEJOBS, NAMESPACE, "demo")
    body = await world.settle()
    assert "FineTuneJobNotFound" in body["status"]["conditions"][0]["message"]
    assert "resolved" not in body["status"]
    assert ("get", "finetunejobs", "demo") in world.api.calls
    assert world.cache.owners["FineTuneJob"].named(NAMESPACE, "demo") is None


def against_served() -> Body:
    body = evaluation()
    body["spec"]["baseline"] = {"rolloutName": "guide"}
    return body


def rollout(letter: str, version: int = 1) -> Body:
    """Return the AdapterRollout `guide`, which serves the adapter with a digest of one letter."""
    made = adapterrollout(letter).model_dump(mode="json", by_alias=True, exclude_none=True)
    made["metadata"] |= {"namespace": NAMESPACE, "resourceVersion": str(version)}
    return {"apiVersion": "trimtab.dev/v1alpha1", "kind": "AdapterRollout", **made}


async def test_whoever_is_compared_with_a_rollout_is_told_of_it_until_that_is_fixed() -> None:
    world = World()
    world.has(against_served())
    world.cache.owners["AdapterRollout"].put(rollout("7"))
    assert world.followed == [KEY]
    world.cache.owners["AdapterRollout"].put(world.api.put(ADAPTERROLLOUTS, rollout("7")))
    world.has(complete())
    await world.settle()
    world.followed.clear()
    world.cache.owners["AdapterRollout"].put(rollout("8", version=99))
    assert world.followed == []


async def test_what_a_rollout_serves_is_read_anew_before_it_is_the_baseline() -> None:
    """The cache lags: by now another adapter is served."""
    world = World()
    world.has(against_served())
    world.has(complete())
    world.cache.owners["AdapterRollout"].put(rollout("7"))
    world.api.put(ADAPTERROLLOUTS, rollout("8", version=2))
    body = await world.settle()
    assert reason_of(body) == "Preparing"
    assert body["status"]["baseline"]["digest"] == sha("8")
    assert ("get", "adapterrollouts", "guide") in world.api.calls


async def test_a_rollout_that_is_gone_by_now_is_waited_for() -> None:
    world = World()
    world.has(against_served())
    world.has(complete())
    world.cache.owners["AdapterRollout"].put(rollout("7"))
    body = await world.settle()
    assert reason_of(body) == "Pending"
    assert "RolloutNotFound" in body["status"]["conditions"][0]["message"]
    assert "resolved" not in body["status"]


async def test_once_it_has_what_it_needs_the_finetunejob_is_not_read_any_more() -> None:
    world = World()
    world.has(evaluation())
    world.has(complete())
    await world.settle()
    world.api.calls.clear()
    world.cache.jobs.remove(world.api.objects["jobs", NAMESPACE, "demo-eval-prepare-0"]["metadata"]["uid"])
    world.api.drop(JOBS, NAMESPACE, "demo-eval-prepare-0")
    await world.settle()
    assert ("create", "jobs", "demo-eval-prepare-1") in world.api.calls
    assert ("get", "finetunejobs", "demo") not in world.api.calls


async def test_a_finetunejob_of_another_schema_is_looked_at_again_later() -> None:
    world = World()
    world.has(evaluation())
    broken = complete()
    broken["spec"]["lora"] = {"rank": "many"}
    world.has(broken)
    with pytest.raises(Retry):
        await world.reconciler.reconcile(KEY)
    assert world.api.writes() == []


async def test_an_evaluation_that_is_not_understood_has_no_verdict_yet() -> None:
    world = World()
    body = evaluation()
    body["spec"]["seed"] = "many"
    world.has(body)
    assert await world.reconciler.reconcile(KEY) is None
    conditions = world.api.objects["evaluations", NAMESPACE, "demo"]["status"]["conditions"]
    assert [(c["type"], c["status"], c["reason"]) for c in conditions] == [("Succeeded", "Unknown", "NotUnderstood")]
    world.api.calls.clear()
    assert await world.reconciler.reconcile(KEY) is None
    assert world.api.calls == []


async def test_a_name_that_is_taken_by_the_other_kind_is_taken() -> None:
    made = job("demo-eval-1", "job-9", owner="ftev-1", kind="Evaluation")

    def decide(observed: Observed[Any], now: datetime) -> Plan:
        return Plan() if observed.taken is not None else Plan(actions=(Create(made),))

    world = World(decide)
    world.has(evaluation())
    world.api.put(JOBS, job("demo-eval-1", owner="ftj-1"))
    await world.reconciler.reconcile(KEY)
    assert world.asked[-1].taken is not None


async def test_events_are_about_the_evaluation() -> None:
    world = World()
    await Events(world.api, lambda: NOW, "test").post(evaluation(), (Note("Normal", "Passed", "kept"),))
    (event,) = [body for place, body in world.api.objects.items() if place[0] == "events"]
    assert (event["regarding"]["kind"], event["regarding"]["uid"]) == ("Evaluation", "ftev-1")


async def test_the_first_list_tells_of_evaluations_too() -> None:
    world = World()
    world.api.put(EVALUATIONS, evaluation())
    world.api.put(FINETUNEJOBS, finetunejob())
    told: list[Key] = []
    audit = Audit(world.api, world.cache, told.append)
    await audit.fill()
    assert sorted(told) == [KEY, JOB_KEY]
    world.api.drop(EVALUATIONS, NAMESPACE, "demo")
    told.clear()
    audit = Audit(world.api, world.cache, told.append, settle=0)
    await audit.compare(world.cache.owners["Evaluation"])
    assert told == [KEY]
    assert len(world.cache.owners["Evaluation"]) == 0


def test_a_verdict_is_counted_once() -> None:
    def count() -> float:
        return float(metrics.EVALUATIONS.labels("Regressed")._value.get())

    conditions = [
        {"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-05T12:00:00Z"}
        for kind, status, reason in (("Succeeded", "True", "Completed"), ("Passed", "False", "Regressed"))
    ]
    times = {"startTime": "2026-01-05T12:00:00Z", "completionTime": "2026-01-05T12:10:00Z"}
    active = EvaluationStatus()
    over = EvaluationStatus.model_validate({"conditions": conditions, **times})
    before = count()
    metrics.count(EVALUATION.measures(active, over, NOW))
    metrics.count(EVALUATION.measures(over, over, NOW))
    assert count() - before == 1

"""The decisions about a FineTuneSweep, told as stories; its trials are played by hand."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Self

import pytest
from trimtab_operator.api import Condition, Evaluation, FineTuneJob, FineTuneSweep, FineTuneSweepStatus
from trimtab_operator.domain.cluster import NameTaken, Refusal
from trimtab_operator.domain.finetunesweep import searching
from trimtab_operator.domain.finetunesweep.decide import plan
from trimtab_operator.domain.finetunesweep.observed import Observed
from trimtab_operator.domain.finetunesweep.pruning import RUNG_DIGITS
from trimtab_operator.domain.finetunesweep.trials import short
from trimtab_operator.domain.ownership import ORPHAN
from trimtab_operator.domain.plan import Create, Delete, Importance, Inquiry, NextPoints, Plan, Suspend
from trimtab_operator.domain.settings import Settings
from trimtab_operator.domain.views import JobView, format_time
from trimtab_trainer.contract.sweeps.settings import Dimension, Point, SuggestionRequest

from tests.unit.domain.makers import ARTIFACT, T0, sha

UID = "sweep-uid"
SETTINGS = Settings(prepare_image="prepare", trainer_image="trainer")
TEMPLATE: dict[str, Any] = {
    "baseModel": {"uri": "s3://models/a"},
    "dataset": {"training": {"uri": "s3://data/train/"}, "validation": {"fraction": 0.1}},
    "output": {"uri": "s3://adapters/x"},
    "ttlSecondsAfterFinished": 60,
}
RATES = [1e-4, 2e-4, 3e-4, 4e-4, 5e-4, 6e-4]


def sweep(**spec: Any) -> FineTuneSweep:
    template = spec.pop("template", TEMPLATE)
    metadata = {"name": "guide", "namespace": "team", "uid": UID, **spec.pop("metadata", {})}
    body = {
        "metadata": metadata,
        "spec": {
            "template": {"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "gpus"}}, "spec": template},
            "parameters": [{"name": "training.learningRate", "values": RATES}],
            **spec,
        },
    }
    return FineTuneSweep.parse(body)


def in_order(request: SuggestionRequest) -> tuple[tuple[float, ...], ...]:
    """Choose as a grid does."""
    known = {each.point for each in request.trials}
    every = itertools.product(*(range(int(each.size)) for each in request.space))
    free = (tuple(float(each) for each in point) for point in every)
    return tuple(itertools.islice((point for point in free if point not in known), request.count))


class World:
    """The API server and the FineTuneJobs, as far as a sweep sees them."""

    choose: Callable[[SuggestionRequest], Sequence[Point]] = staticmethod(in_order)

    def __init__(self, **spec: Any) -> None:
        self.sweep = sweep(**spec)
        self.now = T0
        self.jobs: dict[str, FineTuneJob] = {}
        self.evaluations: dict[str, Evaluation] = {}
        self.created: list[str] = []
        self.deleted: list[str] = []
        self.notes: list[tuple[str, str]] = []
        self.writes = 0
        self.asked: list[SuggestionRequest] = []
        self.taken: NameTaken | None = None
        self.refused: Refusal | None = None
        self.last = Plan()
        self.reports: dict[str, JobView] = {}
        self.reported: list[dict[str, Any]] = []
        self.report_ends: dict[str, str] = {}
        """How the Jobs that write the page end; "" and any that is not there: well."""

    def observed(self) -> Observed:
        return Observed(
            self.sweep,
            SETTINGS,
            dict(self.jobs),
            dict(self.reports),
            taken=self.taken,
            refused=self.refused,
            evaluations=dict(self.evaluations),
        )

    def decided(self) -> Plan:
        observed = self.observed()
        answers: dict[Inquiry, object] = {}
        while (made := plan(Observed(**{**vars(observed), "answers": answers}), self.now)).inquiries:
            for inquiry in made.inquiries:
                if isinstance(inquiry, Importance):
                    answers[inquiry] = {0: 1.0}
                    continue
                assert isinstance(inquiry, NextPoints)
                self.asked.append(inquiry.request)
                answers[inquiry] = tuple(self.choose(inquiry.request))
        return made

    def settle(self, rounds: int = 40) -> Self:
        for _ in range(rounds):
            before = (self.sweep, dict(self.jobs), dict(self.evaluations), dict(self.reports))
            self.act(self.decided())
            if before == (self.sweep, self.jobs, self.evaluations, self.reports):
                return self
        raise AssertionError(f"it does not come to rest: {self.message}")

    def write_until(self, made: Plan, done: int, dies_at: int | None) -> int:
        """Write what a plan wants, one after the other, up to a certain write; return how many were done until then."""
        for part in [*made.actions, "status"]:
            done += 1
            if part == "status":
                self.act(Plan(status=made.status, notes=made.notes))
            else:
                self.act(Plan(actions=(part,)))  # type: ignore[arg-type]
            if done == dies_at:
                break
        return done

    def act(self, made: Plan, *, status: bool = True) -> None:
        self.last = made
        for action in made.actions:
            match action:
                case Create(body) if body["kind"] == "Evaluation":
                    name = body["metadata"]["name"]
                    self.created.append(f"Evaluation {name}")
                    metadata = {**body["metadata"], "uid": f"uid-of-evaluation-{name}"}
                    self.evaluations.setdefault(name, Evaluation.parse({**body, "metadata": metadata}))
                case Create({"kind": "ConfigMap"} as body):
                    self.reported.append(json.loads(body["data"]["run.json"]))
                case Create({"kind": "Job"} as body):
                    self.reports[body["metadata"]["name"]] = self.report_of(body)
                case Create(body):
                    name = body["metadata"]["name"]
                    self.created.append(name)
                    if name not in self.jobs:
                        metadata = {**body["metadata"], "uid": f"uid-{name}"}
                        self.jobs[name] = FineTuneJob.parse({**body, "metadata": metadata})
                case Delete(kind="Evaluation", name=name):
                    self.deleted.append(f"Evaluation {name}")
                    self.evaluations.pop(name, None)
                case Delete(name=name):
                    self.deleted.append(name)
                    self.jobs.pop(name, None)
                case Suspend(name=name, suspend=suspend, kind="Evaluation"):
                    asked = self.evaluations[name].spec.model_copy(update={"suspend": suspend})
                    self.evaluations[name] = self.evaluations[name].model_copy(update={"spec": asked})
                case Suspend(name=name, suspend=suspend, kind=kind):
                    assert kind == "FineTuneJob"
                    spec = self.jobs[name].spec.model_copy(update={"suspend": suspend})
                    self.jobs[name] = self.jobs[name].model_copy(update={"spec": spec})
        if made.status is not None and status and made.status != self.sweep.status.to_json():
            self.writes += 1
            self.notes += [(note.type, note.reason) for note in made.notes]
            parsed = FineTuneSweep.parse({**self.sweep.to_json(), "status": made.status}).status
            self.sweep = self.sweep.model_copy(update={"status": parsed})

    def report_of(self, body: dict[str, Any]) -> JobView:
        """Return the Job of a page as it is once it has ended."""
        name = body["metadata"]["name"]
        created = {"creationTimestamp": format_time(self.now)}
        view = JobView.of({**body, "metadata": {**body["metadata"], "uid": f"uid-{name}", **created}})
        assert view is not None
        how = self.report_ends.get(name.rpartition("-")[2], "")
        return replace(view, complete=not how, failed=how == "failed", failed_reason=how and "BackoffLimitExceeded")

    def spec(self, **changes: Any) -> Self:
        body = self.sweep.to_json()
        self.sweep = FineTuneSweep.parse({**body, "spec": {**body["spec"], **changes}})
        return self

    def tells(self, name: str, **status: Any) -> Self:
        body = self.jobs[name].to_json()
        self.jobs[name] = FineTuneJob.parse({**body, "status": {**body.get("status", {}), **status}})
        return self

    def prepared(self, *names: str) -> Self:
        dataset = {"digest": sha("a"), "rowsDigest": sha("b"), "rows": 9, "tokens": 99}
        for name in names or [name for name, job in self.jobs.items() if job.status.dataset is None]:
            self.tells(name, dataset=dataset)
        return self.settle()

    def ends(self, name: str, loss: float | None, *, reason: str = "Completed", seconds: int = 100) -> Self:
        """Let a FineTuneJob end, with a loss if it went well."""
        condition = {
            "type": "Succeeded",
            "status": "True" if reason == "Completed" else "False",
            "reason": reason,
            "message": f"because of {reason}",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        status: dict[str, Any] = {"conditions": [condition], "acceleratorSeconds": seconds}
        if loss is not None:
            status["progress"] = {"validationLoss": loss}
        if reason == "Completed":
            artifact = {"uri": ARTIFACT.uri, "digest": ARTIFACT.digest, "rank": 8, "targetModules": ["q_proj"]}
            status["artifact"] = {**artifact, "baseModelDigest": sha("c")}
        self.tells(name, **status)
        return self.settle()

    @property
    def running(self) -> list[str]:
        return [name for name, job in self.jobs.items() if not job.status.conditions]

    @property
    def state(self) -> str:
        return self.condition("Succeeded").reason

    @property
    def succeeded(self) -> str:
        return self.condition("Succeeded").status

    @property
    def message(self) -> str:
        return self.condition("Succeeded").message if self.sweep.status.conditions else ""

    def condition(self, kind: str) -> Condition:
        found = [each for each in self.sweep.status.conditions if each.type == kind]
        assert len(found) == 1, f"no {kind}"
        return found[0]


def test_a_sweep_tries_points_one_after_the_other_and_names_the_best() -> None:
    world = World(maxTrials=3).settle()
    assert (world.state, len(world.jobs)) == ("Searching", 1)
    (first,) = world.running
    job = world.jobs[first]
    assert job.spec.training.learning_rate == RATES[0]
    assert job.spec.ttl_seconds_after_finished is None, "the sweep's own time counts"
    assert job.metadata.labels["kueue.x-k8s.io/queue-name"] == "gpus"
    assert first == f"guide-{world.sweep.status.trials[0].id}"
    for loss in (1.5, 1.2, 1.9):
        (running,) = world.running
        world.prepared().ends(running, loss)
    assert (world.state, world.succeeded) == ("Completed", "True")
    best = world.sweep.status.best
    assert best is not None
    assert (best.value, best.parameters) == (1.2, {"training.learningRate": RATES[1]})
    assert best.artifact is not None
    assert best.artifact.digest == ARTIFACT.digest
    assert world.sweep.status.accelerator_seconds == 300
    assert "maxTrials = 3" in world.message
    assert world.sweep.status.summary is not None
    assert world.sweep.status.summary.trials == "3/0/3"
    assert world.notes.count(("Normal", "BetterTrial")) == 2
    assert world.writes <= 3 * 4


def test_trials_run_together_and_differ_but_the_rows_are_prepared_once() -> None:
    world = World(parallelTrials=3, maxTrials=5).settle()
    assert len(world.sweep.status.trials) == 3
    assert len(world.jobs) == 1, "the others wait until the rows are there"
    world.prepared()
    assert len(world.running) == 3
    assert len({job.spec.training.learning_rate for job in world.jobs.values()}) == 3
    world.prepared().ends(world.running[0], 1.0)
    assert len(world.running) == 3


def test_rows_that_differ_are_prepared_beside_each_other() -> None:
    uris = [{"uri": "s3://data/a/"}, {"uri": "s3://data/b/"}]
    template = {**TEMPLATE, "dataset": {**TEMPLATE["dataset"], "validation": {"uri": "s3://data/held-out/"}}}
    parameters = [{"name": "dataset.training", "values": uris}]
    world = World(parallelTrials=2, template=template, parameters=parameters).settle()
    assert len(world.jobs) == 2


def test_a_trial_of_folds_is_its_folds() -> None:
    template = {**TEMPLATE, "dataset": {"training": {"uri": "s3://data/train/"}}}
    world = World(folds=3, maxTrials=2, template=template).settle()
    assert [name.rpartition("-")[2] for name in world.jobs] == ["f0"]
    world.prepared()
    names = sorted(world.jobs)
    assert [name.rpartition("-")[2] for name in names] == ["f0", "f1", "f2"]
    assert [world.jobs[name].spec.dataset.validation.fold for name in names] == [0, 1, 2]  # type: ignore[union-attr]
    for name, loss in zip(names, (1.0, 2.0, 3.0), strict=True):
        world.prepared().ends(name, loss)
    trial = world.sweep.status.trials[0]
    assert (trial.state.value, trial.value) == ("Complete", 2.0)
    assert trial.standard_error == pytest.approx(1 / 3**0.5, 1e-3)
    assert trial.accelerator_seconds == 300


def test_a_fold_that_fails_ends_its_trial_and_the_others_are_stopped() -> None:
    template = {**TEMPLATE, "dataset": {"training": {"uri": "s3://data/train/"}}}
    world = World(folds=2, maxTrials=2, template=template).settle().prepared()
    first, second = sorted(world.jobs)
    world.ends(first, None, reason="OutOfMemory")
    assert world.sweep.status.trials[0].reason == "OutOfMemory"
    assert second in world.deleted
    assert (world.state, len(world.sweep.status.trials)) == ("Searching", 2)


def test_settings_that_cannot_be_are_a_bad_point_and_no_job() -> None:
    world = World(
        parameters=[{"name": "lora.rank", "values": [8, 16]}, {"name": "training.maxSteps", "values": [5]}],
        template={**TEMPLATE, "training": {"epochs": 2}},
    ).settle()
    assert (world.state, world.created) == ("TrialsFailed", [])
    assert {each.reason for each in world.sweep.status.trials} == {"SettingsInvalid"}
    assert "SettingsInvalid (training: set epochs or maxSteps, not both" in world.message
    assert world.notes.count(("Warning", "BadTrial")) == 2, "no FineTuneJob says what its settings lack"


def test_what_the_namespace_tells_of_a_bad_trial_is_its_settings() -> None:
    world = World(
        parameters=[{"name": "training.maxSteps", "values": [5]}], template={**TEMPLATE, "training": {"epochs": 2}}
    )
    (note,) = [each for each in world.decided().notes if each.reason == "BadTrial"]
    assert note.message.startswith("guide-")
    assert "training.maxSteps = 5: training: set epochs or maxSteps, not both" in note.message


def test_a_trial_that_does_not_fit_is_a_bad_point_and_the_search_goes_on() -> None:
    world = World(maxTrials=2).settle()
    world.ends(world.running[0], None, reason="OutOfMemory")
    world.ends(world.running[0], 1.0)
    assert (world.state, world.sweep.status.trials[0].state) == ("Completed", "Bad")


def test_three_of_the_same_fault_of_the_data_end_the_sweep_at_once() -> None:
    world = World(maxTrials=6, parallelTrials=4).settle().prepared()
    for name in list(world.running)[:3]:
        world.ends(name, None, reason="DatasetMalformed")
    assert (world.state, world.succeeded) == ("TrialsFailed", "False")
    assert "because of DatasetMalformed" in world.message
    assert world.running == [], "what still ran is stopped"
    assert all(each.state.value == "Bad" for each in world.sweep.status.trials)
    reasons = [each.reason for each in world.sweep.status.trials]
    assert reasons == ["DatasetMalformed"] * 3 + ["TrialsFailed"] * 3


SOURCES = {"name": "baseModel", "values": [{"uri": "s3://models/a"}, {"uri": "s3://models/b"}]}


def test_a_fault_of_one_base_model_is_not_of_all_trials() -> None:
    other = {"name": "training.learningRate", "values": RATES[:4]}
    world = World(parameters=[SOURCES, other], objective={"metric": "bitsPerByte"}, maxTrials=8).settle()
    for _ in range(4):
        world.ends(world.running[0], None, reason="BaseModelInvalid")
    assert world.state == "Searching", "the other one was not tried yet"
    world.ends(world.running[0], None, reason="BaseModelInvalid")
    assert (world.state, len(world.sweep.status.trials)) == ("TrialsFailed", 5)


def test_a_space_that_is_used_up_ends_the_sweep() -> None:
    world = World(parameters=[{"name": "lora.rank", "values": [8, 16]}], parallelTrials=3).settle().prepared()
    assert world.sweep.status.exhausted
    for loss in (2.0, 1.0):
        world.ends(world.running[0], loss)
    assert (world.state, len(world.sweep.status.trials)) == ("Completed", 2)
    assert "all 2 points" in world.message


def test_a_point_whose_digits_another_has_is_no_trial_and_the_search_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight digits are few: two points of 200 have the same ones once in two hundred thousand searches."""
    monkeypatch.setattr(searching, "trial_id", lambda parameters: f"{RATES.index(*parameters.values()) // 2:08x}")
    world = World(maxTrials=6, parallelTrials=2).settle()
    world.prepared()
    while world.succeeded == "Unknown":
        for name in [name for name, job in world.jobs.items() if not job.status.conditions]:
            world.ends(name, 1.0)
        world.settle()
        world.prepared()
    assert [each.point for each in world.sweep.status.trials] == [[0], [2], [4]]
    assert "all 3 points of the search space were tried" in world.message


def test_no_trial_is_begun_that_would_exceed_the_budget() -> None:
    world = World(budget={"acceleratorSeconds": 250}, maxTrials=6).settle()
    world.prepared().ends(world.running[0], 1.0, seconds=100)
    world.prepared().ends(world.running[0], 1.1, seconds=100)
    assert (world.state, len(world.sweep.status.trials)) == ("Completed", 2)
    assert "budget.acceleratorSeconds = 250" in world.message


def test_a_budget_lets_as_many_begin_together_as_one_after_the_other() -> None:
    world = World(budget={"acceleratorSeconds": 450}, maxTrials=6).settle()
    world.prepared().ends(world.running[0], 1.0, seconds=100)
    world.spec(parallelTrials=2).settle()
    world.spec(parallelTrials=6).settle()
    assert [each.count for each in world.asked] == [1, 1, 1, 1], "two are under way, and there is room for one more"
    together = World(budget={"acceleratorSeconds": 450}, maxTrials=6).settle().prepared()
    together.spec(parallelTrials=6).ends(together.running[0], 1.0, seconds=100)
    assert [each.count for each in together.asked] == [1, 3]
    assert together.created == world.created


def test_what_another_trial_costs_is_reckoned_by_those_that_were_trained() -> None:
    world = World(budget={"acceleratorSeconds": 150}, maxTrials=6).settle()
    for seconds in (0, 0, 100):
        world.prepared().ends(world.running[0], 1.0, seconds=seconds)
    assert (world.state, len(world.sweep.status.trials)) == ("Completed", 3)
    assert "one takes 100" in world.message


def test_a_search_that_gets_no_better_ends() -> None:
    world = World(stopAfterTrialsWithoutImprovement=2).settle()
    for loss in (1.0, 1.2, 1.3):
        world.prepared().ends(world.running[0], loss)
    assert world.state == "Completed"
    assert "2 trials in a row" in world.message


def test_suspending_stops_all_trials_and_begins_none_and_they_go_on() -> None:
    world = World(parallelTrials=2).settle().prepared()
    world.spec(suspend=True).settle()
    assert world.state == "Suspended"
    assert all(job.spec.suspend for job in world.jobs.values())
    world.ends(next(iter(world.jobs)), 1.0)
    assert len(world.jobs) == 2, "nothing is begun"
    world.spec(suspend=False).settle().prepared()
    assert world.state == "Searching"
    assert not any(world.jobs[name].spec.suspend for name in world.running)
    assert len(world.running) == 2


def test_what_is_searched_may_not_change_under_way_and_nothing_is_done_until_it_is_set_back() -> None:
    """The API server does not see into values of any type."""
    world = World().settle()
    jobs, parameters = dict(world.jobs), world.sweep.to_json()["spec"]["parameters"]
    world.spec(parameters=[{"name": "training.learningRate", "values": RATES[1:]}]).settle()
    assert (world.state, world.succeeded, world.jobs) == ("SearchChanged", "Unknown", jobs)
    world.spec(parameters=[{"name": "training.learningRate", "values": [*RATES, "fast"]}]).settle()
    assert (world.state, world.succeeded, world.jobs) == ("SearchChanged", "Unknown", jobs), "no end either"
    world.spec(parameters=parameters).settle()
    assert (world.state, world.jobs) == ("Searching", jobs)


def test_more_trials_may_be_asked_for_on_the_way_but_not_after_the_end() -> None:
    world = World(maxTrials=1).settle()
    world.spec(maxTrials=2)
    world.prepared().ends(world.running[0], 1.0)
    assert world.state == "Searching"
    world.prepared().ends(world.running[0], 1.0)
    assert world.state == "Completed"
    before = world.sweep.status
    world.spec(maxTrials=6).settle()
    assert world.sweep.status == before


def test_the_others_go_at_the_end_if_only_the_best_is_kept() -> None:
    world = World(maxTrials=2, retainTrials="Best").settle()
    for loss in (1.0, 2.0):
        world.prepared().ends(world.running[0], loss)
    world.settle()
    best = world.sweep.status.best
    assert best is not None
    assert list(world.jobs) == [best.fine_tune_job_name]
    assert world.state == "Completed"


def test_failed_trials_stay_where_none_is_the_best() -> None:
    """They say why there is none."""
    world = World(maxTrials=3, retainTrials="Best").settle()
    for _ in range(3):
        world.prepared().ends(world.running[0], None, reason="OutOfMemory")
    world.settle()
    assert world.state == "TrialsFailed"
    assert len(world.jobs) == 3


def test_its_time_deletes_the_sweep_unless_gitops_would_bring_it_back() -> None:
    world = World(maxTrials=1, ttlSecondsAfterFinished=60).settle()
    world.prepared().ends(world.running[0], 1.0)
    assert world.decided().look_again_seconds == pytest.approx(60)
    world.now += timedelta(seconds=61)
    (action,) = world.decided().actions
    assert action == Delete("FineTuneSweep", "team", "guide", UID)
    waits = plan(replace(world.observed(), awaited=dict.fromkeys(world.jobs, ("Evaluation x",))), world.now)
    assert (waits.actions, waits.look_again_seconds) == ((), 30), "somebody has still to read a trial"
    kept = {"annotations": {"argocd.argoproj.io/tracking-id": "x"}}
    metadata = world.sweep.metadata.model_copy(update=kept)
    world.sweep = world.sweep.model_copy(update={"metadata": metadata})
    assert world.decided().actions == ()


def test_an_operator_that_dies_after_any_write_makes_the_same_trials() -> None:
    """Neither what was created and not told of, nor what was told of and not created, is lost or doubled."""

    def life(dies_at: int | None) -> tuple[list[Any], str]:
        world, writes = World(maxTrials=4, parallelTrials=2), 0
        for _ in range(200):
            writes = world.write_until(world.decided(), writes, dies_at)
            if world.succeeded == "True" if world.sweep.status.conditions else False:
                break
            for name in list(world.running):
                if world.jobs[name].status.dataset is None:
                    dataset = {"digest": sha("a"), "rowsDigest": sha("b"), "rows": 9, "tokens": 99}
                    world.tells(name, dataset=dataset)
                    break
            else:
                for name in list(world.running)[:1]:
                    loss = 1 + abs(world.jobs[name].spec.training.learning_rate - 3e-4)
                    condition = {
                        "type": "Succeeded",
                        "status": "True",
                        "reason": "Completed",
                        "message": "",
                        "lastTransitionTime": "2026-01-01T00:00:00Z",
                    }
                    world.tells(name, conditions=[condition], progress={"validationLoss": loss})
        assert len(world.created) == len(set(world.created)), "nothing is created twice"
        return [each.to_json() for each in world.sweep.status.trials], world.message

    undisturbed = life(None)
    assert len(undisturbed[0]) == 4
    for dies_at in range(1, 30):
        trials, message = life(dies_at)
        assert sorted(map(json.dumps, trials)) == sorted(map(json.dumps, undisturbed[0])), dies_at
        assert message.rpartition("the best")[2] == undisturbed[1].rpartition("the best")[2], dies_at


def test_what_stands_in_the_way_of_a_trial_is_said() -> None:
    world = World().settle()
    world.taken = NameTaken("FineTuneJob guide-x", T0)
    assert world.settle().state == "NameTaken"
    world.taken, world.refused = None, Refusal("FineTuneJob", "exceeded quota: count", T0, T0)
    assert world.settle().state == "TrialRefused"
    assert "exceeded quota" in world.message
    assert world.last.look_again_seconds == pytest.approx(5)
    world.refused = None
    assert world.settle().state == "Searching"


def test_a_status_of_200_trials_is_small() -> None:
    parameters = [
        {"name": "training.learningRate", "range": {"minimum": 1e-5, "maximum": 1e-3, "scale": "Log"}},
        {"name": "lora.rank", "values": [8, 16, 32]},
        {"name": "lora.alpha", "values": [16, 32]},
        {"name": "lora.dropout", "range": {"minimum": 0, "maximum": 0.3}},
    ]
    world = World(parameters=parameters, maxTrials=200)
    trial = {
        "point": [0.0003162, 2, 1, 0.1234],
        "state": "Complete",
        "value": 1.23456,
        "standardError": 0.0123456,
        "acceleratorSeconds": 123456,
    }
    trials = [{**trial, "id": f"{number:08x}"} for number in range(200)]
    assert len(json.dumps({**world.sweep.status.to_json(), "trials": trials})) < 60_000


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_a_status_of_200_trials_with_all_that_it_may_have_is_small(factor: int) -> None:
    """As the API server keeps it: 16 ranges over five decades, folds, rungs, a final."""
    chance = random.Random(factor)
    ranges = [Dimension(f"training.someSettingOfTheOptimizer{n:02}", low=1e-5, high=1.0, log=True) for n in range(16)]
    trials: list[dict[str, Any]] = []
    for number in range(200):
        rungs = 1 + max(n for n in range(8) if number % factor**n == 0)
        point = [each.rounded(10 ** chance.uniform(-5, 0)) for each in ranges]
        known = {"id": f"{number:08x}", "point": point, "state": "Complete", "value": short(chance.uniform(1, 2))}
        figures = {"standardError": short(chance.uniform(0.01, 0.02), 3), "acceleratorSeconds": 100_000 + number}
        trials.append({**known, **figures, "rungValues": [short(chance.uniform(1, 2), RUNG_DIGITS)] * min(rungs, 8)})
    name, uri = "a" * 40, "s3://a-bucket-with-adapters/of/a/team"
    final = {
        "fineTuneJobName": name,
        "evaluationName": name,
        "state": "Passed",
        "value": 1.2345,
        "low": 1.2,
        "high": 1.3,
    }
    condition = {"status": "True", "message": "x" * 300, "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = FineTuneSweepStatus.model_validate(
        {
            "conditions": [{"type": each, "reason": "Completed", **condition} for each in ("Succeeded", "Reported")],
            "best": {
                "id": "00000000",
                "fineTuneJobName": name,
                "parameters": {each.name: at for each, at in zip(ranges, trials[0]["point"], strict=True)},
                "value": 1.23456,
                "artifact": {"uri": f"{uri}/adapters/{'0' * 64}", "digest": f"sha256:{'0' * 64}"},
            },
            "final": [{**final, "id": f"{number:08x}", "acceleratorSeconds": 1000} for number in range(10)],
            "importance": {each.name: 0.0625 for each in ranges},
            "reportURI": f"{uri}/sweeps/{name}-01234567/sweep.html",
            "sharedAcceleratorSeconds": 100_000,
            "savedAcceleratorSeconds": 100_000,
            "maxTrials": 200,
            "trials": trials,
        }
    )
    assert len(json.dumps(status.to_json(), separators=(",", ":"))) < 60_000


def test_what_was_there_already_is_told_as_saved_by_sharing() -> None:
    world = World(maxTrials=3).settle()
    assert world.sweep.status.shared_accelerator_seconds is None
    for seconds in (100, 0, 200):
        world.prepared().ends(world.running[0], 1.0, seconds=seconds)
    status = world.sweep.status
    assert (status.accelerator_seconds, status.shared_accelerator_seconds) == (300, 150)


def test_nothing_is_saved_by_sharing_where_nothing_takes_accelerators() -> None:
    world = World(maxTrials=2).settle()
    for _ in range(2):
        world.prepared().ends(world.running[0], 1.0, seconds=0)
    assert (world.state, world.sweep.status.shared_accelerator_seconds) == ("Completed", None)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no such section": ({"name": "trainning.seed", "values": [1]}, "trainning does not define the result"),
    "no such field": ({"name": "training.learningrate", "values": [1]}, "is training.learningRate meant?"),
    "below a field that has none": ({"name": "lora.rank.x", "values": [1]}, "lora.rank has no fields"),
    "not of the result": ({"name": "output.uri", "values": ["s3://x/y"]}, "output does not define the result"),
    "a Secret": ({"name": "dataset.secretName", "values": ["x"]}, "secretName does not define the result"),
    "memory alone": ({"name": "training.microBatchSize", "values": [1]}, "microBatchSize does not define"),
    "what folds need": ({"name": "dataset.validation", "values": [{"fraction": 0.1}]}, "validation does not define"),
    "a range of words": ({"name": "training.schedule", "range": {"minimum": 0, "maximum": 1}}, "has no range"),
    "a range of truth": ({"name": "training.packing", "range": {"minimum": 0, "maximum": 1}}, "has no range"),
    "above the field": ({"name": "lora.rank", "range": {"minimum": 8, "maximum": 1024}}, "at most 512"),
    "below the field": ({"name": "lora.rank", "range": {"minimum": 0, "maximum": 8}}, "at least 1"),
    "at an open bound": (
        {"name": "training.learningRate", "range": {"minimum": 0, "maximum": 0.1}},
        "must be above 0",
    ),
    "not whole": ({"name": "lora.rank", "range": {"minimum": 1.5, "maximum": 8}}, "is a whole number"),
    "a value of another type": ({"name": "lora.rank", "values": [8, "many"]}, '"many" is refused'),
    "a number for truth": ({"name": "training.packing", "values": [0, 1]}, "0 is refused"),
    "a number in quotes in a section": ({"name": "lora", "values": [{"rank": "8"}]}, "is refused"),
    "a value out of bounds": ({"name": "lora.dropout", "values": [0.1, 1.5]}, "1.5 is refused"),
    "a word that is none": ({"name": "training.optimizer", "values": ["Adam"]}, '"Adam" is refused'),
    "two base models": (
        {"name": "baseModel.uri", "values": ["s3://models/a", "s3://models/b"]},
        "values could not be compared",
    ),
}


@pytest.mark.parametrize(("parameter", "words"), BAD.values(), ids=BAD)
def test_a_parameter_that_cannot_be_searched_is_named(parameter: dict[str, Any], words: str) -> None:
    world = World(parameters=[parameter]).settle()
    assert (world.state, world.succeeded) == ("SpecInvalid", "False")
    assert words in world.message
    assert parameter["name"] in world.message
    assert world.created == []


TOGETHER: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "twice": ([{"name": "lora.rank", "values": [8]}, {"name": "lora.rank", "values": [9]}], {}, "there twice"),
    "a part of another": (
        [{"name": "lora", "values": [{"rank": 8}]}, {"name": "lora.rank", "values": [9]}],
        {},
        "lora.rank is a part of lora",
    ),
    "a grid of real numbers": (
        [{"name": "training.learningRate", "range": {"minimum": 0.1, "maximum": 0.2}}],
        {"algorithm": {"type": "Grid"}},
        "a grid has no range of real numbers",
    ),
}


@pytest.mark.parametrize(("parameters", "spec", "words"), TOGETHER.values(), ids=TOGETHER)
def test_parameters_that_do_not_go_together_are_named(
    parameters: list[dict[str, Any]], spec: dict[str, Any], words: str
) -> None:
    world = World(parameters=parameters, **spec).settle()
    assert world.state == "SpecInvalid"
    assert words in world.message


@pytest.mark.parametrize(("finalizers", "stay"), [(["backup.example/hold"], False), ([ORPHAN], True)])
def test_what_runs_for_a_sweep_that_is_deleted_ends_whoever_holds_the_sweep(finalizers: list[str], stay: bool) -> None:
    world = World().settle()
    running = list(world.jobs)
    leaving = {"deletion_timestamp": format_time(world.now), "finalizers": finalizers}
    world.sweep = world.sweep.model_copy(update={"metadata": world.sweep.metadata.model_copy(update=leaving)})
    world.refused = Refusal("FineTuneJob", "a policy", world.now, world.now)
    assert running
    assert world.settle().deleted == []
    world.refused = None
    assert world.settle().deleted == ([] if stay else running)

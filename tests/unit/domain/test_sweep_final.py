"""FineTuneSweeps that judge by Evaluations, and what follows a search: adapters of all rows, and the final."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Self

import numpy as np
import pytest
from trimtab_operator.api import Evaluation, FineTuneSweep
from trimtab_operator.api.sweep_judging import FinalState
from trimtab_operator.domain.cluster import NameTaken
from trimtab_operator.domain.finetunesweep import FINE_TUNE_SWEEP
from trimtab_operator.domain.finetunesweep.judging import thresholds_of
from trimtab_operator.domain.finetunesweep.searching import search_digest
from trimtab_operator.domain.plan import Create, Plan, Suspend
from trimtab_trainer.contract import Check, Threshold
from trimtab_trainer.contract.gate.bounds import Finding, judge_bounds

from tests.unit.domain.makers import ARTIFACT, T0, sha
from tests.unit.domain.test_sweep import RATES, TEMPLATE, World, sweep

ANSWERS = {"name": "answers", "type": "Generation", "dataset": {"uri": "s3://data/questions/"}}
HELD_OUT = {"name": "heldout", "type": "Perplexity", "dataset": {"split": "Test"}}
KINDS = {"name": "kinds", "type": "Classification", "dataset": {"uri": "s3://data/kinds/"}, "labels": ["a", "b"]}
BY_ANSWERS = {"evaluation": {"tasks": [HELD_OUT, ANSWERS], "metric": "answers/bleu"}, "direction": "Maximize"}
DATASET = TEMPLATE["dataset"]
TESTED = {**TEMPLATE, "dataset": {**DATASET, "test": {"fraction": 0.2}}}
FOLDED = {**TEMPLATE, "dataset": {"training": DATASET["training"], "test": {"fraction": 0.2}}}
THRESHOLD = {"metric": "heldout/perplexity", "maximum": 9, "confidence": 0.97}
FINAL = {
    "topTrials": 3,
    "evaluation": {"tasks": [HELD_OUT], "metric": "heldout/perplexity", "thresholds": [THRESHOLD]},
    "metadata": {"labels": {"follow": "me"}},
}


class Judged(World):
    """A world whose Evaluations are played by hand too."""

    def trained(self, *losses: float) -> Self:
        """Let the FineTuneJobs that run end one after the other, with these losses."""
        for loss in losses:
            self.prepared().ends(self.running[0], loss)
        return self

    def answers(self, name: str, metric: str, value: float | None, *, passed: str = "Passed") -> Self:
        """Let an Evaluation end; without a value it fails, with `passed` as the reason."""
        return self.answered(name, metric, value, passed=passed).settle()

    def answered(self, name: str, metric: str, value: float | None, *, passed: str = "Passed") -> Self:
        """Let an Evaluation end, and nobody look at it yet."""
        task, _, figure = metric.partition("/")
        verdict = passed in ("Passed", "NoThresholds")
        time = {"message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        ended = "Completed" if value is not None else passed
        conditions = [
            {"type": "Succeeded", "status": "True" if value is not None else "False", "reason": ended, **time},
            {"type": "Passed", "status": "True" if verdict else "False", "reason": passed, **time},
        ]
        figures = {"task": task, "metric": figure, "value": value, "count": 50}
        if value is not None:
            figures |= {"low": value - 0.5, "high": value + 0.5}
        status = {"conditions": conditions, "acceleratorSeconds": 10}
        status |= {"results": [figures]} if value is not None else {}
        body = self.evaluations[name].to_json()
        self.evaluations[name] = Evaluation.parse({**body, "status": status})
        return self

    @property
    def judging(self) -> list[str]:
        """Names of the Evaluations that have not ended."""
        return [name for name, each in self.evaluations.items() if not each.status.conditions]

    @property
    def names(self) -> list[str]:
        """Names of the trials, the first first."""
        return [f"guide-{each.id}" for each in self.sweep.status.trials]


def test_a_trial_is_judged_by_its_evaluation_and_counts_until_that_has_ended() -> None:
    world = Judged(maxTrials=2, objective=BY_ANSWERS, template=TESTED).settle()
    world.prepared().ends(world.running[0], 1.0)
    (name,) = world.judging
    assert name == world.names[0]
    assert len(world.sweep.status.trials) == 1, "another would be the second that runs"
    evaluation = world.evaluations[name]
    assert evaluation.spec.target.fine_tune_job_name == name
    assert [task.name for task in evaluation.spec.tasks] == ["answers", "heldout"], "the status has room for it first"
    assert (evaluation.spec.tasks[0].metrics or [])[0] == "BLEU"
    assert evaluation.metadata.labels["kueue.x-k8s.io/queue-name"] == "gpus"
    assert evaluation.spec.template == world.jobs[name].spec.template
    world.answers(name, "answers/bleu", 20.0, passed="NoThresholds")
    world.prepared().ends(world.running[0], 0.5).answers(world.judging[0], "answers/bleu", 30.0, passed="NoThresholds")
    status = world.sweep.status
    assert world.state == "Completed"
    assert [each.value for each in status.trials] == [20.0, 30.0]
    assert status.best is not None
    assert (status.best.id, status.metric) == (status.trials[1].id, "answers/bleu")
    assert status.accelerator_seconds == 220
    assert "answers/bleu 30" in world.message


def test_an_evaluation_that_fails_is_a_bad_point_with_its_reason() -> None:
    world = Judged(maxTrials=2, objective=BY_ANSWERS, template=TESTED).settle()
    world.prepared().ends(world.running[0], 1.0).answers(world.judging[0], "answers/bleu", None, passed="OutOfMemory")
    trial = world.sweep.status.trials[0]
    assert (trial.state.value, trial.reason) == ("Bad", "OutOfMemory")
    world.prepared().ends(world.running[0], 1.0).answers(world.judging[0], "answers/chrF", 3.0)
    assert world.sweep.status.trials[1].reason == "ValueMissing"


def test_three_evaluations_with_the_same_fault_of_the_data_end_the_sweep() -> None:
    world = Judged(maxTrials=6, objective=BY_ANSWERS, template=TESTED).settle()
    for _ in range(3):
        world.prepared().ends(world.running[0], 1.0)
        world.answers(world.judging[0], "answers/bleu", None, passed="DatasetNotFound")
    assert (world.state, world.succeeded) == ("TrialsFailed", "False")
    assert "DatasetNotFound" in world.message


def test_each_fold_has_an_evaluation_and_their_mean_counts() -> None:
    world = Judged(maxTrials=1, folds=2, objective=BY_ANSWERS, template=FOLDED).settle().prepared()
    for name in list(world.jobs):
        world.prepared().ends(name, 1.0)
    assert sorted(world.judging) == [f"{world.names[0]}-f0", f"{world.names[0]}-f1"]
    for name, value in zip(sorted(world.judging), (10.0, 20.0), strict=True):
        world.answers(name, "answers/bleu", value)
    assert world.sweep.status.trials[0].value == 15.0


def test_suspending_holds_evaluations_too() -> None:
    world = Judged(maxTrials=1, objective=BY_ANSWERS, template=TESTED).settle()
    world.prepared().ends(world.running[0], 1.0).spec(suspend=True).settle()
    assert world.evaluations[world.judging[0]].spec.suspend
    world.spec(suspend=False).settle()
    assert not world.evaluations[world.judging[0]].spec.suspend


def test_bits_per_byte_are_the_nats_over_the_bytes_of_the_rows() -> None:
    models = [{"uri": "s3://models/a"}, {"uri": "s3://models/b"}]
    parameters = [{"name": "baseModel", "values": models}]
    world = Judged(objective={"metric": "bitsPerByte"}, parameters=parameters, maxTrials=2).settle()
    rows: dict[str, Any] = {"digest": sha("a"), "rowsDigest": sha("b"), "rows": 9, "tokens": 99}
    rows |= {"validationDigest": sha("d"), "validationBytes": 1000}
    for tokens, loss in ((100, 2.0), (400, 0.6931471805599453)):
        name = world.running[0]
        world.tells(name, dataset={**rows, "validationSupervisedTokens": tokens}).settle().ends(name, loss)
    assert [each.value for each in world.sweep.status.trials] == [pytest.approx(0.288539, 1e-5), 0.4]
    assert world.sweep.status.best is not None
    assert world.sweep.status.best.parameters == {"baseModel": models[0]}, "though its loss a token is the higher"


def test_bits_per_byte_without_bytes_are_no_value() -> None:
    world = Judged(objective={"metric": "bitsPerByte"}, maxTrials=1).settle()
    world.trained(1.0)
    assert world.sweep.status.trials[0].reason == "ValueMissing"


def test_a_trial_that_was_measured_on_other_rows_is_a_bad_point() -> None:
    """How many rows are too long for a sequence is known only when they are tokens."""
    lengths = [{"name": "training.maxSequenceLength", "values": [512, 64, 1024]}]
    world = Judged(parameters=lengths, maxTrials=3).settle()
    rows = {"digest": sha("a"), "rowsDigest": sha("b"), "rows": 9, "tokens": 99}
    for digest, loss in ((sha("d"), 2.0), (sha("e"), 1.0), (sha("d"), 1.5)):
        name = world.running[0]
        world.tells(name, dataset={**rows, "validationDigest": digest}).settle().ends(name, loss)
    assert [each.reason for each in world.sweep.status.trials] == [None, "ValidationRowsDiffer", None]
    assert world.sweep.status.best is not None
    assert world.sweep.status.best.value == 1.5


def test_of_two_that_end_at_once_the_first_says_which_rows_count() -> None:
    lengths = [{"name": "training.maxSequenceLength", "values": [512, 64]}]
    world = Judged(parameters=lengths, maxTrials=2, parallelTrials=2).settle().prepared().prepared()
    for name, digest in zip(world.running, (sha("d"), sha("e")), strict=True):
        dataset = {**world.jobs[name].to_json()["status"]["dataset"], "validationDigest": digest}
        condition = {"type": "Succeeded", "status": "True", "reason": "Completed", "message": ""}
        conditions = [{**condition, "lastTransitionTime": "2026-01-01T00:00:00Z"}]
        world.tells(name, dataset=dataset, conditions=conditions, progress={"validationLoss": 1.0})
    world.settle()
    assert [each.reason for each in world.sweep.status.trials] == [None, "ValidationRowsDiffer"]


def finished(**spec: Any) -> Judged:
    """Return a sweep of four trials whose search has ended; the third is the best by it."""
    return Judged(maxTrials=4, template=TESTED, final=FINAL, **spec).settle().trained(1.4, 1.3, 1.1, 1.2)


def test_the_best_are_judged_once_more_and_the_best_of_those_that_pass_wins() -> None:
    world = finished()
    assert (world.state, world.succeeded) == ("Judging", "Unknown")
    first, second, third, fourth = world.names
    assert world.judging == [f"{third}-end", f"{fourth}-end", f"{second}-end"]
    for name in world.judging:
        evaluation = world.evaluations[name]
        assert evaluation.spec.target.fine_tune_job_name == name.removesuffix("-end")
        assert evaluation.spec.thresholds[0].confidence == pytest.approx(0.99), "1 - 0.03 / 3, by Bonferroni"
        assert "follow" not in evaluation.metadata.labels, "none may be followed before there is a winner"
        assert len(name) <= 45
    world.answers(f"{third}-end", "heldout/perplexity", 9.5, passed="ThresholdMissed")
    world.answers(f"{fourth}-end", "heldout/perplexity", 8.0).answers(f"{second}-end", "heldout/perplexity", 7.5)
    assert (world.state, world.judging) == ("Judging", ["guide"])
    winners = world.evaluations["guide"]
    assert winners.metadata.labels["follow"] == "me"
    assert winners.spec == world.evaluations[f"{second}-end"].spec, "so its answer is there already"
    world.answers("guide", "heldout/perplexity", 7.5)
    assert (world.state, world.succeeded) == ("Completed", "True")
    status = world.sweep.status
    assert status.best is not None
    assert (status.best.fine_tune_job_name, status.best.value) == (second, 1.3)
    assert status.best.artifact is not None
    assert [(each.state.value, each.value, each.low, each.high) for each in status.final] == [
        ("NotPassed", 9.5, 9.0, 10.0),
        ("Passed", 8.0, 7.5, 8.5),
        ("Passed", 7.5, 7.0, 8.0),
    ]
    assert status.final[0].reason == "ThresholdMissed"
    assert status.accelerator_seconds == 4 * 100 + 3 * 10 + 10
    assert first not in world.message
    assert world.notes[-1] == ("Normal", "Completed")
    assert world.reported[-1]["winner"] == status.best.id, "which the page names, and not the best by the search"


def test_the_best_of_three_that_are_not_good_enough_passes_no_more_often_than_one_alone() -> None:
    """At the limit the probability is uniform; of three each is held to a third of what one may be wrong."""
    made = sweep(template=TESTED, final=FINAL)
    assert made.spec.final is not None
    asked = made.spec.final.evaluation
    held = [Threshold.model_validate(each) for each in thresholds_of(made, asked)]
    draws = np.random.default_rng(5).uniform(size=(4000, 3))

    def rate(thresholds: list[Threshold]) -> float:
        def passes(p: float) -> bool:
            check = Check(threshold=0, bound="maximum", estimate=8.9, p_pass=float(p), p_fail=0.5)
            return judge_bounds(thresholds, [check])[0].finding is Finding.KEPT

        return float(np.mean([any(map(passes, three)) for three in draws]))

    assert rate(held) == pytest.approx(1 - 0.99**3, abs=0.007), "the 3 % that a threshold of 0.97 allows"
    assert rate(asked.thresholds) == pytest.approx(1 - 0.97**3, abs=0.01), "uncorrected nearly three times that"


def test_none_that_passes_is_no_success_and_nothing_can_be_followed() -> None:
    world = finished()
    for name in list(world.judging):
        world.answers(name, "heldout/perplexity", 12.0, passed="ThresholdMissed")
    assert (world.state, world.succeeded, world.judging) == ("NonePassed", "False", [])
    assert "guide" not in world.evaluations
    assert world.sweep.status.best is not None
    assert world.sweep.status.best.value == 1.1, "the best by the search"
    assert "ThresholdMissed" in world.message
    assert "winner" not in world.reported[-1]


def test_a_final_evaluation_that_fails_leaves_the_others() -> None:
    world = finished()
    one, two, three = world.judging
    world.answers(one, "heldout/perplexity", None, passed="OutOfMemory")
    world.answers(two, "heldout/perplexity", 8.0).answers(three, "heldout/perplexity", 8.5)
    world.answers("guide", "heldout/perplexity", 8.0)
    assert world.state == "Completed"
    failed = world.sweep.status.final[0]
    assert (failed.state, failed.reason) == (FinalState.FAILED, "OutOfMemory")


def test_once_the_final_has_begun_the_search_is_closed() -> None:
    world = finished().spec(maxTrials=9).settle()
    assert (world.state, len(world.jobs), len(world.sweep.status.trials)) == ("Judging", 4, 4)


def test_a_deadline_ends_what_follows_the_search_too_and_that_is_no_success() -> None:
    world = finished(activeDeadlineSeconds=600)
    world.now += timedelta(seconds=601)
    world.settle()
    assert (world.state, world.succeeded, world.judging) == ("DeadlineExceeded", "False", [])
    assert "activeDeadlineSeconds = 600 are over" in world.message
    assert world.sweep.status.best is not None
    assert world.reported, "its page is written all the same"
    folded = Judged(maxTrials=2, folds=2, template=FOLDED, activeDeadlineSeconds=600).settle()
    folded.prepared().trained(1.0, 1.2)
    folded.now += timedelta(seconds=601)
    folded.settle()
    assert (folded.state, folded.succeeded) == ("DeadlineExceeded", "False"), "there is no adapter of all rows"


@pytest.mark.parametrize("retained", ["All", "Best"])
def test_an_adapter_of_all_rows_that_its_deadline_meets_in_training_waits_at_its_checkpoint(retained: str) -> None:
    world = Judged(maxTrials=2, folds=2, template=FOLDED, activeDeadlineSeconds=600, retainTrials=retained).settle()
    world.prepared().trained(1.0, 1.2, 1.1, 1.3)
    (refit,) = world.running
    world.now += timedelta(seconds=601)
    world.settle()
    assert (world.state, world.jobs[refit].spec.suspend) == ("DeadlineExceeded", True)


def test_a_name_that_another_holds_keeps_neither_a_deadline_nor_a_pause_from_what_runs() -> None:
    world = finished(activeDeadlineSeconds=600)
    world.taken = NameTaken("Evaluation guide", T0)
    world.spec(suspend=True).settle()
    assert world.state == "Suspended"
    assert all(each.spec.suspend for each in world.evaluations.values())
    world.now += timedelta(seconds=601)
    world.settle()
    assert (world.state, world.condition("Reported").reason) == ("DeadlineExceeded", "Written")


def test_a_deadline_while_the_page_is_written_takes_nothing_from_a_winner() -> None:
    world = finished(activeDeadlineSeconds=600)
    world.report_ends = {"0": "waits"}
    for name in (*world.judging, "guide"):
        world.answers(name, "heldout/perplexity", 8.0)
    assert (world.state, world.succeeded, world.condition("Reported").reason) == ("Judging", "Unknown", "Writing")
    assert "the page of the search is being written" in world.message
    world.now += timedelta(seconds=902)
    world.settle()
    assert (world.state, world.succeeded) == ("Completed", "True")
    assert "Evaluation guide is the winner's" in world.message


def test_what_runs_at_the_deadline_is_stopped_before_the_page_is_written() -> None:
    world = Judged(maxTrials=4, template=TESTED, activeDeadlineSeconds=600).settle().trained(1.4)
    (running,) = world.running
    world.now += timedelta(seconds=601)
    made = world.decided()
    assert any(isinstance(each, Suspend) and each.name == running for each in made.actions), made.actions
    assert world.sweep.status.completion_time is None


def test_a_suspended_final_goes_on() -> None:
    world = finished().spec(suspend=True).settle()
    assert world.state == "Suspended"
    assert all(each.spec.suspend for each in world.evaluations.values())
    world.spec(suspend=False).settle()
    assert world.state == "Judging"
    assert not any(each.spec.suspend for each in world.evaluations.values())


def test_with_folds_the_winner_is_trained_on_all_rows() -> None:
    world = Judged(maxTrials=2, folds=2, template=FOLDED).settle()
    world.prepared().trained(1.0, 1.2).prepared().trained(0.8, 0.9)
    assert (world.state, world.succeeded) == ("Refitting", "Unknown")
    (name,) = world.running
    assert name == world.names[1], "without the suffix of a fold"
    spec = world.jobs[name].spec
    assert (spec.dataset.validation, spec.training.learning_rate) == (None, RATES[1])
    assert "trimtab.dev/fold" not in world.jobs[name].metadata.labels
    world.prepared().ends(name, None, seconds=150)
    best = world.sweep.status.best
    assert (world.state, world.evaluations) == ("Completed", {})
    assert best is not None
    assert (best.fine_tune_job_name, best.value) == (name, 0.85)
    assert best.artifact is not None
    assert best.artifact.digest == ARTIFACT.digest
    assert world.sweep.status.accelerator_seconds == 550


def test_with_folds_the_final_is_of_adapters_of_all_rows() -> None:
    final = {**FINAL, "topTrials": 2}
    world = Judged(maxTrials=2, folds=2, template=FOLDED, final=final).settle()
    world.prepared().trained(1.0, 1.2).prepared().trained(0.8, 0.9)
    assert world.state == "Refitting"
    assert sorted(world.running) == sorted(world.names)
    world.prepared().ends(world.names[0], None).ends(world.names[1], None)
    assert world.state == "Judging"
    world.answers(f"{world.names[0]}-end", "heldout/perplexity", 6.0)
    world.answers(f"{world.names[1]}-end", "heldout/perplexity", 7.0).answers("guide", "heldout/perplexity", 6.0)
    assert world.state == "Completed"
    assert world.sweep.status.best is not None
    assert world.sweep.status.best.fine_tune_job_name == world.names[0]


def test_a_fold_of_a_bad_trial_is_stopped_before_what_follows_the_search() -> None:
    world = Judged(maxTrials=2, folds=2, template=FOLDED).settle()
    world.prepared().trained(1.0, 1.2).prepared()
    first, second = world.running
    world.ends(first, None, reason="OutOfMemory")
    assert (world.state, world.deleted) == ("Refitting", [second])
    assert world.running == [world.names[0]]


def test_a_refit_that_fails_is_told_and_the_settings_are_known() -> None:
    world = Judged(maxTrials=1, folds=2, template=FOLDED).settle()
    world.prepared().trained(1.0, 1.2).prepared().ends(world.names[0], None, reason="OutOfMemory")
    assert (world.state, world.succeeded) == ("RefitFailed", "False")
    assert f"{world.names[0]} Failed (OutOfMemory)" in world.message
    assert world.sweep.status.best is not None


def test_folds_that_stop_early_say_for_how_long_all_rows_are_trained() -> None:
    training = {"earlyStopping": {"patience": 1}, "epochs": 9}
    world = Judged(maxTrials=1, folds=2, template={**FOLDED, "training": training}).settle().prepared()
    for name, best in zip(list(world.jobs), (20, 40), strict=True):
        curve = {"validationSteps": [best - 10, best, best + 10], "validationLoss": [2.0, 1.0, 1.5]}
        world.tells(name, curve=curve).ends(name, 1.0)
    spec = world.jobs[world.names[0]].spec.training
    assert (spec.early_stopping, spec.epochs, spec.max_steps) == (None, None, 60), "30 steps of half the rows"


def test_the_budget_keeps_what_an_adapter_of_all_rows_takes() -> None:
    world = Judged(maxTrials=9, folds=2, template=FOLDED, budget={"acceleratorSeconds": 450}).settle()
    world.prepared().trained(1.0, 1.2)
    assert world.state == "Refitting"
    assert "100 are kept for adapters of all rows" in world.message


def test_the_losers_go_and_the_winner_and_its_evaluations_stay() -> None:
    world = finished(retainTrials="Best")
    for name, value in zip(list(world.judging), (8.0, 7.0, 8.5), strict=True):
        world.answers(name, "heldout/perplexity", value)
    world.answers("guide", "heldout/perplexity", 7.0).settle()
    won = world.names[3]
    assert list(world.jobs) == [won]
    assert sorted(world.evaluations) == ["guide", f"{won}-end"]


def test_an_operator_that_dies_after_any_write_comes_to_the_same_winner() -> None:
    """Neither is an Evaluation made twice, nor a verdict lost."""

    def life(dies_at: int | None) -> tuple[list[Any], str]:
        world, writes = finished(), 0
        values = dict(zip(world.judging, (9.5, 8.0, 7.5), strict=True))
        for _ in range(60):
            writes = world.write_until(world.decided(), writes, dies_at)
            if world.succeeded == "True":
                break
            for name in world.judging[:1]:
                world.answered(name, "heldout/perplexity", values.get(name, 7.5))
        assert len(world.created) == len(set(world.created)), "nothing is created twice"
        return [each.to_json() for each in world.sweep.status.final], world.message

    undisturbed = life(None)
    assert [each["value"] for each in undisturbed[0]] == [9.5, 8.0, 7.5]
    for dies_at in range(1, 12):
        assert life(dies_at) == undisturbed, dies_at


def _final_of(uri: str) -> dict[str, Any]:
    return {"evaluation": {"tasks": [{**HELD_OUT, "dataset": {"uri": uri}}], "metric": "heldout/perplexity"}}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a final of the rows of training, by another spelling": ({"final": _final_of("s3://data/train")}, "none of them"),
    "a final of a file of training": ({"final": _final_of("s3://data/train/part-0.jsonl")}, "none of them has seen"),
    "a final of a folder that has those of training": ({"final": _final_of("s3://data/")}, "none of them has seen"),
    "a metric of another task": (
        {"objective": {"evaluation": {"tasks": [ANSWERS], "metric": "questions/bleu"}, "direction": "Maximize"}},
        "metric questions/bleu is of none of its tasks; there are answers",
    ),
    "a metric that the task has not": (
        {"objective": {"evaluation": {"tasks": [ANSWERS], "metric": "answers/accuracy"}, "direction": "Maximize"}},
        "task answers gives rougeL, exactMatch, tokenF1, bleu, chrF",
    ),
    "a metric that was not chosen": (
        {
            "objective": {
                "evaluation": {"tasks": [{**ANSWERS, "metrics": ["ChrF"]}], "metric": "answers/bleu"},
                "direction": "Maximize",
            }
        },
        "task answers gives chrF",
    ),
    "the wrong direction": (
        {"objective": {"evaluation": {"tasks": [ANSWERS], "metric": "answers/bleu"}}},
        "of answers/bleu more is better; set direction: Maximize",
    ),
    "the wrong direction of bits": (
        {"objective": {"metric": "bitsPerByte", "direction": "Maximize"}},
        "of bitsPerByte less is better",
    ),
    "two base models by a loss of each token": (
        {"parameters": [{"name": "baseModel", "values": [{"uri": "s3://models/a"}, {"uri": "s3://models/b"}]}]},
        "set objective.metric: bitsPerByte",
    ),
    "two chat templates by a loss of each token": (
        {
            "parameters": [
                {"name": "dataset.chatTemplate", "values": ["s3://templates/a.jinja", "s3://templates/b.jinja"]}
            ]
        },
        "another chat template has other tokens",
    ),
    "two betas by a loss that beta is a part of": (
        {
            "parameters": [{"name": "training.preference.beta", "values": [0.1, 0.3]}],
            "template": {**TEMPLATE, "training": {"method": "DPO"}},
        },
        "training.preference decides what the validation loss is",
    ),
    "other rows by another seed": (
        {"parameters": [{"name": "dataset.splitSeed", "range": {"minimum": 1, "maximum": 9}}]},
        "dataset.splitSeed decides which rows the validation split has",
    ),
    "other rows by other cleaning": (
        {
            "parameters": [
                {"name": "dataset.cleaning", "values": [{}, {"nearDuplicates": "Drop"}]},
            ],
            "objective": {"metric": "bitsPerByte"},
        },
        "parameter dataset.cleaning: dataset.cleaning decides",
    ),
    "other rows of other data": (
        {"parameters": [{"name": "dataset.training.uri", "values": ["s3://data/a/", "s3://data/b/"]}]},
        "dataset.training decides which rows the validation split has",
    ),
    "other words that are learned": (
        {"parameters": [{"name": "training.lossOn", "values": ["Completions", "AllTokens"]}]},
        "training.lossOn decides",
    ),
    "a whole section": (
        {
            "parameters": [
                {"name": "dataset", "values": [{**DATASET, "splitSeed": 1}, {**DATASET, "splitSeed": 2}]},
            ]
        },
        "parameter dataset: dataset.splitSeed decides",
    ),
    "other test rows": (
        {
            "template": TESTED,
            "objective": {"evaluation": {"tasks": [HELD_OUT], "metric": "heldout/perplexity"}},
            "parameters": [{"name": "dataset.splitSeed", "values": [1, 2]}],
        },
        "dataset.splitSeed decides which rows the test split has",
    ),
    "a final of a figure that its task has not": (
        {"template": TESTED, "final": {"evaluation": {"tasks": [HELD_OUT], "metric": "heldout/bleu"}}},
        "final.evaluation: metric heldout/bleu: task heldout gives perplexity, bitsPerByte",
    ),
    "a final with a threshold of no figure": (
        {
            "template": TESTED,
            "final": {
                "evaluation": {
                    "tasks": [HELD_OUT],
                    "metric": "heldout/perplexity",
                    "thresholds": [{"metric": "heldout/bleu", "minimum": 1, "confidence": 0.9}],
                }
            },
        },
        "threshold heldout/bleu",
    ),
    "a final on the rows of the training": (
        {
            "final": {
                "evaluation": {
                    "tasks": [{**ANSWERS, "dataset": {"uri": "s3://data/train/"}}],
                    "metric": "answers/bleu",
                }
            }
        },
        "are those that trials are trained on or chosen by",
    ),
    "a final on rows that some trial is trained on": (
        {
            "template": {**TEMPLATE, "dataset": {**DATASET, "validation": {"uri": "s3://data/held-out/"}}},
            "parameters": [{"name": "dataset.training.uri", "values": ["s3://data/a/", "s3://data/b/"]}],
            "final": {
                "evaluation": {"tasks": [{**ANSWERS, "dataset": {"uri": "s3://data/b/"}}], "metric": "answers/bleu"}
            },
        },
        "s3://data/b/, are those that trials are trained on",
    ),
    "a final in the wrong direction": (
        {"final": {"evaluation": {"tasks": [ANSWERS], "metric": "answers/bleu"}, "direction": "Minimize"}},
        "final: of answers/bleu more is better",
    ),
    "a final of a harness without a direction": (
        {
            "final": {
                "evaluation": {
                    "tasks": [
                        {
                            "name": "arc",
                            "type": "Harness",
                            "dataset": {"uri": "s3://harness/"},
                            "harnessTask": "arc_easy",
                        }
                    ],
                    "metric": "arc/acc",
                }
            }
        },
        "final: whether more of arc/acc is better is not known; set direction",
    ),
}


@pytest.mark.parametrize(("spec", "words"), REFUSED.values(), ids=REFUSED)
def test_what_could_not_be_compared_is_refused_by_name_before_anything_is_begun(
    spec: dict[str, Any], words: str
) -> None:
    world = Judged(**spec).settle()
    assert (world.state, world.succeeded) == ("SpecInvalid", "False")
    assert words in world.message
    assert world.created == []


COMPARABLE: dict[str, dict[str, Any]] = {
    "two base models by bits per byte": {
        "parameters": [{"name": "baseModel", "values": [{"uri": "s3://models/a"}, {"uri": "s3://models/b"}]}],
        "objective": {"metric": "bitsPerByte"},
    },
    "two base models by answers": {
        "parameters": [{"name": "baseModel", "values": [{"uri": "s3://models/a"}, {"uri": "s3://models/b"}]}],
        "objective": BY_ANSWERS,
        "template": TESTED,
    },
    "other data, held out by a uri": {
        "parameters": [{"name": "dataset.training.uri", "values": ["s3://data/a/", "s3://data/b/"]}],
        "template": {**TEMPLATE, "dataset": {**DATASET, "validation": {"uri": "s3://data/held-out/"}}},
    },
    "another balance": {
        "parameters": [{"name": "dataset.balance.maximum", "values": [1, 2]}],
        "template": {**TEMPLATE, "dataset": {**DATASET, "balance": {"column": "kind", "by": "Repeat"}}},
    },
    "other cleaning, judged by questions of their own": {
        "parameters": [{"name": "dataset.cleaning", "values": [{}, {"nearDuplicates": "Drop"}]}],
        "objective": {"evaluation": {"tasks": [ANSWERS], "metric": "answers/bleu"}, "direction": "Maximize"},
    },
}


@pytest.mark.parametrize("spec", COMPARABLE.values(), ids=COMPARABLE)
def test_what_can_be_compared_is_searched(spec: dict[str, Any]) -> None:
    world = Judged(**spec).settle()
    assert world.state == "Searching", world.message


def test_it_may_make_evaluations() -> None:
    assert set(FINE_TUNE_SWEEP.makes) == {"FineTuneJob", "Evaluation"}


def test_the_search_of_before_is_the_same_whether_the_metric_was_filled_in_or_not() -> None:
    def digest(**spec: Any) -> str:
        made: FineTuneSweep = sweep(**spec)
        return search_digest(made)

    assert digest() == digest(objective={"metric": "validationLoss", "direction": "Minimize"})
    assert digest() != digest(objective={"metric": "bitsPerByte"})


LATER = "laterSetting"


def later(value: Any) -> Any:
    """Return JSON with a field more in each of its objects, as a later version has it."""
    if isinstance(value, list):
        return [later(each) for each in value]
    if isinstance(value, dict):
        named = {key: each if key in ("labels", "limits", "requests") else later(each) for key, each in value.items()}
        return {**named, LATER: 3}
    return value


def without_later(value: Any) -> Any:
    if isinstance(value, list):
        return [without_later(each) for each in value]
    if isinstance(value, dict):
        return {key: without_later(each) for key, each in value.items() if key != LATER}
    return value


class Recording(Judged):
    """A world that keeps what was created."""

    def act(self, made: Plan, *, status: bool = True) -> None:
        for action in made.actions:
            if isinstance(action, Create) and action.body["kind"] in ("FineTuneJob", "Evaluation"):
                self.bodies.append(action.body["spec"])
        super().act(made, status=status)

    def __init__(self, **spec: Any) -> None:
        super().__init__(**spec)
        self.bodies: list[dict[str, Any]] = []


def test_what_this_version_does_not_know_of_a_template_is_handed_on_to_what_is_made_of_it() -> None:
    pod = {"resources": {"limits": {"nvidia.com/gpu": 2, "memory": "8Gi"}}, "volumes": [{"name": "a", "emptyDir": {}}]}
    template = {**TESTED, "template": pod, "training": {"epochs": 2}, "retries": {"onFailure": 3}}

    def played(change: Callable[[Any], Any]) -> list[dict[str, Any]]:
        spec = {"objective": BY_ANSWERS, "final": {**FINAL, "topTrials": 2}}
        told = {key: change(value) for key, value in spec.items()}
        world = Recording(maxTrials=2, template=change(template), **told).settle()
        for loss in (1.4, 1.3):
            world.trained(loss).settle().answers(world.names[-1], "answers/bleu", loss)
        for name in world.judging:
            world.answers(name, "heldout/perplexity", 8.0)
        assert world.judging == ["guide"]
        return world.bodies

    of_before, made = played(lambda value: value), played(later)
    assert len(made) == len(of_before) == 2 + 2 + 2 + 1
    assert [without_later(each) for each in made] == of_before, "and nothing else comes of it"
    jobs = [each for each in made if "baseModel" in each]
    evaluations = [each for each in made if "baseModel" not in each]
    assert (len(jobs), len(evaluations)) == (2, 5)
    for job in jobs:
        for section in (job, job["baseModel"], job["dataset"]["test"], job["template"]["volumes"][0], job["retries"]):
            assert section[LATER] == 3
    for evaluation in evaluations:
        for section in (evaluation["retries"], evaluation["template"]["resources"], *evaluation["tasks"]):
            assert section[LATER] == 3
    assert all(each[LATER] == 3 for each in made[-1]["thresholds"])

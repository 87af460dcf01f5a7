"""Trials that wait at a rung, go on or are pruned, told as stories; their curves are drawn by hand."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from trimtab_operator.domain.finetunesweep import FINE_TUNE_SWEEP

from tests.unit.domain.makers import T0, sha
from tests.unit.domain.test_sweep import TEMPLATE, World

TRAINING = {"evaluateEverySteps": 10, "maxSteps": 100}
RULE = {"type": "SuccessiveHalving", "reductionFactor": 3, "minimumSteps": 10}
"""Of a run of 100 steps: rungs after 10, 30 and 90."""
TIME = "2026-01-01T00:00:00Z"
FOLDED = {"training": {"uri": "s3://data/train/"}}


class Track(World):
    """A sweep whose trials are trained as far as a test says."""

    def __init__(self, **spec: Any) -> None:
        template = {**TEMPLATE, "training": TRAINING, **spec.pop("template", {})}
        super().__init__(**{"pruning": RULE, "template": template, **spec})
        self.settle()

    def runs(self, name: str, step: int, loss: float, seconds: int | None = None) -> Track:
        """Let a FineTuneJob get to a step, with the same validation loss all along, and rest if it was told to."""
        steps = list(range(10, step + 1, 10))
        self.tells(
            name,
            curve={"validationSteps": steps, "validationLoss": [loss] * len(steps)},
            progress={"step": step, "totalSteps": 100, "validationLoss": loss},
            acceleratorSeconds=step if seconds is None else seconds,
        )
        self.prepared()
        return self.rests()

    def rests(self) -> Track:
        """Let all that was told to wait write its checkpoint, and what was let go on run."""
        said = {
            "type": "Succeeded",
            "status": "Unknown",
            "reason": "Suspended",
            "message": "",
            "lastTransitionTime": TIME,
        }
        for _ in range(4):
            for name, job in list(self.jobs.items()):
                if job.spec.suspend and not job.status.conditions:
                    self.tells(name, conditions=[said])
                elif not job.spec.suspend and self.states([name]) == ["Suspended"]:
                    self.tells(name, conditions=[])
            self.settle()
        return self

    def states(self, names: list[str]) -> list[str]:
        found = [self.jobs[name].status.conditions for name in names]
        return [each[0].reason if each else "Training" for each in found]

    @property
    def under_way(self) -> list[str]:
        return [name for name, job in self.jobs.items() if not job.spec.suspend and not job.status.conditions]

    @property
    def told(self) -> list[str]:
        return [each.state.value for each in self.sweep.status.trials]


def test_the_first_trials_wait_at_a_rung_until_there_are_enough_to_compare() -> None:
    track = Track(maxTrials=6)
    for loss in (3.0, 1.0):
        (name,) = track.under_way
        track.runs(name, 10, loss)
    assert track.told == ["Paused", "Paused", "Running"]
    (third,) = track.under_way
    track.runs(third, 10, 2.0)
    assert track.told == ["Paused", "Running", "Paused"], "the best of three goes on, before another is begun"
    second = list(track.jobs)[1]
    assert track.under_way == [second]
    assert track.sweep.status.trials[1].rung_values == [1.0]


def test_who_is_among_the_best_goes_on_without_a_stop_and_is_not_stopped_by_what_comes_later() -> None:
    track = Track(maxTrials=6, parallelTrials=3)
    track.prepared()
    first, second, third = track.under_way
    track.runs(first, 10, 2.0)
    track.runs(second, 10, 3.0)
    track.runs(third, 10, 1.0)
    assert track.told[2] == "Running"
    assert third in track.under_way
    fourth = track.under_way[-1]
    track.runs(fourth, 10, 0.5)
    assert track.jobs[third].spec.suspend is False, "it was let past this rung"
    track.runs(third, 30, 1.0)
    assert track.told[2] == "Paused", "and waits at the next one"


def test_a_trial_that_trains_on_while_it_is_being_stopped_loses_nothing() -> None:
    track = Track(maxTrials=6)
    (name,) = track.under_way
    track.runs(name, 40, 1.0)
    assert track.sweep.status.trials[0].rung_values == [1.0, 1.0]
    assert track.told[0] == "Paused"
    track.ends(name, 0.9)
    assert (track.told[0], track.sweep.status.trials[0].value) == ("Complete", 0.9), "it was faster than the word"


def test_a_slot_is_free_when_the_checkpoint_is_written_and_not_before() -> None:
    track = Track(maxTrials=6)
    (name,) = track.under_way
    track.tells(
        name,
        curve={"validationSteps": [10], "validationLoss": [1.0]},
        progress={"step": 12, "totalSteps": 100},
        attempts=[{"number": 0, "stage": "train", "jobName": "x", "jobUID": "x", "startTime": TIME}],
    ).settle()
    assert track.jobs[name].spec.suspend
    said = {"status": "Unknown", "message": "", "lastTransitionTime": TIME}
    track.tells(name, conditions=[{**said, "type": "Succeeded", "reason": "Suspended"}]).settle()
    assert len(track.jobs) == 1, "its pod is there still"
    track.tells(name, attempts=[{"number": 0, "stage": "train", "jobName": "x", "jobUID": "x", "activeSeconds": 9}])
    track.prepared()
    assert len(track.jobs) == 2


def test_at_the_end_what_waits_is_pruned_and_charged_for_what_it_took() -> None:
    track = Track(maxTrials=3)
    for loss in (3.0, 1.0, 2.0):
        (name,) = track.under_way
        track.runs(name, 10, loss)
    best = list(track.jobs)[1]
    for step in (30, 90):
        assert track.under_way == [best]
        track.runs(best, step, 1.0)
    track.ends(best, 0.9, seconds=100)
    assert (track.state, track.told) == ("Completed", ["Pruned", "Complete", "Pruned"])
    assert [each.accelerator_seconds for each in track.sweep.status.trials] == [10, 100, 10]
    assert track.sweep.status.saved_accelerator_seconds == 180
    assert track.sweep.status.best is not None
    assert track.sweep.status.best.fine_tune_job_name == best
    assert len(track.created) == 3, "nothing was trained twice"
    assert "2 trials were stopped before their end" in track.message
    assert [each["value"] for each in track.reported[0]["trials"]] == [3.0, 0.9, 2.0], "of their last rung, to be seen"
    others = [name for name in track.jobs if name != best]
    assert track.states(others) == ["Suspended", "Suspended"], "their curves are kept"
    track.jobs[others[0]] = track.jobs[others[0]].model_copy(
        update={"spec": track.jobs[others[0]].spec.model_copy(update={"suspend": False})}
    )
    track.settle()
    assert track.jobs[others[0]].spec.suspend, "ended stays ended"


def test_a_sweep_does_not_end_before_what_it_stopped_has_written_its_checkpoint() -> None:
    track = Track(maxTrials=2, parallelTrials=2)
    track.prepared()
    first, second = track.under_way
    track.runs(first, 100, 1.0)
    track.ends(first, 0.9)
    pod = {"number": 0, "stage": "train", "jobName": "x", "jobUID": "x"}
    track.tells(
        second,
        curve={"validationSteps": [10], "validationLoss": [3.0]},
        progress={"step": 12, "totalSteps": 100},
        attempts=[{**pod, "startTime": TIME}],
    ).settle()
    assert (track.state, track.told, track.jobs[second].spec.suspend) == ("Searching", ["Complete", "Paused"], True)
    track.tells(second, attempts=[{**pod, "activeSeconds": 15}], acceleratorSeconds=15).rests()
    assert (track.state, track.told) == ("Completed", ["Complete", "Pruned"])
    assert track.sweep.status.trials[1].accelerator_seconds == 15


def test_pruned_trials_go_at_the_end_if_only_the_best_is_kept() -> None:
    track = Track(maxTrials=2, retainTrials="Best")
    for loss in (2.0, 1.0):
        (name,) = track.under_way
        track.runs(name, 10, loss)
    best = list(track.jobs)[1]
    track.ends(best, 0.9)
    assert list(track.jobs) == [best]


def test_more_trials_that_are_asked_for_while_the_page_is_written_delete_none_of_those_before() -> None:
    track = Track(maxTrials=2)
    track.report_ends = {"0": "waits"}
    for loss in (2.0, 1.0):
        (name,) = track.under_way
        track.runs(name, 10, loss)
    track.ends(list(track.jobs)[1], 0.9)
    assert (track.told, track.succeeded) == (["Pruned", "Complete"], "Unknown")
    track.spec(maxTrials=3).settle()
    assert (len(track.jobs), track.deleted) == (3, [])


def test_with_fewer_trials_than_the_factor_the_best_one_is_trained_to_its_end() -> None:
    track = Track(maxTrials=1)
    (name,) = track.under_way
    track.runs(name, 10, 1.0)
    assert track.under_way == [name], "nobody comes who could be better"
    assert track.told == ["Running"]


def test_the_value_of_folds_at_a_rung_is_their_mean_and_all_of_them_wait() -> None:
    track = Track(folds=2, maxTrials=3, template={"dataset": FOLDED})
    track.prepared()
    first, second = track.under_way
    track.runs(first, 20, 1.0)
    assert track.told == ["Running"], "one fold alone says nothing"
    track.runs(second, 10, 2.0)
    assert track.sweep.status.trials[0].rung_values == [1.5]
    assert (track.told[0], track.states([first, second])) == ("Paused", ["Suspended", "Suspended"])


def test_a_fold_that_stopped_early_has_the_value_of_its_end_at_a_rung() -> None:
    track = Track(folds=2, maxTrials=3, template={"dataset": FOLDED})
    track.prepared()
    first, second = track.under_way
    track.ends(first, 1.0)
    track.tells(first, curve={"validationSteps": [5], "validationLoss": [1.0]}, progress={"step": 5, "totalSteps": 100})
    track.runs(second, 10, 2.0)
    assert (track.told[0], track.sweep.status.trials[0].rung_values) == ("Paused", [1.5])


def test_a_thinned_curve_has_the_last_validation_before_the_rung() -> None:
    track = Track(maxTrials=2)
    (name,) = track.under_way
    track.tells(
        name,
        curve={"validationSteps": [20, 60, 100], "validationLoss": [3.0, 2.0, 1.0]},
        progress={"step": 100, "totalSteps": 200},
    ).settle()
    assert track.sweep.status.trials[0].rung_values == [3.0, 3.0, 2.0], "after 10, 30 and 90 steps"


def test_a_trial_with_other_validation_rows_is_bad_at_its_first_rung_and_compared_with_none() -> None:
    lengths = [{"name": "training.maxSequenceLength", "values": [512, 64, 1024]}]
    track = Track(parameters=lengths, maxTrials=3)
    rows = {"digest": sha("a"), "rowsDigest": sha("b"), "rows": 9, "tokens": 99}
    for digest, loss in ((sha("d"), 2.0), (sha("e"), 1.0), (sha("d"), 1.5)):
        (name,) = track.under_way
        track.tells(name, dataset={**rows, "validationDigest": digest}).settle()
        track.runs(name, 10, loss)
    assert track.sweep.status.validation_digest == sha("d")
    assert [(each.state.value, each.reason) for each in track.sweep.status.trials] == [
        ("Paused", None),
        ("Bad", "ValidationRowsDiffer"),
        ("Running", None),
    ]
    assert len(track.deleted) == 1, "it is not trained to its end"


def test_suspending_lets_go_on_what_ran_and_not_what_waited() -> None:
    track = Track(maxTrials=6)
    (name,) = track.under_way
    track.runs(name, 10, 1.0)
    (other,) = track.under_way
    track.spec(suspend=True).settle()
    track.rests()
    assert track.states([name, other]) == ["Suspended", "Suspended"]
    track.spec(suspend=False).settle()
    track.rests()
    assert track.states([name, other]) == ["Suspended", "Training"]


def test_a_paused_trial_that_fails_is_bad_and_counts_for_nothing() -> None:
    track = Track(maxTrials=6)
    (name,) = track.under_way
    track.runs(name, 10, 1.0)
    track.ends(name, None, reason="StorageFailed")
    assert track.told[0] == "Bad"
    for loss in (3.0, 2.0):
        (other,) = track.under_way
        track.runs(other, 10, loss)
    assert track.told[1:3] == ["Paused", "Paused"]


def test_the_next_points_know_what_was_stopped_and_how_far_it_was() -> None:
    track = Track(maxTrials=6)
    for loss in (3.0, 1.0):
        (name,) = track.under_way
        track.runs(name, 10, loss)
    known = track.asked[-1].trials
    assert [(each.state.value, each.value, each.rung) for each in known] == [("Paused", 3.0, 1), ("Paused", 1.0, 1)]


def test_a_budget_keeps_enough_to_train_one_trial_to_its_end() -> None:
    track = Track(maxTrials=6, budget={"acceleratorSeconds": 125})
    while track.state == "Searching":
        (name,) = track.under_way
        index = list(track.jobs).index(name)
        job = track.jobs[name]
        step = next(
            each for each in (10, 30, 90, 100) if each > ((job.status.progress and job.status.progress.step) or 0)
        )
        track.runs(name, step, 1.0 + index)
        if step == 100:
            track.ends(name, 1.0 + index, seconds=100)
    assert track.state == "Completed"
    assert track.told == ["Complete", "Pruned", "Pruned"]
    assert track.sweep.status.accelerator_seconds == 120
    assert "budget.acceleratorSeconds = 125" in track.message


def test_a_budget_keeps_what_a_whole_trial_takes_for_the_adapter_of_all_rows() -> None:
    track = Track(folds=2, maxTrials=6, template={"dataset": FOLDED}, budget={"acceleratorSeconds": 500})
    track.prepared()
    for name in track.under_way:
        track.runs(name, 100, 1.0).ends(name, 1.0)
    while track.state == "Searching":
        for name in track.under_way:
            track.runs(name, 10, 2.0, seconds=50)
    assert track.told == ["Complete", "Pruned"]
    assert "100 are kept for adapters of all rows" in track.message


def test_patience_counts_those_that_were_worse_at_a_rung() -> None:
    track = Track(maxTrials=6, stopAfterTrialsWithoutImprovement=2)
    (name,) = track.under_way
    track.runs(name, 100, 1.0).ends(name, 1.0)
    for _ in range(2):
        (name,) = track.under_way
        track.runs(name, 10, 5.0)
    assert "2 trials in a row were no better" in track.message
    assert track.told == ["Complete", "Pruned", "Pruned"]


def test_after_its_deadline_a_sweep_ends_and_what_runs_is_suspended() -> None:
    track = Track(maxTrials=6, activeDeadlineSeconds=600)
    assert track.decided().look_again_seconds == pytest.approx(600)
    (name,) = track.under_way
    track.ends(name, 1.0)
    (other,) = track.under_way
    track.now += timedelta(seconds=601)
    track.settle()
    assert (track.state, track.succeeded, track.told) == ("Completed", "True", ["Complete", "Pruned"])
    assert "activeDeadlineSeconds = 600 are over" in track.message
    assert track.jobs[other].spec.suspend
    assert track.sweep.status.trials[1].reason == "DeadlineExceeded"
    track.now += timedelta(seconds=601)
    assert len(track.settle().jobs) == 2


def test_a_deadline_before_any_value_is_a_bad_end() -> None:
    track = Track(activeDeadlineSeconds=600, pruning=None)
    track.now = T0 + timedelta(seconds=600)
    track.settle()
    assert (track.state, track.succeeded) == ("DeadlineExceeded", "False")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a range of intervals": (
        {"name": "training.evaluateEverySteps", "range": {"minimum": 1, "maximum": 10}},
        "with pruning it has no range",
    ),
    "an interval beside the rungs": ({"name": "training.evaluateEverySteps", "values": [5, 4]}, "4 is refused"),
    "a section with another interval": ({"name": "training", "values": [{"evaluateEverySteps": 20}]}, "is refused"),
    "a section with the default": ({"name": "training", "values": [{"maxSteps": 100}]}, "is refused"),
}


@pytest.mark.parametrize(("parameter", "words"), BAD.values(), ids=BAD)
def test_parameters_with_which_rungs_are_not_validated_are_named(parameter: dict[str, Any], words: str) -> None:
    track = Track(parameters=[parameter])
    assert (track.state, track.created) == ("SpecInvalid", [])
    assert words in track.message
    assert "pruning.minimumSteps must be a multiple" in track.message


@pytest.mark.parametrize(
    ("parameter", "refused"),
    [
        ({"name": "training.maxSteps", "values": [4, 10]}, True),
        ({"name": "training.maxSteps", "range": {"minimum": 4, "maximum": 11}}, False),
        ({"name": "training", "values": [{"maxSteps": 10, "evaluateEverySteps": 5}]}, True),
        ({"name": "training", "values": [{"epochs": 1, "evaluateEverySteps": 5}]}, False),
    ],
)
def test_a_rung_that_no_trial_reaches_is_refused(parameter: dict[str, Any], refused: bool) -> None:
    """Else each would be trained to its end, and nobody be told."""
    track = Track(parameters=[parameter], template={"training": {"evaluateEverySteps": 5, "maxSteps": 10}})
    assert (track.state == "SpecInvalid") is refused
    assert ("pruning.minimumSteps = 10 is not below training.maxSteps = 10" in track.message) is refused


def test_a_template_whose_validations_miss_the_rungs_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a multiple"):
        Track(pruning={**RULE, "minimumSteps": 15})


def test_a_status_of_200_trials_that_were_at_many_rungs_is_small() -> None:
    track = Track(maxTrials=200)
    trial = {
        "point": [0.0003162, 2, 1, 0.1234],
        "state": "Complete",
        "value": 1.23456,
        "standardError": 0.0123456,
        "acceleratorSeconds": 123456,
        "rungValues": [1.23456] * 5,
    }
    trials = [{**trial, "id": f"{number:08x}"} for number in range(200)]
    assert len(json.dumps({**track.sweep.status.to_json(), "trials": trials})) < 60_000


def test_what_pruning_saved_is_measured_at_the_end_and_waiting_is_no_outcome() -> None:
    track = Track(maxTrials=3)
    (name,) = track.under_way
    before = track.sweep.status
    track.runs(name, 10, 1.0)
    assert track.told[0] == "Paused"
    assert list(FINE_TUNE_SWEEP.measures(before, track.sweep.status, T0)) == []
    for loss in (2.0, 3.0):
        (name,) = track.under_way
        track.runs(name, 10, loss)
    best = next(iter(track.jobs))
    for step in (30, 90):
        track.runs(best, step, 1.0)
    before = track.sweep.status
    track.ends(best, 1.0, seconds=100)
    found = [
        (each.metric, each.labels, each.amount) for each in FINE_TUNE_SWEEP.measures(before, track.sweep.status, T0)
    ]
    assert found.count(("sweep_trials", ("Pruned",), 1.0)) == 2
    assert ("sweep_trials", ("Complete",), 1.0) in found
    assert ("sweep_saved_seconds", (), 180) in found

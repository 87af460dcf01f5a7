"""A tracker is told after the end, by a Job of its own: what it is given, and that nothing else depends on it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError
from trimtab_operator.api import FineTuneJob
from trimtab_operator.domain.cluster import NameTaken, Refusal
from trimtab_operator.domain.finetunejob import FINE_TUNE_JOB, TRAINING
from trimtab_operator.domain.views import QUEUE_LABEL
from trimtab_operator.domain.work.afterwards import LONGEST_SECONDS
from trimtab_operator.domain.work.building.inputs import job_inputs
from trimtab_operator.domain.work.staged import needs
from trimtab_trainer.contract import ExitCode, Reason, TrackingRecord

from tests.unit.domain.makers import ARTIFACT, World, finetunejob, queued_world

MLFLOW: dict[str, Any] = {"uri": "https://mlflow.example", "experiment": "support", "secretName": "tracker"}
TRACKED: dict[str, Any] = {"tracking": {"mlflow": MLFLOW}}


def ended(**spec: Any) -> World:
    """Return a world in which the adapter is published, and the Job that tells the tracker is there."""
    return World(**TRACKED, **spec).settle().prepared().running().published()


def tracked(world: World) -> tuple[str, str, str]:
    found = next((each for each in world.job.status.conditions if each.type == "Tracked"), None)
    return (found.status, found.reason, found.message) if found is not None else ("", "", "")


def record(world: World) -> TrackingRecord:
    return told(tracking_job(world))


def told(job: dict[str, Any]) -> TrackingRecord:
    """Return what the pod of a Job is given to tell."""
    pod = job["spec"]["template"]
    (item,) = next(each["downwardAPI"]["items"] for each in pod["spec"]["volumes"] if "downwardAPI" in each)
    name = item["fieldRef"]["fieldPath"].removeprefix("metadata.annotations['").removesuffix("']")
    assert item["path"] == "run.json"
    return TrackingRecord.model_validate_json(pod["metadata"]["annotations"][name])


def tracking_job(world: World) -> dict[str, Any]:
    (job,) = [body for body in world.created if "-track-" in body["metadata"]["name"] and body["kind"] == "Job"]
    found: dict[str, Any] = job
    return found


def secrets(body: dict[str, Any]) -> set[str]:
    return {each["secret"]["secretName"] for each in body["spec"]["template"]["spec"]["volumes"] if "secret" in each}


def test_the_run_has_ended_before_its_tracker_is_told() -> None:
    world = World(**TRACKED).settle().prepared().running()
    assert not [name for name in world.job_names if "track" in name]
    world.published()
    assert (world.state, world.succeeded) == ("Completed", "True")
    completed = world.job.status.completion_time
    assert len([name for name in world.job_names if "track" in name]) == 1
    assert tracked(world)[:2] == ("Unknown", "Tracking")
    world.after(60).succeeds(world.words(Reason.COMPLETED, "told 20 values to https://mlflow.example/#/experiments/1"))
    status, reason, message = tracked(world)
    assert (status, reason) == ("True", "Tracked")
    assert message.startswith("told 20 values to")
    assert world.job.status.completion_time == completed
    assert [each.stage for each in world.job.status.attempts] == ["prepare", "train"]
    writes = world.writes
    assert world.settle().writes == writes
    assert world.deleted == []


def test_what_the_tracker_is_told_is_what_the_run_is() -> None:
    world = ended()
    told = record(world)
    assert (told.run.uid, told.succeeded, told.reason) == (world.job.metadata.uid, True, "Completed")
    assert told.adapter == ARTIFACT.digest
    assert told.mlflow is not None
    assert (told.mlflow.experiment, told.step) == ("support", None)
    assert told.attempts == 2
    assert told.parameters["baseModel"] == world.job.spec.base_model.uri
    assert told.parameters["runDigest"] == world.job.status.run_digest
    assert told.figures["activeSeconds"] == world.job.status.active_seconds
    assert told.curve is None  # all points are beside the adapter
    assert "tracker" in json.dumps(told.to_json())  # where the keys lie, and none of them


def test_a_run_that_failed_is_told_with_its_settings_and_its_curve() -> None:
    world = World(**TRACKED).settle().prepared().running()
    world.exits(12, world.words(Reason.OUT_OF_MEMORY, "too large"))
    assert world.succeeded == "False"
    told = record(world)
    assert (told.succeeded, told.reason, told.adapter) == (False, "OutOfMemory", None)
    assert told.parameters["training.learningRate"] == "0.0002"


def test_its_pod_alone_has_the_trackers_secret_and_holds_no_accelerator() -> None:
    world = ended()
    job = tracking_job(world)
    others = [body for body in world.created if body["kind"] == "Job" and body is not job]
    assert "tracker" in secrets(job)
    assert all("tracker" not in secrets(body) for body in others)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"][0] == "track"
    assert container["image"] == "prepare:1"
    assert not [name for name in container["resources"]["limits"] if "/" in name]
    assert job["metadata"]["labels"]["trimtab.dev/stage"] == "track"
    assert job["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    assert len(job["metadata"]["name"]) <= len("demo") + 18


def test_its_job_tries_again_by_itself_but_not_what_cannot_work() -> None:
    spec = tracking_job(ended())["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (4, 900)
    fails = [rule for rule in spec["podFailurePolicy"]["rules"] if rule["action"] == "FailJob"]
    assert [rule["onExitCodes"]["values"] for rule in fails] == [[ExitCode.SETTINGS_INVALID, ExitCode.DATA_INVALID]]


def test_no_queue_holds_it() -> None:
    world = queued_world(**TRACKED).settle()
    while not world.job.status.completion_time:
        world.change_job(suspended=False)
        world.prepared() if len(world.jobs) == 1 else world.running().published()
    job = tracking_job(world)
    assert QUEUE_LABEL not in job["metadata"]["labels"]
    assert job["spec"]["suspend"] is False


def test_its_failure_is_said_once_and_changes_nothing() -> None:
    world = ended()
    world.exits(10, world.words(Reason.ACCESS_DENIED, "https://mlflow.example answered 401"))
    status, reason, message = tracked(world)
    assert (status, reason) == ("False", "TrackingFailed")
    assert "AccessDenied: https://mlflow.example answered 401" in message
    assert (world.state, world.succeeded) == ("Completed", "True")
    assert world.notes[-1] == ("Warning", "TrackingFailed")
    names = list(world.job_names)
    assert world.after(7200).settle().job_names == names


def test_another_tracker_is_told_anew_and_the_same_is_not() -> None:
    world = ended()
    world.exits(10, world.words(Reason.ACCESS_DENIED, "no"))
    world.patch_spec(ttlSecondsAfterFinished=86_400).settle()
    assert len([name for name in world.job_names if "track" in name]) == 1
    world.patch_spec(tracking={"mlflow": {**MLFLOW, "experiment": "other"}}).settle()
    assert len([name for name in world.job_names if "track" in name]) == 2
    assert tracked(world)[1] == "Tracking"
    world.succeeds(world.words(Reason.COMPLETED, "told"))
    assert tracked(world)[1] == "Tracked"


def test_a_tracker_that_is_named_after_the_end_is_told_too() -> None:
    world = World().settle().prepared().running().published()
    assert tracked(world) == ("", "", "")
    world.patch_spec(**TRACKED).settle()
    assert tracked(world)[1] == "Tracking"


def test_its_time_is_over_once_the_tracker_was_told_or_had_its_time() -> None:
    world = ended(ttlSecondsAfterFinished=10).after(60).settle()
    assert not world.decided().actions
    world.change_job(complete=True)
    assert world.decided().actions[0].name == "demo"  # type: ignore[union-attr]
    world = ended(ttlSecondsAfterFinished=10)
    assert world.last.look_again_seconds == LONGEST_SECONDS
    assert world.after(LONGEST_SECONDS + 1).decided().actions[0].name == "demo"  # type: ignore[union-attr]


@pytest.mark.parametrize("what", ["taken", "refused"])
def test_what_stands_in_its_way_is_said_and_tried_again(what: str) -> None:
    world = World(**TRACKED).settle().prepared().running()
    if what == "taken":
        world.taken = NameTaken("Job demo-track-0", world.now)
    else:
        world.refused = Refusal("Job", "exceeded quota", world.now, world.now)
    world.published()
    assert world.state == "Completed"
    assert tracked(world)[1] == "Tracking"
    assert ("belongs to something else" if what == "taken" else "exceeded quota") in tracked(world)[2]
    assert world.last.look_again_seconds
    world.taken = world.refused = None
    assert "track" in world.settle().job_names[-1]


def test_a_job_that_trains_is_not_made_again_for_it() -> None:
    assert job_inputs(TRAINING, finetunejob()) == job_inputs(TRAINING, finetunejob(**TRACKED))


def test_its_creation_asks_for_the_object_alone() -> None:
    world = World(**TRACKED).settle().prepared().running()
    world.published()
    world.jobs = [job for job in world.jobs if job.stage != "track"]
    made = world.decided()
    found = needs(world.observed(), made)
    assert made.actions
    assert (found.itself, found.jobs) == (True, {})


def test_whether_anything_is_left_of_it_is_seen_without_a_round() -> None:
    world = ended()

    def rests(job: FineTuneJob) -> bool:
        spec, status, metadata = job.spec.to_json(), job.status.to_json(), {"generation": job.metadata.generation}
        return FINE_TUNE_JOB.rests({"spec": spec, "status": status, "metadata": metadata})

    assert not rests(world.job)
    world.succeeds(world.words(Reason.COMPLETED, "told"))
    assert rests(world.job)
    assert not rests(world.patch_spec(suspend=True).job)


TRACKIO: dict[str, Any] = {"uri": "https://trackio.example", "project": "support", "secretName": "tracker"}
LIVE: dict[str, Any] = {"tracking": {"mlflow": MLFLOW, "everySeconds": 300}}


def training(**spec: Any) -> World:
    """Return a world whose run has just begun to train."""
    return World(**{**LIVE, **spec}).settle().prepared().running()


def beside(world: World) -> list[dict[str, Any]]:
    """Carry out what a plan makes beside the work; return the Jobs."""
    made = [action.body for action in world.last.aside]
    for action in world.last.aside:
        world.act(action)
    return made


def test_while_it_trains_a_tracker_is_told_once_in_each_interval() -> None:
    world = training().reports(step=5, loss=2.0)
    assert beside(world) == [], "the first interval is not over"
    assert world.last.look_again_seconds is not None
    assert world.last.look_again_seconds <= 300
    steps, names = [], set()
    for interval in range(1, 4):
        world.after(300).reports(step=10 * interval, loss=2.0 / interval, tokens_per_second=99.0)
        (job,) = beside(world)
        names.add(job["metadata"]["name"])
        record = told(job)
        assert (record.run.uid, record.reason, record.adapter) == (world.job.metadata.uid, "Training", None)
        assert record.figures["tokensPerSecond"] == 99
        assert record.end_seconds == int(world.now.timestamp())
        steps.append(record.step)
        assert beside(world.settle()) == [], "its name follows from the interval"
        world.change_job(complete=True, active=0, ended=world.now)
        assert beside(world.settle()) == []
        assert job["spec"]["ttlSecondsAfterFinished"] == job["spec"]["activeDeadlineSeconds"] == 300
        world.jobs.pop()
    assert steps == [10, 20, 30]
    assert len(names) == 3
    assert tracked(world) == ("", "", ""), "what it is told meanwhile is no matter of the run's"
    assert world.notes == training().notes


def test_nothing_is_told_of_what_does_not_train() -> None:
    for world in (
        World(**LIVE).settle().running().after(900).settle(),
        training().after(900).settle(),  # no step is done
        training().reports(step=5).patch_spec(suspend=True).after(900).settle(),
        World(**TRACKED).settle().prepared().running().after(900).reports(step=5),
        training().reports(step=5).after(900).change_job(suspended=True).settle(),
    ):
        assert beside(world) == []


def test_one_that_still_tells_is_not_overtaken() -> None:
    world = training().after(300).reports(step=5)
    assert len(beside(world)) == 1
    assert beside(world.after(300).settle()) == []


def test_at_the_end_what_is_still_told_of_before_goes_first() -> None:
    world = training().after(300).reports(step=5)
    (live,) = beside(world)
    train, teller = world.jobs[-2:]
    world.jobs[-2:] = [teller, train]
    world.published()
    assert world.deleted == [live["metadata"]["name"]]
    assert world.created[-1]["metadata"]["name"] != live["metadata"]["name"]
    assert record_of_last(world).step is None
    assert (world.state, tracked(world)[1]) == ("Completed", "Tracking")


def record_of_last(world: World) -> TrackingRecord:
    return told(world.created[-1])


def test_what_keeps_the_next_attempt_waiting_is_never_a_tracker() -> None:
    """What is made beside is no action: a refusal of it is remembered by nobody who plans."""
    world = training().after(300).reports(step=5)
    assert world.last.actions == ()
    assert len(world.last.aside) == 1
    made = world.exits(1).last
    assert made.aside == ()
    assert "-train-" in world.after(3600).settle().job_names[-1]


def test_trackio_is_told_with_its_own_secret() -> None:
    world = World(tracking={"trackio": TRACKIO}).settle().prepared().running().published()
    job = tracking_job(world)
    assert "tracker" in secrets(job)
    found = told(job)
    assert found.mlflow is None
    assert found.trackio is not None
    assert (found.trackio.project, found.trackio.uri) == ("support", "https://trackio.example")


@pytest.mark.parametrize("tracking", [{}, {"mlflow": MLFLOW, "trackio": TRACKIO}, {"wandb": {"project": "a"}}])
def test_one_tracker_is_told_and_others_are_refused_by_name(tracking: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"Weights & Biases is not told|wandb"):
        finetunejob(tracking=tracking)


@pytest.mark.parametrize("uri", ["mlflow.example", "https://me:pw@mlflow.example", "https://mlflow.example/?token=x"])
def test_an_address_with_something_secret_in_it_is_refused(uri: str) -> None:
    with pytest.raises(ValidationError):
        finetunejob(tracking={"mlflow": {**MLFLOW, "uri": uri}})

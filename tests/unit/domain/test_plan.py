"""The decisions about a FineTuneJob, told as stories."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from trimtab_operator.api import AttemptStatus, WorkStatus
from trimtab_operator.domain.cluster import NameTaken, Refusal
from trimtab_operator.domain.finetunejob import FINE_TUNE_JOB
from trimtab_operator.domain.finetunejob.figures import prepared_of
from trimtab_operator.domain.plan import Action, Create, Delete, EventsOf, NodeOf, Suspend
from trimtab_operator.domain.views import PodView, format_time
from trimtab_operator.domain.work import plan
from trimtab_operator.domain.work.attempts.accounts import pause_seconds
from trimtab_trainer.contract import Curve, Reason, Summary, TerminationMessage

from tests.unit.domain.makers import ARTIFACT, PREPARED, T0, World, queued_world
from tests.unit.runtime.objects import pod as pod_body


def test_a_new_job_gets_its_configuration_and_a_prepare_job_and_says_preparing() -> None:
    world = World().settle()
    assert [body["kind"] for body in world.created] == ["ConfigMap", "Job"]
    assert world.job_names == ["demo-prepare-0"]
    assert (world.state, world.succeeded) == ("Preparing", "Unknown")
    assert world.writes == 1


def test_the_happy_path_takes_two_jobs_and_tells_its_story_in_few_writes_and_events() -> None:
    world = World().settle().prepared()
    assert world.job_names == ["demo-prepare-0", "demo-train-1"]
    assert world.state == "Training"
    world.running().after(30).reports(step=40, loss=1.5, checkpoint_step=40)
    assert world.job.status.progress is not None
    assert world.job.status.progress.percent == 40
    world.after(30).reports(step=100, activity="Publishing")
    assert world.state == "Publishing"
    world.after(5).published()
    status = world.job.status
    assert (world.state, world.succeeded) == ("Completed", "True")
    assert status.artifact is not None
    assert status.artifact.digest == ARTIFACT.digest
    assert (status.failures, status.disruptions) == (0, 0)
    assert status.active_seconds == 20 + 65
    assert status.accelerator_seconds == 65
    assert status.lost_accelerator_seconds == 0
    assert world.writes <= 7
    assert [reason for _, reason in world.notes] == ["Training", "Publishing", "Completed"]


CURVE = Curve(steps=(20, 40), loss=(2.5, 1.5), validation_steps=(40,), validation_loss=(1.75,))


def test_the_curve_is_in_the_status_while_it_trains_and_when_it_has_ended() -> None:
    world = World().settle().prepared().running().reports(step=40, loss=1.5, curve=CURVE)
    drawn = {"steps": [20, 40], "loss": [2.5, 1.5], "validationSteps": [40], "validationLoss": [1.75]}
    assert world.job.status.to_json()["curve"] == drawn
    world.reports(step=50, loss=1.4, curve=None)
    assert world.job.status.to_json()["curve"] == drawn, "a trainer of before, after an update, takes nothing away"


@pytest.mark.parametrize(
    ("last", "want"),
    [
        pytest.param((40,), [20, 40], id="last words have less room, and what was polled reaches as far"),
        pytest.param((40, 100), [40, 100], id="what was trained since the last poll is drawn too"),
        pytest.param(None, [20, 40], id="a trainer of before has no curve in its last words"),
    ],
)
def test_the_curve_of_a_run_that_ended_reaches_its_end(last: tuple[int, ...] | None, want: list[int]) -> None:
    world = World().settle().prepared().running().reports(step=40, loss=1.5, curve=CURVE)
    told = last and Curve(steps=last, loss=(2.0,) * len(last), validation_steps=(40,), validation_loss=(1.75,))
    world.succeeds(world.words(Reason.COMPLETED, artifact=ARTIFACT, summary=Summary(step=100, curve=told or None)))
    assert world.state == "Completed"
    assert world.job.status.to_json()["curve"]["steps"] == want


def test_the_train_job_gets_what_prepare_found() -> None:
    world = World().settle().prepared()
    arguments = world.created[-1]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert json.loads(arguments[arguments.index("--prepared") + 1]) == PREPARED.to_json()


def test_what_was_published_before_is_completed_without_a_train_job() -> None:
    world = World().settle().prepared(artifact=ARTIFACT)
    assert (world.state, world.job_names) == ("Completed", ["demo-prepare-0"])


def test_what_was_published_before_has_its_figures_and_its_curve() -> None:
    summary = Summary(step=100, total_steps=100, loss=1.25, test_loss=1.5, curve=CURVE)
    status = World().settle().prepared(artifact=ARTIFACT, summary=summary).job.status.to_json()
    assert status["curve"] == CURVE.to_json()
    assert (status["progress"]["loss"], status["progress"]["step"]) == (1.25, 100)
    assert status["artifact"]["testLoss"] == 1.5


def test_the_status_tells_where_both_pages_are() -> None:
    data, report = "s3://adapters/demo/data/audits/a/data.html", "s3://adapters/demo/adapters/b/report.html"
    world = World().settle().running()
    prepared = PREPARED.model_copy(update={"report_uri": data})
    world.succeeds(world.words(Reason.COMPLETED, prepared=prepared)).running()
    artifact = ARTIFACT.model_copy(update={"report_uri": report})
    told = prepared_of(world.job.status)
    assert told is not None
    assert told.report_uri == data, "the trainer's own page links to it"
    again = PREPARED.model_copy(update={"report_uri": None})  # as the trainer tells of the rows once more
    words = world.words(Reason.COMPLETED, prepared=again, artifact=artifact)
    status = world.succeeds(words).job.status.to_json()
    assert (status["dataset"]["reportURI"], status["artifact"]["reportURI"]) == (data, report)


FINAL = {
    "malformed data": (11, Reason.DATASET_MALFORMED),
    "a bucket that is not there": (10, Reason.BUCKET_NOT_FOUND),
    "too little memory on the accelerator": (12, Reason.OUT_OF_MEMORY),
}


@pytest.mark.parametrize(("code", "reason"), FINAL.values(), ids=FINAL)
def test_what_would_end_the_same_way_again_is_never_retried(code: int, reason: Reason) -> None:
    world = World().settle().running()
    world.exits(code, world.words(reason, "line 7 of part-2.jsonl is not JSON"))
    assert (world.state, world.succeeded) == (reason.value, "False")
    assert "line 7" in world.message
    assert len(world.job_names) == 1
    assert (world.job.status.failures, world.job.status.disruptions) == (0, 0)


GENERAL = {10: "SettingsInvalid", 11: "DatasetInvalid", 12: "OutOfMemory"}


@pytest.mark.parametrize(("code", "reason"), GENERAL.items())
def test_the_jobs_condition_alone_tells_the_cause_when_the_pod_is_gone(code: int, reason: str) -> None:
    world = World().settle().running()
    world.pods = []
    world.change_job(
        failed=True,
        ended=world.now,
        failed_reason="PodFailurePolicy",
        failed_message=f"Container trainer for pod a/b failed with exit code {code} matching FailJob rule at index 2",
    ).settle()
    assert (world.state, world.succeeded) == (reason, "False")


def test_a_container_over_its_memory_limit_is_out_of_memory_and_not_retried() -> None:
    world = World().settle().prepared().running().exits(137, reason="OOMKilled")
    assert (world.state, world.succeeded) == ("OutOfMemory", "False")
    assert "template.resources.limits.memory" in world.message


def test_scratch_space_exceeded_is_not_retried() -> None:
    world = World().settle().prepared().running()
    message = 'Usage of EmptyDir volume "trimtab-work" exceeds the limit "1Gi". '
    world.pod(reason="Evicted", message=message).exits(137, reason="ContainerStatusUnknown")
    assert (world.state, world.succeeded) == ("ScratchSpaceExceeded", "False")


def test_a_preempted_pod_is_followed_by_the_next_attempt_and_the_failure_budget_is_untouched() -> None:
    world = World().settle().prepared().running().reports(step=50, checkpoint_step=50, checkpoint_time=_at(0))
    world.after(40).disrupted("PreemptionByScheduler", pod_left=True)
    assert world.job_names[-1] == "demo-train-2"
    assert world.state == "Retrying"
    assert "PreemptionByScheduler" in world.message
    assert (world.job.status.failures, world.job.status.disruptions) == (0, 1)
    world.running()
    assert world.state == "Training"


def test_an_evicted_pod_that_is_gone_already_is_a_disruption_by_the_words_of_the_job() -> None:
    world = World().settle().prepared().running().disrupted("x")
    assert (world.job.status.disruptions, world.job_names[-1]) == (1, "demo-train-2")


def test_an_interrupted_trainer_is_a_disruption_and_loses_nothing() -> None:
    world = World().settle().prepared().running().after(60)
    summary = Summary(step=70, total_steps=100, checkpoint_step=70)
    world.exits(14, world.words(Reason.INTERRUPTED, "checkpoint at step 70", summary=summary))
    status = world.job.status
    assert (status.failures, status.disruptions, status.lost_accelerator_seconds) == (0, 1, 0)
    assert status.checkpoint is not None
    assert status.checkpoint.step == 70


def test_a_killed_trainer_waits_then_is_tried_again_once_and_no_more() -> None:
    world = World().settle().prepared().running().after(30).exits(137)
    assert world.state == "Retrying"
    assert world.job_names[-1] == "demo-train-1"
    assert world.last.look_again_seconds == 10
    world.after(10).settle()
    assert world.job_names[-1] == "demo-train-2"
    assert world.job.status.failures == 1
    world.running().after(5).exits(137)
    assert (world.state, world.succeeded) == ("RetriesExhausted", "False")
    assert "signal 9" in world.message
    assert len(world.job_names) == 3


def test_failed_storage_is_retried() -> None:
    world = World().settle().running()
    world.exits(13, world.words(Reason.STORAGE_FAILED, "connection refused")).after(10).settle()
    assert (world.job_names[-1], world.job.status.failures) == ("demo-prepare-1", 1)


def test_a_job_that_somebody_deleted_is_replaced() -> None:
    world = World().settle().prepared().running()
    world.jobs.pop()
    world.settle()
    assert (world.job_names[-1], world.job.status.disruptions) == ("demo-train-2", 1)


def test_a_result_that_was_lost_with_its_pod_is_found_again_by_preparing() -> None:
    world = World().settle().prepared().running()
    world.pods = []
    world.change_job(complete=True, ended=world.now).settle()
    assert world.job_names[-1] == "demo-prepare-2"
    world.prepared(artifact=ARTIFACT)
    assert world.state == "Completed"


def test_a_lost_node_costs_a_disruption_and_its_job_goes_once_the_attempt_is_closed() -> None:
    world = World().settle().prepared().running()
    world.pod(deletion_time=world.now + timedelta(seconds=120))
    assert plan(world.observed(), world.now).look_again_seconds == 240
    world.after(239).settle()
    assert world.job_names[-1] == "demo-train-1"
    world.answers[NodeOf("node-1")] = "NotReady"
    world.after(1).settle()
    assert world.deleted == ["demo-train-1"]
    assert world.job_names[-1] == "demo-train-2"
    assert world.job.status.disruptions == 1
    assert world.job.status.attempts[-2].reason == "NodeLost"


def test_before_the_next_job_the_one_of_an_attempt_that_was_given_up_is_looked_for() -> None:
    """The operator died after it closed the attempt, and the next one has not been told of that Job."""
    world = World().settle().prepared().running()
    world.pod(deletion_time=world.now)
    world.answers[NodeOf("node-1")] = "Gone"
    world.after(200)
    world.write(world.decided())
    given_up = world.jobs.pop()
    made = world.decided()
    created = [action.body["metadata"]["name"] for action in made.actions if isinstance(action, Create)]
    assert created[-1] == "demo-train-2"
    assert FINE_TUNE_JOB.needs(world.observed(), made).jobs[given_up.name] == given_up.uid
    world.jobs.append(given_up)
    assert world.decided().actions == (Delete("Job", "team", given_up.name, given_up.uid),)


def test_where_nodes_may_not_be_read_a_pod_that_does_not_end_is_lost_after_the_same_patience() -> None:
    world = World().settle().prepared().running()
    world.pod(deletion_time=world.now)
    world.answers[NodeOf("node-1")] = "Forbidden"
    world.after(119).settle()
    assert world.job_names[-1] == "demo-train-1"
    world.after(1).settle()
    assert world.job_names[-1] == "demo-train-2"
    ended = world.job.status.attempts[-2]
    assert ended.reason == "NodeLost"
    assert "node-1 never ends" in str(ended.message)
    assert "nodes may not be read" in str(ended.message)


def test_a_slow_pod_on_a_ready_node_is_waited_for() -> None:
    world = World().settle().prepared().running().pod()
    world.pod(deletion_time=world.now)
    world.answers[NodeOf("node-1")] = "Ready"
    world.after(500).settle()
    assert world.job_names[-1] == "demo-train-1"


def test_suspending_stops_the_job_keeps_the_attempt_and_stops_the_clock() -> None:
    world = World().settle().prepared().running().after(30).patch_spec(suspend=True).settle()
    assert [job.suspended for job in world.jobs] == [False, True]
    assert world.state == "Suspended"
    world.pods = [pod for pod in world.pods if pod.job_uid != world.current.uid]
    world.change_job(active=0).settle().after(1000).patch_spec(suspend=False).settle()
    assert [job.suspended for job in world.jobs] == [False, False]
    assert world.job_names[-1] == "demo-train-1"
    world.running().after(10).published()
    assert world.job.status.active_seconds == 20 + 30 + 10
    assert (world.job.status.failures, world.job.status.disruptions) == (0, 0)


def test_a_job_created_suspended_starts_nothing() -> None:
    world = World(suspend=True).settle()
    assert (world.created, world.state) == ([], "Suspended")


def test_a_queue_admits_jobs_and_suspension_gives_the_quota_back() -> None:
    world = queued_world().settle()
    assert world.created[-1]["spec"]["suspend"] is True
    assert world.created[-1]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert world.state == "Queued"
    world.change_job(suspended=False).settle()
    world.prepared().change_job(suspended=False).running()
    world.patch_spec(suspend=True).settle()
    assert world.deleted == ["demo-train-1"]
    assert world.state == "Suspended"
    world.patch_spec(suspend=False).settle()
    assert world.job_names[-1] == "demo-train-2"
    assert (world.job.status.failures, world.job.status.disruptions) == (0, 0)


def test_the_queue_may_take_a_job_back_without_costing_an_attempt() -> None:
    world = queued_world().settle().change_job(suspended=False).running()
    world.pods = []
    world.change_job(suspended=True, active=0).settle()
    assert world.state == "Queued"
    assert world.job_names == ["demo-prepare-0"]
    assert world.job.status.disruptions == 0


def test_the_deadline_counts_running_time_only_and_leaves_nothing_running() -> None:
    world = World(activeDeadlineSeconds=100).settle().after(5000).settle().prepared()
    world.after(5000).running()
    assert plan(world.observed(), world.now).look_again_seconds == 80
    world.after(80).settle()
    assert (world.state, world.succeeded) == ("DeadlineExceeded", "False")
    assert world.deleted == ["demo-train-1"]
    assert world.job.status.active_seconds == 100


def test_a_finished_job_goes_when_its_time_is_over() -> None:
    world = World(ttlSecondsAfterFinished=60).settle().prepared(artifact=ARTIFACT)
    assert world.last.look_again_seconds == 60
    made = plan(world.after(60).observed(), world.now)
    assert [type(action) for action in made.actions] == [Delete]
    assert made.confirm


def test_terminal_is_terminal_even_when_the_children_are_gone() -> None:
    world = World().settle().prepared(artifact=ARTIFACT)
    world.jobs, world.pods = [], []
    world.patch_spec(suspend=True).settle()
    assert (world.state, world.job.status.observed_generation) == ("Completed", 2)
    assert len(world.job_names) == 1


def test_a_job_created_by_an_operator_that_died_is_entered_not_created_again() -> None:
    world = World().settle()
    blank = World()
    blank.jobs = world.jobs
    blank.settle()
    assert blank.created == []
    assert [attempt.job_name for attempt in blank.job.status.attempts] == ["demo-prepare-0"]


def test_a_name_held_by_another_owner_is_waited_for_then_named() -> None:
    world = World()
    world.taken = NameTaken("demo-prepare-0", T0)
    world.settle()
    assert (world.state, world.created) == ("Pending", [])
    world.after(60).settle()
    assert (world.state, world.succeeded) == ("NameTaken", "Unknown")
    assert "demo-prepare-0" in world.message
    world.taken = None
    world.settle()
    assert world.state == "Preparing"


WAITING: dict[str, tuple[dict[str, Any], str, str]] = {
    "a pod no node can take": ({"unschedulable": "0/3 nodes: Insufficient nvidia.com/gpu"}, "Queued", "Insufficient"),
    "an image that cannot be pulled": (
        {"scheduled_time": T0, "waiting_reason": "ImagePullBackOff", "waiting_message": "not found"},
        "ImageUnavailable",
        "not found",
    ),
    "an environment from a Secret without the key": (
        {"scheduled_time": T0, "waiting_reason": "CreateContainerConfigError", "waiting_message": "no key TOKEN"},
        "ContainerInvalid",
        "TOKEN",
    ),
}


@pytest.mark.parametrize(("pod", "state", "words"), WAITING.values(), ids=WAITING)
def test_a_pod_that_does_not_start_says_why(pod: dict[str, Any], state: str, words: str) -> None:
    world = World().settle().pod(**pod).settle()
    assert (world.state, world.succeeded) == (state, "Unknown")
    assert words in world.message


def test_what_does_not_start_in_time_ends_the_job_and_leaves_nothing_behind() -> None:
    world = World().settle()
    world.pod(scheduled_time=T0, waiting_reason="ImagePullBackOff", waiting_message="not found")
    world.after(601).settle()
    assert (world.state, world.succeeded) == ("ImageUnavailable", "False")
    assert world.deleted == ["demo-prepare-0"]


def test_a_pod_may_wait_for_a_node_for_ever() -> None:
    world = World().settle().pod(unschedulable="no").after(10_000_000).settle()
    assert (world.state, world.succeeded) == ("Queued", "Unknown")


def test_a_missing_secret_is_told_in_the_kubelets_words() -> None:
    world = World().settle().pod(scheduled_time=T0, waiting_reason="ContainerCreating")
    inquiry = EventsOf("team", world.pods[-1].uid)
    assert plan(world.observed(), world.now).inquiries == ()
    world.after(20)
    assert plan(world.observed(), world.now).inquiries == (inquiry,)
    world.answers[inquiry] = (("Scheduled", "ok"), ("FailedMount", 'secret "storage" not found'))
    world.settle()
    assert world.state == "VolumeUnavailable"
    assert 'secret "storage" not found' in world.message
    world.after(600).settle()
    assert (world.state, world.succeeded) == ("VolumeUnavailable", "False")


BEFORE_THE_TRAINER = {
    "its image": ("ImagePullBackOff", "not found", "ImageUnavailable"),
    "its key": ("CreateContainerConfigError", "no key TOKEN", "ContainerInvalid"),
    "its crashes": ("CrashLoopBackOff", "back-off 10s", "ContainerInvalid"),
}


@pytest.mark.parametrize(("reason", "words", "state"), BEFORE_THE_TRAINER.values(), ids=BEFORE_THE_TRAINER)
def test_what_was_put_before_the_trainer_and_does_not_start_is_named_and_waited_for_as_long(
    reason: str, words: str, state: str
) -> None:
    """An injector's native sidecar, or its init container."""
    body = pod_body()
    body["status"] = {
        "phase": "Pending",
        "initContainerStatuses": [
            {"name": "ready", "state": {"terminated": {"exitCode": 0}}},
            {"name": "proxy", "state": {"waiting": {"reason": reason, "message": words}}},
        ],
        "containerStatuses": [{"name": "trainer", "state": {"waiting": {"reason": "PodInitializing"}}}],
    }
    view = PodView.of(body)
    assert view is not None
    assert view.blocked_by == "proxy"
    told = {name: getattr(view, name) for name in ("waiting_reason", "waiting_message", "blocked_by")}
    world = World().settle().pod(scheduled_time=T0, **told).settle()
    assert (world.state, world.succeeded) == (state, "Unknown")
    assert "container proxy" in world.message
    assert words in world.message
    assert "spec.template.image" not in world.message, "it is none of the object's"
    world.after(601).settle()
    assert (world.state, world.succeeded) == (state, "False")


def test_what_is_beside_the_trainer_and_does_not_start_keeps_it_from_nothing() -> None:
    body = pod_body()
    waits = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    body["status"]["containerStatuses"].append({"name": "proxy", "state": waits})
    view = PodView.of(body)
    assert view is not None
    assert (view.running, view.blocked_by, view.waiting_reason) == (True, "", "")


QUOTAS = {
    "configmaps": ("configmaps x is forbidden: exceeded quota: few, requested: configmaps=1, used: 9", "raise it"),
    "objects": ("jobs.batch x is forbidden: exceeded quota: few, requested: count/jobs.batch=1, used: 2", "raise it"),
    "pods": ("pods x is forbidden: exceeded quota: few, requested: pods=1, used: pods=2", "raise it"),
    "memory": ("pods x is forbidden: exceeded quota: few, requested: limits.memory=8Gi, used: 0", "ask for less"),
}


@pytest.mark.parametrize(("words", "advice"), QUOTAS.values(), ids=QUOTAS)
def test_who_has_too_many_objects_is_not_told_to_ask_for_less(words: str, advice: str) -> None:
    world = World().settle().after(20)
    world.pods_refused(words)
    assert world.settle().state == "QuotaExceeded"
    assert advice in world.message


def test_a_namespace_that_is_being_deleted_is_no_trouble_of_the_job() -> None:
    world = World().settle().after(20)
    words = "pods x is forbidden: unable to create new content in namespace team because it is being terminated"
    world.pods_refused(words)
    world.settle().after(1000).settle()
    assert (world.state, world.succeeded) == ("Pending", "Unknown")
    assert "namespace is being deleted" in world.message
    assert ("Warning", "Pending") not in world.notes


def test_what_prepare_warns_of_is_a_condition_and_one_event_and_stays_to_the_end() -> None:
    world = World().settle().prepared(warnings=("columns that are ignored: id", "3 rows are too long"))
    assert _warned(world) == ("PreparedWithWarnings", "columns that are ignored: id; 3 rows are too long")
    assert ("Warning", "PreparedWithWarnings") in world.notes
    world.running().after(60).published()
    assert _warned(world) == ("PreparedWithWarnings", "columns that are ignored: id; 3 rows are too long")
    assert world.notes.count(("Warning", "PreparedWithWarnings")) == 1
    assert world.writes <= 7


def test_what_the_second_stage_warns_of_is_told_beside_what_the_first_did() -> None:
    world = World().settle().prepared(warnings=("a",)).running().after(60)
    summary = Summary(step=100, total_steps=100)
    world.succeeds(world.words(Reason.COMPLETED, artifact=ARTIFACT, summary=summary, warnings=("b",)))
    assert _warned(world) == ("FinishedWithWarnings", "a; b")


def test_data_that_are_prepared_again_without_a_warning_leave_none() -> None:
    world = World().settle().prepared(warnings=("a",)).running().after(60)
    world.exits(13, world.words(Reason.PREPARED_DATA_MISSING)).settle().after(1000).settle()
    assert world.current.stage == "prepare"
    world.prepared()
    assert _warned(world) is None


def _warned(world: World) -> tuple[str, str] | None:
    return next(((c.reason, c.message) for c in world.job.status.conditions if c.type == "Warned"), None)


REFUSED = {
    "quota": ("pods x is forbidden: exceeded quota: gpus", "QuotaExceeded", "Unknown"),
    "pod security": ("pods x is forbidden: violates PodSecurity restricted", "PodRefused", "False"),
    "a webhook that is down": ('Internal error occurred: failed calling webhook "x": refused', "PodRefused", "Unknown"),
}


@pytest.mark.parametrize(("words", "state", "after_a_while"), REFUSED.values(), ids=REFUSED)
def test_a_pod_that_is_refused_says_why(words: str, state: str, after_a_while: str) -> None:
    world = World().settle().after(20)
    world.pods_refused(words)
    world.settle()
    assert (world.state, world.succeeded) == (state, "Unknown")
    world.after(1000).settle()
    assert world.succeeded == after_a_while
    said = [note for note in world.notes if note == ("Warning", state)]
    assert len(said) == (2 if after_a_while == "False" else 1), "that it has ended is news of its own"
    assert world.message.startswith("given up after 600 s: ") == (after_a_while == "False")


def test_a_pod_that_is_refused_after_its_queue_let_it_in_is_given_the_whole_time() -> None:
    world = queued_world().settle().change_job(suspended=True).after(10_000).settle()
    assert world.state == "Queued"
    world.change_job(suspended=False, resumed=world.now).after(20)
    world.pods_refused(REFUSED["pod security"][0])
    world.settle()
    assert (world.state, world.succeeded) == ("PodRefused", "Unknown")
    world.after(600).settle()
    assert (world.state, world.succeeded) == ("PodRefused", "False")


def may_not(world: World, *, suspend: bool) -> World:
    """Have a policy keep `suspend` of the newest Job as it is, for as long as time has gone by."""
    words = f"a policy or a webhook keeps spec.suspend of {world.current.name} {str(not suspend).lower()}"
    world.change_job(suspended=not suspend)
    world.refused = Refusal("Job", words, T0, world.now, action=Suspend)
    return world.settle()


def test_a_job_that_a_policy_kept_from_being_suspended_keeps_nothing_from_the_next() -> None:
    world = may_not(World().settle().running().patch_spec(suspend=True).settle(), suspend=True)
    assert world.state == "Suspended"
    assert "keeps spec.suspend of demo-prepare-0 false" in world.message
    world.succeeds(world.words(Reason.COMPLETED, prepared=PREPARED))
    assert world.state == "Suspended"
    world.after(900).patch_spec(suspend=False).settle()
    assert world.job_names == ["demo-prepare-0", "demo-train-1"]


def test_a_job_that_a_policy_kept_from_going_on_and_that_somebody_deletes_is_followed_by_the_next() -> None:
    world = World().settle().running().patch_spec(suspend=True).settle()
    may_not(world.after(900).patch_spec(suspend=False), suspend=False)
    assert world.state == "Suspended"
    assert "keeps spec.suspend of demo-prepare-0 true" in world.message
    world.jobs, world.pods = [], []
    world.settle()
    assert world.job_names == ["demo-prepare-0", "demo-prepare-1"]
    assert world.succeeded == "Unknown"


@pytest.mark.parametrize("action", [Create, Delete])
def test_only_a_creation_that_was_refused_is_given_up(action: type[Action]) -> None:
    world = World()
    world.refused = Refusal("Job", "a policy", T0, T0 + timedelta(seconds=900), action=action)
    world.after(900).settle()
    assert (world.state, world.job_names) == (
        ("PodRefused", []) if action is Create else ("Preparing", ["demo-prepare-0"])
    )


@pytest.mark.parametrize("words", ["", REFUSED["quota"][0]])
def test_the_longer_a_job_has_no_pod_the_less_often_events_are_asked_for(words: str) -> None:
    world = World().settle().after(20)
    if words:
        world.pods_refused(words)
    looks = []
    for seconds in (0, 380, 10_000):
        world.after(seconds).settle()
        looks.append(world.last.look_again_seconds)
    assert looks == [15, 100, 300]


def test_the_words_of_a_pod_of_another_attempt_are_not_believed() -> None:
    world = World().settle().running()
    words = world.words(Reason.COMPLETED, prepared=PREPARED)
    world.succeeds(words.model_copy(update={"attempt": 7}))
    assert world.job.status.attempts[0].reason == "ResultLost"


def test_a_node_whose_clock_is_a_day_behind_uses_up_no_deadline() -> None:
    world = World(activeDeadlineSeconds=3600).settle().prepared()
    world.pod(phase="Running", scheduled_time=world.now, started=world.now - timedelta(days=1), running=True)
    world.change_job(active=1).settle()
    assert (world.state, world.job.status.attempts[-1].start_time) == ("Training", format_time(world.now))


@pytest.mark.parametrize("hours", [-24, 24])
def test_a_node_whose_clock_is_wrong_is_charged_for_the_time_that_passed(hours: int) -> None:
    world = World(template={"resources": {"limits": {"nvidia.com/gpu": 1}}}).settle().prepared()
    wrong = timedelta(hours=hours)
    world.pod(phase="Running", scheduled_time=world.now, started=world.now + wrong, running=True, node="node-1")
    world.change_job(active=1).settle().after(100)
    words = world.words(Reason.COMPLETED, artifact=ARTIFACT, summary=Summary(step=100, total_steps=100))
    ended = world.now + wrong
    world.pod(
        phase="Succeeded", running=False, terminated=True, exit_code=0, terminated_time=ended, said=words.encode()
    )
    world.change_job(complete=True, active=0, ended=world.now).settle()
    assert (world.state, world.job.status.accelerator_seconds) == ("Completed", 100)
    assert world.job.status.attempts[-1].end_time == format_time(world.now)


def test_a_node_whose_clock_is_ahead_keeps_no_deadline_away() -> None:
    world = World(activeDeadlineSeconds=3600).settle().prepared()
    world.pod(phase="Running", scheduled_time=world.now, started=world.now + timedelta(days=1), running=True)
    world.change_job(active=1).settle().after(3601).settle()
    assert world.state == "DeadlineExceeded"


def test_what_deletes_one_job_after_the_other_is_given_ever_fewer() -> None:
    world = World().settle()
    waits = []
    for _ in range(4):
        world.running().after(5)
        world.pods, world.jobs = [], []
        world.settle()
        waits.append(world.last.look_again_seconds if world.state == "Retrying" and not world.jobs else 0)
        world.after(300).settle()
    assert waits == [0, 10, 20, 40]


def test_an_end_that_lies_in_the_future_is_waited_for_no_longer_than_the_pause() -> None:
    world = World().settle().prepared().running().exits(1)
    failed = world.job.status.attempts[-1].model_copy(update={"end_time": "2999-01-01T00:00:00Z"})
    status = world.job.status.model_copy(update={"attempts": [*world.job.status.attempts[:-1], failed]})
    world.job = world.job.model_copy(update={"status": status})
    assert world.settle().last.look_again_seconds == 10


def test_a_job_that_somebody_scaled_down_says_so() -> None:
    world = World().settle().change_job(scaled_down=True).after(1000).settle()
    assert (world.state, world.succeeded) == ("Queued", "Unknown")
    assert world.message == "somebody lowered the parallelism of Job demo-prepare-0; set it to 1 again"


def test_a_status_that_somebody_emptied_is_filled_again_from_what_runs() -> None:
    world = World().settle().prepared().running()
    world.job = world.job.model_copy(update={"status": type(world.job.status)()})
    world.settle()
    assert (world.state, world.job_names) == ("Training", ["demo-prepare-0", "demo-train-1"])
    assert world.published().state == "Completed"


@pytest.mark.parametrize("pod", ["is there", "is gone"])
def test_results_that_are_lost_again_and_again_are_no_disruptions(pod: str) -> None:
    """What makes nobody hear of the first makes nobody hear of the twentieth: each holds an accelerator for hours."""
    world = World(retries={"onFailure": 5}).settle().prepared()
    for _ in range(10):
        if pod == "is there":
            world.running().after(60).succeeds(None)
        else:
            world.running().after(60)
            world.pods = []
            world.change_job(complete=True, active=0, ended=world.now).settle()
        if world.succeeded == "False":
            break
    assert (world.state, world.succeeded) == ("RetriesExhausted", "False")
    assert world.job_names == ["demo-prepare-0", "demo-train-1", "demo-prepare-2", "demo-prepare-3"]
    assert "terminationMessagePath" in world.message


def test_only_the_newest_attempt_has_all_of_its_message() -> None:
    world = World().settle().prepared().running()
    world.exits(13, world.words(Reason.STORAGE_FAILED, message="m" * 200)).settle()
    assert len(world.job.status.attempts[-1].message or "") == 160
    world.after(1000).settle()
    assert [len(each.message or "") for each in world.job.status.attempts] == [0, 56, 0]


def test_data_that_a_lifecycle_rule_deleted_is_prepared_again() -> None:
    world = World().settle().prepared().running()
    words = world.words(Reason.PREPARED_DATA_MISSING, message="no manifest")
    world.exits(13, words).settle().after(1000).settle()
    assert [attempt.stage for attempt in world.job.status.attempts] == ["prepare", "train", "prepare"]
    assert world.job.status.failures == 1
    world.prepared().running()
    assert [attempt.stage for attempt in world.job.status.attempts][-1] == "train"


def test_progress_of_another_attempt_is_not_shown() -> None:
    world = World().settle().prepared().running()
    world.reports(step=10)
    stale = next(iter(world.progress.values()))
    world.progress = {world.current.uid: stale.model_copy(update={"attempt": 0, "step": 99})}
    world.settle()
    assert world.job.status.progress is not None
    assert world.job.status.progress.step == 10


def test_progress_that_cannot_be_read_is_a_message_and_no_failure() -> None:
    world = World().settle().prepared().running()
    world.silent = frozenset({world.current.uid})
    world.settle()
    assert (world.state, world.succeeded) == ("Training", "Unknown")
    assert "NetworkPolicy" in world.job.status.conditions[0].message
    world.silent = frozenset()
    world.settle()
    assert "NetworkPolicy" not in world.job.status.conditions[0].message
    world.published()
    assert world.succeeded == "True"


def test_the_condition_moves_its_time_only_with_its_status() -> None:
    world = World().settle().after(100).prepared()
    first = world.job.status.conditions[0].last_transition_time
    assert first.startswith("2026-01-05T12:00:00")
    world.running().published()
    assert world.job.status.conditions[0].last_transition_time > first


def test_the_status_stays_small_and_keeps_the_newest_attempts() -> None:
    world = World(retries={"onDisruption": 100}).settle().prepared()
    for _ in range(30):
        world.running().after(7).disrupted("PreemptionByScheduler " + "x" * 400, pod_left=True)
    assert len(world.job.status.attempts) == 10
    assert world.job.status.disruptions == 30
    assert world.job.status.active_seconds == 20 + 30 * 7
    assert len(json.dumps(world.job.status.to_json())) < 10_000


def test_a_plan_is_a_function_of_what_was_observed() -> None:
    world = World().settle().prepared().running()
    assert plan(world.observed(), world.now) == plan(replace(world.observed()), world.now)


def _at(seconds: int) -> str:
    return (T0 + timedelta(seconds=seconds)).isoformat()


def test_time_in_a_queue_after_a_preemption_does_not_count() -> None:
    world = queued_world(activeDeadlineSeconds=1000).settle().change_job(suspended=False).running().after(100)
    world.pods = []
    world.change_job(suspended=True, active=0).settle().after(5000).settle()
    assert world.state == "Queued"
    world.change_job(suspended=False).running().after(50)
    world.succeeds(world.words(Reason.COMPLETED, prepared=PREPARED))
    assert world.job.status.active_seconds == 150


@pytest.mark.parametrize("ends", ["while it is suspended", "after it went on"])
def test_an_attempt_that_was_preempted_began_with_its_first_pod(ends: str) -> None:
    """What ran for a time lies between its start and its end, however often it was suspended."""
    world = queued_world().settle().change_job(suspended=False).running()
    began = format_time(world.now)
    for _ in range(2):
        world.after(100)
        world.pods = []
        world.change_job(suspended=True, active=0).settle().after(1000).settle()
        world.change_job(suspended=False, resumed=world.now).running().settle()
    world.after(10)
    if ends == "while it is suspended":
        world.pods = []
        world.change_job(suspended=True, held=True, active=0).settle().after(60)
        words = "Container trainer for pod team/x failed with exit code 14 matching FailJob rule at index 1"
        world.change_job(failed=True, failed_reason="PodFailurePolicy", failed_message=words).settle()
    else:
        world.succeeds(world.words(Reason.COMPLETED, prepared=PREPARED))
    first = world.job.status.attempts[0]
    assert (first.start_time, first.active_seconds) == (began, 210)
    assert "firstStartTime" not in first.to_json()


def test_a_suspended_job_whose_pod_is_still_shown_counts_it_once() -> None:
    world = World().settle().running().after(40).patch_spec(suspend=True).settle()
    world.pod(phase="Failed", running=False, terminated=True, exit_code=14, terminated_time=world.now)
    world.change_job(active=0).settle().after(100).settle().after(100).settle()
    assert world.job.status.attempts[-1].active_seconds == 40


def test_a_pod_that_was_never_seen_running_is_counted_all_the_same() -> None:
    world = World().settle()
    start = world.now
    world.after(33).pod(started=start, terminated_time=world.now)
    world.succeeds(world.words(Reason.COMPLETED, prepared=PREPARED))
    assert world.job.status.active_seconds == 33


LEFT_ALONE: dict[str, tuple[int, dict[str, Any], str, str]] = {
    "it has prepared": (0, {"prepared": PREPARED}, "Training", "Unknown"),
    "the data are malformed": (11, {}, "DatasetMalformed", "False"),
    "storage failed": (13, {}, "Retrying", "Unknown"),
}


@pytest.mark.parametrize("phase", ["Running", "Pending"])
@pytest.mark.parametrize(("code", "said", "state", "succeeded"), LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_an_attempt_ends_with_the_trainer_and_takes_a_sidecar_that_stays_along(
    code: int, said: dict[str, Any], state: str, succeeded: str, phase: str
) -> None:
    """What an injector put beside it would keep the pod, the Job and its accelerators for ever.

    The pod is Pending as long as the sidecar's image cannot be pulled, whatever its trainer has done.
    """
    world = World().settle().running().after(20)
    reason = {0: Reason.COMPLETED, 11: Reason.DATASET_MALFORMED, 13: Reason.STORAGE_FAILED}[code]
    world.pod(
        phase=phase,
        running=False,
        terminated=True,
        exit_code=code,
        terminated_time=world.now,
        said=world.words(reason, **said).encode(),
    ).settle()
    assert (world.state, world.deleted) == ("Preparing", []), "a native sidecar is stopped by the kubelet in a moment"
    assert world.last.look_again_seconds == 5
    world.after(5).settle()
    assert (world.state, world.succeeded) == (state, succeeded)
    assert world.deleted == ["demo-prepare-0"]
    assert world.job.status.attempts[0].active_seconds == 20
    retried = any("Retrying" in note for note in world.notes)
    assert retried == (code == 13), "a stage that is done is no trouble, whatever stays beside it"


@pytest.mark.parametrize("told", ["its result", "nothing"])
def test_a_sidecar_that_fails_beside_a_trainer_that_is_done_fails_nothing(told: str) -> None:
    """The pod has failed then, and the Job with it: a proxy that is told to quit, or a log shipper, may exit with 1."""
    world = World(retries={"onFailure": 0}).settle().prepared().running().after(60)
    words = world.words(Reason.COMPLETED, artifact=ARTIFACT, summary=Summary(step=100, total_steps=100))
    world.pod(
        phase="Failed",
        running=False,
        terminated=True,
        exit_code=0,
        terminated_reason="Completed",
        terminated_time=world.now,
        said=words.encode() if told == "its result" else "",
    )
    world.change_job(failed=True, active=0, ended=world.now, failed_reason="BackoffLimitExceeded").settle()
    status = world.job.status
    if told == "its result":
        assert (world.state, status.failures, status.disruptions) == ("Completed", 0, 0)
    else:
        assert (status.attempts[1].reason, status.failures, status.disruptions) == ("ResultLost", 0, 1)
        assert world.job_names[-1] == "demo-prepare-2"


def test_a_pod_that_its_node_does_not_take_says_so_in_the_nodes_words() -> None:
    world = World().settle().prepared()
    words = "Allocate failed due to no healthy devices present; cannot allocate unhealthy devices nvidia.com/gpu"
    world.pod(phase="Failed", reason="UnexpectedAdmissionError", message=words, node="node-1")
    limit = "Job has reached the specified backoff limit"
    world.change_job(failed=True, ended=world.now, failed_reason="BackoffLimitExceeded", failed_message=limit).settle()
    attempt = world.job.status.attempts[1]
    assert (attempt.reason, attempt.charged_to) == ("PodFailed", "disruptions")
    assert str(attempt.message).startswith("UnexpectedAdmissionError: Allocate failed")


def test_a_node_that_refuses_pods_is_asked_less_and_less_often() -> None:
    """It is free, so the scheduler chooses it again at once: twenty disruptions would be used up within seconds."""
    world = World().settle().prepared()
    pauses = []
    for _ in range(7):
        world.pod(phase="Failed", reason="UnexpectedAdmissionError", message="no healthy devices", node="node-1")
        world.change_job(failed=True, ended=world.now, failed_reason="BackoffLimitExceeded", failed_message="x")
        jobs = len(world.settle().job_names)
        pause = world.last.look_again_seconds
        assert (world.state, pause is not None) == ("Retrying", True)
        pauses.append(pause)
        world.after((pause or 0) - 1).settle()
        assert len(world.job_names) == jobs
        world.after(1).settle()
        assert len(world.job_names) == jobs + 1
    assert pauses == [10, 20, 40, 80, 160, 300, 300]
    jobs = len(world.job_names)
    assert len(world.running().after(60).disrupted("x").settle().job_names) == jobs + 1  # elsewhere, and at once


def test_the_pause_after_very_many_failures_is_the_longest_one() -> None:
    failed = AttemptStatus(number=0, stage="train", job_name="x", job_uid="u", reason="Bug", charged_to="failures")
    assert pause_seconds(WorkStatus(failures=10_000, attempts=[failed]), 10.0) == 300


def test_a_container_that_fails_before_the_trainer_begins_is_named() -> None:
    """A mesh that needs more rights than a namespace gives puts an init container into each pod, which fails."""
    world = World().settle()
    body = {
        "metadata": {
            "namespace": "team",
            "name": "demo-prepare-0-x",
            "uid": "pod-1",
            "labels": {"trimtab.dev/finetunejob": "demo"},
            "ownerReferences": [
                {"kind": "Job", "name": "demo-prepare-0", "uid": world.current.uid, "controller": True}
            ],
        },
        "status": {
            "phase": "Failed",
            "initContainerStatuses": [{"name": "istio-init", "state": {"terminated": {"exitCode": 1}}}],
            "containerStatuses": [{"name": "trainer", "state": {"waiting": {"reason": "PodInitializing"}}}],
        },
    }
    view = PodView.of(body)
    assert view is not None
    world.pods.append(view)
    limit = "Job has reached the specified backoff limit"
    world.change_job(failed=True, ended=world.now, failed_reason="BackoffLimitExceeded", failed_message=limit).settle()
    attempt = world.job.status.attempts[0]
    assert (attempt.reason, attempt.charged_to) == ("ContainerFailed", "failures")
    assert "container istio-init exited with code 1" in world.message


def test_a_pod_that_ends_by_itself_is_left_to_its_job() -> None:
    world = World().settle().running().after(20)
    world.pod(phase="Running", running=False, terminated=True, exit_code=0, terminated_time=world.now).settle()
    world.after(2).succeeds(world.words(Reason.COMPLETED, prepared=PREPARED))
    assert (world.state, world.deleted) == ("Training", [])


@pytest.mark.parametrize("when", ["from the start", "while it runs", "after our own suspension"])
def test_whoever_else_suspends_the_job_is_not_written_against(when: str) -> None:
    """A policy or a queue that leaves no trace on the Job: whatever is written, it is suspended again."""
    world = World().settle()
    if when == "while it runs":
        world.running().after(30)
        world.pods = []
    if when == "after our own suspension":
        world.patch_spec(suspend=True).settle().patch_spec(suspend=False)
    actions: list[str] = []

    def against(action: Any) -> None:
        actions.append(type(action).__name__)
        World.act(world, action)
        world.jobs = [replace(job, suspended=True) for job in world.jobs]

    world.act = against  # type: ignore[method-assign]
    world.change_job(suspended=True, active=0).settle().after(1000).settle().after(1000).settle()
    assert (world.state, world.succeeded) == ("Queued", "Unknown")
    assert "not by this object's spec.suspend" in world.message
    assert actions == (["Suspend"] if when == "after our own suspension" else [])
    assert world.job.status.active_seconds == 0
    world.act = lambda action: World.act(world, action)  # type: ignore[method-assign]
    world.change_job(suspended=False).running()
    assert world.state == "Preparing"


def test_a_queue_is_recognised_by_what_the_job_has() -> None:
    """A default queue is set on the Job alone, by the queue's own webhook."""
    world = World().settle().change_job(suspended=True, queue="default").settle()
    assert (world.state, world.message) == ("Queued", "waiting for queue default to admit Job demo-prepare-0")
    world.patch_spec(suspend=True).settle()
    assert world.deleted == ["demo-prepare-0"], "its quota goes back"


def test_a_preemption_by_the_queue_costs_no_budget_even_when_the_job_counts_it() -> None:
    """Let go on before its old pod is forgotten, the Job matches that pod's exit code with its rules."""
    world = queued_world(retries={"onDisruption": 0}).settle().change_job(suspended=False).running().after(100)
    world.change_job(suspended=True, active=0).settle()
    world.after(5).change_job(suspended=False, resumed=world.now)
    world.exits(14, world.words(Reason.INTERRUPTED, "checkpoint at step 7"))
    assert (world.state, world.job.status.disruptions) == ("Queued", 0)
    assert world.job_names == ["demo-prepare-0", "demo-prepare-1"]
    first = world.job.status.attempts[0]
    assert (first.reason, first.charged_to) == ("Suspended", None)
    world.change_job(suspended=False, resumed=world.now).running().after(10).exits(14)
    assert (world.state, world.job.status.disruptions) == ("RetriesExhausted", 1), "an interruption of its own counts"


@pytest.mark.parametrize("code", [137, 143])
def test_a_trainer_that_was_too_slow_for_a_suspension_and_was_killed_costs_no_budget(code: int) -> None:
    world = World(retries={"onFailure": 0, "onDisruption": 0}).settle().running().after(30)
    world.patch_spec(suspend=True).settle()
    world.change_job(suspended=True, held=True, active=0).exits(code)
    world.patch_spec(suspend=False).settle()
    assert (world.job.status.failures, world.job.status.disruptions) == (0, 0)
    assert world.job_names == ["demo-prepare-0", "demo-prepare-1"]


def test_a_trainer_that_crashed_while_it_was_suspended_is_charged_for_it() -> None:
    world = World(retries={"onFailure": 0}).settle().running().after(30)
    world.patch_spec(suspend=True).settle()
    world.change_job(suspended=True, held=True, active=0).exits(139)
    assert world.job.status.failures == 1


@pytest.mark.parametrize("by", ["us", "another, before its clock was stopped", "another"])
def test_what_a_suspension_ended_costs_no_budget_when_the_job_fails_while_it_is_suspended(by: str) -> None:
    """Kubernetes matches the exit code at once, and lets the Job fail when it is to go on: it never says resumed."""
    world = World(retries={"onDisruption": 0}).settle().running().after(30)
    if by == "us":
        world.patch_spec(suspend=True).settle()
    world.pods = []
    world.change_job(suspended=True, held=True, active=0)
    if by != "another, before its clock was stopped":
        world.settle().after(60)
    if by == "us":
        world.patch_spec(suspend=False).settle()
    words = "Container trainer for pod team/x failed with exit code 14 matching FailJob rule at index 1"
    world.change_job(suspended=False, failed=True, failed_reason="PodFailurePolicy", failed_message=words)
    world.settle()
    assert (world.state, world.job.status.disruptions) == ("Preparing", 0)
    assert world.job_names == ["demo-prepare-0", "demo-prepare-1"]
    first = world.job.status.attempts[0]
    assert (first.reason, first.charged_to) == ("Suspended", None)


def test_a_question_about_the_node_is_followed_by_one_about_the_pod() -> None:
    """A pod that is being deleted and never started, on a node that is Ready."""
    world = World().settle()
    world.pod(node="n", scheduled_time=T0, deletion_time=T0, waiting_reason="ContainerCreating").after(400)
    first, second = NodeOf("n"), EventsOf("team", world.pods[-1].uid)
    asked = set(plan(world.observed(), world.now).inquiries)
    assert asked == {first, second}
    assert plan(world.observed({first: "Ready"}), world.now).inquiries == (second,)
    made = plan(world.observed({first: "Ready", second: ()}), world.now)
    assert made.status is not None
    assert made.look_again_seconds is not None


TRACKED = {
    "Argo CD": {"annotations": {"argocd.argoproj.io/tracking-id": "x"}},
    "Flux": {"labels": {"kustomize.toolkit.fluxcd.io/name": "x"}},
    "the Flux Operator": {"labels": {"resourceset.fluxcd.controlplane.io/name": "x"}},
    "Kluctl": {"labels": {"kluctl.io/discriminator": "x"}},
    "Crossplane": {"labels": {"crossplane.io/composite": "x"}},
    "Karmada": {"labels": {"karmada.io/managed": "true"}},
    "kro": {"labels": {"kro.run/owned": "true"}},
    "KubeVela": {"labels": {"app.oam.dev/name": "x"}},
    "Sveltos": {"annotations": {"projectsveltos.io/reference-name": "x"}},
}


@pytest.mark.parametrize("metadata", TRACKED.values(), ids=TRACKED)
def test_what_a_tool_would_create_again_is_not_deleted_by_its_time(metadata: dict[str, Any]) -> None:
    world = World(ttlSecondsAfterFinished=60).settle().prepared(artifact=ARTIFACT)
    world.job = world.job.model_copy(update={"metadata": world.job.metadata.model_copy(update=metadata)})
    made = plan(world.after(3600).observed(), world.now)
    assert (made.actions, made.look_again_seconds) == ((), None)
    kept = World(ttlSecondsAfterFinished=60)
    kept.job = kept.job.model_copy(update={"metadata": kept.job.metadata.model_copy(update=metadata)})
    assert "not deleted after its ttlSecondsAfterFinished" in kept.settle().prepared(artifact=ARTIFACT).message
    settings = replace(world.observed().settings, delete_what_gitops_tracks=True)
    made = plan(replace(world.observed(), settings=settings), world.now)
    assert [type(action) for action in made.actions] == [Delete]


def test_a_label_that_a_tool_is_told_to_track_by_is_such_a_mark() -> None:
    """Argo CD's application.instanceLabelKey: nobody else knows it."""
    world = World(ttlSecondsAfterFinished=60, labels={"platform.example/app": "x"}).settle().prepared(artifact=ARTIFACT)
    observed = world.after(3600).observed()
    assert [type(action) for action in plan(observed, world.now).actions] == [Delete]
    settings = replace(observed.settings, gitops_labels=("platform.example/app",))
    assert plan(replace(observed, settings=settings), world.now).actions == ()


def test_what_we_suspended_goes_on_though_an_operator_that_did_not_understand_it_led_in_between() -> None:
    """Its word stood where ours was, by which we tell our suspending from others'."""
    world = World().settle().prepared().running().after(30).patch_spec(suspend=True).settle()
    world.change_job(active=0).settle().patch_spec(suspend=False).says("NotUnderstood").settle()
    assert [job.suspended for job in world.jobs] == [False, False]
    assert world.state == "Training"


def test_a_stage_of_a_later_version_is_left_alone_until_its_version_is_back() -> None:
    """Its Job runs and ends, and whatever it says: nothing is charged, ended or begun."""
    world = World().settle().prepared().change_job(stage="merge").settle()
    before, jobs = world.job.status, list(world.job_names)
    happenings: tuple[Callable[[], World], ...] = (
        lambda: world.running(),
        lambda: world.after(60).succeeds(None),
        lambda: world.patch_spec(suspend=True).settle(),
        lambda: world.patch_spec(suspend=False, activeDeadlineSeconds=1).after(1000).settle(),
    )
    for happens in happenings:
        happens()
        assert (world.state, world.succeeded) == ("NotUnderstood", "Unknown")
        assert "merge" in world.message
        assert world.job_names == jobs
        assert world.deleted == []
    after = world.job.status
    same = {"conditions": before.conditions, "observed_generation": before.observed_generation}
    assert after.model_copy(update=same) == before
    world.change_job(stage="train").settle()
    assert world.state != "NotUnderstood"


def test_last_words_of_another_contract_charge_and_end_nothing() -> None:
    """A trainer whose words mean something else succeeded: its result is not lost, it is not ours to read."""
    text = '{"version": "trimtab.dev/run/v2", "stage": "train", "outcome": ["done"]}'
    assert TerminationMessage.decode(text) is None
    world = World().settle().prepared().running().after(60)
    before, jobs = world.job.status, list(world.job_names)
    world.pod(phase="Succeeded", running=False, terminated=True, exit_code=0, said=text)
    world.change_job(complete=True, active=0, ended=world.now).settle()
    assert (world.state, world.succeeded) == ("NotUnderstood", "Unknown")
    assert "trimtab.dev/run/v2" in world.message
    assert (world.job_names, world.job.status.attempts) == (jobs, before.attempts)
    world.pod(said="").published()
    assert (world.state, world.job.status.disruptions) == ("Completed", 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Traceback",
        "[1]",
        "7",
        '{"version": 2}',
        '{"version": "v2"}',
        '{"version": "trimtab.dev/run/v1.4"}',
        "[" * 5000,
    ],
)
def test_texts_of_no_other_contract(text: str) -> None:
    assert TerminationMessage.other_contract(text) is None

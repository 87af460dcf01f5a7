"""How attempts end that a node, a tool or a person has ended, and who pays."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from trimtab_operator.domain.ownership import ORPHAN
from trimtab_operator.domain.plan import NodeOf
from trimtab_operator.domain.views import PodView, format_time
from trimtab_trainer.contract import Reason

from tests.unit.domain.makers import World


def training() -> World:
    return World().settle().prepared().running().after(60)


def killed(world: World, code: int, **pod: Any) -> World:
    world.pod(phase="Failed", running=False, terminated=True, exit_code=code, terminated_time=world.now, **pod)
    limit = "Job has reached the specified backoff limit"
    return world.change_job(failed=True, active=0, ended=world.now, failed_message=limit).settle()


TAKEN = {
    "a node that was reset": (255, {"terminated_reason": "Unknown"}, "NodeLost"),
    "a kubelet that found no container": (137, {"terminated_reason": "ContainerStatusUnknown"}, "NodeLost"),
    "a deletion that took too long": (137, {"deletion_time": "now"}, "PodFailed"),
    "a deletion before the trainer listens": (143, {"deletion_time": "now"}, "PodFailed"),
    "a deadline that a policy gave the pod": (143, {"reason": "DeadlineExceeded", "message": "Pod"}, "PodFailed"),
}


@pytest.mark.parametrize(("code", "fields", "reason"), TAKEN.values(), ids=TAKEN)
def test_what_others_ended_is_no_failure_of_the_trainer(code: int, fields: dict[str, Any], reason: str) -> None:
    world = training()
    if "deletion_time" in fields:
        fields = {"deletion_time": world.now}
    killed(world, code, **fields)
    attempt, status = world.job.status.attempts[1], world.job.status
    assert (attempt.reason, attempt.charged_to, status.failures) == (reason, "disruptions", 0)


OUT_OF_TIME = {
    "of the Job, in time": (14, True),
    "of the Job, killed": (137, True),
    "of the pod, in time": (14, False),
    "of the pod, killed": (143, False),
}


@pytest.mark.parametrize(("code", "of_the_job"), OUT_OF_TIME.values(), ids=OUT_OF_TIME)
def test_a_deadline_that_a_policy_gave_is_named(code: int, of_the_job: bool) -> None:
    world, said = training(), "was active longer than specified"
    pod: dict[str, Any] = (
        {"deletion_time": world.now} if of_the_job else {"reason": "DeadlineExceeded", "message": said}
    )
    world.pod(phase="Failed", running=False, terminated=True, exit_code=code, terminated_time=world.now, **pod)
    job = (
        {"failed_reason": "DeadlineExceeded", "failed_message": said} if of_the_job else {"failed_message": "exit code"}
    )
    world.change_job(failed=True, active=0, ended=world.now, **job).settle()
    attempt = world.job.status.attempts[1]
    assert attempt.charged_to == "disruptions"
    assert str(attempt.message).startswith(f"activeDeadlineSeconds of its {'Job' if of_the_job else 'pod'}, set by")


NEVER_BEGAN: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "of the Job, whose pod it took": ({"failed_reason": "DeadlineExceeded"}, None),
    "of the Job, whose pod is there": ({"failed_reason": "DeadlineExceeded"}, {"phase": "Pending"}),
    "of the Job, whose pod could not begin": ({"failed_reason": "DeadlineExceeded"}, {"unschedulable": "0/3 nodes"}),
    "of the pod": ({}, {"phase": "Failed", "reason": "DeadlineExceeded", "message": "was active longer"}),
}


@pytest.mark.parametrize(("job", "pod"), NEVER_BEGAN.values(), ids=NEVER_BEGAN)
def test_a_deadline_that_was_over_before_it_began_is_named(job: dict[str, Any], pod: dict[str, Any] | None) -> None:
    world = World().settle().prepared().after(600)
    if pod is not None:
        world.pod(**pod)
    message = "Job was active longer than specified deadline" if job else "Job has reached the specified backoff limit"
    world.change_job(failed=True, active=0, ended=world.now, failed_message=message, **job).settle()
    attempt, of = world.job.status.attempts[1], "Job" if job else "pod"
    assert (attempt.reason, attempt.charged_to) == ("PodFailed", "disruptions")
    assert str(attempt.message).startswith(f"activeDeadlineSeconds of its {of}, set by something in the cluster: ")
    assert str(attempt.message).endswith("; the trainer never began" if pod else "; its pod left no evidence")


def test_a_deadline_is_named_where_no_pod_is_left_of_what_ran() -> None:
    world = training()
    world.pods = []
    said = "Job was active longer than specified deadline"
    world.change_job(failed=True, active=0, ended=world.now, failed_reason="DeadlineExceeded", failed_message=said)
    attempt = world.settle().job.status.attempts[1]
    assert str(attempt.message) == (
        f"activeDeadlineSeconds of its Job, set by something in the cluster: {said}; its pod left no evidence"
    )


BEFORE: dict[str, tuple[dict[str, Any], int, bool, tuple[str, str]]] = {
    "an init container that failed": ({}, 1, False, ("ContainerFailed", "failures")),
    "an init container that failed, in a pod that is deleted since": ({}, 1, True, ("ContainerFailed", "failures")),
    "an init container that a deletion stopped": ({}, 143, True, ("PodFailed", "disruptions")),
    "an init container that a deletion killed": ({}, 137, True, ("PodFailed", "disruptions")),
    "a sidecar that a deletion stopped": ({"restartPolicy": "Always"}, 143, True, ("PodFailed", "disruptions")),
    "a sidecar that a deletion made fail": ({"restartPolicy": "Always"}, 1, True, ("PodFailed", "disruptions")),
}


@pytest.mark.parametrize(("spec", "code", "deleted", "want"), BEFORE.values(), ids=BEFORE)
def test_what_ended_before_the_trainer_began_is_a_failure_unless_somebody_stopped_it(
    spec: dict[str, Any], code: int, deleted: bool, want: tuple[str, str]
) -> None:
    """A native sidecar fails no pod: it is started again, or stopped with the pod, by whatever exit code."""
    world = World().settle().prepared()
    job = world.current
    owner = {"kind": "Job", "name": job.name, "uid": job.uid, "controller": True}
    metadata = {"namespace": "team", "name": "x", "uid": "u", "ownerReferences": [owner]}
    if deleted:
        metadata["deletionTimestamp"] = format_time(world.now)
    ended = {"terminated": {"exitCode": code, "reason": "Error"}}
    body = {
        "metadata": {**metadata, "labels": {"trimtab.dev/finetunejob": "demo"}},
        "spec": {"initContainers": [{"name": "istio-proxy", **spec}]},
        "status": {
            "phase": "Failed",
            "initContainerStatuses": [{"name": "istio-proxy", "state": ended}],
            "containerStatuses": [{"name": "trainer", "state": {"waiting": {"reason": "PodInitializing"}}}],
        },
    }
    view = PodView.of(body)
    assert view is not None
    world.pods = [view]
    limit = "Job has reached the specified backoff limit"
    world.change_job(failed=True, active=0, ended=world.now, failed_message=limit).settle()
    attempt = world.job.status.attempts[1]
    assert (attempt.reason, attempt.charged_to) == want
    assert ("somebody deleted the pod" in str(attempt.message)) is (want[1] == "disruptions")


OWN = {
    "an exit code of its own": (255, {"terminated_reason": "Error"}, "exited with code 255"),
    "a signal of its own": (139, {}, "killed by signal 11"),
    "a kill that nobody ordered": (137, {}, "killed by signal 9"),
}


@pytest.mark.parametrize(("code", "fields", "words"), OWN.values(), ids=OWN)
def test_what_nobody_else_ended_is_a_failure(code: int, fields: dict[str, Any], words: str) -> None:
    world = killed(training(), code, **fields)
    attempt = world.job.status.attempts[1]
    assert (attempt.reason, attempt.charged_to) == ("ContainerFailed", "failures")
    assert words in str(attempt.message)


RULES = {
    "the condition, by a later index": ("Pod a/b has condition DisruptionTarget", 2, "DisruptionTarget"),
    "an exit code, by the first": ("Container trainer for pod a/b failed with exit code 13", 0, "StorageFailed"),
}


@pytest.mark.parametrize(("words", "index", "reason"), RULES.values(), ids=RULES)
def test_rules_that_a_webhook_has_put_before_ours_charge_nobody_else(words: str, index: int, reason: str) -> None:
    world = training()
    world.pods = []
    matched = f"{words} matching FailJob rule at index {index}"
    world.change_job(failed=True, active=0, ended=world.now, failed_message=matched).settle()
    assert world.job.status.attempts[1].reason == reason


def test_a_container_that_a_policy_has_started_again_ended_when_it_ended_first() -> None:
    """By a webhook that writes over restartPolicy: it would find its result, end well and be started for ever."""
    world = training()
    words = world.words(Reason.STORAGE_FAILED).encode()
    world.pods[-1] = seen_again(world, words)
    world.settle()
    assert world.deleted == [], "what is beside it has its time to end"
    world.after(5).settle()
    attempt = world.job.status.attempts[1]
    assert (attempt.reason, attempt.charged_to) == ("StorageFailed", "failures")
    assert world.deleted == ["demo-train-1"]


def seen_again(world: World, words: str) -> PodView:
    """Return the pod of the newest Job, whose container was started again after it had ended."""
    job, old = world.current, world.pods[-1]
    ended = {"exitCode": 13, "message": words, "startedAt": format_time(world.now - timedelta(seconds=60))}
    container = {
        "name": "trainer",
        "restartCount": 1,
        "state": {"running": {"startedAt": format_time(world.now)}},
        "lastState": {"terminated": {**ended, "finishedAt": format_time(world.now)}},
    }
    owner = {"kind": "Job", "name": job.name, "uid": job.uid, "controller": True}
    labels = {"trimtab.dev/finetunejob": "demo"}
    metadata = {"namespace": "team", "name": old.name, "uid": old.uid, "labels": labels, "ownerReferences": [owner]}
    found = PodView.of({"metadata": metadata, "status": {"phase": "Running", "containerStatuses": [container]}})
    assert found is not None
    return found


def test_a_pod_that_left_no_evidence_is_told_of_with_the_words_of_its_job() -> None:
    world = training()
    world.pods = []
    limit = "Job has reached the specified backoff limit"
    world.change_job(failed=True, active=0, ended=world.now, failed_message=limit).settle()
    attempt = world.job.status.attempts[1]
    assert attempt.reason == "PodVanished"
    assert str(attempt.message).startswith("the pod vanished and left no evidence; its Job says:")


def test_a_node_whose_clock_is_ahead_puts_off_no_attempt() -> None:
    world = training()
    world.pod(started=world.now + timedelta(minutes=59))
    world.pod(
        terminated_time=world.now + timedelta(hours=1), phase="Failed", running=False, terminated=True, exit_code=13
    )
    world.change_job(failed=True, ended=world.now).settle()
    attempt = world.job.status.attempts[1]
    assert (attempt.end_time, world.last.look_again_seconds) == (format_time(world.now), 10)


def test_a_node_whose_clock_is_ahead_keeps_no_sidecar() -> None:
    world = training()
    words = world.words(Reason.STORAGE_FAILED).encode()
    ahead = world.now + timedelta(hours=1)
    world.pod(running=False, terminated=True, exit_code=13, terminated_time=ahead, said=words).settle()
    assert world.job.status.attempts[1].end_time == format_time(world.now)
    assert world.deleted == ["demo-train-1"]


@pytest.mark.parametrize("there", [False, True])
def test_a_job_that_is_deleted_and_that_a_finalizer_holds_holds_up_nothing(there: bool) -> None:
    world = training().change_job(deleting=True).settle()
    assert len(world.job_names) == 2, "its pod runs still"
    if there:
        world.pod(phase="Failed", running=False, terminated=True, exit_code=14, terminated_time=world.now).settle()
    else:
        world.pods = []
        world.settle()
    assert world.job.status.attempts[1].reason == ("Interrupted" if there else "JobDeleted")
    assert world.job_names[-1] == "demo-train-2"


def test_a_pod_that_does_not_end_on_a_ready_node_is_told_and_asked_about_less_and_less_often() -> None:
    world = training()
    world.pod(deletion_time=world.now)
    world.answers[NodeOf("node-1")] = "Ready"
    assert world.settle().last.look_again_seconds == 120
    looks = []
    for seconds in (121, 400, 10_000):
        looks.append(world.after(seconds).settle().last.look_again_seconds)
        assert "was to end and does not, though node node-1 is Ready" in world.message
    assert looks == [15, 100.25, 300]


@pytest.mark.parametrize(("finalizers", "deleted"), [(["backup.example/hold"], ["demo-train-1"]), ([ORPHAN], [])])
def test_what_runs_for_an_object_that_is_deleted_ends_whoever_holds_the_object(
    finalizers: list[str], deleted: list[str]
) -> None:
    world = training()
    leaving = {"deletion_timestamp": format_time(world.now), "finalizers": finalizers}
    world.job = world.job.model_copy(update={"metadata": world.job.metadata.model_copy(update=leaving)})
    assert world.settle().deleted == deleted
    assert world.after(10_000).settle().deleted == deleted


TOO_MUCH = {
    "of its scratch space": (
        'Usage of EmptyDir volume "trimtab-work" exceeds the limit "50Gi". ',
        "raise the operator's scratchSize or use less data",
    ),
    "of its temporary files": (
        'Usage of EmptyDir volume "trimtab-tmp" exceeds the limit "1Gi". ',
        "the size of /tmp is fixed: in spec.template.env of a new FineTuneJob set what writes there (TMPDIR, HOME, "
        "TORCHINDUCTOR_CACHE_DIR) to /work",
    ),
    "of its shared memory": (
        'Usage of EmptyDir volume "trimtab-shm" exceeds the limit "1Gi". ',
        "raise the operator's shmSize",
    ),
    "of a volume of the template": (
        'Usage of EmptyDir volume "cache" exceeds the limit "1Gi". ',
        "raise the sizeLimit of cache in spec.template.volumes of a new FineTuneJob, or, where it is not there, in "
        "what adds it to pods",
    ),
    "of the container, by a LimitRange": (
        'Container trainer exceeded its local ephemeral storage limit "1Gi". ',
        "raise spec.template.prepareResources.limits.ephemeral-storage in a new FineTuneJob: where that names none, "
        "the operator's defaults or a LimitRange of the namespace have set it",
    ),
    "of a container beside it": (
        'Container mesh-proxy exceeded its local ephemeral storage limit "1Gi". ',
        "raise the limit of ephemeral-storage of mesh-proxy in what adds it to pods, or in a LimitRange of the "
        "namespace",
    ),
    "of the pod": (
        "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ",
        "raise spec.template.prepareResources.limits.ephemeral-storage in a new FineTuneJob: where that names none, "
        "the operator's defaults or a LimitRange of the namespace have set it; containers that are added to pods count "
        "too",
    ),
}


@pytest.mark.parametrize(("words", "advice"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_what_a_pod_was_evicted_for_says_where_there_is_more(words: str, advice: str) -> None:
    """A LimitRange limits the disk of a container that names no limit, whatever the operator's scratch size is."""
    world = World().settle().pod(phase="Failed", reason="Evicted", message=words).change_job(failed=True).settle()
    assert (world.state, world.succeeded) == ("ScratchSpaceExceeded", "False")
    assert world.message == f"{words.strip()}; {advice}"


def test_a_job_that_was_handed_to_another_cluster_says_who_did() -> None:
    """MultiKueue mirrors the Job's status here, and none of its pods."""
    world = World().settle().change_job(complete=True, run_by="kueue.x-k8s.io/multikueue").settle()
    assert world.job.status.attempts[0].reason == "ResultLost"
    assert "its pods are made by kueue.x-k8s.io/multikueue" in (world.job.status.attempts[0].message or "")

"""Pods that do not start, as API servers, schedulers, kubelets and injectors show them: each says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from trimtab_operator.domain.plan import Create, EventsOf, WarnedSince
from trimtab_operator.domain.views import PodView, format_time
from trimtab_operator.domain.work.attempts.waiting import CONTAINER_EVENTS, NODE_EVENTS, VOLUME_EVENTS
from trimtab_operator.domain.work.decide import UNWATCHED_SECONDS

from tests.unit.domain.makers import World

ON_ITS_NODE = {"type": "PodScheduled", "status": "True"}


def shows(world: World, before: Sequence[dict[str, Any]] = (), **status: Any) -> World:
    """Have the pod of the newest Job look so. `before` are containers of its spec that come before the trainer."""
    job = world.current
    conditions = [{"lastTransitionTime": format_time(world.now), **each} for each in status.pop("conditions", ())]
    view = PodView.of(
        {
            "metadata": {
                "namespace": "team",
                "name": f"{job.name}-x",
                "uid": f"uid-{job.name}-x",
                "creationTimestamp": format_time(world.now),
                "labels": {"trimtab.dev/finetunejob": "demo"},
                "ownerReferences": [{"kind": "Job", "name": job.name, "uid": job.uid, "controller": True}],
            },
            "spec": {"initContainers": [*before]},
            "status": {"phase": "Pending", "conditions": conditions, **status},
        }
    )
    assert view is not None
    world.pods = [view]
    return world


def waits(reason: str, message: str = "words") -> list[dict[str, Any]]:
    return [{"name": "trainer", "state": {"waiting": {"reason": reason, "message": message}}}]


def tells(world: World, *events: tuple[str, str]) -> World:
    world.answers[EventsOf("team", world.pods[-1].uid)] = events
    return world


NOT_SCHEDULED = {
    "a gate": ("SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates"),
    "a scheduler of gangs": ("Undetermined", "1/1 tasks in gang unschedulable: pod group is not ready"),
    "a scheduler's own error": ("SchedulerError", 'running PreBind plugin "VolumeBinding": timed out'),
}


@pytest.mark.parametrize(("reason", "words"), NOT_SCHEDULED.values(), ids=NOT_SCHEDULED)
def test_whoever_keeps_a_pod_from_a_node_has_its_words_in_the_state(reason: str, words: str) -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": words}
    world = shows(World().settle(), conditions=[condition]).settle()
    assert (world.state, world.succeeded) == ("Queued", "Unknown")
    assert words in world.message


def test_a_scheduler_that_does_not_exist_is_named() -> None:
    world = shows(World(template={"schedulerName": "volcano"}).settle()).after(14).settle()
    assert (world.state, world.last.look_again_seconds) == ("Preparing", 1)
    world.after(1).settle()
    assert world.state == "Queued"
    assert "look whether volcano runs" in world.message
    world.after(100_000).settle()
    assert (world.state, world.succeeded, world.last.look_again_seconds) == ("Queued", "Unknown", 300)


def test_a_scheduler_that_a_webhook_wrote_into_the_pod_is_named() -> None:
    world = shows(World().settle())
    world.pods = [replace(world.pods[0], scheduler="volcano")]
    world.after(15).settle()
    assert world.state == "Queued"
    assert "look whether volcano runs, whose name a policy or a webhook wrote into the pod" in world.message
    world.pods = [replace(world.pods[0], scheduler="default-scheduler")]
    assert world.settle().message == "the scheduler has not looked at the pod yet"


IN_TROUBLE = {
    "RegistryUnavailable": "ImageUnavailable",
    "SignatureValidationFailed": "ImageUnavailable",
    "ImageVolumeMountFailed": "ContainerInvalid",
    "PreCreateHookError": "ContainerInvalid",
    "PostStartHookError": "ContainerInvalid",
    "AWordOfALaterKubelet": "ContainerInvalid",
}


@pytest.mark.parametrize(("reason", "state"), IN_TROUBLE.items(), ids=IN_TROUBLE)
def test_whatever_word_a_container_waits_with_is_told_and_waited_for_as_long(reason: str, state: str) -> None:
    world = shows(World().settle(), conditions=[ON_ITS_NODE], containerStatuses=waits(reason)).settle()
    assert (world.state, world.succeeded) == (state, "Unknown")
    assert "words" in world.message
    world.after(601).settle()
    assert (world.state, world.succeeded) == (state, "False")


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing"])
def test_a_container_that_is_being_created_is_in_no_trouble(reason: str) -> None:
    world = shows(World().settle(), conditions=[ON_ITS_NODE], containerStatuses=waits(reason, ""))
    assert world.after(10_000).settle().state == "Preparing"


MENDED = {
    "a cache of the kubelet that was late": (("FailedMount", "failed to sync configmap cache"), ("Pulling", "image")),
    "a disk that another node had": (("FailedAttachVolume", "Multi-Attach error"), ("Pulling", "image")),
    "a network that was late": (("FailedCreatePodSandBox", "cni plugin not initialized"), ("Pulled", "image")),
}


@pytest.mark.parametrize("events", MENDED.values(), ids=MENDED)
def test_what_failed_before_the_image_is_pulled_ends_nothing(events: tuple[tuple[str, str], ...]) -> None:
    """Twenty GB of an image take longer than the patience with a volume that is not there."""
    world = shows(World().settle(), conditions=[ON_ITS_NODE], containerStatuses=waits("ContainerCreating", ""))
    tells(world, ("Scheduled", "ok"), *events).after(5000).settle()
    assert (world.state, world.succeeded) == ("Preparing", "Unknown")
    tells(world, *events, events[0]).settle()
    assert world.state != "Preparing", "it fails again"


def test_a_pod_that_is_refused_after_hours_of_another_wait_is_given_the_whole_time() -> None:
    quota, policy = "pods x is forbidden: exceeded quota: gpus, requested: cpu=1", "violates PodSecurity restricted"
    world = World().settle().after(20).pods_refused(quota).settle().after(7200).settle()
    assert (world.state, world.succeeded) == ("QuotaExceeded", "Unknown")
    world.pods_refused(policy, since=world.now).settle()
    assert (world.state, world.succeeded) == ("PodRefused", "Unknown")
    world.after(599).settle()
    assert (world.state, world.succeeded) == ("PodRefused", "Unknown")
    world.after(1).settle()
    assert (world.state, world.succeeded) == ("PodRefused", "False")


OUT_OF_ORDER = {
    "a quota's evaluation": "Error creating: Internal error occurred: resource quota evaluation timed out",
    "etcd": "Error creating: etcdserver: request timed out",
    "a slow server": "Error creating: Timeout: request did not complete within requested timeout",
    "a busy server": "Error creating: the server has received too many requests and has asked us to try again later",
    "a server that starts": "Error creating: the server is currently unable to handle the request (post pods)",
    "no server": 'Error creating: Post "https://10.0.0.1:443/api/v1/namespaces/a/pods": dial tcp: connection refused',
    "a server that crashes": 'Error creating: Post "https://10.0.0.1/api/v1/namespaces/a/pods": stream error: INTERNAL',
}


@pytest.mark.parametrize("words", OUT_OF_ORDER.values(), ids=OUT_OF_ORDER)
def test_an_error_of_the_server_that_keeps_a_pod_from_being_made_ends_nothing(words: str) -> None:
    world = World().settle().after(20).pods_refused(words).settle().after(7200).settle()
    assert (world.state, world.succeeded) == ("Pending", "Unknown")
    assert world.message == f"the API server does not take the pod: {words}; it is tried again"


def test_a_job_whose_pods_somebody_else_is_to_make_waits_for_that_one() -> None:
    """A policy, or a queue of several clusters, wrote spec.managedBy: no controller here looks at the Job."""
    world = World().settle().change_job(run_by="example.com/other", active=0).after(20).settle()
    assert (world.state, world.succeeded) == ("Queued", "Unknown")
    assert "example.com/other is to make them" in world.message
    assert world.change_job(active=1).settle().state == "Preparing"


def test_pods_that_run_in_another_cluster_are_not_looked_for_here() -> None:
    """MultiKueue mirrors what its Job has there: each ten seconds all of its children were listed, for days."""
    world = World().settle().change_job(run_by="kueue.x-k8s.io/multikueue", active=1).after(20).settle()
    made = world.decided()
    assert not made.confirm
    assert (made.look_again_seconds or 3600) > UNWATCHED_SECONDS
    assert world.change_job(run_by="").decided().confirm


NODE_TROUBLE = {
    "no address is left": ("FailedCreatePodSandBox", "no IP addresses available in range"),
    "no runtime of the class": ("FailedCreatePodSandBox", 'no runtime for "nvidia" is configured'),
    "a driver of devices": ("FailedPrepareDynamicResources", "NodePrepareResources failed for claim gpu"),
}


@pytest.mark.parametrize("event", NODE_TROUBLE.values(), ids=NODE_TROUBLE)
def test_a_node_that_cannot_set_a_pod_up_is_told_and_another_is_tried(event: tuple[str, str]) -> None:
    world = shows(World().settle(), conditions=[ON_ITS_NODE], containerStatuses=waits("ContainerCreating", ""))
    tells(world, event).after(20).settle()
    assert (world.state, world.succeeded) == ("ContainerInvalid", "Unknown")
    assert event[1] in world.message
    world.after(600).settle()
    attempt = world.job.status.attempts[0]
    assert (world.state, world.deleted) == ("Retrying", ["demo-prepare-0"])
    assert (attempt.reason, attempt.charged_to) == ("PodFailed", "disruptions")
    assert world.after(10).settle().job_names == ["demo-prepare-0", "demo-prepare-1"]


def injected(world: World, *, sidecar: bool, **status: Any) -> World:
    """Have a container that an injector put before the trainer run since noon."""
    spec = {"name": "vault-agent", **({"restartPolicy": "Always"} if sidecar else {})}
    told = {"name": "vault-agent", "state": {"running": {"startedAt": "2026-01-05T12:00:00Z"}}, **status}
    trainer = waits("PodInitializing", "")
    return shows(world, [spec], conditions=[ON_ITS_NODE], initContainerStatuses=[told], containerStatuses=trainer)


def test_what_an_injector_put_before_the_trainer_and_does_not_end_is_named() -> None:
    """A kubelet says of a container that is to end that it has started as soon as it runs. It may have much to do."""
    world = injected(World().settle(), sidecar=False, started=True).settle()
    assert world.state == "Preparing"
    world.after(100_000).settle()
    assert (world.state, world.succeeded) == ("Pending", "Unknown")
    assert "container vault-agent, which comes before the trainer" in world.message
    ended = {"terminated": {"exitCode": 0}}
    assert injected(world, sidecar=False, state=ended).settle().state == "Preparing"


def test_a_sidecar_that_runs_and_never_starts_holds_the_pod_no_longer_than_one_may_take_to_start() -> None:
    """Its startupProbe fails, or a kubelet has given it up: no trainer begins, and accelerators are held."""
    world = injected(World().settle(), sidecar=True, started=False).after(599).settle()
    assert (world.state, world.succeeded) == ("Pending", "Unknown")
    assert "container vault-agent, which comes before the trainer and stays beside it" in world.message
    assert "startupProbe" in world.message
    world.after(1).settle()
    attempt = world.job.status.attempts[0]
    assert (world.state, attempt.reason, attempt.charged_to) == ("Retrying", "PodFailed", "disruptions")
    assert world.deleted == ["demo-prepare-0"]


def test_a_node_whose_clock_is_ahead_lets_its_sidecar_hold_the_pod_no_longer() -> None:
    tomorrow = {"running": {"startedAt": "2026-01-06T12:00:00Z"}}
    world = injected(World().settle(), sidecar=True, started=False, state=tomorrow).after(599).settle()
    assert (world.state, world.succeeded) == ("Pending", "Unknown")
    world.after(1).settle()
    assert world.job.status.attempts[0].reason == "PodFailed"


def test_a_sidecar_that_has_started_holds_nothing_up() -> None:
    world = injected(World().settle(), sidecar=True, started=True)
    assert world.after(10_000).settle().state == "Preparing"


def test_a_run_configuration_that_somebody_deleted_is_made_again() -> None:
    """Nobody but the operator can: a tool that sweeps away what no pod mounts took it while the Job was suspended."""
    world = shows(World().settle(), conditions=[ON_ITS_NODE], containerStatuses=waits("ContainerCreating", ""))
    config = next(body for body in world.created if body["kind"] == "ConfigMap")
    tells(world, ("FailedMount", f'configmap "{config["metadata"]["name"]}" not found')).after(20).settle()
    assert (world.state, world.last.aside) == ("VolumeUnavailable", (Create(config),))
    tells(world, ("FailedMount", 'secret "storage" not found')).settle()
    assert (world.state, world.last.aside) == ("VolumeUnavailable", ())


def test_an_image_that_was_on_its_way_for_long_is_given_the_whole_time_after_its_first_fault() -> None:
    world = shows(World().settle(), conditions=[ON_ITS_NODE], containerStatuses=waits("ContainerCreating", ""))
    assert world.after(1600).settle().state == "Preparing"
    scheduled = world.pods[-1].scheduled_time
    fault: dict[str, Any] = {"waiting_reason": "ErrImagePull", "waiting_message": "connection reset by peer"}
    world.answers[WarnedSince("team", world.pods[-1].uid, CONTAINER_EVENTS)] = world.now
    world.pod(**fault, scheduled_time=scheduled).settle()
    assert (world.state, world.succeeded) == ("ImageUnavailable", "Unknown")
    world.after(599).settle()
    assert (world.state, world.succeeded, world.last.look_again_seconds) == ("ImageUnavailable", "Unknown", 1)
    world.after(1).settle()
    assert (world.state, world.succeeded) == ("ImageUnavailable", "False")


LATE = {
    "a volume": ("FailedMount", VOLUME_EVENTS, "VolumeUnavailable"),
    "a node": ("FailedCreatePodSandBox", NODE_EVENTS, "ContainerInvalid"),
}


@pytest.mark.parametrize(("reason", "counted", "state"), LATE.values(), ids=LATE)
def test_what_first_fails_after_an_image_was_long_on_its_way_is_given_the_whole_time(
    reason: str, counted: frozenset[str], state: str
) -> None:
    """Such as where a node begins anew and asks again for what it had."""
    world = shows(World().settle(), conditions=[ON_ITS_NODE], containerStatuses=waits("ContainerCreating", ""))
    tells(world, ("Pulled", "image")).after(1600).settle()
    world.answers[WarnedSince("team", world.pods[-1].uid, counted)] = world.now
    tells(world, ("Pulled", "image"), (reason, "words")).settle()
    assert (world.state, world.succeeded) == (state, "Unknown")
    world.after(599).settle()
    assert (world.state, world.succeeded) == (state, "Unknown")
    world.after(1).settle()
    assert world.state != state or world.succeeded == "False"


FORBIDDEN = {
    "an admission webhook": 'Error creating: admission webhook "x" denied the request: Internal error occurred: x',
    "a name": 'Error creating: pods "etcdserver: x" is forbidden: no',
    "an address": 'Error creating: pods "x" is forbidden: ask at Post "https://example.com": no',
}


@pytest.mark.parametrize("words", FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_refusal_that_quotes_an_error_of_a_server_is_a_refusal(words: str) -> None:
    world = World().settle().after(20).pods_refused(words).settle()
    assert (world.state, world.succeeded) == ("PodRefused", "Unknown")
    world.after(7200).settle()
    assert (world.state, world.succeeded) == ("PodRefused", "False")


@pytest.mark.parametrize("hours", [0, 1, -1])
def test_a_clock_that_is_hours_behind_puts_off_no_question(hours: int) -> None:
    """The API server says when a Job was made, and the operator's node what time it is."""
    world = World().settle()
    made = world.now + timedelta(hours=hours)
    world.change_job(created=made).pods_refused("exceeded quota: gpus, requested: requests.nvidia.com/gpu=1", made)
    world.after(16).settle()
    assert world.state == "QuotaExceeded"

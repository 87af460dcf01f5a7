"""What may change while a job lives, and what that does: never to a pod that runs, at once where none does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from trimtab_operator.domain.evaluation import EVALUATING
from trimtab_operator.domain.finetunejob import TRAINING
from trimtab_operator.domain.views import QUEUE_LABEL
from trimtab_operator.domain.work.building.inputs import config_inputs, job_inputs
from trimtab_operator.domain.work.building.job import build_run_config_map

from tests.unit.domain.makers import (
    SETTINGS,
    EvaluationWorld,
    World,
    adapterrollout,
    finetunejob,
    finished,
    queued_world,
)

OTHER = {"uri": "s3://adapters/demo", "secretName": "storage-7f8c2"}
GPU = {"resources": {"limits": {"nvidia.com/gpu": 1}}}


def secrets_of(body: dict[str, Any]) -> set[str]:
    volumes = body["spec"]["template"]["spec"]["volumes"]
    return {volume["secret"]["secretName"] for volume in volumes if "secret" in volume}


def config_of(body: dict[str, Any]) -> str:
    volumes = body["spec"]["template"]["spec"]["volumes"]
    return next(str(volume["configMap"]["name"]) for volume in volumes if volume["name"] == "trimtab-config")


def config_maps(world: World) -> list[str]:
    return [body["metadata"]["name"] for body in world.created if body["kind"] == "ConfigMap"]


def test_a_secret_renamed_while_the_pod_runs_is_taken_by_the_next_attempt() -> None:
    world = World().settle().prepared().running()
    world.patch_spec(output=OTHER).settle()
    assert (world.deleted, world.job_names[-1], world.state) == ([], "demo-train-1", "Training")
    world.after(10).disrupted("EvictionByEvictionAPI")
    assert world.job_names[-1] == "demo-train-2"
    assert "storage-7f8c2" in secrets_of(world.created[-1])
    assert config_of(world.created[-1]) in config_maps(world)
    assert len(set(config_maps(world))) == 2


def test_a_secret_renamed_between_the_stages_is_taken_by_training() -> None:
    world = World().settle().running()
    world.patch_spec(output=OTHER).settle().prepared()
    assert world.job_names == ["demo-prepare-0", "demo-train-1"]
    assert "storage-7f8c2" in secrets_of(world.created[-1])
    assert config_of(world.created[-1]) == config_maps(world)[-1]


def test_one_configuration_is_one_config_map_that_is_created_once() -> None:
    world = World().settle().prepared().running().published()
    assert len(config_maps(world)) == 1


def test_a_config_map_that_only_another_version_named_so_is_not_what_the_next_job_mounts() -> None:
    world = World().settle()
    world.change_job(config="demo-run-0a1b2c3d").prepared()
    assert [body["kind"] for body in world.created] == ["ConfigMap", "Job", "ConfigMap", "Job"]
    assert config_of(world.created[-1]) == config_maps(world)[-1]


WAITING: dict[str, Callable[[World], Any]] = {
    "a Secret that is not there": lambda world: world.patch_spec(output=OTHER),
    "an image that cannot be pulled": lambda world: world.patch_spec(template={**GPU, "image": "right:1"}),
    "a node that does not exist": lambda world: world.patch_spec(template={**GPU, "nodeSelector": {"gpu": "h100"}}),
    "more memory than there is": lambda world: world.patch_spec(template={}),
}


@pytest.mark.parametrize("change", WAITING.values(), ids=WAITING)
def test_a_pod_that_never_ran_gives_way_to_what_is_asked_for_now(change: Callable[[World], Any]) -> None:
    world = World().settle().prepared()
    world.pod(waiting_reason="ContainerCreating").settle()
    change(world)
    world.settle()
    assert world.deleted == ["demo-train-1"]
    assert world.job_names[-1] == "demo-train-2"
    status = world.job.status
    assert (status.failures, status.disruptions, status.attempts[-2].reason) == (0, 0, "SpecChanged")
    assert world.state == "Training"
    world.settle().running().after(5).published()
    assert world.state == "Completed"


OF_NO_JOB: dict[str, dict[str, Any]] = {
    "retries": {"retries": {"onFailure": 5}},
    "a deadline": {"activeDeadlineSeconds": 9999},
    "a TTL": {"ttlSecondsAfterFinished": 5},
    "what is the default": {"checkpoint": {}, "suspend": False},
}


@pytest.mark.parametrize("change", OF_NO_JOB.values(), ids=OF_NO_JOB)
def test_what_is_in_no_job_replaces_none(change: dict[str, Any]) -> None:
    world = World().settle().prepared()
    world.patch_spec(**change).settle()
    assert (world.deleted, world.job_names[-1]) == ([], "demo-train-1")


def test_a_suspended_job_goes_on_as_its_template_says_now() -> None:
    world = World().settle().prepared().running()
    world.patch_spec(suspend=True).settle()
    world.after(5).pod(phase="Failed", running=False, terminated=True, terminated_time=world.now).settle()
    world.patch_spec(template={**GPU, "image": "right:1"}).settle()
    assert (world.state, world.job_names[-1]) == ("Suspended", "demo-train-1")
    world.patch_spec(suspend=False).settle()
    assert (world.deleted, world.job_names[-1]) == (["demo-train-1"], "demo-train-2")
    assert world.created[-1]["spec"]["template"]["spec"]["containers"][0]["image"] == "right:1"
    assert (world.job.status.failures, world.job.status.disruptions) == (0, 0)
    assert world.job.status.active_seconds == 25


def test_a_suspended_job_that_nobody_changed_goes_on_with_the_job_it_has() -> None:
    world = World().settle().prepared().running()
    world.patch_spec(suspend=True).settle()
    world.after(5).pod(phase="Failed", running=False, terminated=True, terminated_time=world.now).settle()
    world.patch_spec(suspend=False).settle()
    assert (world.deleted, world.job_names[-1]) == ([], "demo-train-1")


def test_a_job_that_is_moved_to_another_queue_waits_there() -> None:
    world = queued_world().settle()
    metadata = world.job.metadata.model_copy(update={"labels": {QUEUE_LABEL: "others"}})
    world.job = world.job.model_copy(update={"metadata": metadata})
    world.settle()
    assert (world.deleted, world.job_names) == (["demo-prepare-0"], ["demo-prepare-0", "demo-prepare-1"])
    assert world.created[-1]["metadata"]["labels"][QUEUE_LABEL] == "others"


def test_a_job_of_an_older_operator_gives_way_to_nothing() -> None:
    world = World().settle()
    world.change_job(inputs="").patch_spec(output=OTHER).settle()
    assert (world.deleted, world.job_names) == ([], ["demo-prepare-0"])


def test_an_ended_job_takes_any_change_and_does_nothing() -> None:
    world = World().settle().prepared().running().published()
    before = len(world.created)
    world.patch_spec(output=OTHER, template={"image": "other:1"}, checkpoint={"keep": 5}).settle()
    assert (world.state, len(world.created), world.deleted) == ("Completed", before, [])
    assert world.job.status.observed_generation == world.job.metadata.generation


def test_the_templates_image_is_taken_when_it_changes_and_the_operators_is_not() -> None:
    world = World().settle().prepared().running()
    world.patch_spec(template={**GPU, "image": "mine:2"}).settle().after(5).disrupted("EvictionByEvictionAPI")
    assert world.created[-1]["spec"]["template"]["spec"]["containers"][0]["image"] == "mine:2"
    assert world.job.status.images == {"prepare": SETTINGS.prepare_image, "train": "mine:2"}


def test_an_evaluation_takes_the_secrets_its_spec_names_now() -> None:
    world = EvaluationWorld(upstream=finished(), datasetSecretName="questions").settle().prepared().running()
    world.patch_spec(datasetSecretName="questions-7f8c2").settle()
    assert world.deleted == []
    world.after(5).disrupted("EvictionByEvictionAPI")
    assert world.job_names[-1] == "demo-eval-2"
    assert "questions-7f8c2" in secrets_of(world.created[-1])
    assert "questions" not in secrets_of(world.created[-1])


@pytest.mark.parametrize("own", [True, False])
def test_an_evaluation_of_artifacts_reads_each_with_its_own_secret_of_now(own: bool) -> None:
    artifact = {"uri": "s3://adapters/demo/adapters/e", "digest": "sha256:" + "e" * 64}
    other = {"uri": "s3://adapters/demo/adapters/f", "digest": "sha256:" + "f" * 64}
    tasks = [{"name": "heldout", "type": "Perplexity", "dataset": {"uri": "s3://datasets/questions/"}}]
    baseline = {"artifact": other} if own else {"rolloutName": "guide"}
    world = EvaluationWorld(
        target={"artifact": artifact},
        baseline=baseline,
        tasks=tasks,
        baseModel={"uri": "s3://models/tiny"},
        output={"uri": "s3://adapters/demo"},
    )
    world.rollout = None if own else adapterrollout("f")
    world.settle()
    assert secrets_of(world.created[-1]) == set()
    named = {"artifact": {**other, "secretName": "c"}} if own else baseline
    world.patch_spec(
        target={"artifact": {**artifact, "secretName": "a"}},
        baseline=named,
        baseModel={"uri": "s3://models/tiny", "secretName": "b"},
        output={"uri": "s3://adapters/demo", "secretName": "d"},
    ).settle()
    assert world.deleted == ["demo-eval-prepare-0"]
    assert secrets_of(world.created[-1]) == ({"a", "b", "c", "d"} if own else {"a", "b", "d"})


def test_the_digits_do_not_depend_on_what_nobody_has_set() -> None:
    plain = finetunejob()
    spelled = finetunejob(training={"batchSize": 32}, lora={}, retries={"onFailure": 9}, suspend=True)
    assert config_inputs(TRAINING, plain) == config_inputs(TRAINING, spelled)
    assert job_inputs(TRAINING, plain) == job_inputs(TRAINING, spelled)
    other = finetunejob(training={"microBatchSize": 8})
    assert config_inputs(TRAINING, plain) != config_inputs(TRAINING, other)


def test_the_names_of_config_maps_fit() -> None:
    job = finetunejob()
    longest = job.model_copy(update={"metadata": job.metadata.model_copy(update={"name": "x" * 45})})
    assert len(build_run_config_map(TRAINING, longest)["metadata"]["name"]) <= 63
    assert len(EVALUATING.config_part) + 45 + 10 <= 63


def test_a_change_that_is_taken_back_before_the_operator_looked_changes_nothing() -> None:
    world = World().settle()
    world.patch_spec(output=OTHER)
    world.patch_spec(output={"uri": "s3://adapters/demo", "secretName": "storage"}).settle()
    assert world.deleted == []
    assert world.job_names == ["demo-prepare-0"]

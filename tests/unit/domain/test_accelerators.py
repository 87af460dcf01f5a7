"""What is counted as an accelerator, in Jobs and in the books."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from trimtab_operator.domain.finetunejob import TRAINING
from trimtab_operator.domain.finetunejob.figures import note_progress
from trimtab_operator.domain.settings import ACCELERATOR_RESOURCES, Settings
from trimtab_operator.domain.views import ACCELERATORS_LABEL, JobView
from trimtab_operator.domain.work.attempts.attempt import Attempt
from trimtab_operator.domain.work.building.accelerators import devices, for_one_accelerator
from trimtab_operator.domain.work.building.job import accelerators_per_pod, build_job
from trimtab_trainer.contract import Progress, Stage

from tests.unit.domain.makers import PREPARED, SETTINGS, World, finetunejob

DEVICES: dict[str, tuple[dict[str, object], int]] = {
    "a GPU and what HAMi shares of it": (
        {"nvidia.com/gpu": 1, "nvidia.com/gpumem": 3000, "nvidia.com/gpucores": 129, "rdma/hca": 1},
        1,
    ),
    "a GPU and network cards": ({"nvidia.com/gpu": "1", "vpc.amazonaws.com/efa": 4}, 1),
    "no devices": ({"cpu": "8", "memory": "64Gi", "hugepages-2Mi": "1Gi", "example.com/fpga": 2}, 0),
    "MIG devices of two sizes": ({"nvidia.com/mig-1g.5gb": 2, "nvidia.com/mig-3g.20gb.shared": "1"}, 3),
    "AMD": ({"amd.com/gpu": 4}, 4),
    "partitions of AMD": ({"amd.com/cpx_nps4": 8}, 8),
    "Intel, whose plugin has more resources": (
        {"gpu.intel.com/i915": 1, "gpu.intel.com/memory.max": "16G", "gpu.intel.com/millicores": 500},
        1,
    ),
    "Gaudi": ({"habana.ai/gaudi": 8}, 8),
    "Neuron": ({"aws.amazon.com/neuron": 16}, 16),
    "TPU": ({"google.com/tpu": "4"}, 4),
    "a device class as a resource": ({"deviceclass.resource.kubernetes.io/gpu.nvidia.com": 2}, 2),
    "a quantity with a suffix": ({"nvidia.com/gpu": "1k"}, 1000),
    "none at all": ({"nvidia.com/gpu": 0}, 0),
    "no quantity": ({"nvidia.com/gpu": "many"}, 0),
}


@pytest.mark.parametrize(("limits", "count"), DEVICES.values(), ids=DEVICES)
def test_devices_are_counted_and_nothing_else(limits: dict[str, object], count: int) -> None:
    assert devices(limits, ACCELERATOR_RESOURCES) == count


ACCEPTED = {name: case for name, case in DEVICES.items() if name != "no quantity"}


@pytest.mark.parametrize(("limits", "count"), ACCEPTED.values(), ids=ACCEPTED)
def test_the_books_count_the_same(limits: dict[str, object], count: int) -> None:
    world = World(template={"resources": {"limits": limits}}).settle().prepared().running()
    assert world.job.status.attempts[-1].accelerators == count
    world.after(20).published()
    assert world.job.status.attempts[-1].accelerators is None
    assert world.job.status.accelerator_seconds == 20 * count


def test_the_setting_says_what_counts() -> None:
    settings = Settings(prepare_image="a", trainer_image="b", accelerator_resources=("example.com/*",))
    job = finetunejob(template={"resources": {"limits": {"example.com/fpga": 2, "nvidia.com/gpu": 1}}})
    assert accelerators_per_pod(job, settings, Stage.TRAIN) == 2
    assert accelerators_per_pod(job, settings, Stage.PREPARE) == 0


def test_what_the_operators_setting_gives_is_counted_too() -> None:
    settings = Settings(prepare_image="a", trainer_image="b", train_resources={"requests": {"nvidia.com/gpu": "2"}})
    assert accelerators_per_pod(finetunejob(template={}), settings, Stage.TRAIN) == 2


def claiming(**resources: Any) -> dict[str, Any]:
    return {
        "resourceClaims": [
            {"name": "gpus", "resourceClaimTemplateName": "four-gpus", "accelerators": 4},
            {"name": "one", "resourceClaimName": "a-gpu"},
            {"name": "card", "resourceClaimTemplateName": "nic", "accelerators": 0},
        ],
        **resources,
    }


def test_a_claim_counts_as_what_it_says_or_as_one_where_it_is_used() -> None:
    template = claiming(
        resources={"claims": [{"name": "gpus", "request": "gpu"}, {"name": "card"}]},
        prepareResources={"claims": [{"name": "one"}]},
    )
    job = finetunejob(template=template)
    assert accelerators_per_pod(job, SETTINGS, Stage.TRAIN) == 4
    assert accelerators_per_pod(job, SETTINGS, Stage.PREPARE) == 1


def test_a_pod_gets_the_claims_its_container_uses_and_no_devices_beside_them() -> None:
    template = claiming(
        resources={"claims": [{"name": "gpus", "request": "gpu"}, {"name": "card"}]},
        prepareResources={"claims": [{"name": "one"}]},
    )
    settings = Settings(prepare_image="a", trainer_image="b", train_resources={"limits": {"nvidia.com/gpu": 1}})
    job = build_job(TRAINING, finetunejob(template=template), settings, Stage.TRAIN, number=1, prepared=PREPARED)
    spec = job["spec"]["template"]["spec"]
    assert spec["resourceClaims"] == [
        {"name": "gpus", "resourceClaimTemplateName": "four-gpus"},
        {"name": "card", "resourceClaimTemplateName": "nic"},
    ]
    assert spec["containers"][0]["resources"] == {
        "limits": {},
        "requests": {},
        "claims": [{"name": "gpus", "request": "gpu"}, {"name": "card"}],
    }
    prepare = build_job(TRAINING, finetunejob(template=template), settings, Stage.PREPARE, number=0)
    assert prepare["spec"]["template"]["spec"]["resourceClaims"] == [{"name": "one", "resourceClaimName": "a-gpu"}]


def test_a_prepare_job_that_holds_accelerators_is_charged_for_them() -> None:
    world = World(template={"prepareResources": {"limits": {"nvidia.com/gpu": 2}}}).settle().prepared()
    assert world.job.status.accelerator_seconds == 40


def test_an_attempt_is_charged_for_what_its_job_held_whatever_the_template_says_now() -> None:
    world = World(template={"resources": {"limits": {"nvidia.com/gpu": 4}}}).settle().prepared().running()
    world.patch_spec(template={"resources": {"limits": {"nvidia.com/gpu": 1}}}).settle().after(10).published()
    assert world.job.status.accelerator_seconds == 40


def test_a_job_of_an_older_operator_is_counted_by_the_template() -> None:
    world = World(template={"resources": {"limits": {"nvidia.com/gpu": 2, "nvidia.com/gpumem": 3000}}})
    world.settle().prepared()
    attempts = [each.model_copy(update={"accelerators": None}) for each in world.job.status.attempts]
    world.job = world.job.model_copy(update={"status": world.job.status.model_copy(update={"attempts": attempts})})
    world.running().after(10).published()
    assert world.job.status.accelerator_seconds == 20


FORGED = {"1e999": None, "-1": None, "many": None, "9" * 63: None, "": None, "9" * 9: 1_000_000}


@pytest.mark.parametrize(("label", "counted"), FORGED.items())
def test_a_forged_label_raises_nothing_and_is_bounded(label: str, counted: int | None) -> None:
    """What is no number is none: then the template says how many there are."""
    job = build_job(TRAINING, finetunejob(), SETTINGS, Stage.TRAIN, number=1, prepared=PREPARED)
    job["metadata"]["labels"][ACCELERATORS_LABEL] = label
    view = JobView.of(job | {"metadata": {**job["metadata"], "uid": "a"}})
    assert view is not None
    assert view.accelerators == counted


@pytest.mark.parametrize("told", [True, False])
def test_a_claim_that_is_not_there_is_said(told: bool) -> None:
    template = claiming(prepareResources={"claims": [{"name": each} for each in ("gpus", "one", "card")]})
    world = World(template=template).settle().pod().after(20).settle()
    assert (world.state, "has not looked at the pod" in world.message) == ("Queued", True)
    if told:
        (inquiry,) = world.asked
        words = 'resourceclaimtemplates.resource.k8s.io "four-gpus" not found'
        world.answers[inquiry] = (("FailedResourceClaimCreation", words),)
        world.settle()
        assert words in world.message
    assert "spec.template.resourceClaims" in world.message
    world.running()
    assert world.state == "Preparing"


def test_an_evaluation_of_what_several_trained_has_one_of_them() -> None:
    resources = {"limits": {"nvidia.com/gpu": 4, "memory": "24Gi"}, "requests": {"amd.com/gpu": "0", "cpu": 2}}
    template = finetunejob(template={"resources": resources, "labels": {"team": "a"}}).spec.template
    found = for_one_accelerator(template).to_json()
    assert found["resources"] == {
        "limits": {"nvidia.com/gpu": 1, "memory": "24Gi"},
        "requests": {"amd.com/gpu": "0", "cpu": 2},
    }
    assert found["labels"] == {"team": "a"}
    assert template.to_json()["resources"] == resources


def test_the_status_tells_how_many_processes_train() -> None:
    world = World(template={"resources": {"limits": {"nvidia.com/gpu": 2}}}).settle().prepared().running()
    told = Progress(run_uid="u", attempt=1, stage=Stage.TRAIN, activity="Training", step=1, total_steps=2)
    seen = Attempt(world.jobs[-1], (), told.model_copy(update={"world_size": 2}))
    status = note_progress(world.job.status, seen)
    assert status.progress is not None
    assert status.progress.world_size == 2
    status = note_progress(world.job.status, replace(seen, progress=told.model_copy(update={"world_size": 1})))
    assert status.progress is not None
    assert status.progress.world_size is None

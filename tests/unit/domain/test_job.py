"""What work pods look like: restricted, without tokens, with limits; and the run configuration without secrets."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from trimtab_operator.api import FineTuneJob
from trimtab_operator.domain.evaluation import EVALUATING
from trimtab_operator.domain.finetunejob import TRAINING
from trimtab_operator.domain.settings import PodDefaults, Settings
from trimtab_operator.domain.views import QUEUE_LABEL
from trimtab_operator.domain.work.building.job import build_job, build_run_config_map, merge_resources
from trimtab_trainer.contract import ExitCode, Prepared, RunConfig, Stage

from tests.unit.domain.makers import PREPARED, SETTINGS, evaluation, finetunejob


def job_of(
    job: FineTuneJob,
    stage: Stage,
    number: int = 3,
    prepared: Prepared | None = PREPARED,
    settings: Settings = SETTINGS,
) -> dict[str, Any]:
    return build_job(TRAINING, job, settings, stage, number=number, prepared=prepared)


def pod_spec(stage: Stage = Stage.TRAIN, **spec: Any) -> dict[str, Any]:
    body: dict[str, Any] = job_of(finetunejob(**spec), stage, 3, PREPARED)["spec"]["template"]["spec"]
    return body


def test_every_work_pod_meets_restricted_pod_security_and_holds_no_token() -> None:
    for stage in TRAINING.stages:
        spec = pod_spec(stage)
        container = spec["containers"][0]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
        assert all("sizeLimit" in v["emptyDir"] for v in spec["volumes"] if "emptyDir" in v)


def test_secrets_are_mounted_read_only_and_never_in_the_environment_or_the_configuration() -> None:
    spec = pod_spec()
    mounts = {m["name"]: m for m in spec["containers"][0]["volumeMounts"]}
    for role in ("base-model", "dataset", "output"):
        assert mounts[f"trimtab-{role}"]["mountPath"] == f"/run/trimtab/secrets/{role}"
        assert mounts[f"trimtab-{role}"]["readOnly"] is True
    assert [e["name"] for e in spec["containers"][0]["env"]] == ["HOME", "USER", "LOGNAME", "TORCHINDUCTOR_CACHE_DIR"]
    config = RunConfig.model_validate_json(build_run_config_map(TRAINING, finetunejob())["data"]["run.json"])
    assert config.output.credentials is not None
    assert config.output.credentials.directory == "/run/trimtab/secrets/output"


def test_without_a_secret_the_workload_identity_is_used() -> None:
    spec = pod_spec(output={"uri": "s3://adapters/demo"})
    assert "trimtab-output" not in {v["name"] for v in spec["volumes"]}


def test_the_policy_of_pod_failures_names_every_exit_code_with_a_meaning() -> None:
    body = job_of(finetunejob(), Stage.TRAIN, 3, PREPARED)["spec"]
    rules = body["podFailurePolicy"]["rules"]
    assert {rule["action"] for rule in rules} == {"FailJob"}
    assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    codes = [code for rule in rules[1:] for code in rule["onExitCodes"]["values"]]
    assert codes == [14, 10, 11, 12, 13]
    assert set(codes) == {int(code) for code in ExitCode} - {0, 1}
    assert (body["backoffLimit"], body["podReplacementPolicy"]) == (0, "Failed")


def test_the_template_reaches_the_pod() -> None:
    template = {
        "nodeSelector": {"gpu": "h100"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "priorityClassName": "high",
        "serviceAccountName": "trainer",
        "runtimeClassName": "nvidia",
        "imagePullSecrets": [{"name": "registry"}],
        "labels": {"team": "a"},
        "annotations": {"note": "b"},
        "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
        "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
        "volumeMounts": [{"name": "models", "mountPath": "/models"}],
        "image": "mine:2",
        "terminationGracePeriodSeconds": 60,
    }
    body = job_of(finetunejob(template=template), Stage.TRAIN, 0, PREPARED)["spec"]["template"]
    spec = body["spec"]
    for field in ("nodeSelector", "tolerations", "priorityClassName", "serviceAccountName", "runtimeClassName"):
        assert spec[field] == template[field]
    assert spec["containers"][0]["image"] == "mine:2"
    assert {"name": "NCCL_DEBUG", "value": "INFO"} in spec["containers"][0]["env"]
    assert {"name": "models", "mountPath": "/models"} in spec["containers"][0]["volumeMounts"]
    assert body["metadata"]["labels"]["team"] == "a"
    assert body["metadata"]["annotations"] == {"note": "b"}
    assert spec["terminationGracePeriodSeconds"] == 60


KUEUE = "kueue.x-k8s.io"


def with_metadata(job: FineTuneJob, **metadata: dict[str, str]) -> FineTuneJob:
    return job.model_copy(update={"metadata": job.metadata.model_copy(update=metadata)})


def pod_with(defaults: dict[str, Any], stage: Stage = Stage.TRAIN, **template: Any) -> dict[str, Any]:
    """Return the pod of an operator with these defaults of work pods."""
    settings = replace(SETTINGS, work_pods=PodDefaults.model_validate(defaults))
    body = build_job(TRAINING, finetunejob(template=template), settings, stage, number=0, prepared=PREPARED)
    pod: dict[str, Any] = body["spec"]["template"]
    return pod


DEFAULTS = {
    "imagePullSecrets": [{"name": "cluster"}],
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    "nodeSelector": {"pool": "work", "zone": "a"},
    "priorityClassName": "batch",
    "labels": {"team": "platform", "cost": "gpu"},
    "annotations": {"sidecar.istio.io/inject": "false"},
}


def test_the_operators_defaults_reach_every_work_pod() -> None:
    for stage in TRAINING.stages:
        pod = pod_with(DEFAULTS, stage)
        for field in ("imagePullSecrets", "tolerations", "nodeSelector", "priorityClassName"):
            assert pod["spec"][field] == DEFAULTS[field], field
        assert pod["metadata"]["labels"]["cost"] == "gpu"
        assert pod["metadata"]["annotations"] == DEFAULTS["annotations"]


def test_the_template_comes_before_the_operators_defaults() -> None:
    pod = pod_with(
        DEFAULTS,
        imagePullSecrets=[{"name": "mine"}, {"name": "cluster"}],
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}, {"key": "spot", "operator": "Exists"}],
        nodeSelector={"zone": "b"},
        priorityClassName="mine",
        labels={"team": "a"},
        annotations={"sidecar.istio.io/inject": "true"},
    )
    assert pod["spec"]["imagePullSecrets"] == [{"name": "mine"}, {"name": "cluster"}]
    assert [each["key"] for each in pod["spec"]["tolerations"]] == ["nvidia.com/gpu", "spot"]
    assert pod["spec"]["nodeSelector"] == {"pool": "work", "zone": "b"}
    assert pod["spec"]["priorityClassName"] == "mine"
    assert pod["metadata"]["labels"]["team"] == "a"
    assert pod["metadata"]["annotations"]["sidecar.istio.io/inject"] == "true"


def test_no_default_takes_a_label_that_trimtab_finds_its_pods_by() -> None:
    theirs = {"trimtab.dev/stage": "serve", "app.kubernetes.io/managed-by": "flux"}
    labels = pod_with({"labels": theirs})["metadata"]["labels"]
    assert (labels["trimtab.dev/stage"], labels["app.kubernetes.io/managed-by"]) == ("train", "trimtab")


def test_ids_are_left_to_a_cluster_that_gives_them_out_and_the_rest_of_restricted_stays() -> None:
    for stage in TRAINING.stages:
        assert pod_with({"securityContext": {}}, stage)["spec"]["securityContext"] == {
            "runAsNonRoot": True,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        }
    ours = {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532}
    assert ours.items() <= pod_spec()["securityContext"].items()
    assert PodDefaults() == Settings("prepare:1", "trainer:1").work_pods


def test_a_user_without_a_name_has_one_for_torch() -> None:
    """getpass.getuser() reads these before it asks /etc/passwd, which knows no id that a cluster gave out."""
    told = {variable["name"]: variable["value"] for variable in pod_spec()["containers"][0]["env"]}
    assert told["USER"] == told["LOGNAME"] == "trimtab"
    assert told["HOME"] == "/tmp"
    assert told["TORCHINDUCTOR_CACHE_DIR"].startswith("/tmp/")


def test_a_variable_of_the_template_takes_the_place_of_ours() -> None:
    env = pod_spec(template={"env": [{"name": "HOME", "value": "/work"}]})["containers"][0]["env"]
    assert [variable["value"] for variable in env if variable["name"] == "HOME"] == ["/work"]


def told_of_training(stage: Stage, settings: Settings = SETTINGS, **template: Any) -> dict[str, Any] | None:
    pod = job_of(finetunejob(template=template), stage, settings=settings)["spec"]["template"]["spec"]
    env = {each["name"]: each["value"] for each in pod["containers"][0]["env"]}
    return json.loads(env["TRIMTAB_TRAIN_LIMITS"]) if "TRIMTAB_TRAIN_LIMITS" in env else None


def test_prepare_alone_is_told_what_the_pod_that_trains_will_have() -> None:
    template: dict[str, Any] = {
        "resources": {"limits": {"nvidia.com/gpu": 1, "memory": "24Gi", "cpu": "4"}},
        "prepareResources": {"limits": {"memory": "2Gi"}},
        "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4", "zone": "a"},
    }
    want = {"memoryBytes": 24 << 30, "accelerators": 1, "acceleratorProduct": "NVIDIA-L4"}
    assert told_of_training(Stage.PREPARE, **template) == want
    assert told_of_training(Stage.TRAIN, **template) is None


@pytest.mark.parametrize(
    ("resources", "count"),
    [
        ({"limits": {"nvidia.com/gpu": 4, "memory": "24Gi"}}, 4),
        ({"requests": {"amd.com/gpu": "2"}}, 2),
        ({"claims": [{"name": "pair"}]}, 2),
    ],
)
def test_the_pod_that_trains_is_told_of_how_many_processes_it_is_and_holds_as_many_accelerators(
    resources: dict[str, Any], count: int
) -> None:
    claims = [{"name": "pair", "resourceClaimTemplateName": "two", "accelerators": 2}] if "claims" in resources else []
    template: dict[str, Any] = {"resources": resources, "resourceClaims": claims}
    job = job_of(finetunejob(template=template), Stage.TRAIN)
    container = job["spec"]["template"]["spec"]["containers"][0]
    told = {each["name"]: each["value"] for each in container["env"]}
    assert told["TRIMTAB_PROCESSES"] == str(count)
    assert job["metadata"]["labels"]["trimtab.dev/accelerators"] == str(count)
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (1, 1)
    assert container["args"][0] == "train"
    assert told_of_training(Stage.PREPARE, **template)["accelerators"] == count  # type: ignore[index]
    before = job_of(finetunejob(template=template), Stage.PREPARE)["spec"]["template"]["spec"]["containers"][0]
    assert "TRIMTAB_PROCESSES" not in {each["name"] for each in before["env"]}


def test_a_pod_of_one_accelerator_is_one_process_whatever_its_trainers_version() -> None:
    job = job_of(finetunejob(template={"resources": {"limits": {"nvidia.com/gpu": 1}}}), Stage.TRAIN)
    env = job["spec"]["template"]["spec"]["containers"][0]["env"]
    assert "TRIMTAB_PROCESSES" not in {each["name"] for each in env}


def test_prepare_is_told_what_the_operators_settings_give_the_pod_that_trains() -> None:
    settings = replace(
        SETTINGS,
        train_resources={"limits": {"memory": "8Gi"}},
        work_pods=PodDefaults(node_selector={"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}),
    )
    want = {"memoryBytes": 8 << 30, "accelerators": 0, "acceleratorProduct": "nvidia-tesla-t4"}
    assert told_of_training(Stage.PREPARE, settings, resources={"limits": {}}) == want
    bare = replace(settings, train_resources={}, work_pods=PodDefaults())
    assert told_of_training(Stage.PREPARE, bare) == {"accelerators": 0}


def test_an_evaluation_is_not_told_of_training() -> None:
    alone = {
        "target": {"artifact": {"uri": "s3://adapters/x", "digest": "sha256:" + "7" * 64}},
        "baseModel": {"uri": "s3://models/tiny"},
        "output": {"uri": "s3://results/x"},
    }
    job = build_job(EVALUATING, evaluation(**alone), SETTINGS, Stage.PREPARE, number=0)
    names = [each["name"] for each in job["spec"]["template"]["spec"]["containers"][0]["env"]]
    assert "HOME" in names
    assert "TRIMTAB_TRAIN_LIMITS" not in names


def test_a_queue_gets_suspended_jobs_with_its_labels() -> None:
    labels = {QUEUE_LABEL: "gpus", f"{KUEUE}/priority-class": "low", f"{KUEUE}/max-exec-time-seconds": "60", "a": "b"}
    job = with_metadata(finetunejob(), labels=labels)
    body = job_of(job, Stage.PREPARE, 0, None)
    assert body["spec"]["suspend"] is True
    assert {key for key in body["metadata"]["labels"] if KUEUE in key} == labels.keys() - {"a"}
    assert "a" not in body["metadata"]["labels"]
    assert job_of(finetunejob(), Stage.PREPARE, 0, None)["spec"]["suspend"] is False


def test_an_empty_queue_name_is_no_queue_and_nobody_would_let_the_job_go_on() -> None:
    job = job_of(with_metadata(finetunejob(), labels={QUEUE_LABEL: ""}), Stage.PREPARE, 0, None)
    assert job["spec"]["suspend"] is False


def test_topology_reaches_the_pod_template_where_kueue_reads_it() -> None:
    annotations = {
        f"{KUEUE}/podset-required-topology": "cloud.example.com/rack",
        f"provreq.{KUEUE}/maxRunDurationSeconds": "60",
        "example.com/note": "a",
    }
    job = job_of(with_metadata(finetunejob(), annotations=annotations), Stage.TRAIN)
    passed_on = {key: value for key, value in annotations.items() if KUEUE in key}
    assert job["spec"]["template"]["metadata"]["annotations"] == passed_on
    assert job["metadata"]["annotations"] == passed_on
    template = {"annotations": {f"{KUEUE}/podset-preferred-topology": "cloud.example.com/rack"}}
    job = job_of(finetunejob(template=template), Stage.TRAIN)
    assert job["spec"]["template"]["metadata"]["annotations"] == template["annotations"]


@pytest.mark.parametrize("name", ["prebuilt-workload-name", "multikueue-origin", "managed"])
def test_what_can_be_true_of_one_object_only_is_not_passed_on(name: str) -> None:
    job = job_of(with_metadata(finetunejob(), labels={f"{KUEUE}/{name}": "a"}), Stage.TRAIN)
    assert not any(KUEUE in key for key in job["metadata"]["labels"])


def test_a_queue_of_the_template_is_the_jobs_and_not_the_pods() -> None:
    job = job_of(finetunejob(template={"labels": {QUEUE_LABEL: "gpus", "team": "a"}}), Stage.TRAIN)
    assert job["spec"]["suspend"] is True
    assert (job["metadata"]["labels"][QUEUE_LABEL], job["metadata"]["labels"]["team"]) == ("gpus", "a")
    assert QUEUE_LABEL not in job["spec"]["template"]["metadata"]["labels"]
    both = with_metadata(finetunejob(template={"labels": {QUEUE_LABEL: "gpus"}}), labels={QUEUE_LABEL: "mine"})
    assert job_of(both, Stage.TRAIN)["metadata"]["labels"][QUEUE_LABEL] == "mine"


def test_labels_and_annotations_are_on_the_job_and_its_pods_and_never_replace_ours() -> None:
    mine = {"example.com/cost-centre": "7", "app.kubernetes.io/part-of": "a", "app.kubernetes.io/managed-by": "me"}
    template = {"labels": mine, "annotations": {"example.com/note": "b"}}
    job = job_of(finetunejob(template=template), Stage.TRAIN)
    for metadata in (job["metadata"], job["spec"]["template"]["metadata"]):
        assert metadata["labels"]["example.com/cost-centre"] == "7"
        assert metadata["labels"]["app.kubernetes.io/part-of"] == "a"
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "trimtab"
        assert metadata["annotations"] == {"example.com/note": "b"}


def test_the_users_resources_come_first_and_limits_are_never_missing() -> None:
    default = {"limits": {"cpu": "4", "memory": "16Gi"}, "requests": {"cpu": "1", "memory": "4Gi"}}
    assert merge_resources({}, default) == default
    assert merge_resources({"limits": {"memory": "1Gi"}}, default) == {
        "limits": {"cpu": "4", "memory": "1Gi"},
        "requests": {"cpu": "1"},
    }
    assert merge_resources({"requests": {"memory": "64Gi"}}, default)["limits"]["memory"] == "64Gi"
    gpu = merge_resources({"limits": {"nvidia.com/gpu": 1}}, default)
    assert gpu["limits"] == {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": 1}


EXTENDED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a GPU in requests only": ({"requests": {"nvidia.com/gpu": 1, "memory": "1Gi"}}, {"nvidia.com/gpu": 1}),
    "a GPU in limits only": ({"limits": {"nvidia.com/gpu": "2"}}, {"nvidia.com/gpu": "2"}),
    "huge pages in requests only": ({"requests": {"hugepages-2Mi": "64Mi"}}, {"hugepages-2Mi": "64Mi"}),
    "one here, one there": (
        {"requests": {"amd.com/gpu": 1}, "limits": {"rdma/hca": 1}},
        {"amd.com/gpu": 1, "rdma/hca": 1},
    ),
    "an object stored before they had to be equal": (
        {"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 2}},
        {"nvidia.com/gpu": 2},
    ),
}


@pytest.mark.parametrize(("chosen", "both"), EXTENDED.values(), ids=EXTENDED)
def test_what_cannot_be_overcommitted_is_the_same_in_limits_and_requests(
    chosen: dict[str, Any], both: dict[str, Any]
) -> None:
    merged = merge_resources(chosen, SETTINGS.train_resources)
    for side in ("limits", "requests"):
        assert {name: each for name, each in merged[side].items() if name not in ("cpu", "memory")} == both


def test_a_gpu_of_the_operators_setting_is_in_both_too() -> None:
    merged = merge_resources({}, {"requests": {"nvidia.com/gpu": "1"}})
    assert merged == {"limits": {"nvidia.com/gpu": "1"}, "requests": {"nvidia.com/gpu": "1"}}


OWN_DEVICES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a slice": ({"limits": {"nvidia.com/mig-1g.10gb": 1}}, {"nvidia.com/mig-1g.10gb": 1}),
    "another vendor's, requested": ({"requests": {"habana.ai/gaudi": "1"}}, {"habana.ai/gaudi": "1"}),
    "none": ({"limits": {"amd.com/gpu": 0}}, {"amd.com/gpu": 0}),
    "a network card alone": ({"limits": {"rdma/hca": 1}}, {"rdma/hca": 1, "nvidia.com/gpu": 1}),
}


@pytest.mark.parametrize(("chosen", "want"), OWN_DEVICES.values(), ids=OWN_DEVICES)
def test_who_names_accelerators_of_their_own_gets_none_of_the_default_beside_them(
    chosen: dict[str, Any], want: dict[str, Any]
) -> None:
    settings = replace(SETTINGS, train_resources={"limits": {"nvidia.com/gpu": 1, "cpu": "4"}})
    template = {"resources": chosen}
    job = job_of(finetunejob(template=template), Stage.TRAIN, settings=settings)
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert {name: each for name, each in container["resources"]["limits"].items() if name != "cpu"} == want


def test_names_of_children_fit_whatever_the_number() -> None:
    job = finetunejob()
    longest = job.model_copy(update={"metadata": job.metadata.model_copy(update={"name": "x" * 45})})
    for stage in TRAINING.stages:
        assert len(job_of(longest, stage, 99_999_999, None)["metadata"]["name"]) <= 63
    assert len(build_run_config_map(TRAINING, longest)["metadata"]["name"]) <= 63


def test_the_configuration_is_the_same_for_the_same_job() -> None:
    first, second = (build_run_config_map(TRAINING, finetunejob())["data"]["run.json"] for _ in range(2))
    assert first == second
    assert json.loads(first)["training"]["batchSize"] == 32

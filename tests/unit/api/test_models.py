"""The models as values: what a user writes comes out as core/v1, and the status as what `kubectl get` prints."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError
from trimtab_operator.api.finetunejob import (
    ArtifactStatus,
    CheckpointStatus,
    CurveStatus,
    DatasetStatus,
    FineTuneJob,
    FineTuneJobStatus,
    TrainingProgress,
)
from trimtab_operator.api.pods.template import PodTemplate
from trimtab_operator.api.status.conditions import MESSAGE_LENGTH, Condition
from trimtab_operator.api.work import ATTEMPT_MESSAGE_LENGTH, EARLIER_MESSAGE_LENGTH, AttemptStatus, MirroredStatus
from trimtab_operator.domain.work.conditions import WARNINGS_LENGTH
from trimtab_trainer.contract import Curve
from trimtab_trainer.contract.curve import CURVE_BYTES

DIGEST = "sha256:" + "3f2a9c01be7d" + "0" * 52
NOW = "2026-11-23T03:34:01Z"

POD: dict[str, Any] = {
    "imagePullSecrets": [{"name": "registry"}],
    "resources": {"limits": {"nvidia.com/gpu": 1, "memory": "16Gi"}, "requests": {"cpu": "500m"}},
    "terminationGracePeriodSeconds": 60,
    "nodeSelector": {"accelerator": "h200"},
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]},
                ]
            }
        },
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 5,
                    "podAffinityTerm": {
                        "topologyKey": "kubernetes.io/hostname",
                        "labelSelector": {"matchLabels": {"app": "vllm"}},
                    },
                }
            ]
        },
    },
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "volumes": [
        {"name": "scratch", "emptyDir": {}},
        {"name": "models", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
    ],
    "volumeMounts": [{"name": "models", "mountPath": "/models", "readOnly": True}],
    "env": [
        {"name": "PLAIN", "value": ""},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ],
}


def test_a_template_comes_out_as_core_v1_wrote_it() -> None:
    body = PodTemplate.model_validate(POD).to_json()
    assert {key: body[key] for key in POD} == POD


def test_an_absent_template_has_only_static_defaults() -> None:
    body = PodTemplate().to_json()
    assert {key: value for key, value in body.items() if value not in ("", [], {})} == {
        "terminationGracePeriodSeconds": 120
    }


@pytest.mark.parametrize("quantity", [-1, "-1", "1 Gi", "ten", "", "1e"])
def test_a_quantity_that_kubernetes_would_refuse_is_refused(quantity: Any) -> None:
    with pytest.raises(ValidationError):
        PodTemplate.model_validate({"resources": {"limits": {"memory": quantity}}})


def test_an_object_of_the_api_server_is_parsed_with_its_summary_left_out() -> None:
    status = FineTuneJobStatus(progress=TrainingProgress(step=18, total_steps=43, percent=41, loss=2.10349))
    body: dict[str, Any] = {
        "metadata": {"name": "a", "namespace": "b", "uid": "c", "managedFields": []},
        "spec": {
            "baseModel": {"uri": "s3://models/m"},
            "dataset": {"training": {"uri": "s3://data/d/"}},
            "output": {"uri": "s3://adapters/a"},
        },
        "status": status.to_json(),
    }
    assert body["status"]["summary"] == {"progress": "41%", "step": "18/43", "loss": "2.103"}
    assert FineTuneJob.parse(body).status == status
    assert FineTuneJob.parse(body).status.to_json() == status.to_json()


def test_defaults_of_frozen_values_are_not_copied_for_each_object_that_is_read() -> None:
    spec = {
        "baseModel": {"uri": "s3://models/m"},
        "dataset": {"training": {"uri": "s3://data/d/"}},
        "output": {"uri": "s3://adapters/a"},
    }
    one, two = (FineTuneJob.parse({"metadata": {"name": n, "namespace": "b", "uid": n}, "spec": spec}) for n in "ab")
    assert one.spec.template is two.spec.template
    assert one.status is two.status


def test_there_is_no_summary_when_there_is_nothing_to_print() -> None:
    assert "summary" not in FineTuneJobStatus().to_json()
    assert FineTuneJobStatus(progress=TrainingProgress(step=3)).to_json()["summary"] == {"step": "3"}


def largest_curve() -> CurveStatus:
    """Return the curve that takes most room of those that a trainer tells: of a long run, with as many evaluations."""
    points = [(123_456 + 1000 * index, 1.2345) for index in range(500)]
    told = Curve.of(points, points)
    assert told is not None
    assert told.size > CURVE_BYTES * 0.8
    return CurveStatus.model_validate(told.to_json())


def full_status() -> FineTuneJobStatus:
    """Return the largest status met in practice: every section, ten failed attempts, long messages."""
    return FineTuneJobStatus(
        observed_generation=12,
        conditions=[
            Condition(
                type="Succeeded",
                status="False",
                observed_generation=12,
                last_transition_time=NOW,
                reason="RetriesExhausted",
                message="m" * MESSAGE_LENGTH,
            ),
            Condition(
                type="Warned",
                status="True",
                observed_generation=12,
                last_transition_time=NOW,
                reason="PreparedWithWarnings",
                message="m" * WARNINGS_LENGTH,
            ),
        ],
        mirrored=[
            MirroredStatus(uri=uri, commit="0" * 40, digest=DIGEST, license="apache-2.0")
            for uri in ("hf://organisation/name-of-a-model@main", "hf://datasets/organisation/name-of-data@main/train/")
        ],
        start_time=NOW,
        completion_time=NOW,
        progress=TrainingProgress(
            step=123456,
            total_steps=123456,
            percent=100,
            loss=1.2345,
            validation_loss=1.2345,
            tokens_per_second=12345.6,
            eta_seconds=123456,
        ),
        curve=largest_curve(),
        base_model_digest=DIGEST,
        run_digest=DIGEST,
        dataset=DatasetStatus(
            digest=DIGEST,
            rows_digest=DIGEST,
            rows=12345678,
            validation_rows=123456,
            test_rows=123456,
            tokens=1234567890,
            supervised_tokens=1234567890,
            dropped=123456,
            report_uri="s3://" + "a" * 126 + "/data/audits/" + "0" * 64 + "/data.html",
        ),
        checkpoint=CheckpointStatus(step=123456, time=NOW),
        artifact=ArtifactStatus(
            uri="s3://" + "a" * 200,
            digest=DIGEST,
            rank=512,
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
            base_model_digest=DIGEST,
            test_loss=1.2345,
            base_test_loss=1.2345,
            report_uri="s3://" + "a" * 200 + "/report.html",
        ),
        images={"prepare": "registry.example.com/team/" + "p" * 100, "train": "registry.example.com/team/" + "t" * 100},
        failures=10,
        disruptions=100,
        active_seconds=31_536_000,
        accelerator_seconds=31_536_000,
        lost_accelerator_seconds=31_536_000,
        attempts=[
            AttemptStatus(
                number=number,
                stage="prepare",
                job_name="n" * 63,
                job_uid="00000000-0000-0000-0000-000000000000",
                reason="TargetModulesNotFound",
                message="m" * (ATTEMPT_MESSAGE_LENGTH if number == 9 else EARLIER_MESSAGE_LENGTH),
                charged_to="disruptions",
                start_time=NOW,
                end_time=NOW,
                active_seconds=31_536_000,
                start_step=123456,
                end_step=123456,
            )
            for number in range(10)
        ],
    )


def test_the_largest_status_stays_below_10_kilobytes() -> None:
    status = full_status()
    assert set(FineTuneJobStatus.model_fields) == status.model_fields_set, "a new field belongs into this test"
    assert len(json.dumps(status.to_json(), separators=(",", ":"))) < 10_000

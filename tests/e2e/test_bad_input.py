"""What cannot work: each a named reason and a message with the next step, no retry, nothing left running.

All jobs are applied at once and looked at one by one, because most of the time is the pods' start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from deploy.demo.api import Body
from deploy.demo.installation import Installation, Keys
from tests.e2e.tenants import ON_A_NODE, SMALL, Tenant, new_tenant, reason_of, succeeded

pytestmark = ON_A_NODE


@dataclass(frozen=True)
class Case:
    """A FineTuneJob that cannot work.

    Attributes:
        final: whether it ends; False: it waits, because somebody may still help.
        before: what else is applied first.
    """

    spec: dict[str, Any]
    reason: str
    words: str
    final: bool = True
    before: Callable[[Tenant], None] = field(default=lambda tenant: None)


def dataset(folder: str) -> dict[str, Any]:
    return {"dataset": {"training": {"uri": f"s3://datasets/{folder}/"}}}


def secret(name: str, **changes: str | None) -> Callable[[Tenant], None]:
    def apply(tenant: Tenant) -> None:
        body = tenant.installation.secret(tenant.namespace, name)
        values = {**body["stringData"], **changes}
        tenant.apply({**body, "stringData": {key: value for key, value in values.items() if value is not None}})

    return apply


def wrong_keys(tenant: Tenant) -> None:
    tenant.apply(tenant.installation.secret(tenant.namespace, "wrong", Keys("trimtab-admin", "not-the-secret")))


def template(**fields: Any) -> dict[str, Any]:
    return {"template": fields}


PREPARE = {"cpu": "2", "memory": "1Gi"}

CASES = {
    "missing-bucket": Case(
        {"dataset": {"training": {"uri": "s3://nowhere-to-be-found/x/"}}}, "BucketNotFound", "nowhere-to-be-found"
    ),
    "wrong-credentials": Case({"dataset": {"secretName": "wrong"}}, "AccessDenied", "wrong", before=wrong_keys),
    "missing-key": Case(
        {"output": {"secretName": "half"}},
        "CredentialsMissing",
        "AWS_SECRET_ACCESS_KEY",
        before=secret("half", AWS_SECRET_ACCESS_KEY=None),
    ),
    "missing-secret": Case({"baseModel": {"secretName": "not-there"}}, "VolumeUnavailable", '"not-there" not found'),
    "env-without-secret": Case(
        template(env=[{"name": "X", "valueFrom": {"secretKeyRef": {"name": "not-there", "key": "x"}}}]),
        "ContainerInvalid",
        "not-there",
    ),
    "empty-data": Case(dataset("empty"), "DatasetEmpty", "datasets/empty"),
    "malformed-line": Case(dataset("malformed"), "DatasetMalformed", "401"),
    "no-answer": Case(dataset("questions"), "NoAssistantTurn", "rows.jsonl"),
    "unknown-format": Case(dataset("unknown"), "FormatUnknown", "question"),
    "missing-model": Case({"baseModel": {"uri": "s3://models/none"}}, "BaseModelNotFound", "s3://models/none"),
    "truncated-model": Case({"baseModel": {"uri": "s3://models/truncated"}}, "BaseModelInvalid", "model.safetensors"),
    "target-modules": Case({"lora": {"targetModules": ["wq"]}}, "TargetModulesNotFound", "q_proj"),
    "long-sequence": Case({"training": {"maxSequenceLength": 100_000}}, "SequenceTooLong", "512"),
    "little-memory": Case(
        template(prepareResources={"limits": {"cpu": "2", "memory": "40Mi"}, "requests": SMALL | {"memory": "40Mi"}}),
        "OutOfMemory",
        "prepareResources.limits.memory",
    ),
    "scratch-space": Case(dataset("large"), "ScratchSpaceExceeded", "trimtab-work"),
    "no-image": Case(template(prepareImage="docker.io/trimtab/none:1"), "ImageUnavailable", "docker.io/trimtab/none:1"),
    "no-node": Case(template(nodeSelector={"planet": "mars"}), "Queued", "didn't match", final=False),
    "deadline": Case({"activeDeadlineSeconds": 1}, "DeadlineExceeded", "activeDeadlineSeconds"),
}


@pytest.fixture(scope="module")
def applied(installation: Installation) -> Iterator[Tenant]:
    tenant = new_tenant(installation)
    for name, case in CASES.items():
        case.before(tenant)
        tenant.apply(tenant.job(name, **case.spec))
    yield tenant
    tenant.remove()


@pytest.mark.parametrize("name", CASES)
def test_it_says_why(applied: Tenant, name: str) -> None:
    case = CASES[name]
    body: Body = applied.wait_reason(name, case.reason)
    if case.final:
        body = applied.wait_end(name)
    status, reason, message = applied.state(name)
    assert (status, reason) == ("False" if case.final else "Unknown", case.reason), applied.story(name)
    assert case.words in message
    assert (body["status"]["failures"], body["status"]["disruptions"]) == (0, 0), "it is not retried"
    assert len(body["status"]["attempts"]) == 1
    if case.final:
        assert_nothing_runs(applied, name)


def assert_nothing_runs(tenant: Tenant, name: str) -> None:
    def still() -> bool:
        pods = tenant.mirror.objects("Pod", tenant.labels(name))
        return not any(pod.get("status", {}).get("phase") in ("Pending", "Running") for pod in pods)

    tenant.until(name, "the end of its pods", still)


def test_a_quota_that_refuses_the_pod_is_named(tenant: Tenant) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": tenant.namespace},
        "spec": {"hard": {"pods": "0"}},
    }
    tenant.apply(quota)
    tenant.apply(tenant.job("refused"))
    tenant.wait_reason("refused", "QuotaExceeded")
    assert "exceeded quota: none" in tenant.state("refused")[2]
    tenant.delete("none", "ResourceQuota")
    body = tenant.wait("refused", "its pod", lambda b: reason_of(b) == "Preparing" or succeeded(b) != "Unknown")
    assert succeeded(body) != "False"


def test_a_gpu_that_no_node_has_is_waited_for_in_the_schedulers_words(tenant: Tenant) -> None:
    limits = {"cpu": "2", "memory": "3Gi", "amd.com/gpu": 1}
    tenant.apply(tenant.job("greedy", template={"resources": {"limits": limits, "requests": SMALL}}))
    tenant.wait_reason("greedy", "Queued")
    assert "Insufficient amd.com/gpu" in tenant.state("greedy")[2]
    assert len(tenant.jobs("greedy")) == 2, "the data was prepared without a GPU"

"""An Evaluation from apply to its verdict with real pods, what a person sees of it, and what disturbs it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.demo.api import Body
from deploy.demo.installation import Installation
from tests.e2e.tenants import ON_A_NODE, Tenant, condition, new_tenant, reason_of, succeeded
from tests.e2e.test_bad_input import assert_nothing_runs
from tests.e2e.test_finetunejob import assert_nothing_is_revealed, assert_pods_are_restricted

pytestmark = ON_A_NODE

HELD_OUT: Body = {"name": "heldout", "type": "Perplexity", "dataset": {"split": "Test"}}
PARITY: Body = {
    "name": "parity",
    "type": "Classification",
    "dataset": {"uri": "s3://datasets/parity/"},
    "labels": ["even", "odd"],
    "groupBy": "size",
}
ANSWERS: Body = {
    "name": "answers",
    "type": "Generation",
    "dataset": {"uri": "s3://datasets/tiny/", "limit": 48},
    "maxNewTokens": 120,
    "metrics": ["RougeL", "ExactMatch"],
}
WITH_BASELINE: Body = {"baseline": {"baseModel": True}, "maximumTrainedOnRatio": 1}
HARNESS: Body = {
    "name": "harness",
    "type": "Harness",
    "dataset": {"uri": "s3://datasets/harness/"},
    "harnessTask": "parity",
    "groupBy": "size",
}


@pytest.fixture(scope="module")
def tenant(installation: Installation) -> Iterator[Tenant]:
    """One namespace for all of them, with one adapter that is trained once."""
    made = new_tenant(installation)
    yield made
    made.remove()


@pytest.fixture(scope="module")
def trained(tenant: Tenant) -> Body:
    """The FineTuneJob whose adapter is judged; its Evaluation was applied before it."""
    thresholds = [
        {"metric": "heldout/perplexity", "maximumRelativeRegression": 0.0, "confidence": 0.9},
        {"metric": "heldout/bitsPerByte", "maximum": 20.0},
    ]
    spec = {"target": {"fineTuneJobName": "judged"}, "baseline": {"baseModel": True}, "thresholds": thresholds}
    tenant.apply(tenant.evaluation("judged", HELD_OUT, PARITY, **spec))
    evaluations = tenant.of("Evaluation")
    evaluations.wait("judged", "that it waits", lambda body: reason_of(body) == "Pending")
    assert "judged" in evaluations.state("judged")[2]
    tenant.apply(tenant.job("judged", steps=60))
    body = tenant.wait_end("judged")
    assert reason_of(body) == "Completed", tenant.story("judged")
    return body


@pytest.fixture(scope="module")
def beside(tenant: Tenant, trained: Body) -> None:
    """Evaluations of the adapter that run beside each other, and beside that of the job."""
    thresholds = [{"metric": "parity/accuracy", "minimum": 0.99}]
    tenant.apply(tenant.evaluation("strict", PARITY, **of_artifact(trained, tenant, thresholds=thresholds)))
    tenant.apply(tenant.evaluation("alone", HARNESS, **of_artifact(trained, tenant, target={"baseModel": True})))
    elsewhere = {**of_artifact(trained, tenant, **WITH_BASELINE)}
    elsewhere["output"] = {**elsewhere["output"], "uri": elsewhere["output"]["uri"] + "-undisturbed"}
    tenant.apply(tenant.evaluation("undisturbed", HELD_OUT, ANSWERS, **elsewhere))


def judged(tenant: Tenant, name: str) -> Body:
    """Wait for an Evaluation that ends with a verdict."""
    evaluations = tenant.of("Evaluation")
    body = evaluations.wait_end(name)
    assert reason_of(body) == "Completed", evaluations.story(name)
    return body


@pytest.mark.usefixtures("beside")
def test_it_waits_for_its_job_and_passes(tenant: Tenant, trained: Body) -> None:
    body = judged(tenant, "judged")
    evaluations, status = tenant.of("Evaluation"), body["status"]
    passed = condition(body, "Passed")
    assert (passed["status"], passed["reason"]) == ("True", "Passed"), evaluations.story("judged")
    artifact = trained["status"]["artifact"]
    assert status["target"] == {"uri": artifact["uri"], "digest": artifact["digest"]}
    result = next(r for r in status["results"] if (r["task"], r["metric"]) == ("heldout", "perplexity"))
    assert result["low"] <= result["value"] <= result["high"] < result["baseline"]
    assert result["passed"] is True
    assert {(r["task"], r["metric"]) for r in status["results"]} >= {("parity", "accuracy"), ("heldout", "bitsPerByte")}
    assert len(json.dumps(status)) < 10_000

    heading, line = tenant.kubectl("get", "ftev", "judged").strip().splitlines()
    assert heading.split()[:4] == ["NAME", "STATE", "PASSED", "METRIC"]
    assert "Completed" in line
    assert "heldout/perplexity" in line
    described = tenant.kubectl("describe", "ftev", "judged")
    for word in ("Preparing", "Evaluating", "Completed", "Passed"):
        assert word in described
    assert_nothing_is_revealed(evaluations, "judged")
    assert_pods_are_restricted(evaluations, "judged")
    report = read(tenant, status["reportURI"])
    assert "heldout" in report
    assert "parity" in report


def read(tenant: Tenant, uri: str) -> str:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    with tenant.installation.storage() as client:
        return client.get_object(Bucket=bucket, Key=key)["Body"].read().decode()


def of_artifact(trained: Body, tenant: Tenant, **spec: Any) -> dict[str, Any]:
    """Return the spec of an Evaluation of the adapter itself, without its FineTuneJob."""
    artifact, secret = trained["status"]["artifact"], {"secretName": "object-storage"}
    return {
        "target": {"artifact": {"uri": artifact["uri"], "digest": artifact["digest"], **secret}},
        "baseModel": trained["spec"]["baseModel"],
        "output": {"uri": f"s3://adapters/{tenant.namespace}/evaluations", **secret},
        "datasetSecretName": "object-storage",
        "quantization": {"type": "NF4"},
        **spec,
    }


def test_the_same_question_is_answered_from_storage(tenant: Tenant, trained: Body) -> None:
    first = judged(tenant, "judged")
    spec = {key: value for key, value in first["spec"].items() if key not in ("tasks", "template", "resamples")}
    tenant.apply(tenant.evaluation("again", HELD_OUT, PARITY, **spec))
    again = judged(tenant, "again")
    assert again["status"]["results"] == first["status"]["results"]
    assert again["status"]["evaluationDigest"] == first["status"]["evaluationDigest"]
    assert len(tenant.of("Evaluation").jobs("again")) == 1, "what was answered before needs no evaluate Job"


@pytest.mark.usefixtures("beside")
def test_an_adapter_is_refused_by_a_threshold_that_it_misses(tenant: Tenant) -> None:
    passed = condition(judged(tenant, "strict"), "Passed")
    assert (passed["status"], passed["reason"]) == ("False", "ThresholdMissed")
    assert "parity/accuracy" in passed["message"]


@pytest.mark.usefixtures("beside")
def test_the_base_model_alone_can_be_measured_by_groups_of_a_harness_task(tenant: Tenant) -> None:
    body = judged(tenant, "alone")
    assert condition(body, "Passed")["reason"] == "NoThresholds"
    assert [(each["task"], each["metric"]) for each in body["status"]["results"]] == [("harness", "acc")]
    report = read(tenant, body["status"]["reportURI"])
    assert "small" in report
    assert "large" in report


@pytest.mark.usefixtures("beside")
def test_killed_inside_a_task_it_ends_with_the_same_figures(tenant: Tenant, trained: Body) -> None:
    spec = of_artifact(trained, tenant, **WITH_BASELINE)
    evaluations = tenant.of("Evaluation")
    tenant.apply(tenant.evaluation("killed", HELD_OUT, ANSWERS, **spec))
    pod = evaluations.running_pod("killed", "evaluate")
    evaluations.wait("killed", "a task that is done", lambda b: tasks_done(b) >= 1 or succeeded(b) != "Unknown")
    before = scores(tenant)
    assert before, "the task that is done is in the storage"
    evaluations.kill(pod)
    body = judged(tenant, "killed")
    assert body["status"]["failures"] == 1, evaluations.story("killed")
    after = scores(tenant)
    assert before.items() <= after.items(), "what was done before is not done again"
    assert judged(tenant, "undisturbed")["status"]["results"] == body["status"]["results"]


def tasks_done(body: Body) -> int:
    done: int = body.get("status", {}).get("progress", {}).get("tasksDone", 0)
    return done


def scores(tenant: Tenant) -> dict[str, str]:
    """Return when each task's scores were written."""
    prefix = f"{tenant.namespace}/evaluations/evaluations/scores/"
    with tenant.installation.storage() as client:
        found = client.list_objects_v2(Bucket="adapters", Prefix=prefix).get("Contents", [])
    return {o["Key"]: o["LastModified"].isoformat() for o in found if o["Key"].endswith("MANIFEST.json")}


BAD: dict[str, tuple[Body, str, str]] = {
    "unknown-label": (
        {**PARITY, "dataset": {"uri": "s3://datasets/strange/"}},
        "LabelUnknown",
        "perhaps",
    ),
    "seen-in-training": (ANSWERS, "TrainedOn", "48 rows"),
    "missing-group": ({**PARITY, "groupBy": "colour"}, "GroupMissing", "colour"),
    "missing-data": ({**PARITY, "dataset": {"uri": "s3://datasets/none/"}}, "DatasetNotFound", "datasets/none"),
    "empty-data": ({**PARITY, "dataset": {"uri": "s3://datasets/empty/"}}, "DatasetEmpty", "datasets/empty"),
}


def test_bad_input_is_refused_before_a_gpu_is_asked_for(tenant: Tenant, trained: Body) -> None:
    evaluations = tenant.of("Evaluation")
    for name, (task, _, _) in BAD.items():
        tenant.apply(tenant.evaluation(name, task, **of_artifact(trained, tenant)))
    wrong = of_artifact(trained, tenant)
    wrong["target"]["artifact"]["digest"] = f"sha256:{'0' * 64}"
    tenant.apply(tenant.evaluation("other-digest", PARITY, **wrong))
    wanted = {**{name: (reason, words) for name, (_, reason, words) in BAD.items()}}
    wanted["other-digest"] = ("ArtifactChanged", "sha256:")
    for name, (reason, words) in wanted.items():
        body = evaluations.wait_end(name)
        assert succeeded(body) == "False"
        assert reason_of(body) == reason, evaluations.story(name)
        assert words in condition(body, "Succeeded")["message"]
        assert condition(body, "Passed")["reason"] == "EvaluationFailed"
        assert len(evaluations.jobs(name)) == 1, "no evaluate Job"
        assert_nothing_runs(evaluations, name)


def test_an_evaluation_of_a_job_that_failed_fails_with_it(tenant: Tenant) -> None:
    tenant.apply(tenant.job("doomed", dataset={"training": {"uri": "s3://datasets/empty/"}}))
    tenant.apply(tenant.evaluation("doomed", HELD_OUT, target={"fineTuneJobName": "doomed"}))
    body = tenant.of("Evaluation").wait_end("doomed")
    assert (succeeded(body), reason_of(body)) == ("False", "FineTuneJobFailed")
    assert "DatasetEmpty" in condition(body, "Succeeded")["message"]
    assert tenant.of("Evaluation").jobs("doomed") == []


def test_deleting_an_evaluation_ends_its_pods(tenant: Tenant, trained: Body) -> None:
    spec = of_artifact(trained, tenant, seed=3, maximumTrainedOnRatio=1)
    tenant.apply(tenant.evaluation("brief", {**ANSWERS, "temperature": 0.7}, **spec))
    evaluations = tenant.of("Evaluation")
    evaluations.running_pod("brief", "evaluate")
    evaluations.delete("brief")
    evaluations.wait_gone("brief", "Job", "Pod", "ConfigMap")

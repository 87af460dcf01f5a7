"""The sample manifests agree with the models, with each other and with what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from trimtab_operator.api import AdapterRolloutSpec
from trimtab_operator.api.evaluation import EvaluationSpec
from trimtab_operator.api.finetunejob import FineTuneJobSpec
from trimtab_operator.domain.views import MANAGED_BY_LABEL, STAGE_LABEL

from tests.unit.chart.chart import NAMESPACE, Rendered

SAMPLES = Path(__file__).parents[3] / "deploy/samples"
MANIFESTS = sorted(SAMPLES.glob("*.yaml"))

Body = dict[str, Any]


def load(path: Path) -> list[Body]:
    return [body for body in yaml.safe_load_all(path.read_text()) if body]


ALL = [body for path in MANIFESTS for body in load(path)]
JOBS = [body for body in ALL if body["kind"] == "FineTuneJob"]
EVALUATIONS = [body for body in ALL if body["kind"] == "Evaluation"]
ROLLOUTS = [body for body in ALL if body["kind"] == "AdapterRollout"]
of_each_evaluation = pytest.mark.parametrize("evaluation", EVALUATIONS, ids=lambda each: each["metadata"]["name"])


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_manifest_says_what_it_is_for(path: Path) -> None:
    assert path.read_text().startswith("# ")
    assert f"({path.name})" in (SAMPLES / "README.md").read_text()


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job["metadata"]["name"])
def test_a_finetunejob_is_valid_and_names_the_sample_secret(job: Body) -> None:
    spec = FineTuneJobSpec.model_validate(job["spec"])
    (secret,) = [body for body in ALL if body["kind"] == "Secret"]
    assert spec.base_model.secret_name == spec.dataset.secret_name == spec.output.secret_name
    assert spec.output.secret_name == secret["metadata"]["name"]


@of_each_evaluation
def test_an_evaluation_is_of_a_sample_job_and_can_be_answered(evaluation: Body) -> None:
    spec = EvaluationSpec.model_validate(evaluation["spec"])
    spec.check()
    (job,) = [job for job in JOBS if job["metadata"]["name"] == spec.target.fine_tune_job_name]
    assert "test" in job["spec"]["dataset"], "the split that the tasks ask for"
    assert spec.baseline is not None
    assert spec.baseline.rollout_name in (None, *(rollout["metadata"]["name"] for rollout in ROLLOUTS))
    bounds = {name for threshold in spec.thresholds for name in threshold.to_json()}
    assert {"maximumRelativeRegression", "confidence"} <= bounds


@of_each_evaluation
def test_the_rollout_follows_every_sample_evaluation(evaluation: Body) -> None:
    (rollout,) = ROLLOUTS
    spec = AdapterRolloutSpec.model_validate(rollout["spec"])
    assert spec.source.follow is not None
    assert spec.source.follow.selector.matches(evaluation["metadata"]["labels"])


def test_the_queued_job_names_the_queue() -> None:
    objects = {body["kind"]: body for body in load(SAMPLES / "kueue.yaml")}
    queue, job = objects["LocalQueue"], objects["FineTuneJob"]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == queue["metadata"]["name"]
    assert job["metadata"]["namespace"] == queue["metadata"]["namespace"]
    assert queue["spec"]["clusterQueue"] == objects["ClusterQueue"]["metadata"]["name"]
    (group,) = objects["ClusterQueue"]["spec"]["resourceGroups"]
    assert [resource["name"] for resource in group["flavors"][0]["resources"]] == group["coveredResources"]


def test_the_policies_let_the_charts_operator_in() -> None:
    policies = {body["metadata"]["name"]: body["spec"] for body in load(SAMPLES / "networkpolicy.yaml")}
    goes_to = [egress for egress in Rendered().one("NetworkPolicy", "trimtab")["spec"]["egress"] if "to" in egress]
    for name, egress in zip(("trimtab-progress", "trimtab-agent"), goes_to, strict=True):
        (rule,) = policies[name]["ingress"]
        elsewhere, here = rule["from"][:2]
        assert elsewhere["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}
        assert here == {"podSelector": elsewhere["podSelector"]}, "an operator of the namespace's own"
        assert here["podSelector"]["matchLabels"].items() <= Rendered().pod["metadata"]["labels"].items()
        assert rule["ports"] == egress["ports"]
        assert policies[name]["podSelector"] == egress["to"][0]["podSelector"]


def test_work_and_serving_pods_reach_the_same_storage() -> None:
    policies = {body["metadata"]["name"]: body["spec"] for body in load(SAMPLES / "networkpolicy.yaml")}
    assert policies["trimtab-storage"]["egress"] == policies["trimtab-serving-storage"]["egress"]


def test_what_asks_more_than_storage_is_let_out_by_a_policy_of_its_own() -> None:
    policies = {body["metadata"]["name"]: body["spec"] for body in load(SAMPLES / "networkpolicy.yaml")}
    labels = {name: policies[name]["podSelector"]["matchLabels"] for name in ("trimtab-hub", "trimtab-judge")}
    assert labels["trimtab-hub"][STAGE_LABEL] == "mirror"
    assert labels["trimtab-judge"] == {MANAGED_BY_LABEL: "trimtab", STAGE_LABEL: "judge"}
    assert all(policies[name]["policyTypes"] == ["Egress"] for name in labels)

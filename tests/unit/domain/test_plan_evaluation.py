"""The decisions about an Evaluation, told as stories: what differs from a FineTuneJob, and that the rest does not."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from trimtab_operator.api import Evaluation, FineTuneJob
from trimtab_operator.domain.cluster import NameTaken, Refusal
from trimtab_operator.domain.evaluation import EVALUATING
from trimtab_operator.domain.plan import Delete, NodeOf
from trimtab_operator.domain.views import EVALUATION_LABEL, QUEUE_LABEL
from trimtab_operator.domain.work import plan
from trimtab_operator.domain.work.building.job import build_job, build_run_config_map
from trimtab_trainer.contract import EvaluationConfig, EvaluationEngine, EvaluationOutcome, Precision, Reason

from tests.unit.domain.makers import (
    ARTIFACT,
    OUTCOME,
    PREPARED_EVALUATION,
    SETTINGS,
    T0,
    EvaluationWorld,
    World,
    adapterrollout,
    evaluation,
    finetunejob,
    finished,
    sha,
)

ALONE: dict[str, Any] = {
    "target": {"artifact": {"uri": "s3://adapters/x", "digest": sha("7"), "secretName": "theirs"}},
    "baseModel": {"uri": "s3://models/tiny", "secretName": "models"},
    "output": {"uri": "s3://results/x", "secretName": "results"},
}


AGAINST_SERVED = {"rolloutName": "guide"}


def started(**spec: Any) -> EvaluationWorld:
    return EvaluationWorld(finished(), **spec).settle()


def pod_of(body: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = body["spec"]["template"]["spec"]
    return spec


def config_of(world: EvaluationWorld) -> EvaluationConfig:
    data = next(body["data"]["run.json"] for body in world.created if body["kind"] == "ConfigMap")
    return EvaluationConfig.model_validate_json(data)


def test_it_runs_in_two_stages_and_ends_with_a_verdict_in_few_writes_and_events() -> None:
    world = started().prepared()
    assert world.job_names == ["demo-eval-prepare-0", "demo-eval-1"]
    assert (world.state, world.condition()[:2]) == ("Evaluating", ("Unknown", "NotYet"))
    world.running().reports(activity="Evaluating", step=1, total_steps=2)
    assert world.job.status.progress.to_json() == {"tasksDone": 1, "tasks": 2, "percent": 50}
    world.after(30).reports(activity="Publishing", step=2, total_steps=2)
    assert world.state == "Publishing"
    world.after(5).evaluated()
    status = world.job.status
    assert (world.state, world.succeeded) == ("Completed", "True")
    assert world.condition()[:2] == ("True", "Passed")
    assert status.report_uri == OUTCOME.report_uri
    assert (status.evaluation_digest, status.data_digest) == (sha("f"), sha("1"))
    assert [result.metric for result in status.results] == ["perplexity", "rougeL"]
    assert status.accelerator_seconds == 35
    assert world.notes == [
        ("Normal", reason) for reason in ("Preparing", "Evaluating", "Publishing", "Completed", "Passed")
    ]
    assert world.writes <= 9


def test_a_verdict_that_is_no_pass_is_an_evaluation_that_succeeded() -> None:
    world = started(thresholds=[{"metric": "heldout/perplexity", "maximum": 9.0}]).prepared().running().evaluated()
    assert (world.state, world.succeeded) == ("Completed", "True")
    status, reason, message = world.condition()
    assert (status, reason) == ("False", "ThresholdMissed")
    assert "heldout/perplexity is 9.5, above its maximum 9" in message
    assert message in world.message
    assert world.notes[-1] == ("Warning", "ThresholdMissed")


def test_it_waits_for_a_finetunejob_that_is_not_there_yet() -> None:
    world = EvaluationWorld().settle()
    assert (world.state, world.succeeded, world.created) == ("Pending", "Unknown", [])
    assert "FineTuneJobNotFound" in world.message
    assert "demo" in world.message
    world.upstream = finished()
    world.settle()
    assert world.state == "Preparing"


def test_it_waits_for_a_finetunejob_that_is_not_finished_and_says_how_far_it_is() -> None:
    upstream = World()
    world = EvaluationWorld(upstream.job).settle()
    assert world.message == "waits for FineTuneJob demo (New)"
    world.upstream = upstream.settle().prepared().running().reports(step=47).job
    world.settle()
    assert (world.state, world.message) == ("Pending", "waits for FineTuneJob demo (Training, 40%)")
    writes = world.writes
    world.upstream = upstream.reports(step=49).job
    world.settle()
    assert world.writes == writes
    assert world.created == []


def test_it_follows_the_failure_of_its_finetunejob() -> None:
    upstream = World().settle().running()
    upstream.exits(11, upstream.words(Reason.DATASET_EMPTY, "no rows are left"))
    world = EvaluationWorld(upstream.job).settle()
    assert (world.state, world.succeeded) == ("FineTuneJobFailed", "False")
    assert "DatasetEmpty" in world.message
    assert "no rows are left" in world.message
    assert world.condition()[:2] == ("False", "EvaluationFailed")
    assert world.created == []
    assert plan(world.observed(), world.now).actions == ()


def test_what_it_depends_on_is_read_anew_before_it_is_believed() -> None:
    resolving = plan(EvaluationWorld(finished()).observed(), T0)
    assert resolving.actions == ()
    assert resolving.confirm


def test_what_was_taken_from_the_finetunejob_is_written_down_before_the_first_job() -> None:
    world = EvaluationWorld(finished())
    world.write(plan(world.observed(), world.now))
    assert world.created == []
    status = world.job.status
    assert status.target.to_json() == {"uri": ARTIFACT.uri, "digest": ARTIFACT.digest}
    assert status.base_model_digest == sha("a")
    storage = {"secretName": "storage"}
    assert status.resolved.to_json() == {
        "baseModel": {"uri": "s3://models/tiny", "digest": sha("a"), **storage},
        "datasetSecretName": "storage",
        "output": {"uri": "s3://adapters/demo", **storage},
        "targetSecretName": "storage",
    }


def test_a_retry_does_not_need_the_finetunejob_any_more() -> None:
    world = started().prepared()
    world.upstream = None
    world.running().exits(13, world.words(Reason.STORAGE_FAILED, "connection refused")).after(10).settle()
    assert world.job_names[-1] == "demo-eval-2"
    first, retried = (
        next(body for body in world.created if body["metadata"]["name"] == name)
        for name in ("demo-eval-1", "demo-eval-2")
    )
    assert pod_of(first)["volumes"] == pod_of(retried)["volumes"]
    assert config_of(world) == EvaluationConfig.model_validate_json(world.created[-2]["data"]["run.json"])
    world.running().evaluated()
    assert world.state == "Completed"


def test_what_was_resolved_does_not_change_with_another_finetunejob_of_the_name() -> None:
    world = EvaluationWorld(finished())
    world.write(plan(world.observed(), world.now))
    world.upstream = finished(base_model_digest=sha("9"))
    world.settle()
    config = config_of(world)
    assert config.base_model.digest == sha("a")


def test_the_trainer_gets_what_was_resolved() -> None:
    config = config_of(started(baseline={"baseModel": True}, seed=3, batchSize=8))
    assert config.target is not None
    assert (config.target.uri, config.target.digest) == (ARTIFACT.uri, ARTIFACT.digest)
    assert config.target.credentials is not None
    assert config.target.credentials.directory == "/run/trimtab/secrets/target"
    assert config.baseline is not None
    assert config.baseline.artifact is None
    assert (config.base_model.uri, config.base_model.digest) == ("s3://models/tiny", sha("a"))
    assert config.output.uri == "s3://adapters/demo"
    assert (config.seed, config.batch_size, len(config.tasks)) == (3, 8, 2)


def test_what_the_evaluation_sets_itself_is_not_taken_from_the_finetunejob() -> None:
    own = {
        "baseModel": {"uri": "s3://models/other"},
        "output": {"uri": "s3://results/x", "secretName": "results"},
        "datasetSecretName": "rows",
    }
    world = started(**own)
    config = config_of(world)
    assert (config.base_model.uri, config.base_model.digest) == ("s3://models/other", None)
    assert config.base_model.credentials is None
    assert config.dataset_credentials is not None
    assert config.dataset_credentials.secret_name == "rows"
    assert config.output.uri == "s3://results/x"
    secrets = {v["name"]: v["secret"]["secretName"] for v in pod_of(world.created[-1])["volumes"] if "secret" in v}
    assert secrets == {"trimtab-dataset": "rows", "trimtab-output": "results", "trimtab-target": "storage"}


def test_without_a_finetunejob_it_starts_at_once_and_each_artifact_has_its_secret() -> None:
    baseline = {"artifact": {"uri": "s3://adapters/y", "digest": sha("8"), "secretName": "served"}}
    world = EvaluationWorld(**ALONE, baseline=baseline).settle()
    assert world.state == "Preparing"
    assert world.writes == 1
    volumes = {v["name"]: v["secret"] for v in pod_of(world.created[-1])["volumes"] if "secret" in v}
    assert {name: secret["secretName"] for name, secret in volumes.items()} == {
        "trimtab-base-model": "models",
        "trimtab-output": "results",
        "trimtab-target": "theirs",
        "trimtab-baseline": "served",
    }
    mounts = {m["name"]: m["mountPath"] for m in pod_of(world.created[-1])["containers"][0]["volumeMounts"]}
    assert mounts["trimtab-baseline"] == "/run/trimtab/secrets/baseline"
    words = PREPARED_EVALUATION.model_copy(update={"target_digest": sha("7"), "baseline_digest": sha("8")})
    world.running().succeeds(world.words(Reason.COMPLETED, prepared_evaluation=words))
    assert world.job.status.target.to_json() == {"uri": "s3://adapters/x", "digest": sha("7")}
    assert world.job.status.baseline.to_json() == {"uri": "s3://adapters/y", "digest": sha("8")}
    assert world.job.status.progress.tasks == 4


ANCHOR = {"artifact": {"uri": "s3://adapters/z", "digest": sha("6"), "secretName": "anchored"}}


def test_the_anchor_is_what_the_spec_says_whatever_is_served() -> None:
    world = EvaluationWorld(finished(), adapterrollout("7"), baseline=AGAINST_SERVED, anchor=ANCHOR).settle()
    config = config_of(world)
    assert config.baseline is not None
    assert config.anchor is not None
    assert config.baseline.artifact is not None
    assert config.anchor.artifact is not None
    assert (config.baseline.artifact.digest, config.anchor.artifact.digest) == (sha("7"), sha("6"))
    assert config.anchor.artifact.credentials is not None
    assert config.anchor.artifact.credentials.directory == "/run/trimtab/secrets/anchor"
    assert secrets_of(world.created[-1])["anchor"] == "anchored"
    words = PREPARED_EVALUATION.model_copy(update={"baseline_digest": sha("7"), "anchor_digest": sha("6")})
    world.running().succeeds(world.words(Reason.COMPLETED, prepared_evaluation=words))
    assert world.job.status.anchor.to_json() == {"uri": "s3://adapters/z", "digest": sha("6")}
    assert world.job.status.progress.tasks == 6
    prepared = EVALUATING.prepared(world.job, world.job.status)
    assert prepared is not None
    assert prepared.anchor_digest == sha("6")


def test_a_target_that_is_no_worse_than_what_is_served_and_worse_than_the_anchor_does_not_pass() -> None:
    world = EvaluationWorld(
        finished(),
        baseline={"artifact": {"uri": "s3://adapters/y", "digest": sha("8")}},
        anchor={"baseModel": True},
        thresholds=[{"metric": "heldout/perplexity", "maximumRelativeRegression": 0.02}],
    ).settle()
    config = config_of(world)
    assert config.anchor is not None
    assert config.anchor.artifact is None
    world.prepared().running()
    facts = {"threshold": 0, "bound": "maximumRelativeRegression"}
    checks = [{**facts, "estimate": 0.01}, {**facts, "estimate": 0.1, "against": "Anchor"}]
    world.evaluated(EvaluationOutcome.model_validate({**OUTCOME.to_json(), "checks": checks}))
    status, reason, message = world.condition()
    assert (status, reason) == ("False", "Regressed")
    assert "worse by 0.1 relative to the anchor" in message


def test_without_an_anchor_the_configuration_is_what_it_was() -> None:
    world = started(baseline={"baseModel": True})
    data = next(body["data"]["run.json"] for body in world.created if body["kind"] == "ConfigMap")
    assert "anchor" not in data
    assert "against" not in data


def secrets_of(body: dict[str, Any]) -> dict[str, str]:
    volumes = pod_of(body)["volumes"]
    return {v["name"].removeprefix("trimtab-"): v["secret"]["secretName"] for v in volumes if "secret" in v}


def test_the_baseline_is_what_the_rollout_serves_when_the_adapter_is_published() -> None:
    upstream = World()
    world = EvaluationWorld(upstream.job, adapterrollout("7"), baseline=AGAINST_SERVED).settle()
    assert (world.state, world.created) == ("Pending", [])
    assert EVALUATING.follows_rollout(world.job) == "guide"
    world.rollout, world.upstream = adapterrollout("8"), finished()
    world.write(plan(world.observed(), world.now))
    assert world.created == []
    served = {"uri": "s3://adapters/demo/adapters/8", "digest": sha("8")}
    assert world.job.status.baseline.to_json() == served
    assert world.job.status.resolved.baseline_secret_name == "storage"
    assert sha("8") in world.message
    world.rollout = adapterrollout("9")
    config = config_of(world.settle())
    assert config.baseline is not None
    assert config.baseline.artifact is not None
    assert (config.baseline.artifact.uri, config.baseline.artifact.digest) == (served["uri"], served["digest"])
    assert EVALUATING.follows_rollout(world.job) is None
    assert secrets_of(world.created[-1])["baseline"] == "storage"


def test_what_the_rollout_serves_is_read_anew_before_it_is_fixed() -> None:
    resolving = plan(EvaluationWorld(finished(), adapterrollout("7"), baseline=AGAINST_SERVED).observed(), T0)
    assert resolving.actions == ()
    assert resolving.confirm


def test_a_retry_does_not_need_the_rollout_any_more() -> None:
    world = EvaluationWorld(finished(), adapterrollout("7"), baseline=AGAINST_SERVED).settle()
    words = PREPARED_EVALUATION.model_copy(update={"baseline_digest": sha("7")})
    world.running().succeeds(world.words(Reason.COMPLETED, prepared_evaluation=words))
    world.upstream = world.rollout = None
    world.running().exits(13, world.words(Reason.STORAGE_FAILED, "connection refused")).after(10).settle()
    assert world.job_names[-1] == "demo-eval-2"
    world.running().evaluated()
    assert (world.state, world.job.status.baseline.digest) == ("Completed", sha("7"))


def test_a_rollout_that_does_not_exist_never_opens_the_gate() -> None:
    world = EvaluationWorld(finished(), baseline=AGAINST_SERVED).settle()
    assert (world.state, world.succeeded, world.created) == ("Pending", "Unknown", [])
    assert world.message.startswith("RolloutNotFound: there is no AdapterRollout guide")
    assert world.job.status.resolved is None
    world.rollout = adapterrollout()
    world.settle()
    assert world.state == "Preparing"


def test_a_wrong_name_is_told_before_the_training_has_ended() -> None:
    world = EvaluationWorld(World().settle().job, baseline=AGAINST_SERVED).settle()
    assert "RolloutNotFound" in world.message
    assert "waits for FineTuneJob demo (Preparing)" in world.message
    world = EvaluationWorld(baseline=AGAINST_SERVED).settle()
    assert "RolloutNotFound" in world.message
    assert "FineTuneJobNotFound" in world.message


BY_VLLM: dict[str, Any] = {"engine": "Vllm", "precision": "AsServed"}


def images_of(world: EvaluationWorld) -> list[str]:
    return [
        body["spec"]["template"]["spec"]["containers"][0]["image"] for body in world.created if body["kind"] == "Job"
    ]


def test_answers_of_an_engine_are_written_in_the_image_that_has_it_and_rows_prepared_as_ever() -> None:
    world = EvaluationWorld(finished(), **BY_VLLM)
    world.settings = replace(SETTINGS, evaluator_image="evaluator:1")
    world.settle().prepared().running()
    assert images_of(world) == ["prepare:1", "evaluator:1"]
    assert world.job.status.images == {"prepare": "prepare:1", "evaluate": "evaluator:1"}
    config = config_of(world)
    assert (config.engine, config.precision) == (EvaluationEngine.VLLM, Precision.AS_SERVED)


def test_without_an_image_with_the_engine_no_pod_is_made_until_there_is_one() -> None:
    world = EvaluationWorld(finished(), **BY_VLLM).settle()
    assert (world.state, world.succeeded, world.created) == ("Pending", "Unknown", [])
    assert world.message.startswith("EngineMissing: ")
    assert "evaluator.image" in world.message
    world.settings = replace(SETTINGS, evaluator_image="evaluator:1")
    world.settle().prepared().running()
    assert images_of(world) == ["prepare:1", "evaluator:1"]


def test_the_templates_own_image_needs_none_of_the_operator() -> None:
    world = EvaluationWorld(finished(), **BY_VLLM, template={"image": "mine:1"}).settle().prepared().running()
    assert images_of(world) == ["prepare:1", "mine:1"]


def test_a_rollout_that_serves_nothing_yet_leaves_the_base_model_and_the_verdict_says_so() -> None:
    world = EvaluationWorld(finished(), adapterrollout(), baseline=AGAINST_SERVED)
    world.write(plan(world.observed(), world.now))
    told = "AdapterRollout guide served nothing yet, so the baseline is the base model alone"
    assert told in world.message
    world.settle()
    assert world.job.status.baseline.to_json() == {}
    assert told in world.condition()[2]
    config = config_of(world)
    assert config.baseline is not None
    assert config.baseline.artifact is None
    world.prepared().running().evaluated()
    status, reason, message = world.condition()
    assert (status, reason) == ("True", "Passed")
    assert message.endswith(told)


def test_a_target_that_is_served_already_has_nothing_to_be_compared_with() -> None:
    world = EvaluationWorld(finished(), adapterrollout("e"), baseline=AGAINST_SERVED).settle()
    assert (world.state, world.succeeded, world.created) == ("NothingToCompare", "False", [])
    assert f"serves the target already, {sha('e')}" in world.message
    assert world.condition()[:2] == ("False", "EvaluationFailed")
    assert world.job.status.target.digest == world.job.status.baseline.digest == sha("e")
    world.rollout = adapterrollout("7")
    assert world.settle().state == "NothingToCompare", "terminal is terminal"


def test_the_base_model_is_not_compared_with_itself_for_want_of_something_served() -> None:
    tasks = [{"name": "t", "type": "Perplexity", "dataset": {"uri": "s3://rows/a/"}}]
    alone = {**ALONE, "target": {"baseModel": True}, "tasks": tasks, "thresholds": [], "baseline": AGAINST_SERVED}
    world = EvaluationWorld(None, adapterrollout(), **alone).settle()
    assert (world.state, world.created) == ("NothingToCompare", [])
    world = EvaluationWorld(None, adapterrollout("7"), **alone).settle()
    assert world.state == "Preparing"
    assert (config_of(world).target, secrets_of(world.created[-1])["baseline"]) == (None, "results")


def test_an_artifact_is_compared_with_what_is_served_without_any_finetunejob() -> None:
    world = EvaluationWorld(None, adapterrollout("8"), **ALONE, baseline=AGAINST_SERVED)
    assert EVALUATING.waits_for(world.job) is None
    world.settle()
    status = world.job.status
    assert (world.state, status.target.digest, status.baseline.digest) == ("Preparing", sha("7"), sha("8"))
    assert status.resolved.to_json() == {
        "baseModel": {"uri": "s3://models/tiny", "secretName": "models"},
        "output": {"uri": "s3://results/x", "secretName": "results"},
        "targetSecretName": "theirs",
        "baselineSecretName": "theirs",
    }
    assert secrets_of(world.created[-1]) == {
        "base-model": "models",
        "output": "results",
        "target": "theirs",
        "baseline": "theirs",
    }


def test_the_base_model_alone_may_be_the_target() -> None:
    tasks = [{"name": "t", "type": "Perplexity", "dataset": {"uri": "s3://rows/a/"}}]
    world = EvaluationWorld(**{**ALONE, "target": {"baseModel": True}}, tasks=tasks, thresholds=[]).settle()
    assert config_of(world).target is None
    words = PREPARED_EVALUATION.model_copy(update={"target_digest": None})
    world.running().succeeds(world.words(Reason.COMPLETED, prepared_evaluation=words)).running().evaluated()
    assert world.condition()[:2] == ("True", "NoThresholds")
    assert world.job.status.target.to_json() == {}


def test_a_threshold_that_no_task_can_answer_is_refused_before_anything_starts() -> None:
    world = EvaluationWorld(finished(), thresholds=[{"metric": "heldout/rougeL", "minimum": 0.3}]).settle()
    assert (world.state, world.succeeded, world.created) == ("SpecInvalid", "False", [])
    assert "heldout" in world.message
    assert world.condition()[:2] == ("False", "EvaluationFailed")


def test_the_evaluate_job_gets_what_prepare_found() -> None:
    arguments = pod_of(started().prepared().created[-1])["containers"][0]["args"]
    assert arguments[0] == "evaluate"
    assert json.loads(arguments[arguments.index("--prepared") + 1]) == PREPARED_EVALUATION.to_json()


def test_what_was_evaluated_before_is_completed_without_an_evaluate_job() -> None:
    world = started().prepared(packed_outcome=OUTCOME.pack(3072))
    assert (world.state, world.job_names) == ("Completed", ["demo-eval-prepare-0"])
    assert world.condition()[:2] == ("True", "Passed")


def test_a_result_that_was_lost_with_its_pod_is_found_again_by_preparing() -> None:
    world = started().prepared().running()
    world.pods = []
    world.change_job(complete=True, ended=world.now).settle()
    assert world.job_names[-1] == "demo-eval-prepare-2"
    world.prepared(packed_outcome=OUTCOME.pack(3072))
    assert (world.state, world.condition()[1]) == ("Completed", "Passed")


def test_an_outcome_that_cannot_be_read_is_a_result_that_was_lost() -> None:
    world = started().prepared().running()
    world.succeeds(world.words(Reason.COMPLETED, packed_outcome="not an outcome"))
    assert world.job.status.attempts[1].reason == "ResultLost"
    assert world.job.status.results == []


def test_a_preempted_evaluation_goes_on_and_its_time_was_lost() -> None:
    world = started().prepared().running().reports(activity="Evaluating", step=1, total_steps=2)
    world.after(40).disrupted("PreemptionByScheduler", pod_left=True)
    assert world.job_names[-1] == "demo-eval-2"
    status = world.job.status
    assert (status.failures, status.disruptions, status.lost_accelerator_seconds) == (0, 1, 40)
    assert status.attempts[1].end_step == 1


def test_a_lost_node_costs_a_disruption() -> None:
    world = started().prepared().running()
    world.pod(deletion_time=world.now)
    world.answers[NodeOf("node-1")] = "Gone"
    world.after(121).settle()
    assert (world.deleted, world.job_names[-1]) == (["demo-eval-1"], "demo-eval-2")


def test_too_many_failures_end_it_and_nothing_is_known() -> None:
    world = started().prepared().running().reports(activity="Evaluating", step=1, total_steps=2).exits(1)
    world.after(10).settle().running().exits(1)
    assert (world.state, world.succeeded) == ("RetriesExhausted", "False")
    assert "goes on with the tasks that are not done" in world.message
    assert world.condition()[:2] == ("False", "EvaluationFailed")
    assert world.notes[-1] == ("Warning", "RetriesExhausted")


def test_a_container_over_its_memory_limit_is_told_by_the_name_of_its_kind() -> None:
    world = started().prepared().running().exits(137, reason="OOMKilled")
    assert "in a new Evaluation" in world.message


def test_suspending_and_resuming_keep_the_attempt() -> None:
    world = started().prepared().running().reports(activity="Evaluating", step=1, total_steps=2)
    world.patch_spec(suspend=True).settle()
    assert world.state == "Suspended"
    assert "the evaluation goes on with the tasks that are not done" in world.message
    world.pods = []
    world.change_job(active=0).patch_spec(suspend=False).settle().running().evaluated()
    assert (world.state, world.job_names[-1]) == ("Completed", "demo-eval-1")


def test_a_queue_gets_its_jobs_too() -> None:
    world = started(labels={QUEUE_LABEL: "gpus"})
    assert world.created[-1]["spec"]["suspend"] is True
    assert world.state == "Queued"


def test_its_deadline_and_its_time_to_live() -> None:
    world = started(activeDeadlineSeconds=50, ttlSecondsAfterFinished=60).prepared().running().after(30).settle()
    assert (world.state, world.deleted) == ("DeadlineExceeded", ["demo-eval-1"])
    made = plan(world.after(60).observed(), world.now)
    assert made.actions == (Delete("Evaluation", "team", "demo", world.job.metadata.uid),)


def test_a_name_that_is_taken_is_said_of_an_evaluation() -> None:
    world = EvaluationWorld(finished())
    world.taken = NameTaken("Job demo-eval-prepare-0", T0 - timedelta(seconds=61))
    world.settle()
    assert world.state == "NameTaken"
    assert "the evaluation goes on by itself" in world.message


def test_terminal_is_terminal_even_when_children_and_finetunejob_are_gone() -> None:
    world = started().prepared().running().evaluated()
    before = world.job.status
    world.jobs, world.pods, world.upstream = [], [], None
    assert world.settle().job.status == before


def names(job: FineTuneJob | Evaluation) -> set[str]:
    name = job.metadata.name
    kind: Any = EVALUATING if isinstance(job, Evaluation) else World.kind
    resolved = EvaluationWorld(**ALONE).job.model_copy(update={"metadata": job.metadata})
    about = resolved if isinstance(job, Evaluation) else job
    jobs = [build_job(kind, about, SETTINGS, stage, number=3)["metadata"]["name"] for stage in kind.stages]
    made = {*jobs, build_run_config_map(kind, about)["metadata"]["name"]}
    assert all(each.startswith(name) for each in made)
    return made


def test_children_of_both_kinds_never_have_the_same_name() -> None:
    made = [*names(finetunejob()), *names(evaluation())]
    assert len(set(made)) == 9


def test_names_of_children_fit() -> None:
    job = EvaluationWorld(**ALONE).job
    longest = job.model_copy(update={"metadata": job.metadata.model_copy(update={"name": "x" * 45})})
    for stage in EVALUATING.stages:
        assert len(build_job(EVALUATING, longest, SETTINGS, stage, number=9999)["metadata"]["name"]) <= 63
    assert len(build_run_config_map(EVALUATING, longest)["metadata"]["name"]) <= 63


def test_children_say_whose_they_are_and_what_they_run() -> None:
    world = started().prepared()
    prepares, evaluates = (body for body in world.created if body["kind"] == "Job")
    for body in (prepares, evaluates):
        assert body["metadata"]["labels"][EVALUATION_LABEL] == "demo"
        assert body["spec"]["template"]["metadata"]["labels"][EVALUATION_LABEL] == "demo"
        assert body["metadata"]["ownerReferences"][0]["kind"] == "Evaluation"
    assert pod_of(prepares)["containers"][0]["image"] == "prepare:1"
    assert pod_of(evaluates)["containers"][0]["image"] == "trainer:1"
    assert pod_of(evaluates)["containers"][0]["resources"]["limits"]["memory"] == "16Gi"
    assert "nvidia.com/gpu" not in pod_of(prepares)["containers"][0]["resources"]["limits"]


def test_the_status_stays_small() -> None:
    tasks = 50
    names = [f"task-with-a-rather-long-name-number-{number:04d}" for number in range(tasks)]
    spec = [{"name": name, "type": "Generation", "dataset": {"split": "Test"}} for name in names]
    bounds = {"minimum": 0.123456, "maximumRegression": 0.0123456, "confidence": 0.95}
    thresholds = [{"metric": f"{name}/rougeL", **bounds} for name in names[:32]]
    figures = dict.fromkeys(("value", "low", "high", "baseline", "change", "change_low", "change_high"), 0.12345678)
    results = [{"task": name, "metric": m, "count": 1000, **figures} for name in names for m in ("rougeL", "bleu")]
    facts = {"estimate": 0.012345678, "p_pass": 0.123, "p_fail": 0.456, "rows_needed": 12345}
    checks = [
        {"threshold": index, "bound": bound, **facts}
        for index in range(32)
        for bound in ("minimum", "maximumRegression")
    ]
    outcome = EvaluationOutcome.model_validate(
        {"report_uri": "s3://o/r.html", "results_digest": sha("a"), "rows": 9, "results": results, "checks": checks}
    )
    world = EvaluationWorld(
        finished(), tasks=spec, thresholds=thresholds, baseline={"baseModel": True}, retries={"onDisruption": 100}
    )
    world.settle().prepared()
    for _ in range(10):
        world.running().after(7).disrupted("PreemptionByScheduler " + "x" * 400, pod_left=True)
    world.running().evaluated(outcome)
    assert world.state == "Completed"
    size = len(json.dumps(world.job.status.to_json(), separators=(",", ":")))
    print(f"status of {tasks} tasks: {size} bytes")
    assert size < 10_000
    assert world.job.status.results_omitted + len(world.job.status.results) == 2 * tasks
    assert len(world.job.status.results) >= 8


JUDGED: dict[str, Any] = {
    "baseline": {"baseModel": True},
    "tasks": [
        {
            "name": "judged",
            "type": "Judge",
            "dataset": {"split": "Test"},
            "judging": {"instructions": "Prefer what is right.", "minimumAgreement": 0.8},
        }
    ],
    "thresholds": [],
}


ENDPOINT = {"endpoint": {"url": "http://vllm.judges:8000/v1", "model": "judge", "secretName": "judge-key"}}


def answered() -> EvaluationWorld:
    """Return one whose answers are there for an endpoint to judge."""
    world = started(judge=ENDPOINT, **JUDGED).prepared().looked().running()
    return world.after(100).succeeds(world.words(Reason.COMPLETED, answers_digest=sha("9")))


def test_the_key_of_a_judge_and_the_way_out_are_of_the_pod_that_asks_it_and_holds_no_accelerator() -> None:
    resources = {"limits": {"nvidia.com/gpu": 1}}
    template = {"labels": {"trimtab.dev/stage": "judge", "team": "a"}, "resources": resources}
    world = started(judge=ENDPOINT, template=template, **JUDGED)
    config = config_of(world)
    assert config.judge is not None
    assert config.judge.endpoint is not None
    assert config.judge.endpoint.credentials is not None
    assert config.judge.endpoint.credentials.directory == "/run/trimtab/secrets/judge"
    assert "judge-key" not in json.dumps(config.judge.endpoint.to_json() | {"credentials": None})
    preparing = world.created[-1]
    looking = world.prepared().created[-1]
    answering = world.looked().created[-1]
    world.running().after(100).succeeds(world.words(Reason.COMPLETED, answers_digest=sha("9")))
    judging = world.created[-1]
    assert world.job_names == ["demo-eval-prepare-0", "demo-eval-judge-1", "demo-eval-2", "demo-eval-judge-3"]
    for body in (preparing, answering):
        assert "judge" not in secrets_of(body)
        labels = body["spec"]["template"]["metadata"]["labels"]
        assert labels["trimtab.dev/stage"] != "judge", "whatever the template says"
    assert pod_of(answering)["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    for body in (looking, judging):
        assert secrets_of(body) == {"output": secrets_of(answering)["output"], "judge": "judge-key"}
        labels = body["spec"]["template"]["metadata"]["labels"]
        assert (labels["trimtab.dev/stage"], labels["team"]) == ("judge", "a")
        container = pod_of(body)["containers"][0]
        assert container["resources"] == pod_of(preparing)["containers"][0]["resources"]
        assert container["image"] == pod_of(answering)["containers"][0]["image"], "it has the libraries of all metrics"
        assert body["metadata"]["labels"]["trimtab.dev/accelerators"] == "0"


def test_a_judge_is_looked_at_before_an_accelerator_is_asked_for() -> None:
    world = started(judge=ENDPOINT, **JUDGED).prepared()
    arguments = pod_of(world.created[-1])["containers"][0]["args"]
    assert arguments[0] == "judge"
    assert "answersDigest" not in arguments[arguments.index("--prepared") + 1]
    world.running()
    assert (world.state, world.succeeded) == ("Preparing", "Unknown")
    assert "has a first look at the judge" in world.message
    world.after(5).succeeds(world.words(Reason.COMPLETED, judge_ready=True))
    assert (world.state, world.job_names[-1]) == ("Evaluating", "demo-eval-2")
    assert world.job.status.judge_ready is True
    assert world.job.status.accelerator_seconds == 0


@pytest.mark.parametrize("reason", [Reason.ACCESS_DENIED, Reason.JUDGE_REFUSED, Reason.JUDGE_UNREADABLE])
def test_a_judge_that_cannot_judge_ends_it_before_an_accelerator_is_asked_for(reason: Reason) -> None:
    world = started(judge=ENDPOINT, **JUDGED).prepared().running()
    world.exits(10, world.words(reason, "write another key"))
    assert (world.state, world.succeeded) == (reason.value, "False")
    assert world.condition()[:2] == ("False", "EvaluationFailed")
    assert world.job_names == ["demo-eval-prepare-0", "demo-eval-judge-1"]
    assert world.job.status.failures == 0


def test_a_look_at_a_judge_is_killed_and_retried_as_other_stages_are_and_had_once() -> None:
    world = started(judge=ENDPOINT, **JUDGED).prepared().running()
    world.disrupted("PreemptionByScheduler").after(10).settle().running()
    world.exits(13, world.words(Reason.JUDGE_UNREACHABLE, "no answer")).after(400).settle()
    assert world.job_names[-2:] == ["demo-eval-judge-2", "demo-eval-judge-3"]
    world.looked().running().disrupted("PreemptionByScheduler").after(10).settle()
    assert world.job_names[-2:] == ["demo-eval-4", "demo-eval-5"], "what was looked at is not looked at again"
    world.running().succeeds(world.words(Reason.COMPLETED, answers_digest=sha("9"))).running().evaluated()
    assert world.state == "Completed"
    assert world.job.status.failures == 1
    assert world.job.status.disruptions == 2


def test_a_look_whose_words_are_lost_is_had_again() -> None:
    world = started(judge=ENDPOINT, **JUDGED).prepared().running()
    world.pods = []
    world.change_job(complete=True, ended=world.now).settle()
    assert world.job.status.judge_ready is None
    world.prepared()
    assert world.job_names[-1] == "demo-eval-judge-3"


def unnoted(world: EvaluationWorld) -> EvaluationWorld:
    """Let the status not tell of the look: nobody had it, or the definition of before has no field for it."""
    world.job = world.job.model_copy(update={"status": world.job.status.model_copy(update={"judge_ready": None})})
    return world


def test_what_asked_for_accelerators_before_anybody_looked_at_judges_goes_on_without_a_look() -> None:
    world = unnoted(started(judge=ENDPOINT, **JUDGED).prepared().looked())
    world.running().disrupted("PreemptionByScheduler").after(10).settle()
    assert world.job_names[-2:] == ["demo-eval-2", "demo-eval-3"]


OF_BEFORE = (
    "there is nothing to judge: `judge` wants judge.endpoint, and a --prepared with the answersDigest that "
    "`trimtab-trainer evaluate --prepared ...` ended with"
)
"""What the trainer said to a look before it could have one."""


def test_an_image_that_knows_no_look_is_gone_on_with_as_it_was_made_for() -> None:
    """Prepared under the operator of before, whose images are fixed; its successor wants a look."""
    world = started(judge=ENDPOINT, **JUDGED).prepared().running()
    world.exits(10, world.words(Reason.SETTINGS_INVALID, OF_BEFORE))
    assert (world.succeeded, world.job_names[-1]) == ("Unknown", "demo-eval-2")
    status = world.job.status
    assert (status.failures, status.disruptions, status.attempts[1].charged_to) == (0, 0, None)
    (warned,) = [each for each in status.conditions if each.type == "Warned"]
    assert (warned.reason, "knows no first look at a judge" in warned.message) == ("PreparedWithWarnings", True)
    world.running().disrupted("PreemptionByScheduler").after(10).settle()
    assert world.job_names[-1] == "demo-eval-3", "it is not asked again"
    world.running().succeeds(world.words(Reason.COMPLETED, answers_digest=sha("9"))).running()
    world.exits(10, world.words(Reason.SETTINGS_INVALID, OF_BEFORE))
    assert (world.state, world.succeeded) == ("SettingsInvalid", "False"), "there are answers"


def test_a_look_is_had_once_under_a_definition_that_cannot_note_it() -> None:
    world = started(judge=ENDPOINT, **JUDGED).prepared()
    tried = world.now + timedelta(seconds=5)
    world.refused = Refusal("Job", "exceeded quota: gpus", tried, tried)
    world.looked()
    assert (world.state, world.job_names[-1]) == ("QuotaExceeded", "demo-eval-judge-1")
    unnoted(world).refused = None
    assert world.settle().job_names[-1] == "demo-eval-2"


def test_what_was_answered_before_anybody_looked_at_judges_is_judged() -> None:
    world = started(judge=ENDPOINT, **JUDGED).prepared()
    status = world.job.status.model_copy(update={"answers_digest": sha("9")})
    world.job = world.job.model_copy(update={"status": status})
    world.running().disrupted("PreemptionByScheduler").after(10).settle()
    arguments = pod_of(world.created[-1])["containers"][0]["args"]
    assert sha("9") in arguments[arguments.index("--prepared") + 1]


def test_what_was_answered_is_judged_and_then_there_is_a_verdict() -> None:
    world = answered()
    assert (world.state, world.succeeded) == ("Evaluating", "Unknown")
    assert world.job.status.answers_digest == sha("9")
    arguments = pod_of(world.created[-1])["containers"][0]["args"]
    assert arguments[0] == "judge"
    told = PREPARED_EVALUATION.model_copy(update={"answers_digest": sha("9"), "tasks": 1})
    assert json.loads(arguments[arguments.index("--prepared") + 1]) == told.to_json()
    world.running()
    assert "asks the judge; it holds no accelerator" in world.message
    world.after(500).evaluated()
    assert (world.state, world.condition()[1]) == ("Completed", "NoThresholds")
    assert [attempt.stage for attempt in world.job.status.attempts] == ["prepare", "judge", "evaluate", "judge"]
    assert world.job.status.accelerator_seconds == 100, "the judge is waited for without one"


def test_a_judge_that_fails_is_asked_again_and_not_the_models() -> None:
    world = answered().running()
    world.exits(13, world.words(Reason.JUDGE_UNREACHABLE, "no answer")).after(400).settle()
    assert world.job_names[-1] == "demo-eval-judge-4"
    world.running().disrupted("PreemptionByScheduler").after(10).settle()
    assert world.job_names[-1] == "demo-eval-judge-5"
    world.running().evaluated()
    assert world.state == "Completed"


def test_answers_that_are_gone_are_asked_for_again_whatever_comes_between() -> None:
    world = answered().running()
    world.exits(13, world.words(Reason.ANSWERS_MISSING, "no manifest")).after(400).settle()
    assert world.job_names[-1] == "demo-eval-4"
    assert world.job.status.answers_digest is None
    world.running().disrupted("PreemptionByScheduler").after(10).settle()
    assert world.job_names[-1] == "demo-eval-5"
    arguments = pod_of(world.created[-1])["containers"][0]["args"]
    assert "answersDigest" not in arguments[arguments.index("--prepared") + 1]
    world.running().succeeds(world.words(Reason.COMPLETED, answers_digest=sha("9")))
    assert world.job_names[-1] == "demo-eval-judge-6"


def test_answers_whose_digest_was_lost_with_its_pod_are_found_by_whoever_answers_next() -> None:
    world = started(judge=ENDPOINT, **JUDGED).prepared().looked().running()
    world.pods = []
    world.change_job(complete=True, ended=world.now).settle()
    assert world.job_names[-1] == "demo-eval-prepare-3"
    world.prepared()
    assert world.job_names[-1] == "demo-eval-4"


def test_a_judge_of_no_task_is_asked_by_nobody() -> None:
    world = started(judge=ENDPOINT).prepared().running()
    assert "judge" not in secrets_of(world.created[-1])
    world.evaluated()
    assert (world.state, world.job_names[-1]) == ("Completed", "demo-eval-1")


def test_a_judge_from_storage_has_no_way_out_and_is_looked_at_by_prepare() -> None:
    model = {"uri": "s3://models/judge", "digest": sha("5"), "secretName": "models"}
    world = started(judge={"model": model}, **JUDGED)
    config = config_of(world)
    assert config.judge is not None
    assert config.judge.model is not None
    assert (config.judge.model.uri, config.judge.model.digest) == ("s3://models/judge", sha("5"))
    assert secrets_of(world.created[-1])["judge"] == "models"
    world.prepared()
    assert secrets_of(world.created[-1])["judge"] == "models"
    world.running().evaluated()
    assert (world.state, world.job_names[-1]) == ("Completed", "demo-eval-1")


def test_without_a_judge_nothing_is_mounted_for_one() -> None:
    world = started().prepared()
    assert "judge" not in EVALUATING.secrets(world.job), "jobs that were made before are not made anew"


def test_a_judge_that_is_not_to_be_relied_on_decides_nothing() -> None:
    unreliable = "the judge of task judged decides nothing: it agrees with people on 3 of 40 rows"
    world = answered().running()
    world.evaluated(OUTCOME.model_copy(update={"unreliable": unreliable}))
    assert (world.state, world.succeeded) == ("Completed", "True")
    assert world.condition()[:2] == ("False", "JudgeUnreliable")
    assert unreliable in world.condition()[2]


def test_a_judge_that_wants_to_be_left_alone_is_asked_later() -> None:
    world = answered().running()
    world.exits(13, world.words(Reason.JUDGE_OVERLOADED, "left alone for 300 s", retry_after_seconds=300))
    assert world.state == "Retrying"
    assert "300 s" in world.message

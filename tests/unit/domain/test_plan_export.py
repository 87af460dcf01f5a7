"""The decisions about an AdapterExport, told as stories: what differs from other work, and that the rest does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from trimtab_operator.api import Evaluation, ModelStatus
from trimtab_operator.api.adapterexport import ExportSummary
from trimtab_operator.api.finetunejob import BaseModelSource
from trimtab_operator.domain.adapterexport import ADAPTER_EXPORT, EXPORTING
from trimtab_operator.domain.cluster import Key
from trimtab_operator.domain.indexes import named_evaluation, waiting_for
from trimtab_operator.domain.work.building.job import build_job
from trimtab_operator.domain.work.staged import needs
from trimtab_trainer.contract import ExportConfig, Reason, Stage

from tests.unit.domain.makers import (
    ARTIFACT,
    EXPORTED,
    SETTINGS,
    EvaluationWorld,
    ExportWorld,
    adapterexport,
    finetunejob,
    finished,
    sha,
)

ALONE: dict[str, Any] = {
    "source": {"artifact": {"uri": "s3://adapters/x/adapters/7", "digest": sha("7"), "secretName": "theirs"}},
    "baseModel": {"uri": "s3://models/tiny", "secretName": "bases"},
}


def started(**spec: Any) -> ExportWorld:
    return ExportWorld(finished(), **spec).settle()


def judged(**spec: Any) -> Evaluation:
    """Return an Evaluation of the finished FineTuneJob that has ended."""
    world = EvaluationWorld(finished(), **spec).settle().prepared().running().evaluated()
    made: Evaluation = world.job
    return made


def config_of(world: ExportWorld) -> ExportConfig:
    data = next(body["data"]["run.json"] for body in world.created if body["kind"] == "ConfigMap")
    return ExportConfig.model_validate_json(data)


def test_it_is_one_job_from_the_adapter_of_a_finetunejob_to_a_model_that_is_stored() -> None:
    world = started()
    assert world.job_names == ["demo-export-0"]
    assert world.state == "Exporting"
    config = config_of(world)
    assert (config.adapter.uri, config.adapter.digest) == (ARTIFACT.uri, ARTIFACT.digest)
    assert (config.base_model.uri, config.base_model.digest) == ("s3://models/tiny", sha("a"))
    assert config.destination.uri == "s3://models/guide"
    assert config.destination.credentials is not None
    assert config.destination.credentials.directory == "/run/trimtab/secrets/destination"
    world.running().reports(activity="Exporting", step=1, total_steps=4)
    assert world.job.status.progress.to_json() == {"filesDone": 1, "files": 4, "percent": 25}
    world.after(30).reports(activity="Publishing", step=4, total_steps=4)
    assert world.state == "Publishing"
    world.after(5).exported()
    status = world.job.status
    assert (world.state, world.succeeded) == ("Completed", "True")
    assert status.artifact.uri == EXPORTED.uri
    assert EXPORTED.uri in world.message
    assert status.summary == ExportSummary(progress="100%", size="271 MB")
    assert world.notes == [("Normal", reason) for reason in ("Exporting", "Publishing", "Completed")]
    assert len(json.dumps(status.to_json())) < 10_000
    assert world.writes <= 7


def test_its_pod_has_torch_and_no_accelerator_and_the_template_may_give_it_more_memory() -> None:
    job = adapterexport(**ALONE, template={"resources": {"limits": {"memory": "64Gi"}}})
    body = build_job(EXPORTING, job, SETTINGS, Stage.EXPORT, number=0)
    pod = body["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["image"] == SETTINGS.trainer_image
    assert container["args"][:3] == ["export", "--config", "/run/trimtab/config/run.json"]
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "64Gi"}
    assert body["metadata"]["labels"]["trimtab.dev/accelerators"] == "0"
    assert body["metadata"]["labels"]["trimtab.dev/adapterexport"] == "demo"
    assert pod["automountServiceAccountToken"] is False
    mounted = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
    assert mounted == {
        "trimtab-adapter": "theirs",
        "trimtab-base-model": "bases",
        "trimtab-destination": "models",
    }
    assert "env" in container
    assert not any("secret" in str(each).lower() for each in container["env"])


def test_an_artifact_waits_for_nothing() -> None:
    world = ExportWorld(**ALONE).settle()
    assert world.job_names == ["demo-export-0"]
    assert world.job.status.resolved is None
    config = config_of(world)
    assert (config.adapter.digest, config.base_model.uri, config.base_model.digest) == (
        sha("7"),
        "s3://models/tiny",
        None,
    )


def test_it_waits_for_its_finetunejob_and_ends_with_it() -> None:
    world = ExportWorld().settle()
    assert world.state == "Pending"
    assert world.message.startswith("FineTuneJobNotFound")
    world.upstream = finetunejob()
    world.settle()
    assert world.message == "waits for FineTuneJob demo (New)"
    assert world.job_names == []
    world.upstream = finished()
    assert world.settle().job_names == ["demo-export-0"]


def test_a_finetunejob_that_failed_ends_it() -> None:
    job = finished()
    (succeeded,) = [each for each in job.status.conditions if each.type == "Succeeded"]
    failed = succeeded.model_copy(update={"status": "False", "reason": "DatasetInvalid"})
    upstream = job.model_copy(update={"status": job.status.model_copy(update={"conditions": [failed]})})
    world = ExportWorld(upstream).settle()
    assert (world.state, world.succeeded) == ("FineTuneJobFailed", "False")
    assert "DatasetInvalid" in world.message
    assert world.created == []


def test_what_passed_its_evaluation_is_exported() -> None:
    world = ExportWorld(source={"evaluationName": "demo"}).settle()
    assert world.message.startswith("EvaluationNotFound")
    world.judge = EvaluationWorld(finished()).settle().job
    assert world.settle().message.startswith("waits for Evaluation demo (")
    world.judge = judged()
    world.settle()
    assert world.job_names == ["demo-export-0"]
    config = config_of(world)
    assert (config.adapter.uri, config.adapter.digest) == (ARTIFACT.uri, ARTIFACT.digest)
    assert config.base_model.digest == sha("a")
    world.judge = None
    assert world.running().exported().state == "Completed"  # it is not needed any more


def test_what_did_not_pass_is_not_exported() -> None:
    world = ExportWorld(source={"evaluationName": "demo"})
    world.judge = judged(thresholds=[{"metric": "heldout/perplexity", "maximum": 9.0}])
    world.settle()
    assert (world.state, world.succeeded) == ("EvaluationNotPassed", "False")
    assert "ThresholdMissed" in world.message
    assert world.created == []


def test_an_evaluation_of_the_base_model_alone_has_no_adapter() -> None:
    world = ExportWorld(source={"evaluationName": "demo"})
    made = judged()
    status = made.status.model_copy(update={"target": ModelStatus()})
    world.judge = made.model_copy(update={"status": status})
    assert world.settle().state == "EvaluationNotPassed"
    assert "base model alone" in world.message


def test_a_base_model_of_a_hub_is_read_where_it_was_mirrored() -> None:
    job = finished()
    hub = BaseModelSource(uri="hf://org/name@main")
    upstream = job.model_copy(update={"spec": job.spec.model_copy(update={"base_model": hub})})
    world = ExportWorld(upstream).settle()
    assert (world.state, world.succeeded) == ("SpecInvalid", "False")
    source = {"uri": hub.uri, "commit": "c" * 40, "digest": sha("a")}
    status = type(job.status).model_validate({**job.status.to_json(), "mirrored": [source]})
    world = ExportWorld(upstream.model_copy(update={"status": status})).settle()
    assert config_of(world).base_model.uri == f"{job.spec.output.uri}/models/{'a' * 64}"


def test_what_failed_is_tried_again_from_its_beginning() -> None:
    world = started().running()
    world.exits(13, world.words(Reason.STORAGE_FAILED, "the storage is away"))
    assert world.state == "Retrying"
    world.after(15).settle()
    assert world.job_names == ["demo-export-0", "demo-export-1"]
    assert world.job.status.failures == 1


def test_a_result_that_was_lost_with_its_pod_is_found_by_the_next() -> None:
    world = started().running().succeeds(None)
    assert world.job_names == ["demo-export-0", "demo-export-1"]
    assert world.running().exported().state == "Completed"
    assert world.job.status.disruptions == 1


def test_what_cannot_be_exported_is_not_tried_again() -> None:
    world = started().running()
    world.exits(10, world.words(Reason.ARTIFACT_INVALID, "it cannot be merged"))
    assert (world.state, world.succeeded) == ("ArtifactInvalid", "False")
    assert world.job_names == ["demo-export-0"]


def test_suspended_it_holds_no_pod_and_begins_anew() -> None:
    world = started(suspend=True)
    assert (world.state, world.job_names) == ("Suspended", [])
    assert "from its beginning" in world.message


@pytest.mark.parametrize(
    ("source", "index"),
    [
        ({"fineTuneJobName": "demo"}, waiting_for("FineTuneJob", "team", "demo")),
        ({"evaluationName": "demo"}, named_evaluation("team", "demo")),
    ],
)
def test_it_is_told_when_what_it_waits_for_changes(source: dict[str, str], index: str) -> None:
    body = {"metadata": {"namespace": "team", "name": "demo"}, "spec": {"source": source}}
    assert ADAPTER_EXPORT.indexes(body, False) == (index,)
    assert ADAPTER_EXPORT.indexes(body, True) == ()
    assert ADAPTER_EXPORT.indexes({**body, "status": {"resolved": {}}}, False) == ()
    assert ADAPTER_EXPORT.concerns(Key("AdapterExport", "team", "demo"), False, (index,)) == ()
    world = ExportWorld(finished(), source=source)
    kind = next(iter(source)).removesuffix("Name").replace("fineTuneJob", "FineTuneJob").replace("eval", "Eval")
    assert needs(world.observed(), world.decided()).objects == (Key(kind, "team", "demo"),)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"source": {"fineTuneJobName": "a", "evaluationName": "b"}}, "exactly one of"),
        ({"source": {"artifact": ALONE["source"]["artifact"]}}, "baseModel is needed with source.artifact"),
        ({"baseModel": ALONE["baseModel"]}, "baseModel is needed with source.artifact"),
        ({"format": "OCI"}, "format OCI goes to oci://"),
        ({"destination": {"uri": "oci://registry.example/a:1"}}, "format OCI goes to oci://"),
    ],
)
def test_the_model_refuses_what_the_definition_refuses(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        adapterexport(**spec)


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (271_000_000, "271 MB"), (16_060_000_000, "16 GB")],
)
def test_sizes_are_for_people(size: int, shown: str) -> None:
    world = started().running().exported()
    artifact = world.job.status.artifact.model_copy(update={"size_bytes": size})
    summary = world.job.status.model_copy(update={"artifact": artifact}).summary
    assert summary is not None
    assert summary.size == shown

"""An AdapterExport's life beside its FineTuneJob's, with the operator as a process and a real API server."""

from __future__ import annotations

from trimtab_operator.runtime.kube import CONFIGMAPS, Kube
from trimtab_trainer.contract import ExportConfig, Reason, Stage

from tests.component.operator.conftest import Start, playing
from tests.component.operator.executor import Act
from tests.component.operator.finetunejobs import (
    adapterexport,
    evaluation,
    events_of,
    finetunejob,
    jobs_of,
    until_jobs,
    until_state,
)
from tests.resources import ADAPTEREXPORTS, EVALUATIONS, FINETUNEJOBS
from tests.unit.domain.makers import ARTIFACT, EXPORTED


async def test_it_waits_for_its_finetunejob_and_is_made_once(kube: Kube, namespace: str, start: Start) -> None:
    def script(stage: Stage, attempt: int) -> Act:
        return Act(13, Reason.STORAGE_FAILED) if (stage, attempt) == (Stage.EXPORT, 0) else Act()

    operator = await start()
    async with playing(kube, namespace, script) as executor:
        await kube.create(ADAPTEREXPORTS, namespace, adapterexport("demo", namespace))
        await until_state(kube, namespace, "demo", "Pending", resource=ADAPTEREXPORTS)
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        body = await until_state(kube, namespace, "demo", "Completed", resource=ADAPTEREXPORTS)
    status = body["status"]
    assert status["artifact"]["uri"] == EXPORTED.uri
    assert status["summary"] == {"progress": "100%", "size": "271 MB"}
    assert status["resolved"]["adapter"] == {
        "uri": ARTIFACT.uri,
        "digest": ARTIFACT.digest,
        "secretName": "object-storage",
    }
    assert status["failures"] == 1
    assert set(await jobs_of(kube, namespace)) == {"demo-prepare-0", "demo-train-1", "demo-export-0", "demo-export-1"}
    assert sorted(executor.pods) == [("export", 0), ("export", 1), ("prepare", 0), ("train", 1)]
    maps = await kube.items(CONFIGMAPS, namespace, {})
    (text,) = [each["data"]["run.json"] for each in maps if each["metadata"]["name"].startswith("demo-export-run-")]
    config = ExportConfig.model_validate_json(text)
    assert config.adapter.digest == ARTIFACT.digest
    events = await events_of(kube, namespace, body, {"Exporting", "Completed"})
    assert {event["regarding"]["kind"] for event in events} == {"AdapterExport"}
    metrics = await operator.metrics()
    assert metrics['trimtab_adapterexports{state="Completed"}'] == 1
    assert metrics['trimtab_attempts_total{reason="Completed",stage="export"}'] == 1
    assert metrics['trimtab_adapterexport_duration_seconds_count{outcome="Completed"}'] == 1


async def test_what_passes_is_exported_and_deleting_that_deletes_its_children_alone(
    kube: Kube, namespace: str, start: Start
) -> None:
    await start()
    async with playing(kube, namespace):
        source = {"evaluationName": "demo"}
        await kube.create(ADAPTEREXPORTS, namespace, adapterexport("demo", namespace, source=source))
        await kube.create(EVALUATIONS, namespace, evaluation("demo", namespace))
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        body = await until_state(kube, namespace, "demo", "Completed", resource=ADAPTEREXPORTS)
        await until_state(kube, namespace, "demo", "Completed", resource=EVALUATIONS)
        await kube.delete(ADAPTEREXPORTS, namespace, "demo", body["metadata"]["uid"])
        await until_jobs(kube, namespace, {"demo-prepare-0", "demo-train-1", "demo-eval-prepare-0", "demo-eval-1"})


async def test_what_does_not_pass_is_not(kube: Kube, namespace: str, start: Start) -> None:
    await start()
    async with playing(kube, namespace):
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        thresholds = [{"metric": "heldout/perplexity", "maximum": 9.0}]
        await kube.create(EVALUATIONS, namespace, evaluation("demo", namespace, thresholds=thresholds))
        made = adapterexport("demo", namespace, source={"evaluationName": "demo"})
        await kube.create(ADAPTEREXPORTS, namespace, made)
        body = await until_state(kube, namespace, "demo", "EvaluationNotPassed", resource=ADAPTEREXPORTS)
    assert "ThresholdMissed" in str(body["status"]["conditions"])
    assert not any("export" in name for name in await jobs_of(kube, namespace))

"""The trainer's configuration of an Evaluation."""

from __future__ import annotations

from trimtab_trainer.contract import (
    EvaluationConfig,
    RunIdentity,
    StoredArtifact,
    StoredBaseline,
    StoredBaseModel,
    StoredEndpoint,
    StoredJudge,
    StoredJudgeModel,
    StoredOutput,
)
from trimtab_trainer.contract.evaluation import EVALUATION_VERSION

from trimtab_operator.api import Evaluation
from trimtab_operator.api.evaluation import Artifact, EvaluationJudge

from ..work.building.job import credentials
from .resolve import models_of, sources_of


def build_run_config(evaluation: Evaluation) -> EvaluationConfig:
    """Return the trainer's configuration; it is the same for every attempt."""
    spec, sources = evaluation.spec, sources_of(evaluation, evaluation.status)
    models = models_of(evaluation, evaluation.status)
    return EvaluationConfig(
        version=EVALUATION_VERSION,
        run=RunIdentity(
            name=evaluation.metadata.name, namespace=evaluation.metadata.namespace, uid=evaluation.metadata.uid
        ),
        base_model=StoredBaseModel(
            uri=sources.base_model.uri,
            digest=sources.base_model.digest,
            credentials=credentials(sources.base_model.secret_name, "base-model"),
        ),
        target=_stored(models.target, "target"),
        baseline=StoredBaseline(artifact=_stored(models.baseline, "baseline")) if models.compared else None,
        anchor=StoredBaseline(artifact=_stored(models.anchor, "anchor")) if spec.anchor is not None else None,
        tasks=spec.tasks,
        thresholds=spec.thresholds,
        judge=_judge(spec.judge),
        output=StoredOutput(uri=sources.output.uri, credentials=credentials(sources.output.secret_name, "output")),
        dataset_credentials=credentials(sources.dataset_secret_name, "dataset"),
        precision=spec.precision,
        engine=spec.engine,
        quantization=spec.quantization,
        maximum_trained_on_ratio=spec.maximum_trained_on_ratio,
        resamples=spec.resamples,
        seed=spec.seed,
        batch_size=spec.batch_size,
    )


def _judge(judge: EvaluationJudge | None) -> StoredJudge | None:
    if judge is None:
        return None
    keys = credentials(judge.secret_name, "judge")
    endpoint, model = judge.endpoint, judge.model
    return StoredJudge(
        endpoint=StoredEndpoint(url=endpoint.url, model=endpoint.model, credentials=keys) if endpoint else None,
        model=StoredJudgeModel(uri=model.uri, digest=model.digest, credentials=keys) if model else None,
    )


def _stored(artifact: Artifact | None, role: str) -> StoredArtifact | None:
    if artifact is None:
        return None
    return StoredArtifact(uri=artifact.uri, digest=artifact.digest, credentials=credentials(artifact.secret_name, role))

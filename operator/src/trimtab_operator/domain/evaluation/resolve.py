"""What an Evaluation is about: taken from its spec, and where that refers to a FineTuneJob, from there, once."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_operator.api import Evaluation, EvaluationStatus, FineTuneJob, ModelStatus, State
from trimtab_operator.api.evaluation import Artifact, EvaluationSources

from ..work.conditions import condition_of
from ..work.kind import Hold

PERCENT_SHOWN = 10
"""A FineTuneJob's progress is repeated in steps of this size, because every repetition is a status write."""


@dataclass(frozen=True)
class Models:
    """The adapters that take part, None for the base model alone, and whether there is a baseline at all."""

    target: Artifact | None
    baseline: Artifact | None
    compared: bool


def needs_resolving(evaluation: Evaluation) -> bool:
    """Say whether something has to be taken from a FineTuneJob still."""
    return evaluation.spec.target.fine_tune_job_name is not None and evaluation.status.resolved is None


def sources_of(evaluation: Evaluation, status: EvaluationStatus) -> EvaluationSources:
    """Return where everything is, after it was resolved.

    Raises:
        ValueError: it was not.
    """
    spec = evaluation.spec
    if status.resolved is not None:
        return status.resolved
    if spec.base_model is None or spec.output is None:
        raise ValueError("baseModel and output were not taken from the FineTuneJob")
    secret_name = spec.target.artifact.secret_name if spec.target.artifact is not None else None
    return EvaluationSources(
        base_model=spec.base_model,
        dataset_secret_name=spec.dataset_secret_name,
        output=spec.output,
        target_secret_name=secret_name,
    )


def models_of(evaluation: Evaluation, status: EvaluationStatus) -> Models:
    """Return the adapters that take part, after they were resolved."""
    target, baseline = evaluation.spec.target.artifact, evaluation.spec.baseline
    found = status.target
    if status.resolved is not None and found is not None and found.uri is not None and found.digest is not None:
        target = Artifact(uri=found.uri, digest=found.digest, secret_name=status.resolved.target_secret_name)
    return Models(target, baseline.artifact if baseline is not None else None, baseline is not None)


def resolve(
    evaluation: Evaluation, status: EvaluationStatus, upstream: FineTuneJob | None
) -> Hold[EvaluationStatus] | None:
    """Return what keeps the first attempt from starting, None if everything is known.

    What was found is held once more, to be written down before the first Job: the FineTuneJob may be gone by the next.
    """
    if status.attempts or not needs_resolving(evaluation):
        return None
    name = evaluation.spec.target.fine_tune_job_name
    if upstream is None:
        message = f"FineTuneJobNotFound: there is no FineTuneJob {name} in this namespace; it is waited for"
        return Hold(State.PENDING.value, message, status)
    condition = condition_of(upstream)
    artifact = upstream.status.artifact
    if condition is None or condition.status == "Unknown":
        state = condition.reason if condition is not None else "New"
        return Hold(State.PENDING.value, f"waits for FineTuneJob {name} ({state}{_percent(upstream)})", status)
    if condition.status == "False" or artifact is None:
        message = f"FineTuneJob {name} ended with {condition.reason}, so there is no adapter to evaluate"
        if condition.message:
            message += f": {condition.message}"
        return Hold(State.FINE_TUNE_JOB_FAILED.value, message, status, final=True)
    message = f"FineTuneJob {name} has published adapter {artifact.digest}"
    return Hold(State.PENDING.value, message, _resolved(evaluation, status, upstream), confirm=True)


def _resolved(evaluation: Evaluation, status: EvaluationStatus, upstream: FineTuneJob) -> EvaluationStatus:
    spec, given, artifact = evaluation.spec, upstream.spec, upstream.status.artifact
    base_model = spec.base_model
    if base_model is None:
        base_model = given.base_model.model_copy(
            update={"digest": upstream.status.base_model_digest or given.base_model.digest}
        )
    output = spec.output if spec.output is not None else given.output
    sources = EvaluationSources(
        base_model=base_model,
        dataset_secret_name=spec.dataset_secret_name or given.dataset.secret_name,
        output=output,
        target_secret_name=given.output.secret_name,
    )
    baseline = spec.baseline
    return status.model_copy(
        update={
            "resolved": sources,
            "target": ModelStatus(uri=artifact.uri, digest=artifact.digest) if artifact is not None else None,
            "baseline": status_of(baseline.artifact) if baseline is not None else None,
            "base_model_digest": base_model.digest,
        }
    )


def status_of(artifact: Artifact | None) -> ModelStatus:
    """Return how the status shows an adapter, or the base model alone."""
    return ModelStatus(uri=artifact.uri, digest=artifact.digest) if artifact is not None else ModelStatus()


def _percent(upstream: FineTuneJob) -> str:
    progress = upstream.status.progress
    if progress is None or progress.percent is None:
        return ""
    return f", {progress.percent - progress.percent % PERCENT_SHOWN}%"

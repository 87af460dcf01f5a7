"""What an Evaluation is about: taken from its spec, and where that refers to other objects, from them, once.

A FineTuneJob gives the target and what the spec leaves out; an AdapterRollout says what is served now, which is the
baseline. Both are read at one moment, when all is known, and never again.
"""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_operator.api import AdapterRollout, Evaluation, EvaluationStatus, FineTuneJob, ModelStatus, State
from trimtab_operator.api.evaluation import Artifact
from trimtab_operator.api.evaluation_status import EvaluationSources

from ..work.conditions import condition_of
from ..work.mirrors import located
from ..work.particulars import Hold

PERCENT_SHOWN = 10
"""A FineTuneJob's progress is repeated in steps of this size, because every repetition is a status write."""


@dataclass(frozen=True)
class Models:
    """The adapters that take part, None for the base model alone, and whether there is a baseline at all."""

    target: Artifact | None
    baseline: Artifact | None
    anchor: Artifact | None
    compared: bool


def rollout_of(evaluation: Evaluation) -> str | None:
    """Return the name of the AdapterRollout that says what to compare with."""
    baseline = evaluation.spec.baseline
    return baseline.rollout_name if baseline is not None else None


def needs_resolving(evaluation: Evaluation) -> bool:
    """Say whether something has to be taken from a FineTuneJob or an AdapterRollout still."""
    refers = evaluation.spec.target.fine_tune_job_name is not None or rollout_of(evaluation) is not None
    return refers and evaluation.status.resolved is None


def sources_of(evaluation: Evaluation, status: EvaluationStatus) -> EvaluationSources:
    """Return where everything is, after it was resolved.

    Raises:
        ValueError: it was not.
    """
    if status.resolved is not None:
        return _with_secrets_of_spec(evaluation, status.resolved)
    if needs_resolving(evaluation):
        raise ValueError("FineTuneJob and AdapterRollout were not asked")
    return _sources(evaluation, None)


def _with_secrets_of_spec(evaluation: Evaluation, resolved: EvaluationSources) -> EvaluationSources:
    """Return what was resolved, with the Secrets that the spec itself names now: they may be renamed at any time."""
    spec = evaluation.spec
    update: dict[str, object] = {}
    if spec.base_model is not None:
        secret = {"secret_name": spec.base_model.secret_name}
        update["base_model"] = resolved.base_model.model_copy(update=secret)
    if spec.output is not None:
        update["output"] = resolved.output.model_copy(update={"secret_name": spec.output.secret_name})
    if spec.dataset_secret_name is not None:
        update["dataset_secret_name"] = spec.dataset_secret_name
    if spec.target.artifact is not None:
        update["target_secret_name"] = spec.target.artifact.secret_name
    sources = resolved.model_copy(update=update)
    if spec.baseline is not None and spec.baseline.artifact is not None:
        baseline = spec.baseline.artifact.secret_name
    elif rollout_of(evaluation) is not None:
        baseline = sources.output.secret_name if spec.target.base_model else sources.target_secret_name
    else:
        baseline = resolved.baseline_secret_name
    return sources.model_copy(update={"baseline_secret_name": baseline})


def models_of(evaluation: Evaluation, status: EvaluationStatus) -> Models:
    """Return the adapters that take part, after they were resolved.

    Raises:
        ValueError: they were not.
    """
    sources, spec = sources_of(evaluation, status), evaluation.spec
    target, baseline = spec.target.artifact, spec.baseline.artifact if spec.baseline is not None else None
    if spec.target.fine_tune_job_name is not None:
        target = _artifact(status.target, sources.target_secret_name)
    if rollout_of(evaluation) is not None:
        baseline = _artifact(status.baseline, sources.baseline_secret_name)
    anchor = spec.anchor.artifact if spec.anchor is not None else None
    return Models(target, baseline, anchor, spec.baseline is not None)


def resolve(
    evaluation: Evaluation, status: EvaluationStatus, upstream: FineTuneJob | None, rollout: AdapterRollout | None
) -> Hold[EvaluationStatus] | None:
    """Return what keeps the first attempt from starting, None if everything is known.

    What was found is held once more, to be written down before the first Job: the FineTuneJob may be gone by the next,
    and the AdapterRollout may serve another adapter.
    """
    if status.attempts or not needs_resolving(evaluation):
        return None
    missing = _missing_rollout(evaluation, rollout)
    if evaluation.spec.target.fine_tune_job_name is not None and (held := _awaited(evaluation, status, upstream)):
        # A wrong name is told at once, not when the training has ended.
        return held if held.final or not missing else Hold(held.reason, f"{missing}; {held.message}", status)
    if missing:
        return Hold(State.PENDING.value, missing, status)
    status = _resolved(evaluation, status, upstream, rollout)
    if same := _nothing_to_compare(evaluation, status):
        return Hold(State.NOTHING_TO_COMPARE.value, same, status, final=True)
    found = [_published(upstream), served_nothing(evaluation, status) or _compared(evaluation, status)]
    return Hold(State.PENDING.value, "; ".join(each for each in found if each), status, confirm=True)


def served_nothing(evaluation: Evaluation, status: EvaluationStatus) -> str:
    """Return the sentence that tells of a baseline that is the base model for want of something served, or ""."""
    name, baseline = rollout_of(evaluation), status.baseline
    if name is None or status.resolved is None or (baseline is not None and baseline.digest is not None):
        return ""
    return f"AdapterRollout {name} served nothing yet, so the baseline is the base model alone"


def status_of(artifact: Artifact | None) -> ModelStatus:
    """Return how the status shows an adapter, or the base model alone."""
    return ModelStatus(uri=artifact.uri, digest=artifact.digest) if artifact is not None else ModelStatus()


def _missing_rollout(evaluation: Evaluation, rollout: AdapterRollout | None) -> str:
    name = rollout_of(evaluation)
    if name is None or rollout is not None:
        return ""
    return f"RolloutNotFound: there is no AdapterRollout {name} in this namespace; it is waited for"


def _awaited(
    evaluation: Evaluation, status: EvaluationStatus, upstream: FineTuneJob | None
) -> Hold[EvaluationStatus] | None:
    """Return why the FineTuneJob gives no adapter, None if it does."""
    name = evaluation.spec.target.fine_tune_job_name
    if upstream is None:
        message = f"FineTuneJobNotFound: there is no FineTuneJob {name} in this namespace; it is waited for"
        return Hold(State.PENDING.value, message, status)
    if upstream.spec.full:
        message = (
            f"FineTuneJob {name} trains all weights (lora.type: None), and a model of its own is no adapter of "
            "another: once it is published evaluate it by itself, with spec.baseModel.uri (its "
            "status.artifact.uri) and target: {baseModel: true}"
        )
        return Hold(State.SPEC_INVALID.value, message, status, final=True)
    condition = condition_of(upstream)
    if condition is None or condition.status == "Unknown":
        state = condition.reason if condition is not None else "New"
        return Hold(State.PENDING.value, f"waits for FineTuneJob {name} ({state}{_percent(upstream)})", status)
    if condition.status == "False" or upstream.status.artifact is None:
        message = f"FineTuneJob {name} ended with {condition.reason}, so there is no adapter to evaluate"
        if condition.message:
            message += f": {condition.message}"
        return Hold(State.FINE_TUNE_JOB_FAILED.value, message, status, final=True)
    return None


def _resolved(
    evaluation: Evaluation, status: EvaluationStatus, upstream: FineTuneJob | None, rollout: AdapterRollout | None
) -> EvaluationStatus:
    spec, sources = evaluation.spec, _sources(evaluation, upstream)
    target = status_of(spec.target.artifact)
    if upstream is not None and upstream.status.artifact is not None:
        target = ModelStatus(uri=upstream.status.artifact.uri, digest=upstream.status.artifact.digest)
    baseline = status_of(spec.baseline.artifact) if spec.baseline is not None else None
    if rollout is not None and rollout.status.served is not None:
        baseline = ModelStatus(uri=rollout.status.served.uri, digest=rollout.status.served.digest)
    return status.model_copy(
        update={
            "resolved": sources,
            "target": target,
            "baseline": baseline,
            "base_model_digest": sources.base_model.digest,
        }
    )


def _sources(evaluation: Evaluation, upstream: FineTuneJob | None) -> EvaluationSources:
    """Return what the spec says, and what it leaves out from the FineTuneJob.

    What an AdapterRollout serves was published where the target was, so it is read with the same keys.
    """
    spec, given = evaluation.spec, upstream.spec if upstream is not None else None
    base_model, output, dataset_secret = spec.base_model, spec.output, spec.dataset_secret_name
    target_secret = spec.target.artifact.secret_name if spec.target.artifact is not None else None
    if upstream is not None and given is not None:
        digest = upstream.status.base_model_digest or given.base_model.digest
        given_base = located(upstream.status, given.base_model, given.output)
        base_model = base_model or given_base.model_copy(update={"digest": digest})
        output = output or given.output
        dataset_secret = dataset_secret or given.dataset.secret_name
        target_secret = given.output.secret_name
    if base_model is None or output is None:
        raise ValueError("baseModel and output were not taken from the FineTuneJob")
    baseline_secret = None
    if spec.baseline is not None and spec.baseline.artifact is not None:
        baseline_secret = spec.baseline.artifact.secret_name
    elif rollout_of(evaluation) is not None:
        baseline_secret = output.secret_name if spec.target.base_model else target_secret
    return EvaluationSources(
        base_model=base_model,
        dataset_secret_name=dataset_secret,
        output=output,
        target_secret_name=target_secret,
        baseline_secret_name=baseline_secret,
    )


def _nothing_to_compare(evaluation: Evaluation, status: EvaluationStatus) -> str:
    """Return why there is nothing to compare, or "". Where the spec alone says so, the API server has refused it."""
    name, target, baseline = rollout_of(evaluation), status.target, status.baseline
    if name is None or target is None or baseline is None or target.digest != baseline.digest:
        return ""
    if target.digest is None:
        return f"nothing to compare: AdapterRollout {name} serves nothing yet, and the target is the base model too"
    return f"nothing to compare: AdapterRollout {name} serves the target already, {target.digest}"


def _published(upstream: FineTuneJob | None) -> str:
    if upstream is None or upstream.status.artifact is None:
        return ""
    return f"FineTuneJob {upstream.metadata.name} has published adapter {upstream.status.artifact.digest}"


def _compared(evaluation: Evaluation, status: EvaluationStatus) -> str:
    name, baseline = rollout_of(evaluation), status.baseline
    if name is None or baseline is None:
        return ""
    return f"the baseline is {baseline.digest}, which AdapterRollout {name} serves"


def _artifact(found: ModelStatus | None, secret_name: str | None) -> Artifact | None:
    if found is None or found.uri is None or found.digest is None:
        return None
    return Artifact(uri=found.uri, digest=found.digest, secret_name=secret_name)


def _percent(upstream: FineTuneJob) -> str:
    progress = upstream.status.progress
    if progress is None or progress.percent is None:
        return ""
    return f", {progress.percent - progress.percent % PERCENT_SHOWN}%"

"""What an AdapterExport joins: taken from its spec, or from the FineTuneJob or Evaluation that it names, once."""

from __future__ import annotations

from trimtab_trainer.contract import from_hub

from trimtab_operator.api import (
    PASSED,
    AdapterExport,
    AdapterExportStatus,
    Condition,
    Evaluation,
    FineTuneJob,
    State,
)
from trimtab_operator.api.adapterexport import ExportBaseModel, ExportSources
from trimtab_operator.api.evaluation import Artifact
from trimtab_operator.api.finetunejob import BaseModelSource

from ..work.conditions import condition_of
from ..work.mirrors import located
from ..work.particulars import Hold, References


def needs_resolving(export: AdapterExport) -> bool:
    """Say whether something has to be taken from a FineTuneJob or an Evaluation still."""
    return export.spec.source.artifact is None and export.status.resolved is None


def sources_of(export: AdapterExport) -> ExportSources:
    """Return where everything is, after it was resolved.

    Raises:
        ValueError: it was not.
    """
    artifact, base_model = export.spec.source.artifact, export.spec.base_model
    if artifact is not None and base_model is not None:
        return ExportSources(adapter=artifact, base_model=base_model)
    if export.status.resolved is None:
        raise ValueError("neither FineTuneJob nor Evaluation was asked")
    return export.status.resolved


def resolve(export: AdapterExport, status: AdapterExportStatus, found: References) -> Hold[AdapterExportStatus] | None:
    """Return what keeps the first attempt from starting, None if everything is known.

    What was found is held once more, to be written down before the first Job: its source may be gone by the next.
    """
    if status.attempts or not needs_resolving(export):
        return None
    name = export.spec.source.fine_tune_job_name
    if name is not None:
        return _of_finetunejob(name, status, found.upstream)
    return _of_evaluation(export.spec.source.evaluation_name or "", status, found.evaluation)


def _of_finetunejob(name: str, status: AdapterExportStatus, upstream: FineTuneJob | None) -> Hold[AdapterExportStatus]:
    if upstream is None:
        message = f"FineTuneJobNotFound: there is no FineTuneJob {name} in this namespace; it is waited for"
        return Hold(State.PENDING.value, message, status)
    if upstream.spec.full:
        message = (
            f"FineTuneJob {name} trains all weights (lora.type: None): what it publishes is a whole model already, at "
            "its status.artifact.uri, and there is no adapter to export"
        )
        return Hold(State.SPEC_INVALID.value, message, status, final=True)
    condition, artifact = condition_of(upstream), upstream.status.artifact
    if condition is None or condition.status == "Unknown":
        return _waits("FineTuneJob", name, condition, status)
    if condition.status == "False" or artifact is None:
        message = f"FineTuneJob {name} ended with {condition.reason}, so there is no adapter to export"
        return Hold(State.FINE_TUNE_JOB_FAILED.value, message, status, final=True)
    spec = upstream.spec
    adapter = Artifact(uri=artifact.uri, digest=artifact.digest, secret_name=spec.output.secret_name)
    base = located(upstream.status, spec.base_model, spec.output)
    digest = upstream.status.base_model_digest or base.digest
    return _known(f"FineTuneJob {name} has published", status, adapter, base.model_copy(update={"digest": digest}))


def _of_evaluation(name: str, status: AdapterExportStatus, evaluation: Evaluation | None) -> Hold[AdapterExportStatus]:
    if evaluation is None:
        message = f"EvaluationNotFound: there is no Evaluation {name} in this namespace; it is waited for"
        return Hold(State.PENDING.value, message, status)
    ended, verdict = condition_of(evaluation), condition_of(evaluation, PASSED)
    if ended is None or ended.status == "Unknown" or verdict is None or verdict.status == "Unknown":
        return _waits("Evaluation", name, ended, status)
    told = evaluation.status.target
    if verdict.status != "True":
        message = f"Evaluation {name} did not pass ({verdict.reason}), so nothing is exported"
        return Hold(State.EVALUATION_NOT_PASSED.value, message, status, final=True)
    if told is None or told.uri is None or told.digest is None:
        message = f"the target of Evaluation {name} is the base model alone, so there is no adapter to export"
        return Hold(State.EVALUATION_NOT_PASSED.value, message, status, final=True)
    spec, resolved = evaluation.spec, evaluation.status.resolved
    secret = spec.target.artifact.secret_name if spec.target.artifact is not None else None
    base, output = spec.base_model, spec.output
    if resolved is not None:
        base, output, secret = resolved.base_model, resolved.output, secret or resolved.target_secret_name
    if base is None or output is None:
        message = f"Evaluation {name} does not say where its base model is; name it and the adapter in a new export"
        return Hold(State.SPEC_INVALID.value, message, status, final=True)
    base = located(evaluation.status, base, output)
    base = base.model_copy(update={"digest": evaluation.status.base_model_digest or base.digest})
    adapter = Artifact(uri=told.uri, digest=told.digest, secret_name=secret)
    return _known(f"Evaluation {name} has passed", status, adapter, base)


def _waits(kind: str, name: str, condition: Condition | None, status: AdapterExportStatus) -> Hold[AdapterExportStatus]:
    state = condition.reason if condition is not None else "New"
    return Hold(State.PENDING.value, f"waits for {kind} {name} ({state})", status)


def _known(
    what: str, status: AdapterExportStatus, adapter: Artifact, base: BaseModelSource
) -> Hold[AdapterExportStatus]:
    if from_hub(base.uri):
        message = f"the base model {base.uri} is on a hub, and nothing says where it was mirrored to; name it and the "
        return Hold(State.SPEC_INVALID.value, f"{message}adapter in a new export", status, final=True)
    model = ExportBaseModel(uri=base.uri, digest=base.digest, secret_name=base.secret_name)
    sources = ExportSources(adapter=adapter, base_model=model)
    message = f"{what} adapter {adapter.digest}"
    return Hold(State.PENDING.value, message, status.model_copy(update={"resolved": sources}), confirm=True)

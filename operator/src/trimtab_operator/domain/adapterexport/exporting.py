"""What is particular to an AdapterExport: it waits for an adapter, and joins it with its base model."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from trimtab_trainer.contract import (
    EXPORT_VERSION,
    ExportConfig,
    Mirrored,
    Model,
    RunIdentity,
    Stage,
    StoredArtifact,
    StoredBaseModel,
    StoredDestination,
    TerminationMessage,
)

from trimtab_operator.api import AdapterExport, AdapterExportStatus, ExportedStatus, State
from trimtab_operator.api.adapterexport import ExportProgress

from ..views import EXPORT_LABEL
from ..work.attempts.attempt import Attempt
from ..work.attempts.ending import Ending
from ..work.building.job import credentials
from ..work.particulars import Hold, Particulars, References
from .resolve import needs_resolving, resolve, sources_of

ADAPTER, BASE_MODEL, DESTINATION = "adapter", "base-model", "destination"
"""Directories of the Secrets."""


class Exporting(Particulars[AdapterExport, AdapterExportStatus]):
    name = "AdapterExport"
    noun = "export"
    label = EXPORT_LABEL
    stages = (Stage.EXPORT,)
    parts = MappingProxyType({Stage.EXPORT: "export"})
    config_part = "export-run"

    def run_config(self, job: AdapterExport) -> ExportConfig:
        spec, sources = job.spec, sources_of(job)
        adapter, base = sources.adapter, sources.base_model
        keys = {role: credentials(name, role) for role, name in self.secrets(job).items()}
        return ExportConfig(
            version=EXPORT_VERSION,
            run=RunIdentity(name=job.metadata.name, namespace=job.metadata.namespace, uid=job.metadata.uid),
            base_model=StoredBaseModel(uri=base.uri, digest=base.digest, credentials=keys[BASE_MODEL]),
            adapter=StoredArtifact(uri=adapter.uri, digest=adapter.digest, credentials=keys[ADAPTER]),
            format=spec.format,
            weight_type=spec.weight_type,
            quantization=spec.quantization,
            destination=StoredDestination(uri=spec.destination.uri, credentials=keys[DESTINATION]),
        )

    def secrets(self, job: AdapterExport) -> Mapping[str, str | None]:
        sources = sources_of(job)
        return {
            ADAPTER: sources.adapter.secret_name,
            BASE_MODEL: sources.base_model.secret_name,
            DESTINATION: job.spec.destination.secret_name,
        }

    def from_hub(self, job: AdapterExport) -> frozenset[str]:
        return frozenset()

    def tells_result(self, stage: str, words: TerminationMessage) -> bool:
        return words.exported is not None

    def note_result(
        self, job: AdapterExport, status: AdapterExportStatus, words: TerminationMessage, now: datetime
    ) -> AdapterExportStatus:
        made = words.exported
        if made is None:
            return status
        files = status.progress.files if status.progress is not None else 0
        done = ExportProgress(files_done=files, files=files, percent=100)
        artifact = ExportedStatus(
            uri=made.uri,
            digest=made.digest,
            size_bytes=made.size_bytes,
            files=made.files,
            adapter_digest=made.adapter_digest,
            base_model_digest=made.base_model_digest,
        )
        return status.model_copy(update={"artifact": artifact, "progress": done})

    def prepared(self, job: AdapterExport, status: AdapterExportStatus) -> Model | None:
        return None

    def mirrored(self, status: AdapterExportStatus) -> Mirrored | None:
        return None

    def completed(self, status: AdapterExportStatus) -> str | None:
        artifact = status.artifact
        return f"{artifact.digest} is stored at {artifact.uri}" if artifact is not None else None

    def note_progress(self, status: AdapterExportStatus, attempt: Attempt) -> AdapterExportStatus:
        told = attempt.progress_in(Stage.EXPORT)
        if told is None:
            return status
        done = min(told.step, told.total_steps)
        shown = ExportProgress(files_done=done, files=told.total_steps, percent=100 * done // told.total_steps)
        return status.model_copy(update={"progress": shown})

    def note_last_figures(self, status: AdapterExportStatus, ending: Ending, end: datetime) -> AdapterExportStatus:
        return status

    def step(self, status: AdapterExportStatus) -> int | None:
        return status.progress.files_done if status.progress is not None else None

    def lost_seconds(self, status: AdapterExportStatus, ending: Ending, end: datetime, seconds: int) -> int:
        return seconds

    def working(self, status: AdapterExportStatus, attempt: Attempt) -> tuple[str, str]:
        if attempt.publishing:
            return State.PUBLISHING.value, f"Job {attempt.name} stores what belongs to the weights, and verifies it all"
        return State.EXPORTING.value, f"Job {attempt.name} merges the adapter into its base model"

    def resumes(self, status: AdapterExportStatus) -> str:
        return ""

    def goes_on_from(self, status: AdapterExportStatus) -> str:
        return ", from its beginning"

    def waits_for(self, job: AdapterExport) -> str | None:
        return job.spec.source.fine_tune_job_name if needs_resolving(job) else None

    def follows_evaluation(self, job: AdapterExport) -> str | None:
        return job.spec.source.evaluation_name if needs_resolving(job) else None

    def hold(
        self, job: AdapterExport, status: AdapterExportStatus, found: References
    ) -> Hold[AdapterExportStatus] | None:
        return resolve(job, status, found)

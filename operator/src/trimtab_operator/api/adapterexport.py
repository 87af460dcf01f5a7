"""AdapterExport: from an adapter to a model that needs neither it nor Trimtab, once."""

from __future__ import annotations

from typing import Self

from pydantic import ConfigDict, Field, computed_field, model_validator
from trimtab_trainer.contract import ExportFormat, Model, QuantizationSettings, WeightType
from trimtab_trainer.contract.exporting import SIZE_MAXIMUM, WRONG_DESTINATION, check_destination
from trimtab_trainer.contract.model import rules
from trimtab_trainer.contract.settings import DIGEST, EXPORT_URI, OBJECT_URI

from .definitions.customresource import AGE, OF_SUCCEEDED, CustomObject, CustomResource, condition_path
from .evaluation import Artifact
from .finetunejob import NAME_LENGTH, SECRET_NAME, unchanged
from .pods.names import OBJECT_NAME
from .pods.template import ProcessorTemplate
from .status.conditions import SUCCEEDED
from .status.reasons import EXPORT_EXPLANATIONS, OF_WARNED
from .work import RetryBudgets, WorkStatus

_ONE = "exactly one of fineTuneJobName, evaluationName and artifact must be set"
_BASE = "baseModel is needed with source.artifact, and taken from the FineTuneJob or Evaluation otherwise"


class ExportSource(Model):
    """Which adapter is exported."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("[has(self.fineTuneJobName), has(self.evaluationName), has(self.artifact)].filter(x, x).size() == 1", _ONE)
        )
    )

    fine_tune_job_name: OBJECT_NAME | None = Field(
        default=None,
        description="fineTuneJobName of this namespace, whose adapter is waited for; base model and Secrets are taken "
        "from it.",
    )
    evaluation_name: OBJECT_NAME | None = Field(
        default=None,
        description="evaluationName of this namespace, which is waited for: its target is exported if it passed, and "
        "nothing if it did not.",
    )
    artifact: Artifact | None = Field(default=None, description="artifact that was published before.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(each is not None for each in (self.fine_tune_job_name, self.evaluation_name, self.artifact)) != 1:
            raise ValueError(_ONE)
        return self


class ExportBaseModel(Model):
    """The base model that the adapter was trained on."""

    uri: OBJECT_URI = Field(
        description="uri of the folder with config.json, the tokenizer and the safetensors files: s3://bucket/prefix, "
        "or file:///path on a volume of the template. What a FineTuneJob took from a hub lies in its output, at "
        "models/<digest>."
    )
    digest: DIGEST | None = Field(default=None, description="digest the model must have.")
    secret_name: SECRET_NAME | None = None


class ExportDestination(Model):
    """Where the model goes."""

    uri: EXPORT_URI = Field(
        description="uri of a prefix that the export may write to, where the model is put at exports/<digest>; of "
        "format OCI oci://host/repository:tag."
    )
    secret_name: SECRET_NAME | None = Field(
        default=None,
        description="secretName of a Secret with the keys of a source; of format OCI of type "
        "kubernetes.io/dockerconfigjson, optionally with ca.crt, the certificates of the registry's issuer.",
    )


class AdapterExportSpec(Model):
    """What to export, as what, and where to."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            *unchanged(
                {
                    "source": ExportSource,
                    "baseModel": ExportBaseModel,
                    "format": ExportFormat,
                    "weightType": WeightType,
                    "quantization": QuantizationSettings,
                    "destination": ExportDestination,
                },
                kind="AdapterExport",
            ),
            ("has(self.source.artifact) == has(self.baseModel)", _BASE),
            ("(self.format == 'OCI') == self.destination.uri.startsWith('oci://')", WRONG_DESTINATION),
        )
    )

    source: ExportSource = Field(description="source: the adapter.")
    base_model: ExportBaseModel | None = Field(default=None, description="baseModel of source.artifact.")
    format: ExportFormat = Field(
        default=ExportFormat.MERGED,
        description="format: Merged, a model of its own in safetensors, which transformers and vLLM load; or "
        "GGUF, one file that llama.cpp loads; or OCI, the merged model as an image in a registry, which Kubernetes "
        "mounts as a volume.",
    )
    weight_type: WeightType = Field(
        default=WeightType.BFLOAT16,
        description="weightType that weights are stored in: BFloat16, or Float32 where no rounding is wanted.",
    )
    quantization: QuantizationSettings | None = Field(
        default=None,
        description="quantization of the base model in training, where the adapter does not tell it because it was "
        "imported.",
    )
    destination: ExportDestination = Field(description="destination of the model.")
    retries: RetryBudgets = Field(default=RetryBudgets(), description="retries before the export fails.")
    suspend: bool = Field(default=False, description="suspend ends the pod; false begins the export anew.")
    active_deadline_seconds: int | None = Field(
        default=None,
        ge=1,
        le=31_536_000,
        description="activeDeadlineSeconds bounds the time with a running pod, over all attempts; waiting and "
        "suspended time do not count.",
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None,
        ge=0,
        le=315_360_000,
        description="ttlSecondsAfterFinished after which the AdapterExport is deleted; what it made stays.",
    )
    template: ProcessorTemplate = Field(default=ProcessorTemplate(), description="template of the pod.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.source.artifact is None) != (self.base_model is None):
            raise ValueError(_BASE)
        check_destination(self.format, self.destination.uri)
        return self


class ExportSources(Model):
    """Where adapter and base model are read, and with which Secrets: fixed before the first Job."""

    adapter: Artifact = Field(description="adapter that is exported.")
    base_model: ExportBaseModel = Field(description="baseModel it was trained on.")


class ExportProgress(Model):
    """How far the export is."""

    files_done: int = Field(default=0, ge=0, description="filesDone: files of weights that are stored.")
    files: int = Field(default=0, ge=0, description="files of weights of the whole model.")
    percent: int = Field(default=0, ge=0, le=100, description="percent of the files that are stored.")


class ExportedStatus(Model):
    """What was made."""

    uri: str = Field(max_length=1200, description="uri where it lies.")
    digest: DIGEST = Field(description="digest of its files and of what it was made from.")
    size_bytes: int = Field(ge=0, le=SIZE_MAXIMUM, description="sizeBytes of all its files.")
    files: int = Field(default=0, ge=0, le=2**31 - 1, description="files that it consists of.")
    adapter_digest: DIGEST = Field(description="adapterDigest of the adapter in it.")
    base_model_digest: DIGEST = Field(description="baseModelDigest of the base model in it.")


class ExportSummary(Model):
    """What `kubectl get` prints: for people, derived from the rest of the status."""

    progress: str | None = Field(default=None, max_length=8, description="progress in percent, such as 42%.")
    size: str | None = Field(default=None, max_length=16, description="size of what was made, such as 271 MB.")

    @classmethod
    def of(cls, progress: ExportProgress | None, artifact: ExportedStatus | None) -> ExportSummary | None:
        """Return the summary of these sections, or None if there is nothing to print."""
        summary = cls(
            progress=None if progress is None else f"{progress.percent}%",
            size=None if artifact is None else _decimal(artifact.size_bytes),
        )
        return summary if summary != cls() else None


def _decimal(size: int) -> str:
    """Return a size as file managers write it."""
    amount, units = float(size), ("B", "kB", "MB", "GB", "TB", "PB", "EB")
    for unit in units:
        if amount < 1000 or unit == units[-1]:
            return f"{amount:.0f} {unit}" if amount >= 10 or unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError("units end with the largest")


class AdapterExportStatus(WorkStatus):
    """What was made, and how it went."""

    progress: ExportProgress | None = Field(default=None, description="progress of the export.")
    resolved: ExportSources | None = Field(
        default=None,
        description="resolved from FineTuneJob or Evaluation, which are not needed any more; absent where the spec "
        "names neither.",
    )
    artifact: ExportedStatus | None = Field(default=None, description="artifact that was made.")

    @computed_field(  # type: ignore[prop-decorator]  # mypy knows no property that is decorated
        description="summary is what kubectl get prints; programs read the other fields."
    )
    @property
    def summary(self) -> ExportSummary | None:
        """Derived: written with the rest and never read back."""
        return ExportSummary.of(self.progress, self.artifact)


class AdapterExport(CustomObject):
    """AdapterExport makes a model of its own of an adapter and its base model, for what cannot load adapters."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (f"self.metadata.name.size() <= {NAME_LENGTH}", f"name must have at most {NAME_LENGTH} characters"),
        ),
    )

    spec: AdapterExportSpec = Field(description="spec is what to export, as what, and where to.")
    status: AdapterExportStatus = Field(default=AdapterExportStatus(), description="status is what was made.")


ADAPTEREXPORT = CustomResource(
    model=AdapterExport,
    spec=AdapterExportSpec,
    status=AdapterExportStatus,
    plural="adapterexports",
    short_name="aex",
    columns=(
        ("State", "string", condition_path(SUCCEEDED, "reason"), "What the export is doing, or how it ended."),
        ("Format", "string", ".spec.format", "What it becomes."),
        ("Progress", "string", ".status.summary.progress", "Files of weights that are stored, in percent."),
        ("Size", "string", ".status.summary.size", "Size of what was made."),
        AGE,
    ),
    wide_columns=(
        ("Message", "string", condition_path(SUCCEEDED, "message"), "What happened, and what to do next."),
        ("Artifact", "string", ".status.artifact.uri", "Where it lies."),
    ),
    summary=SUCCEEDED,
    writers="Who may create them may create pods with any Secret and any service account of the namespace.",
    reasons={SUCCEEDED: (OF_SUCCEEDED, EXPORT_EXPLANATIONS), **OF_WARNED},
)

"""What the export stage is told, and what it says: an adapter and its base model become one model."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, field_validator

from .evaluation import StoredArtifact
from .model import Model, Received, speaks
from .run import RunIdentity, StoredBaseModel, StoredOutput
from .settings import DIGEST, QuantizationSettings

EXPORT_VERSION = "trimtab.dev/export/v1"

ADDRESS = Annotated[str, Field(max_length=1200)]


class ExportFormat(StrEnum):
    """What is made of a base model and an adapter."""

    MERGED = "Merged"
    GGUF = "GGUF"


class WeightType(StrEnum):
    """How numbers of the exported weights are stored."""

    BFLOAT16 = "BFloat16"
    FLOAT32 = "Float32"


class ExportConfig(Model):
    """One export: `trimtab-trainer export --config export.yaml`."""

    version: str = EXPORT_VERSION
    run: RunIdentity = RunIdentity()
    base_model: StoredBaseModel
    adapter: StoredArtifact
    format: ExportFormat = ExportFormat.MERGED
    weight_type: WeightType = WeightType.BFLOAT16
    quantization: QuantizationSettings | None = Field(
        default=None, description="quantization of the base model in training, where the adapter does not tell it"
    )
    destination: StoredOutput

    @field_validator("version")
    @classmethod
    def _of_this_contract(cls, version: str) -> str:
        if not speaks(version, EXPORT_VERSION):
            raise ValueError(f"this trainer reads {EXPORT_VERSION}")
        return version


class Exported(Received):
    """What an export made, and where it lies."""

    uri: ADDRESS
    digest: DIGEST
    size_bytes: int = Field(ge=0, le=2**63 - 1, description="sizeBytes of all its files")
    files: int = Field(default=0, ge=0, le=2**31 - 1, description="files that it consists of")
    adapter_digest: DIGEST
    base_model_digest: DIGEST

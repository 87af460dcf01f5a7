"""What the export stage is told, and what it says: an adapter and its base model become one model."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from .evaluation import StoredArtifact
from .model import Model, Received, speaks
from .run import Credentials, RunIdentity, StoredBaseModel
from .settings import DIGEST, EXPORT_URI, QuantizationSettings

EXPORT_VERSION = "trimtab.dev/export/v1"

OCI_SCHEME = "oci://"
WRONG_DESTINATION = "format OCI goes to oci://host/repository:tag, every other format to s3:// or file://"
SIZE_MAXIMUM = 10**15
"""Bytes: no model is as large, and JSON's numbers are exact up to there."""
ADDRESS = Annotated[str, Field(max_length=1200)]


class ExportFormat(StrEnum):
    """What is made of a base model and an adapter."""

    MERGED = "Merged"
    GGUF = "GGUF"
    OCI = "OCI"


class WeightType(StrEnum):
    """How numbers of the exported weights are stored."""

    BFLOAT16 = "BFloat16"
    FLOAT32 = "Float32"


class StoredDestination(Model):
    """Where an export goes: a prefix of object storage or of a volume, or an image of a registry."""

    uri: EXPORT_URI
    credentials: Credentials | None = None


def check_destination(export_format: ExportFormat, uri: str) -> None:
    """Refuse an image elsewhere than in a registry, and a folder there.

    Raises:
        ValueError: with what has to change.
    """
    if (export_format is ExportFormat.OCI) != uri.startswith(OCI_SCHEME):
        raise ValueError(WRONG_DESTINATION)


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
    destination: StoredDestination

    @field_validator("version")
    @classmethod
    def _of_this_contract(cls, version: str) -> str:
        if not speaks(version, EXPORT_VERSION):
            raise ValueError(f"this trainer reads {EXPORT_VERSION}")
        return version

    @model_validator(mode="after")
    def _where_it_can_go(self) -> Self:
        check_destination(self.format, self.destination.uri)
        return self


class Exported(Received):
    """What an export made, and where it lies."""

    uri: ADDRESS
    digest: DIGEST
    size_bytes: int = Field(ge=0, le=SIZE_MAXIMUM, description="sizeBytes of all its files")
    files: int = Field(default=0, ge=0, le=2**31 - 1, description="files that it consists of")
    adapter_digest: DIGEST
    base_model_digest: DIGEST

"""What an export is made from, checked before anything is computed: the adapter, its base model, how they were trained.

The digest of it is the address of what is made, so what was made before is found and not made again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from ..base.agreement import check_model
from ..base.base_model import (
    BaseModel,
    check_pin,
    digest_of_entries,
    entries_of,
    find_base_model,
    invalid,
    read_json,
)
from ..base.layers import Shapes
from ..contract import ExportConfig, ExportFormat, QuantizationSettings, digest_of
from ..contract.parsing import Unreadable, read_object
from ..contract.settings import ComputeType, QuantizationType
from ..errors import SettingsInvalid
from ..evaluate.preparing.adapters import VerifiedAdapter, find_adapter, invalid_adapter
from ..storage.layout import ADAPTER_METRICS, hexadecimal
from ..training.network.model import brief
from .adaptation import NotMergeable, check_settings
from .gguf.families import NotConvertible
from .gguf.file import Conversion

COMPUTE_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
OF_SETTINGS = {
    ComputeType.AUTO: "bfloat16",
    ComputeType.BFLOAT16: "bfloat16",
    ComputeType.FLOAT16: "float16",
    ComputeType.FLOAT32: "float32",
}
"""Where nothing tells what training computed in."""
EXPORT_RECIPE = 3
"""Rises when the same inputs come to give other bytes."""
NAME_DIGITS = 12


@dataclass(frozen=True)
class Request:
    """An export that can be made.

    Attributes:
        base: the base model, whose digest is that of the adapter's.
        shapes: of its tensors.
        quantization: how training held it.
        compute_type: name of the type that training's matrix products had.
        conversion: to GGUF, where that is asked for.
    """

    config: ExportConfig
    adapter: VerifiedAdapter
    base: BaseModel
    base_digest: str
    shapes: Shapes
    quantization: QuantizationSettings
    compute_type: str
    conversion: Conversion | None = None

    @property
    def name(self) -> str:
        """What the model is called in its own files. Whoever asks for the same has to make the same bytes."""
        return f"adapter-{hexadecimal(self.adapter.digest)[:NAME_DIGITS]}-merged"

    @property
    def digest(self) -> str:
        """Digest of everything that defines what is made."""
        quantized = self.quantization.type is not QuantizationType.NONE
        return digest_of(
            {
                "adapter": self.adapter.digest,
                "baseModel": self.base_digest,
                "format": self.config.format.value,
                "weightType": self.config.weight_type.value,
                "quantization": self.quantization.type.value,
                "doubleQuantization": quantized and self.quantization.double_quantization,
                "computeType": self.compute_type,
                "recipe": EXPORT_RECIPE,
            }
        )


def check_request(config: ExportConfig) -> Request:
    """Return the request after reading every byte of the adapter, and of the base model what its digest needs.

    Raises:
        SettingsInvalid: ARTIFACT_NOT_FOUND, ARTIFACT_CHANGED, ARTIFACT_INVALID, BASE_MODEL_NOT_FOUND,
            BASE_MODEL_INVALID, BASE_MODEL_CHANGED, BASE_MODEL_MISMATCH.
    """
    base = find_base_model(config.base_model)
    shapes = check_model(base)
    conversion = _conversion(base, shapes) if config.format is ExportFormat.GGUF else None
    # Every byte of both is read only after that.
    base_digest = digest_of_entries(entries_of(base))
    check_pin(config.base_model, base_digest)
    adapter = find_adapter(config.adapter, "adapter", base_digest)
    quantization, compute_type = _held(config, adapter)
    try:
        check_settings(adapter.config())
    except NotMergeable as error:
        raise not_mergeable(config, error) from error
    return Request(config, adapter, base, base_digest, shapes, quantization, compute_type, conversion)


def _conversion(base: BaseModel, shapes: Shapes) -> Conversion:
    try:
        return Conversion.of(base.config, shapes, read_json(base.store, "tokenizer.json"))
    except NotConvertible as error:
        raise SettingsInvalid(f"format GGUF: {error}") from error
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise invalid(f"config.json or tokenizer.json lacks what GGUF needs ({brief(error)})") from error


def not_mergeable(config: ExportConfig, error: NotMergeable) -> SettingsInvalid:
    """Return the refusal of an adapter that can be served, but not merged."""
    return invalid_adapter("adapter", config.adapter.uri, f"it cannot be merged: {error}")


def _held(config: ExportConfig, adapter: VerifiedAdapter) -> tuple[QuantizationSettings, str]:
    """Return how training held the base model, and what it computed in: as the adapter's records say, else as told."""
    record = _record(adapter)
    settings, machine = record.get("settings"), record.get("machine")
    told = settings.get("quantization") if isinstance(settings, dict) else None
    try:
        quantization = QuantizationSettings.model_validate(told) if told is not None else config.quantization
    except ValidationError as error:
        raise invalid_adapter(
            "adapter", config.adapter.uri, f"its {ADAPTER_METRICS} does not say how it was quantized"
        ) from error
    if quantization is None:
        raise SettingsInvalid(
            f"the adapter at {config.adapter.uri} does not say whether its base model was quantized in training (it "
            "was imported); say so in quantization: type None for plain LoRA, NF4 for QLoRA"
        )
    computed = machine.get("computeType") if isinstance(machine, dict) else None
    if computed in COMPUTE_TYPES:
        return quantization, computed
    return quantization, OF_SETTINGS[quantization.compute_type]


def _record(adapter: VerifiedAdapter) -> dict[str, Any]:
    if all(entry.path != ADAPTER_METRICS for entry in adapter.manifest.files):
        return {}
    try:
        return read_object(adapter.store.read(f"{adapter.prefix}/{ADAPTER_METRICS}"))
    except Unreadable:
        return {}


def fetch_adapter_files(adapter: VerifiedAdapter, target: Path, names: frozenset[str]) -> None:
    """Download files of the adapter, those of these names that it has, verified."""
    for entry in adapter.manifest.files:
        if entry.path in names:
            adapter.store.download(
                f"{adapter.prefix}/{entry.path}", target / entry.path, sha256=entry.sha256, size=entry.size
            )

"""The models of an evaluation: one base model in memory, and on it the target's adapter, then the baseline's.

The base weights are loaded once, quantized as the target was trained or not at all, and only if something is left to
be asked. Adapters are the published files, verified; after each the base model is shown to be what it was before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError

from .. import hardware
from ..ask import load_tokenizer
from ..base_model import fetch_base_model
from ..contract import (
    EvaluationConfig,
    Precision,
    PreparedEvaluation,
    QuantizationSettings,
    Reason,
    StoredArtifact,
    digest_of,
)
from ..contract.settings import QuantizationType
from ..errors import SettingsInvalid
from ..loop import is_out_of_memory
from ..model import LanguageModel, check_forward, frozen_hash, load_adapter, load_base
from ..report import Report
from ..storage import fetch, open_store
from ..storage.layout import ADAPTER_CONFIG, ADAPTER_METRICS, ADAPTER_WEIGHTS
from .generate import end_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NEEDED = (ADAPTER_WEIGHTS, ADAPTER_CONFIG, ADAPTER_METRICS)


@dataclass(frozen=True)
class Adapter:
    """A published adapter in a local folder.

    Attributes:
        role: target or baseline, for messages.
        digest: of its manifest's artifact part.
        uri: where it was fetched from.
        artifact: that part: files, base model, data and settings it was made from.
        record: its metrics.json.
    """

    role: str
    folder: Path
    digest: str
    uri: str
    artifact: dict[str, Any]
    record: dict[str, Any]

    @property
    def quantization(self) -> QuantizationSettings:
        """Return how the base model was held when it was trained.

        Raises:
            SettingsInvalid: ARTIFACT_INVALID, its records do not say.
        """
        try:
            return QuantizationSettings.model_validate(self.record["settings"]["quantization"])
        except (KeyError, TypeError, ValidationError) as error:
            raise invalid(self.role, self.uri, f"its {ADAPTER_METRICS} does not say how it was quantized") from error


def fetch_adapter(settings: StoredArtifact, role: str, digest: str, folder: Path) -> Adapter:
    """Download a published adapter, every byte verified.

    Raises:
        SettingsInvalid: ARTIFACT_NOT_FOUND; ARTIFACT_CHANGED where it is not the one that was prepared for.
        ObjectMissing, ObjectDamaged: a file is not as it was published.
    """
    store = open_store(settings.uri, settings.credentials)
    manifest = fetch(store, "", folder, lambda path: path in NEEDED)
    if manifest is None:
        raise SettingsInvalid(
            f"there is no adapter at {settings.uri} any more; restore it, or evaluate another one",
            Reason.ARTIFACT_NOT_FOUND,
        )
    artifact = manifest.document.get("artifact")
    found = digest_of(artifact)
    if found != digest or not isinstance(artifact, dict):
        raise SettingsInvalid(
            f"the {role} at {settings.uri} changed after the evaluation was prepared: its digest is {found}, it was "
            f"{digest}; restore it, or start a new evaluation",
            Reason.ARTIFACT_CHANGED,
        )
    try:
        record = json.loads((folder / ADAPTER_METRICS).read_bytes())
    except (OSError, ValueError):
        record = None
    return Adapter(role, folder, digest, settings.uri, artifact, record if isinstance(record, dict) else {})


def quantization(config: EvaluationConfig, adapters: list[Adapter]) -> QuantizationSettings:
    """Return how the base model is held: as the first adapter (the target's, if it has one) was trained, or served.

    With neither an adapter nor `quantization`, there is nothing to be held to, and the base model is not quantized.

    Raises:
        SettingsInvalid: ARTIFACT_INVALID, the adapter's records do not say.
    """
    if adapters:
        trained = adapters[0].quantization
    else:
        trained = config.quantization or QuantizationSettings(type=QuantizationType.NONE)
    return trained.model_copy(update={"type": QuantizationType.NONE}) if _as_served(config) else trained


class Models:
    """Gives the models of an evaluation, one after the other, on one base model that is loaded when first needed."""

    def __init__(
        self,
        config: EvaluationConfig,
        prepared: PreparedEvaluation,
        scheme: QuantizationSettings,
        *,
        scratch: Path,
        report: Report,
    ) -> None:
        self._config, self._prepared, self._scratch, self._report = config, prepared, scratch, report
        self.quantization = scheme
        self.device = hardware.device()
        self.compute_type = hardware.compute_type(scheme.compute_type, self.device)

    @cached_property
    def folder(self) -> Path:
        """The base model's files, verified."""
        return fetch_base_model(self._config.base_model, self._scratch / "base-model", self._prepared.base_model_digest)

    @cached_property
    def tokenizer(self) -> Any:
        """The base model's tokenizer."""
        return load_tokenizer(self.folder)

    @cached_property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return end_tokens(LanguageModel(self._base, self.compute_type), self.tokenizer, self.folder)

    @cached_property
    def _base(self) -> PreTrainedModel:
        base = load_base(self.folder, self.quantization, self.compute_type, self.device)
        check_forward(LanguageModel(base, self.compute_type), packing=False)
        self._report(
            "model loaded",
            device=hardware.describe(self.device),
            quantization=self.quantization.type.value,
            compute_type=str(self.compute_type).removeprefix("torch."),
            threads=torch.get_num_threads(),
        )
        return base

    @cached_property
    def _hash(self) -> str:
        return frozen_hash(self._base)

    @contextmanager
    def of(self, adapter: Adapter | None) -> Iterator[LanguageModel]:
        """Give the base model, with an adapter or alone; the adapter is off again when the block has ended.

        Raises:
            SettingsInvalid: ARTIFACT_INVALID, the adapter does not fit onto the base model.
        """
        if adapter is None:
            yield LanguageModel(self._base, self.compute_type)
            return
        before = self._hash
        try:
            model = load_adapter(self._base, adapter.folder, self.compute_type)
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            if is_out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0][:300]
            raise invalid(adapter.role, adapter.uri, f"it does not fit onto the base model ({reason})") from error
        yield model
        if frozen_hash(model.remove()) != before:
            raise RuntimeError("the frozen base model changed under an adapter, so nothing is published")


def invalid(role: str, uri: str, trouble: str) -> SettingsInvalid:
    """Return the refusal of an adapter that cannot be used."""
    return SettingsInvalid(
        f"the {role} at {uri} cannot be used: {trouble}; restore it, or publish it again", Reason.ARTIFACT_INVALID
    )


def _as_served(config: EvaluationConfig) -> bool:
    return config.precision is Precision.AS_SERVED

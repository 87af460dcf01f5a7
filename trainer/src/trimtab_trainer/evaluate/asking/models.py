"""The models of an evaluation: one base model in memory, and on it the target's adapter, then the baseline's.

The base weights are loaded once, quantized as the target was trained or not at all, and only if something is left to
be asked. Adapters are the published files, verified; after each the base model is shown to be what it was before.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...base.base_model import fetch_base_model
from ...command.ask import load_tokenizer
from ...contract import (
    EvaluationConfig,
    Precision,
    PreparedEvaluation,
    QuantizationSettings,
)
from ...contract.settings import QuantizationType
from ...probe import check_forward
from ...report import Report
from ...training.machine import hardware
from ...training.machine.exhausted import is_out_of_memory
from ...training.network.adapter import load_adapter
from ...training.network.model import LanguageModel, frozen_hash, load_base
from ..preparing.adapters import invalid_adapter
from .adapters import FetchedAdapter
from .generation import end_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def quantization(config: EvaluationConfig, adapters: list[FetchedAdapter]) -> QuantizationSettings:
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
        chat_template: str | None = None,
        scratch: Path,
        report: Report,
    ) -> None:
        self._chat_template = chat_template
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
        return end_tokens(self.tokenizer, self.folder, self._chat_template)

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

    def release(self) -> None:
        """Let go of the base model's weights: another model needs the memory."""
        if self.__dict__.pop("_base", None) is None:
            return
        gc.collect()  # modules refer to each other in circles
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @contextmanager
    def of(self, adapter: FetchedAdapter | None) -> Iterator[LanguageModel]:
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
            raise invalid_adapter(
                adapter.role, adapter.uri, f"it does not fit onto the base model ({reason})"
            ) from error
        yield model
        if frozen_hash(model.remove()) != before:
            raise RuntimeError("the frozen base model changed under an adapter, so nothing is published")


def _as_served(config: EvaluationConfig) -> bool:
    return config.precision is Precision.AS_SERVED

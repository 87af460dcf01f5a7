"""The sides of a view as the loop takes them, and of preferences what is compared on each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...contract import Method, Prepared, RunConfig, TrainingSettings
from ...data.view import Sequences, View
from ..batches import Batches
from .batches import PreferenceBatches
from .labelled import check_labelled
from .mismatched import mismatched


def splits_of(view: View, settings: TrainingSettings) -> dict[str, Batches]:
    """Return the sides that there are, by name.

    Raises:
        DataInvalid: KTO can learn nothing of a side.
    """
    sides = {"train": view.train, "validation": view.validation, "test": view.test}
    return {name: _split(name, side, settings) for name, side in sides.items() if side is not None}


def _split(name: str, side: Sequences, settings: TrainingSettings) -> Batches:
    if settings.method is Method.SFT:
        return Batches(side)
    split = PreferenceBatches(side, side_by_side=settings.packing, with_prompts=settings.method is Method.ORPO)
    if settings.method is Method.KTO:
        check_labelled(settings, name, len(side), None if side.wanted is None else int(side.wanted.sum()))
        others = mismatched(side, settings.max_sequence_length)
        split.mismatched = PreferenceBatches(others, side_by_side=settings.packing)
    return split


def preferences_in(splits: Mapping[str, Batches]) -> dict[str, PreferenceBatches]:
    """Return the sides that have preferences."""
    return {name: split for name, split in splits.items() if isinstance(split, PreferenceBatches)}


def reference_identity(config: RunConfig, prepared: Prepared, compute_type: torch.dtype) -> dict[str, Any]:
    """Return all that decides what the model says of the answers before training, as JSON."""
    initial = config.adapter.initial_adapter if config.adapter is not None else None
    return {
        "baseModel": prepared.base_model_digest,
        "initialAdapter": initial.digest if initial is not None else None,
        "view": prepared.view_digest,
        "mismatched": config.training.max_sequence_length if config.training.method is Method.KTO else None,
        "quantization": config.quantization.to_json(),
        "computeType": str(compute_type).removeprefix("torch."),
    }

"""Canonical JSON and the digests made of it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from .methods import Method
from .model import without_order
from .outcome import CONTRACT_VERSION
from .run import RunConfig
from .settings import DEFAULT_EPOCHS, LoraSettings, LoraType


def canonical_json(value: Any) -> bytes:
    """Return the one byte form of a JSON value: sorted keys, no spaces, UTF-8, no NaN.

    Raises:
        ValueError: a float is not finite.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(value: Any) -> str:
    """Return `sha256:<hex>` of the canonical JSON of a value."""
    return "sha256:" + hashlib.sha256(canonical_json(value)).hexdigest()


def run_digest(config: RunConfig, base_model_digest: str, view_digest: str, *, as_written: bool = False) -> str:
    """Return the digest of all that defines the result of a run.

    Checkpoint settings, names, URIs and credentials are left out: they do not change what is learned. So is
    microBatchSize, which changes memory and speed: a job that is created again with less goes on from its checkpoint.

    `as_written`: with the names of `lora` in the order they were written in, which changes nothing that is learned.
    Earlier versions counted it, and what they have begun is found by that.
    """
    training, lora = config.training, config.lora if as_written else without_order(config.lora)
    if training.epochs is None and training.max_steps is None:
        training = training.model_copy(update={"epochs": DEFAULT_EPOCHS})
    training = training.model_copy(update={"micro_batch_size": None})
    if training.method is not Method.SFT:
        training = training.model_copy(update={"preference": training.preferences})
    return digest_of(
        {
            "contract": CONTRACT_VERSION,
            "baseModel": base_model_digest,
            "data": view_digest,
            "lora": defining(lora),
            "quantization": config.quantization.to_json(),
            "training": training.to_json(),
        }
    )


def defining(lora: LoraSettings) -> dict[str, Any]:
    """Return the JSON form of what of these settings defines the result: the initial adapter by its digest alone.

    Where all weights are trained, nothing but that.
    """
    if lora.type is LoraType.NONE:
        return {"type": lora.type.value}
    document = lora.to_json()
    if lora.initial_adapter is not None:
        document["initialAdapter"] = {"digest": lora.initial_adapter.digest}
    return document

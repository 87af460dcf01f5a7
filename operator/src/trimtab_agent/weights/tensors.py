"""The health of an adapter, read from its files without torch: engines load whatever has the right shape.

vLLM answers 200 for weights with flipped bits, and the first request to them can leave NaN in cache blocks that the
base model and other adapters use after it. So every number is looked at before an engine sees the folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray
from trimtab_trainer.contract.parsing import JSON_BYTES, Unreadable, read_object, whole_number
from trimtab_trainer.storage.tensor_header import places_in

from ..failures import FailureReason, RevisionFailed

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
MAXIMUM_MAGNITUDE = 1000.0
"""Trained LoRA weights stay below 10; a flipped exponent bit gives 1e20 and more."""
LARGEST_RANK = 1 << 20
CHUNK = 1 << 22
EXPERTS_A = re.compile(r"\.experts(\.base_layer)*\.lora_A\.")
"""Inner matrices on the joined tensors of experts (peft's `target_parameters`)."""

DTYPES: dict[str, str] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True)
class Health:
    """What was found: the largest rank, the largest absolute weight, and the number of tensors."""

    rank: int
    magnitude: float
    tensors: int


def examine(folder: Path, maximum_magnitude: float = MAXIMUM_MAGNITUDE) -> Health:
    """Read an adapter's settings and every weight.

    Raises:
        RevisionFailed: permanent; which file, which tensor, and what is wrong with it.
    """
    settings = _settings(folder / CONFIG)
    declared, joined = _declared_rank(settings), bool(settings.get("target_parameters"))
    rank, magnitude, count, moves = 0, 0.0, 0, False
    for name, shape, numbers in tensors(folder / WEIGHTS):
        count += 1
        largest = _largest(name, numbers)
        if largest > maximum_magnitude:
            raise _failed(
                FailureReason.MAGNITUDE_TOO_HIGH,
                f"{name} holds {largest:.3g}, above {maximum_magnitude:g}: the training diverged or bytes were changed",
            )
        magnitude = max(magnitude, largest)
        if "lora_" in name and len(shape) < 2:
            raise _failed(FailureReason.ARTIFACT_DAMAGED, f"{name} is no matrix: its shape is {list(shape)}")
        if joined and EXPERTS_A.search(name):
            continue  # of all experts in one, each of the declared rank
        if "lora_A" in name or "lora_embedding_A" in name:
            rank = max(rank, min(shape) if "embedding" in name else shape[0])
        else:
            moves = moves or largest > 0
    if count == 0:
        raise _failed(FailureReason.ARTIFACT_DAMAGED, f"{WEIGHTS} holds no tensor")
    if not moves:
        raise _failed(FailureReason.CHANGES_NOTHING, "every lora_B weight is zero: it answers as its base model does")
    return Health(max(rank, declared), magnitude, count)


def tensors(file: Path) -> Iterator[tuple[str, tuple[int, ...], NDArray[Any]]]:
    """Yield name, shape and flat numbers (bfloat16 as its 16 bits) of each tensor of a safetensors file.

    Raises:
        RevisionFailed: the file is not whole, or not what its header says.
    """
    try:
        places, begin = places_in(file)
        for place in places:
            if place.dtype not in DTYPES:
                raise _failed(
                    FailureReason.NOT_SUPPORTED, f"{place.name} is {place.dtype}; use one of {', '.join(DTYPES)}"
                )
            if place.begin == place.end:
                continue
            kind = numpy.dtype(DTYPES[place.dtype])
            shape = ((place.end - place.begin) // kind.itemsize,)
            offset = begin + place.begin
            yield place.name, place.shape, numpy.memmap(file, dtype=kind, mode="r", offset=offset, shape=shape)
    except (OSError, Unreadable) as error:
        raise _failed(FailureReason.ARTIFACT_DAMAGED, f"{file.name} cannot be read: {error}") from error


def _largest(name: str, numbers: NDArray[Any]) -> float:
    """Return the largest absolute value; a piece at a time, so that it takes little memory."""
    largest = 0.0
    for start in range(0, numbers.size, CHUNK):
        piece = numbers[start : start + CHUNK]
        if piece.dtype == numpy.uint16:  # bfloat16 is the upper half of a float32
            piece = (piece.astype(numpy.uint32) << 16).view(numpy.float32)
        value = float(numpy.max(numpy.abs(piece)))
        if not numpy.isfinite(value):  # max hands NaN on
            raise _failed(
                FailureReason.NOT_FINITE, f"{name} holds {value}: the training diverged or bytes were changed"
            )
        largest = max(largest, value)
    return largest


def _settings(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            settings = read_object(opened.read(JSON_BYTES + 1))
    except (OSError, Unreadable) as error:
        raise _failed(FailureReason.ARTIFACT_DAMAGED, f"{file.name} cannot be read: {error}") from error
    if settings.get("peft_type") != "LORA":
        raise _failed(FailureReason.NOT_SUPPORTED, f"peft_type is {settings.get('peft_type')!r}; LORA is served")
    if settings.get("use_dora"):
        raise _failed(FailureReason.NOT_SUPPORTED, "use_dora is set; engines do not serve DoRA")
    if settings.get("bias", "none") != "none":
        raise _failed(FailureReason.NOT_SUPPORTED, f"bias is {settings['bias']!r}; engines serve adapters without bias")
    if settings.get("modules_to_save"):
        raise _failed(FailureReason.NOT_SUPPORTED, "modules_to_save is set; engines serve low-rank weights only")
    return settings


def _declared_rank(settings: dict[str, Any]) -> int:
    """Return the largest rank that the settings name, as peft reads them."""
    pattern = settings.get("rank_pattern") or {}
    try:
        if not isinstance(pattern, dict):
            raise Unreadable("rank_pattern is no object")
        ranks = [settings.get("r"), *pattern.values()]
        return max(whole_number(rank, "a rank", least=1, most=LARGEST_RANK) for rank in ranks)
    except Unreadable as error:
        raise _failed(FailureReason.ARTIFACT_DAMAGED, f"{CONFIG} names no rank: {error}") from error


def _failed(reason: FailureReason, message: str) -> RevisionFailed:
    return RevisionFailed(reason, message, permanent=True)

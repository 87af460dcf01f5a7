"""A run on one type of accelerator: its memory, how its batches are cut, and how long it takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..contract import RunConfig
from ..contract.settings import DEFAULT_EPOCHS, ComputeType
from .devices import Device
from .dimensions import Dimensions
from .memory import Arithmetic, Memory, cut, peak
from .speed import tokens_per_second


@dataclass(frozen=True)
class Estimate:
    """A run on one accelerator.

    Attributes:
        micro_batch: sequences of a forward pass.
        recomputed: share of the layers whose activations are computed twice instead of kept.
        fits: whether the peak is within what the accelerator has.
        seconds: of all training steps; None where it is not known how many tokens there are.
    """

    device: Device
    memory: Memory
    micro_batch: int
    recomputed: float
    tokens_per_second: float
    seconds: float | None

    @property
    def fits(self) -> bool:
        return self.memory.peak <= self.device.memory

    def to_json(self) -> dict[str, Any]:
        return {
            "accelerator": self.device.name,
            "memoryBytes": self.device.memory,
            "fits": self.fits,
            "peakBytes": self.memory.peak,
            "parts": asdict(self.memory),
            "microBatch": self.micro_batch,
            "activationsComputedTwice": self.recomputed > 0,
            "shareOfLayersComputedTwice": self.recomputed,
            "tokensPerSecond": round(self.tokens_per_second, 1),
            "seconds": self.seconds and round(self.seconds),
            "acceleratorSeconds": self.seconds and round(self.seconds),
        }


def estimate(
    dims: Dimensions, config: RunConfig, device: Device, tokens: int | None = None, longest: int | None = None
) -> Estimate:
    """Return what a run takes on one accelerator.

    Args:
        tokens: of an epoch's training rows; without them time is known only where maxSteps is set.
        longest: tokens of the longest sequence; as many as there may be, if absent.
    """
    training, quantization, lora = config.training, config.quantization, config.lora
    # Auto takes Float16 where an accelerator has no bfloat16.
    width = 4 if quantization.compute_type is ComputeType.FLOAT32 else 2
    where, longest = Arithmetic("cuda", width), longest or training.max_sequence_length
    sizing = cut(dims, quantization, training, rank=lora.rank, longest=longest, memory=device.memory, where=where)
    passed = sizing.micro_batch * longest
    memory = peak(
        dims,
        quantization,
        training,
        rank=lora.rank,
        dropout=lora.dropout,
        tokens=passed,
        recomputed=sizing.recomputed,
        where=where,
        longest=longest,
    )
    speed = tokens_per_second(dims, quantization, device, passed, recomputed=sizing.recomputed)
    whole = None
    if training.max_steps is not None:
        whole = training.max_steps * training.batch_size * longest
    elif tokens is not None:
        whole = tokens * (training.epochs or DEFAULT_EPOCHS)
    seconds = whole / speed if whole is not None else None
    return Estimate(device, memory, sizing.micro_batch, sizing.recomputed, speed, seconds)

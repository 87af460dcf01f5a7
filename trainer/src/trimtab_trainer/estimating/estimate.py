"""A run on one type of accelerator, one or several: its memory, how its batches are cut, and how long it takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..contract import Method, RunConfig, TrainingSettings
from ..contract.settings import DEFAULT_EPOCHS, ComputeType
from ..training.distributed.sharing import shared_micro_batch
from .devices import Device
from .dimensions import Dimensions
from .division import smallest
from .memory import Arithmetic, Memory, cut, peak
from .speed import tokens_per_second


@dataclass(frozen=True)
class Estimate:
    """A run on one accelerator.

    Attributes:
        micro_batch: sequences of a forward pass.
        recomputed: share of the layers whose activations are computed twice instead of kept.
        fits: whether the peak is within what the accelerator has.
        seconds: of all training steps, and of what they are compared with; None where it is not known how many tokens
            there are.
        accelerators: how many train together; memory is of each.
        among: how many of them divide the base model; 1 where each holds all of it.
    """

    device: Device
    memory: Memory
    micro_batch: int
    recomputed: float
    tokens_per_second: float
    seconds: float | None
    accelerators: int = 1
    among: int = 1

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
            "accelerators": self.accelerators,
            "baseDividedAmong": self.among,
            "acceleratorSeconds": self.seconds and round(self.seconds * self.accelerators),
        }


def estimate(
    dims: Dimensions,
    config: RunConfig,
    device: Device,
    tokens: int | None = None,
    longest: int | None = None,
    *,
    accelerators: int = 1,
) -> Estimate:
    """Return what a run takes on one accelerator, or on several that train together.

    Args:
        tokens: of an epoch's training rows; without them time is known only where maxSteps is set.
        longest: tokens of the longest sequence, both answers of a pair; as many as there may be, if absent.
        accelerators: each computes its share, and holds the base model where it can, else its part of it; what they
            tell each other is not counted.
    """
    training, quantization, lora = config.training, config.quantization, config.adapter
    rank, dropout = (lora.rank, lora.dropout) if lora is not None else (0, 0.0)
    # Auto takes Float16 where an accelerator has no bfloat16.
    width = 4 if quantization.compute_type is ComputeType.FLOAT32 else 2
    where, longest = Arithmetic("cuda", width), longest or training.max_sequence_length * training.method.answers
    among = smallest(dims, config, longest=longest, memory=device.memory, where=where, processes=accelerators).among
    sizing = cut(
        dims, quantization, training, rank=rank, longest=longest, memory=device.memory, where=where, among=among
    )
    micro_batch = shared_micro_batch(sizing.micro_batch, training.batch_size, accelerators)
    passed = micro_batch * longest
    memory = peak(
        dims,
        quantization,
        training,
        rank=rank,
        dropout=dropout,
        tokens=passed,
        recomputed=sizing.recomputed,
        where=where,
        longest=longest,
        among=among,
    )
    speed = tokens_per_second(dims, quantization, device, passed, recomputed=sizing.recomputed) * accelerators
    whole = None
    if training.max_steps is not None:
        whole = training.max_steps * training.batch_size * longest
    elif tokens is not None:
        whole = tokens * (training.epochs or DEFAULT_EPOCHS)
    seconds = whole / speed * _passes(training, whole, tokens) if whole is not None else None
    return Estimate(device, memory, micro_batch, sizing.recomputed, speed, seconds, accelerators, among)


def _passes(training: TrainingSettings, whole: float, tokens: int | None) -> float:
    """Return the time of a run as a multiple of that of its steps: of three passes of a step one is forward.

    KTO makes one more in each step, of other answers; and what DPO and KTO compare with is one of each row (and of each
    other answer), once.
    """
    method = training.method
    more = 1 / 3 if method is Method.KTO else 0.0
    if method.needs_reference and tokens is not None:
        more += tokens / whole / 3 * (2 if method is Method.KTO else 1)
    return 1 + more

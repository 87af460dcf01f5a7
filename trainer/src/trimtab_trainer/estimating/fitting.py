"""What of the pod that is to train will not hold the run, in words: `prepare` says it while nothing waits for a GPU.

A warning and no refusal, because these are estimates. Each is on the side that warns too seldom: on a processor the
smaller type of products where it is not known, and beside an accelerator only what is certain to be in the pod's own
memory.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..contract import RunConfig, TrainLimits
from ..contract.settings import ComputeType, Optimizer, QuantizationType
from ..errors import SettingsInvalid
from .devices import DEVICES, GIB, Device, find_device
from .dimensions import Dimensions
from .division import check_divisible
from .estimate import estimate
from .memory import PROCESS, Arithmetic, Memory, checkpoint_bytes, cut, peak, trained_weights

GRADIENT_BYTES = 4
COUNTS = (2, 4, 8, 16)
"""Numbers of accelerators that are proposed."""
DATA_BYTES = 17
"""Of each token of the training rows: itself, its position, whether it is supervised, and its target."""


def warnings_of_limits(
    limits: TrainLimits, dims: Dimensions, config: RunConfig, *, tokens: int, longest: int
) -> list[str]:
    """Return what will not hold the run, a sentence each: what is too small for what, in GiB, and what to change.

    Args:
        tokens: of the training rows.
        longest: tokens of the longest sequence.
    """
    found = []
    device = find_device(limits.accelerator_product or "") if limits.accelerators else None
    if device is not None:
        found.append(_of_accelerator(device, limits, dims, config, longest))
        found.append(_of_division(device, limits, dims, config, longest))
    if limits.memory_bytes is not None:
        of_memory = _of_host if limits.accelerators else _of_processor
        found.append(of_memory(limits, dims, config, tokens, longest))
    return [warning for warning in found if warning]


def check_held(limits: TrainLimits, dims: Dimensions, config: RunConfig) -> None:
    """Refuse a base model that several accelerators do not hold, though it is divided among them.

    Raises:
        SettingsInvalid: it is that, or it cannot be divided with these settings.
    """
    device = find_device(limits.accelerator_product or "") if limits.processes > 1 else None
    if device is None:
        return
    found = estimate(dims, config, device, longest=1, accelerators=limits.processes)
    if found.among > 1:
        check_divisible(config)
    base = found.memory.base or found.memory.adapter
    if base > device.memory:
        how = (
            f"the base model takes {_gib(base)} of each of the {limits.processes} accelerators that it is divided among"
            if found.among > 1
            else f"what is trained takes {_gib(base)} of each of the {limits.processes} accelerators, because only the "
            "base model of an adapter is divided among them"
        )
        raise SettingsInvalid(
            f"{how}, and {limits.accelerator_product} holds {_gib(device.memory)}; take larger ones"
            + ("" if found.among == 1 else " or more of them")
            + ("" if config.quantization.type is QuantizationType.NF4 else f", or {_less(config)}")
        )


def _of_division(device: Device, limits: TrainLimits, dims: Dimensions, config: RunConfig, longest: int) -> str:
    processes = limits.processes
    if estimate(dims, config, device, longest=longest, accelerators=processes).among == 1:
        return ""
    return (
        f"one accelerator ({limits.accelerator_product}) does not hold the base model, so it is divided among all "
        f"{processes}: each fetches the others' parts layer by layer in every pass, which takes longer where the way "
        "between them is slow"
    )


def _of_accelerator(device: Device, limits: TrainLimits, dims: Dimensions, config: RunConfig, longest: int) -> str:
    product, processes = limits.accelerator_product or device.name, limits.processes
    found = estimate(dims, config, device, longest=longest, accelerators=processes)
    if found.fits:
        return ""
    larger = [each for each in DEVICES if estimate(dims, config, each, longest=longest, accelerators=processes).fits]
    holds = f"take {min(larger, key=lambda each: each.memory).name} or a larger one, or " if larger else ""
    for count in (each for each in COUNTS if processes < each <= config.training.batch_size):
        several = estimate(dims, config, device, longest=longest, accelerators=count)
        if several.fits and several.among > 1:
            holds += f"{count} of these, which divide the base model, or "
            break
    return (
        f"training takes about {_parts(found.memory)}, and {product} has {_gib(device.memory)} for it: "
        f"{holds}{_remedy(config, found.memory)}"
    )


def _of_processor(limits: TrainLimits, dims: Dimensions, config: RunConfig, tokens: int, longest: int) -> str:
    limit = limits.memory_bytes or 0
    width = 4 if config.quantization.compute_type is ComputeType.FLOAT32 else 2
    where, settings = Arithmetic("cpu", width), (config.quantization, config.training)
    rank, dropout = (config.adapter.rank, config.adapter.dropout) if config.adapter is not None else (0, 0.0)
    sizing = cut(dims, *settings, rank=rank, longest=longest, memory=limit, where=where)
    memory = peak(
        dims,
        *settings,
        rank=rank,
        dropout=dropout,
        tokens=sizing.micro_batch * longest,
        recomputed=sizing.recomputed,
        where=where,
        longest=longest,
    )
    data, stored = tokens * DATA_BYTES, checkpoint_bytes(dims, rank, config.training.optimizer)
    # While a checkpoint is copied there are neither gradients nor activations, of a whole model more all the same.
    copied = memory.base + memory.adapter - GRADIENT_BYTES * trained_weights(dims, rank) + memory.process + stored
    if max(memory.peak, copied) + data <= limit:
        return ""
    taken = _parts(memory, data)
    if copied > memory.peak:
        taken = f"{taken}, while a checkpoint ({_gib(stored)}) is copied {_gib(copied + data)}"
    return (
        f"training takes about {taken}, and the limit of the pod's memory is {_gib(limit)}: raise "
        f"template.resources.limits.memory, or {_remedy(config, memory)}"
    )


def _of_host(limits: TrainLimits, dims: Dimensions, config: RunConfig, tokens: int, longest: int) -> str:
    limit, processes = limits.memory_bytes or 0, max(1, limits.accelerators)
    data, rank = processes * tokens * DATA_BYTES, config.adapter.rank if config.adapter is not None else 0
    stored = checkpoint_bytes(dims, rank, config.training.optimizer)
    libraries = processes * PROCESS["cpu"]
    needed = libraries + data + stored
    if needed <= limit:
        return ""
    return (
        f"beside the accelerator training takes at least {_gib(needed)} of the pod's memory (libraries "
        f"{_gib(libraries)}, data {_gib(data)}, a checkpoint {_gib(stored)}), and its limit is {_gib(limit)}: "
        "raise template.resources.limits.memory"
    )


def _parts(memory: Memory, data: int = 0) -> str:
    parts = {
        "base model": memory.base,
        "adapter" if memory.base else "weights with their gradients and the optimizer": memory.adapter,
        "activations": memory.activations,
        "for a moment": memory.moment,
        "libraries": memory.process,
        "data": data,
    }
    told = ", ".join(f"{name} {_gib(size)}" for name, size in parts.items() if size)
    return f"{_gib(memory.peak + data)} ({told})"


def _remedy(config: RunConfig, memory: Memory) -> str:
    return " or ".join(_remedies(config, memory))


def _remedies(config: RunConfig, memory: Memory) -> Iterator[str]:
    """Yield what makes the run smaller, of the parts that can be: one setting at least."""
    training = config.training
    if config.quantization.type is not QuantizationType.NF4:
        yield _less(config)
    if (training.micro_batch_size or 1) > 1:
        yield "lower training.microBatchSize"
    if memory.adapter > memory.activations:
        if config.adapter is not None:
            yield "lower lora.rank"
        if training.optimizer is Optimizer.ADAMW:
            yield "set training.optimizer: AdamW8bit"
    else:
        yield "lower training.maxSequenceLength"


def _less(config: RunConfig) -> str:
    """Return what takes less memory than a base model that is not quantized."""
    return "set quantization.type: NF4" if config.adapter is not None else "leave lora.type out to train an adapter"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB // 10 else f"{size / GIB:.2f} GiB"

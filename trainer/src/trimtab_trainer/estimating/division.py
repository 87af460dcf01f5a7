"""Whether the base model is divided among the processes that train: where one of them does not hold the smallest run.

`train`, `prepare` and `estimate` decide by this, each with the memory that it knows of.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..contract import RunConfig
from ..errors import SettingsInvalid
from .dimensions import Dimensions
from .memory import Arithmetic, Memory, peak


@dataclass(frozen=True)
class Smallest:
    """The least that training takes of each process: one sequence at a time, activations of all layers computed twice.

    Attributes:
        whole: where each process holds all of the base model.
        divided: where it is divided among all.
        among: how many divide it; 1 where each holds all.
    """

    whole: Memory
    divided: Memory
    among: int


def smallest(
    dims: Dimensions, config: RunConfig, *, longest: int, memory: int, where: Arithmetic, processes: int
) -> Smallest:
    """Return the least that training takes, and whether the base model is divided for it.

    Args:
        longest: tokens of the longest sequence.
        memory: bytes that each process has.
        processes: how many train together.
    """

    def least(among: int) -> Memory:
        lora = config.adapter
        return peak(
            dims,
            config.quantization,
            config.training,
            rank=lora.rank if lora is not None else 0,
            dropout=lora.dropout if lora is not None else 0.0,
            tokens=longest,
            recomputed=1.0,
            where=where,
            longest=longest,
            among=among,
        )

    whole, divided = least(1), least(processes)
    smaller = not dims.full and divided.base < whole.base
    return Smallest(whole, divided, processes if smaller and whole.peak > memory else 1)


def check_divisible(config: RunConfig) -> None:
    """Refuse settings that need all of a base model that is divided.

    Raises:
        SettingsInvalid: naming them.
    """
    if config.adapter is not None and config.adapter.use_dora:
        raise SettingsInvalid(
            "lora.useDora: one accelerator does not hold the base model, which is divided among them, and DoRA needs "
            "all of it at once; set lora.useDora: false, or take larger accelerators"
        )

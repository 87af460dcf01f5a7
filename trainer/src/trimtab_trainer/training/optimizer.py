"""The optimizers by their names in the settings; the schedule sets their learning rate before every step.

States of the 8-bit ones (arXiv 2110.02861) are quantized blockwise; paged ones move to the processor's memory when the
accelerator's runs out, and are plain 8-bit ones without an accelerator.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..contract import Optimizer, TrainingSettings

BETAS, EPSILON = (0.9, 0.999), 1e-8


def make_optimizer(training: TrainingSettings, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer of the adapter's parameters (order matters for resuming).

    Weight decay is decoupled for the AdamW family (arXiv 1711.05101). SGD has no momentum.
    """
    if training.optimizer is Optimizer.SGD:
        return torch.optim.SGD(parameters, lr=training.learning_rate, weight_decay=training.weight_decay)
    if training.optimizer is Optimizer.ADAMW:
        return torch.optim.AdamW(
            parameters,
            lr=training.learning_rate,
            betas=BETAS,
            eps=EPSILON,
            weight_decay=training.weight_decay,
            fused=True,
        )
    import bitsandbytes

    kind = {
        Optimizer.ADAMW_8BIT: bitsandbytes.optim.AdamW8bit,
        Optimizer.PAGED_ADAMW_8BIT: bitsandbytes.optim.PagedAdamW8bit,
    }[training.optimizer]
    chosen: torch.optim.Optimizer = kind(
        parameters, lr=training.learning_rate, betas=BETAS, eps=EPSILON, weight_decay=training.weight_decay
    )
    return chosen


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """Return what the optimizer remembers: tensors by `<parameter>/<key>`, copied to the processor, and plain numbers.

    Quantization maps of the 8-bit optimizers are constants of the library and left out.
    """
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                if not key.startswith("qmap"):
                    tensors[f"{name}/{key}"] = value.detach().to("cpu", copy=True).contiguous()
            else:
                numbers.setdefault(name, {})[key] = value
    return tensors, numbers


def load_optimizer_state(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    tensors: Mapping[str, Tensor],
    numbers: Mapping[str, Mapping[str, Any]],
) -> None:
    """Make a fresh optimizer remember what another did; bit for bit, also for 8-bit states.

    Raises:
        ValueError: the state is not that of this optimizer.
    """
    remembered: dict[str, dict[str, Any]] = {name: dict(numbers.get(name, {})) for name in parameters}
    for full_name, tensor in tensors.items():
        name, _, key = full_name.rpartition("/")
        if name not in remembered:
            raise ValueError(f"optimizer state of an unknown parameter: {name}")
        remembered[name][key] = tensor
    places = {
        id(p): (g, i, group) for g, group in enumerate(optimizer.param_groups) for i, p in enumerate(group["params"])
    }
    for name, parameter in parameters.items():
        if not remembered[name]:
            continue
        state = optimizer.state[parameter]
        if hasattr(optimizer, "init_state"):  # bitsandbytes: its own buffers, paged ones too, then the bytes
            group_index, index, group = places[id(parameter)]
            optimizer.init_state(group, parameter, group_index, index)
            if {key for key in state if not key.startswith("qmap")} != remembered[name].keys():
                raise ValueError(f"the state of {name} is that of another optimizer")
        for key, value in remembered[name].items():
            if isinstance(value, Tensor) and key in state:
                if state[key].shape != value.shape or state[key].dtype != value.dtype:
                    raise ValueError(f"the state {key} of {name} has another shape or type")
                state[key].copy_(value)
            else:
                state[key] = value.to(parameter.device) if isinstance(value, Tensor) else value

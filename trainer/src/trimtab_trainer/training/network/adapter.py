"""The adapter on a frozen base model: LoRA (arXiv 2106.09685) by peft, in float32.

`train` makes a fresh one with `add_adapter`; `publish`, `ask` and evaluations load a published one with `load_adapter`.
Joined tensors of experts are adapted where `lora.targetParameters` names them (peft's ParamWrapper).
"""

from __future__ import annotations

import math
import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ...contract import LoraSettings, Reason
from ...errors import SettingsInvalid
from .. import parts
from .model import brief, some
from .targets import resolve_targets
from .trained import Trained

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

ADAPTER = "default"
"""Name by which peft knows the adapter in memory; it is no part of published names."""
MAGNITUDE = ".lora_magnitude_vector"


class Adapted(Trained):
    """A base model with a LoRA adapter in float32 on it.

    `parameters` maps published names (those of adapter_model.safetensors) to the adapter's weights, sorted.
    """

    kept_as = parts.ADAPTER

    def __init__(self, peft: PeftModel, compute_type: torch.dtype) -> None:
        adapter = {published_name(name): p for name, p in peft.named_parameters() if ".lora_" in name}
        super().__init__(peft.get_base_model(), peft, adapter, compute_type)
        self.peft = peft

    @property
    def target_modules(self) -> tuple[str, ...]:
        """Names of the adapted modules, sorted."""
        return tuple(sorted(self.peft.peft_config[ADAPTER].target_modules))

    @property
    def target_parameters(self) -> tuple[str, ...]:
        """Names of the adapted parameters that are no linear layer's, sorted."""
        return tuple(sorted(self.peft.peft_config[ADAPTER].target_parameters or ()))

    def base_alone(self) -> AbstractContextManager[Any]:
        found: AbstractContextManager[Any] = self.peft.disable_adapter()
        return found

    def check_gradients(self) -> None:
        # Zeros count as nothing in the outer matrices (B): those of the inner ones (A) are 0 until B has moved.
        without = [
            name
            for name, parameter in self.parameters.items()
            if parameter.grad is None or (".lora_B." in name and not bool(parameter.grad.any()))
        ]
        if without:
            raise SettingsInvalid(
                f"no gradient reaches {len(without)} of {len(self.parameters)} adapter weights ({without[0]}): "
                "these modules take no part in predicting text; set lora.targetModules to those that do"
            )

    def remove(self) -> PreTrainedModel:
        """Take the adapter off and return the bare base model."""
        self.attend_under_masks()
        self.kernels.keep(())
        base: PreTrainedModel = self.peft.unload()
        if hasattr(base, "peft_config"):
            del base.peft_config
        return base


def add_adapter(
    base: PreTrainedModel,
    lora: LoraSettings,
    compute_type: torch.dtype,
    seed: int,
    left_out: frozenset[str] = frozenset(),
) -> Adapted:
    """Put a fresh adapter on a base model; the same seed gives the same weights on every device.

    `left_out` are names of what cannot be adapted, as in `layers.Reach`.

    Raises:
        SettingsInvalid: TARGET_MODULES_NOT_FOUND, naming the modules that exist.
    """
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(resolve_targets(base, lora.target_modules, left_out)),
        target_parameters=lora.target_parameters,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        bias="none",
    )
    with warnings.catch_warnings():  # peft's advice, on weights that are set anew below and on how to store them
        warnings.simplefilter("ignore")
        try:
            model = Adapted(get_peft_model(base, settings, adapter_name=ADAPTER), compute_type)
        except (ValueError, TypeError, NotImplementedError, AttributeError) as error:
            field = "targetParameters" if lora.target_parameters else "targetModules"
            raise SettingsInvalid(
                f"lora.{field}: peft cannot adapt this {type(base).__name__} ({brief(error)}); name layers of its "
                "attention in targetModules alone",
                Reason.TARGET_MODULES_NOT_FOUND,
            ) from error
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.parameters.items():
            if name.endswith(MAGNITUDE):  # of the base's weights, as peft found them
                parameter.data = parameter.data.float()
                continue
            fresh = torch.zeros(parameter.shape)
            if ".lora_A." in name:
                nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=generator)
            parameter.data = fresh.to(parameter.device)
    return model


def load_adapter(base: PreTrainedModel, folder: Path, compute_type: torch.dtype) -> Adapted:
    """Load a published adapter as anybody would, with stock peft, and make sure that it is really there.

    Raises:
        ValueError: some of its weights did not arrive (peft only warns).
    """
    from peft import PeftModel
    from safetensors.torch import load_file

    with warnings.catch_warnings():  # what peft only warns of is looked at below, and an error
        warnings.simplefilter("ignore")
        model = Adapted(PeftModel.from_pretrained(base, str(folder), adapter_name=ADAPTER), compute_type)
    model.peft.eval()
    stored, loaded = load_file(folder / "adapter_model.safetensors"), model.trained_tensors()
    wrong = [n for n in stored.keys() | loaded.keys() if n not in stored or n not in loaded]
    wrong += [n for n in stored.keys() & loaded.keys() if not torch.equal(stored[n], loaded[n])]
    if wrong:
        raise ValueError(f"the adapter did not load onto its base model: {some(sorted(wrong))}")
    return model


def published_name(name: str) -> str:
    """Return the name a peft parameter has in adapter_model.safetensors."""
    published = name.replace(f".{ADAPTER}.", ".")
    return published.removesuffix(".weight") if published.endswith(f"{MAGNITUDE}.weight") else published

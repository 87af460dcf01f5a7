"""The adapter on a frozen base model: LoRA (arXiv 2106.09685) by peft, in float32.

`train` makes a fresh one with `add_adapter`; `publish`, `ask` and evaluations load a published one with `load_adapter`.
Joined tensors of experts are adapted where `lora.targetParameters` names them (peft's ParamWrapper).
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...contract import LoraSettings, Reason
from ...errors import SettingsInvalid
from ..machine.sizing import computed_twice
from .model import LanguageModel, brief, some
from .targets import resolve_targets

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

ADAPTER = "default"
"""Name by which peft knows the adapter in memory; it is no part of published names."""
MAGNITUDE = ".lora_magnitude_vector"


class Adapted(LanguageModel):
    """A base model with a LoRA adapter in float32 on it.

    `parameters` maps published names (those of adapter_model.safetensors) to the adapter's weights, sorted.
    """

    def __init__(self, peft: PeftModel, compute_type: torch.dtype) -> None:
        super().__init__(peft.get_base_model(), compute_type)
        self.peft = peft
        self.parameters: dict[str, nn.Parameter] = dict(
            sorted((published_name(name), p) for name, p in peft.named_parameters() if ".lora_" in name)
        )
        self.recomputed = 0.0

    @property
    def target_modules(self) -> tuple[str, ...]:
        """Names of the adapted modules, sorted."""
        return tuple(sorted(self.peft.peft_config[ADAPTER].target_modules))

    @property
    def target_parameters(self) -> tuple[str, ...]:
        """Names of the adapted parameters that are no linear layer's, sorted."""
        return tuple(sorted(self.peft.peft_config[ADAPTER].target_parameters or ()))

    def checkpoint_activations(self, share: float = 1.0) -> None:
        """Compute the activations of a share of the layers twice instead of keeping them.

        For all it is a third more computation, and one layer's activations instead of all.
        """
        from transformers.modeling_layers import GradientCheckpointingLayer

        self.causal.activation_checkpointing_enable({"use_reentrant": False})
        layers = [module for module in self.text.modules() if isinstance(module, GradientCheckpointingLayer)]
        for layer, twice in zip(layers, computed_twice(len(layers), share), strict=True):
            layer.gradient_checkpointing = twice
        self.recomputed = share

    def adapter_tensors(self) -> dict[str, Tensor]:
        """Return a copy of the adapter's weights on the processor, by published name."""
        return {name: p.detach().to("cpu", copy=True).contiguous() for name, p in self.parameters.items()}

    def load_adapter_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Set the adapter's weights.

        Raises:
            ValueError: names or shapes are not exactly those of this adapter.
        """
        expected = {name: tuple(p.shape) for name, p in self.parameters.items()}
        found = {name: tuple(t.shape) for name, t in tensors.items()}
        if expected != found:
            different = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
            raise ValueError(f"these adapter weights differ in name or shape: {some(different)}")
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[name])

    def remove(self) -> PreTrainedModel:
        """Take the adapter off and return the bare base model."""
        self.attend_under_masks()
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
    with warnings.catch_warnings():
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

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Adapted(PeftModel.from_pretrained(base, str(folder), adapter_name=ADAPTER), compute_type)
    model.peft.eval()
    stored, loaded = load_file(folder / "adapter_model.safetensors"), model.adapter_tensors()
    wrong = [n for n in stored.keys() | loaded.keys() if n not in stored or n not in loaded]
    wrong += [n for n in stored.keys() & loaded.keys() if not torch.equal(stored[n], loaded[n])]
    if wrong:
        raise ValueError(f"the adapter did not load onto its base model: {some(sorted(wrong))}")
    return model


def published_name(name: str) -> str:
    """Return the name a peft parameter has in adapter_model.safetensors."""
    published = name.replace(f".{ADAPTER}.", ".")
    return published.removesuffix(".weight") if published.endswith(f"{MAGNITUDE}.weight") else published

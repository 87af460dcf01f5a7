"""A language model of which something is trained: an adapter on it (`adapter`), or all of its weights (`full`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..machine.sizing import computed_twice
from .model import LanguageModel, some

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Trained(LanguageModel, ABC):
    """A model with weights in float32 that are trained.

    Attributes:
        parameters: what is trained, by the names that it is published under, sorted.
        module: whose mode (training or evaluation) is that of the whole.
        kept_as: what the files of these weights are called in a checkpoint.
        recomputed: share of the layers whose activations are computed twice.
        fused: linear layers that are computed with their adapters in one step.
    """

    def __init__(
        self, causal: PreTrainedModel, module: nn.Module, parameters: dict[str, nn.Parameter], compute_type: torch.dtype
    ) -> None:
        super().__init__(causal, compute_type)
        self.module = module
        self.parameters = dict(sorted(parameters.items()))
        self.recomputed = 0.0
        self.fused = 0

    kept_as: str

    @abstractmethod
    def base_alone(self) -> AbstractContextManager[Any]:
        """Return the context in which this computes as the base model does."""

    @abstractmethod
    def check_gradients(self) -> None:
        """Make sure that training reaches everything that is trained; all gradients of a first step are there.

        Raises:
            SettingsInvalid: it does not.
        """

    def checkpoint_activations(self, share: float = 1.0) -> bool:
        """Compute the activations of a share of the layers twice instead of keeping them; False: it cannot.

        For all it is a third more computation, and one layer's activations instead of all. A few kinds of models have
        no way to (JetMoe, GPT-NeoX-Japanese).
        """
        from transformers.modeling_layers import GradientCheckpointingLayer

        if not self.causal.supports_gradient_checkpointing:
            return False
        self.causal.activation_checkpointing_enable({"use_reentrant": False})
        layers = [module for module in self.text.modules() if isinstance(module, GradientCheckpointingLayer)]
        for layer, twice in zip(layers, computed_twice(len(layers), share), strict=True):
            layer.gradient_checkpointing = twice
        self.recomputed = share
        return True

    def trained_tensors(self, *, copy: bool = True) -> dict[str, Tensor]:
        """Return the trained weights on the processor, by published name.

        Args:
            copy: training goes on while they are used; else they are themselves where they are on the processor anyway.
        """
        return {name: p.detach().to("cpu", copy=copy).contiguous() for name, p in self.parameters.items()}

    def broken(self) -> list[str]:
        """Return the names of the trained weights that are not finite."""
        return not_finite({name: parameter.detach() for name, parameter in self.parameters.items()})

    def load_trained_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Set the trained weights.

        Raises:
            ValueError: names or shapes are not exactly those of this model.
        """
        expected = {name: tuple(p.shape) for name, p in self.parameters.items()}
        found = {name: tuple(t.shape) for name, t in tensors.items()}
        if expected != found:
            different = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
            raise ValueError(f"these weights differ in name or shape: {some(different)}")
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[name])


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of tensors with a number that is not finite; an accelerator is asked once where none is."""
    # A sum is not finite where one of its numbers is not: one pass without a copy, a sixth of the time of the other.
    if not tensors or bool(torch.stack([tensor.sum() for tensor in tensors.values()]).isfinite().all()):
        return []
    whole = torch.stack([tensor.isfinite().all() for tensor in tensors.values()]).tolist()
    return [name for name, finite in zip(tensors, whole, strict=True) if not finite]

"""What an adapter does to the layers of its base model: LoRA (arXiv 2106.09685), scaled by alpha / r or, with rsLoRA
(arXiv 2312.03732), by alpha / sqrt(r), and with DoRA (arXiv 2402.09353) a length of its own for every output.

    W' = W + s B A                                      with DoRA:  W' = m / |W + s B A| (W + s B A), rows by rows

In float32, the type in which adapters are trained, whatever W is stored in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..publishing.importing import changed_base
from ..storage.layout import ADAPTER_CONFIG, ADAPTER_WEIGHTS

PREFIX = "base_model.model."
DOWN, UP, MAGNITUDE = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"


class NotMergeable(ValueError):
    """An adapter that is no change of single matrices; the message says of what."""


OTHERS = {
    "target_parameters": "joined tensors of experts",
    "modules_to_save": "whole layers of its own",
    "rank_pattern": "layers of different ranks",
    "alpha_pattern": "layers that are scaled differently",
    "lora_bias": "biases",
    "trainable_token_indices": "rows of the embedding",
    "layer_replication": "repeated layers",
    "alora_invocation_tokens": "an effect behind certain tokens alone",
    "use_qalora": "inputs that are pooled",
    "use_bdlora": "matrices of blocks",
    "kasa_config": "weights between its matrices",
    "arrow_config": "several adapters",
    "megatron_config": "layers of Megatron's",
}
"""Settings of adapter_config.json that make an adapter more than a change of single matrices."""


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse what is more than a change of single matrices, by adapter_config.json alone.

    Raises:
        NotMergeable: the message names it.
    """
    for name, what in OTHERS.items():
        if settings.get(name):
            raise NotMergeable(f"it has {what} ({name})")
    if (begun := changed_base(settings)) is not None:
        raise NotMergeable(f"it was trained on a base model that was changed for it (init_lora_weights {begun})")
    for name in ("r", "lora_alpha"):
        value = settings.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise NotMergeable(f"its {name} is {str(value)[:40]}, which is no size")


class Adaptation:
    """A published adapter, by the names of the modules that it adapts; all of it in memory, for it is small."""

    def __init__(self, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Take adapter_config.json and the weights.

        Raises:
            NotMergeable: there is something that this does not know how to merge.
        """
        check_settings(settings)
        rank, alpha = int(settings["r"]), float(settings["lora_alpha"])
        self.scale = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
        self._dora = bool(settings.get("use_dora"))
        self._tensors = tensors
        self.modules = frozenset(
            name.removeprefix(PREFIX).removesuffix(DOWN) for name in tensors if name.endswith(DOWN)
        )
        suffixes = (DOWN, UP, MAGNITUDE) if self._dora else (DOWN, UP)
        expected = {f"{PREFIX}{module}{suffix}" for module in self.modules for suffix in suffixes}
        if odd := sorted(expected ^ tensors.keys()):
            raise NotMergeable(f"its weights and its {ADAPTER_CONFIG} do not agree at {odd[0]}")
        for name, tensor in sorted(tensors.items()):
            if not (tensor.is_floating_point() and bool(tensor.isfinite().all())):
                raise NotMergeable(f"{name} holds what is no finite number")

    @classmethod
    def read(cls, folder: Path) -> Adaptation:
        """Return the adapter in a folder.

        Raises:
            NotMergeable: there is something that this does not know how to merge.
        """
        return cls(json.loads((folder / ADAPTER_CONFIG).read_bytes()), load_file(folder / ADAPTER_WEIGHTS))

    def shape(self, module: str) -> tuple[int, int]:
        """Return outputs and inputs of an adapted layer."""
        return self._part(module, UP).shape[0], self._part(module, DOWN).shape[1]

    def applied(self, module: str, weight: Tensor) -> Tensor:
        """Return the weight [outputs, inputs] of a layer with the adapter in it, float32."""
        merged = torch.addmm(weight.float(), self._part(module, UP), self._part(module, DOWN), alpha=self.scale)
        if not self._dora:
            return merged
        lengths = torch.linalg.vector_norm(merged, dim=1, keepdim=True)
        return merged.mul_(self._part(module, MAGNITUDE).flatten()[:, None] / lengths)

    def _part(self, module: str, suffix: str) -> Tensor:
        return self._tensors[f"{PREFIX}{module}{suffix}"].float()

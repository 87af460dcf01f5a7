"""The base model's weights as training saw them, one at a time, without the model.

Trained over NF4, an adapter has learned to mend what quantization did to the base. On the original weights it mends
what is not broken, so what is merged into is what bitsandbytes makes of its own NF4: the same functions, on one matrix
after the other. Which matrices were quantized is asked of transformers itself, on a model without values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..base.base_model import invalid
from ..base.layers import Shapes, is_conditional
from ..contract import QuantizationSettings
from ..contract.settings import QuantizationType
from ..training.machine import hardware
from ..training.network.model import brief

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Linear:
    """A linear layer of the base model: where its weight lies in the files, and how.

    Attributes:
        tensor: name in the files.
        turned: whether the files have it as [inputs, outputs] (GPT-2's Conv1D).
        quantized: whether training held it in NF4.
    """

    tensor: str
    turned: bool
    quantized: bool


def linears_of(folder: Path, shapes: Shapes, quantization: QuantizationSettings) -> Mapping[str, Linear]:
    """Return the linear layers of the model in a folder by the names that they have in memory, as adapters have them.

    Args:
        folder: with config.json.
        shapes: of the tensors in its files, by their names there.
        quantization: how training held the model.

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID, a layer that was quantized is nowhere in the files under a name of its own.
    """
    from transformers.pytorch_utils import Conv1D

    model, skipped = _without_values(folder)
    kind = model.config.model_type
    found: dict[str, Linear] = {}
    for name, module in model.named_modules():
        if not isinstance(module, (nn.Linear, Conv1D)):
            continue
        quantized = quantization.type is QuantizationType.NF4 and name not in skipped and _is_quantized(name, skipped)
        quantized = quantized and (isinstance(module, Conv1D) or type(module) is nn.Linear)
        tensor = in_files(f"{name}.weight", list(module.weight.shape), shapes)
        if tensor is not None:
            found[name] = Linear(tensor, isinstance(module, Conv1D), quantized)
        elif quantized:
            raise invalid(
                f"its layer {name} is not one tensor of its files (model_type {kind!r}), and it was "
                "quantized in training; such a model cannot be exported, serve the adapter on it instead"
            )
    tensors = [each.tensor for each in found.values()]
    if twice := sorted({name for name in tensors if tensors.count(name) > 1}):
        raise invalid(
            f"two of its layers may be {twice[0]} of its files (model_type {kind!r}); such a model "
            "cannot be exported, serve the adapter on it instead"
        )
    return found


def _without_values(folder: Path) -> tuple[PreTrainedModel, frozenset[str]]:
    """Return the model of a folder without values, and the names that transformers never quantizes in it."""
    import transformers
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMultimodalLM
    from transformers.quantizers.base import HfQuantizer

    transformers.utils.logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        conditional = is_conditional({"architectures": config.architectures})
        kind = AutoModelForMultimodalLM if conditional else AutoModelForCausalLM
        with torch.device("meta"):
            model = kind.from_config(config)
    except Exception as error:  # libraries raise anything for a config that they cannot read
        raise invalid(f"no model can be made of its config.json ({brief(error)}); upload it again") from error
    skipped = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    return model, frozenset(skipped)


def _is_quantized(name: str, skipped: frozenset[str]) -> bool:
    from transformers.quantizers.quantizers_utils import should_convert_module

    return bool(should_convert_module(name, list(skipped)))


def in_files(name: str, shape: list[int], shapes: Shapes) -> str | None:
    """Return the name that a weight has in the files: the same, or another beginning before the number of its layer."""
    if shapes.get(name) == shape:
        return name
    for mark in (".layers.", ".h.", ".blocks."):
        if mark in name:
            ending = name[name.index(mark) :]
            same = [each for each, there in shapes.items() if f".{each}".endswith(ending) and there == shape]
            return same[0] if len(same) == 1 else None
    return None


def as_trained(weight: Tensor, linear: Linear | None, quantization: QuantizationSettings, kind: torch.dtype) -> Tensor:
    """Return a weight of the files as training computed with it, in the orientation of the files.

    Args:
        weight: as it lies in a file.
        linear: the layer that it belongs to, None for what is no linear layer's.
        quantization: how training held the base model.
        kind: the type of training's matrix products, to which the base was cast first.
    """
    if not weight.is_floating_point():
        return weight
    cast = weight.to(kind)
    if linear is None or not linear.quantized:
        return cast
    hardware.import_bitsandbytes()
    from bitsandbytes import functional

    matrix = cast.t().contiguous() if linear.turned else cast.contiguous()
    packed, state = functional.quantize_4bit(
        matrix, quant_type="nf4", compress_statistics=quantization.double_quantization
    )
    found: Tensor = functional.dequantize_4bit(packed, state)
    return found.t().contiguous() if linear.turned else found

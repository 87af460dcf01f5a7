"""The base model's weights as training saw them, one at a time, without the model.

Trained over NF4, an adapter has learned to mend what quantization did to the base. On the original weights it mends
what is not broken, so what is merged into is what bitsandbytes makes of its own NF4: the same functions, on one matrix
after the other. Which matrices were quantized is asked of transformers itself, on a model without values.
"""

from __future__ import annotations

import re
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


@dataclass(frozen=True)
class Held:
    """How training held the weights of a base model.

    Attributes:
        linears: its linear layers by the names that they have in memory, as adapters have them.
        wide: tensors of the files that stayed in float32 whatever products were made in, as what routes to experts.
    """

    linears: Mapping[str, Linear]
    wide: frozenset[str]


def held(folder: Path, shapes: Shapes, quantization: QuantizationSettings, compute_type: torch.dtype) -> Held:
    """Return how the weights of the model in a folder were held.

    Args:
        folder: with config.json.
        shapes: of the tensors in its files, by their names there.
        quantization: how training held the model.
        compute_type: of its matrix products.

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID, a layer that was quantized is nowhere in the files under a name of its own.
    """
    from transformers.pytorch_utils import Conv1D

    model, skipped = _without_values(folder)
    kind = model.config.model_type
    loaded = loaded_as(model, shapes)
    tensors = in_files(loaded)
    found: dict[str, Linear] = {}
    for name, module in model.named_modules():
        if not isinstance(module, (nn.Linear, Conv1D)):
            continue
        quantized = quantization.type is QuantizationType.NF4 and name not in skipped and _is_quantized(name, skipped)
        quantized = quantized and (isinstance(module, Conv1D) or type(module) is nn.Linear)
        tensor = tensors.get(f"{name}.weight")
        if tensor is not None and shapes[tensor] == list(module.weight.shape):
            found[name] = Linear(tensor, isinstance(module, Conv1D), quantized)
        elif quantized:
            raise invalid(
                f"its layer {name} is not one tensor of its files (model_type {kind!r}), and it was "
                "quantized in training; such a model cannot be exported, serve the adapter on it instead"
            )
    plan = [re.compile(each.replace("*", ".*")) for each in model._get_dtype_plan(compute_type)]
    wide = {tensor for tensor, (name, _) in loaded.items() if any(each.search(name) for each in plan)}
    return Held(found, frozenset(wide))


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


def loaded_as(model: PreTrainedModel, shapes: Shapes) -> Mapping[str, tuple[str, bool]]:
    """Return the name in memory of each tensor of the files, and whether it is joined, split or turned on the way.

    As transformers finds it when it loads the model: names that differ are its own table's.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    mapping, there = get_model_conversion_mapping(model), model.state_dict()
    renamed = [each for each in mapping if isinstance(each, WeightRenaming)]
    converted = [each for each in mapping if isinstance(each, WeightConverter)]
    found: dict[str, tuple[str, bool]] = {}
    for name in sorted(shapes):  # some of its renamings go by what came before
        loaded, pattern = rename_source_key(name, renamed, converted, model.base_model_prefix, there)
        if loaded not in there and name in there:
            loaded, pattern = name, None
        found[name] = loaded, pattern is not None
    return found


def in_files(loaded: Mapping[str, tuple[str, bool]]) -> Mapping[str, str]:
    """Return which tensor of the files each weight in memory is, of those that are one, as it lies there."""
    found: dict[str, list[str]] = {}
    for tensor, (name, changed) in loaded.items():
        if not changed:
            found.setdefault(name, []).append(tensor)
    return {name: tensors[0] for name, tensors in found.items() if len(tensors) == 1}


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

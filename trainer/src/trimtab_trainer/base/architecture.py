"""Whether a base model can be trained as the settings say, told from its config and its weights' headers alone."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..contract import LoraSettings, Reason, RunConfig
from ..errors import SettingsInvalid
from .base_model import BaseModel, invalid
from .families import TEXT, WITH_OTHERS, classes
from .layers import (
    ALL_LINEAR,
    CONDITIONAL,
    PAST_ADAPTER_WHY,
    Reach,
    Shapes,
    is_conditional,
    is_reached,
    matches,
    past_adapter,
    reach,
    text_config,
)
from .unsupported import BOTH_WAYS, NOT_PACKED, unsupported

HEADER_LIMIT = 100_000_000
NOT_QUANTIZED = ("BF16", "F16", "F32", "F64")
CAUSAL = ("ForCausalLM", "LMHeadModel")


@dataclass(frozen=True)
class Targets:
    """What of a base model is trained.

    Attributes:
        modules, parameters: full names of the layers, and of the joined tensors of experts, that are adapted; where all
            weights are trained, those that could be.
        reached: what can be adapted.
    """

    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    reached: Reach

    @property
    def adapted(self) -> int:
        """How many layers and tensors are adapted."""
        return len(self.modules) + len(self.parameters)


def check_trainable(config: RunConfig, model: Mapping[str, Any], shapes: Shapes) -> Targets:
    """Return what a run trains of a model, of its config.json and the shapes of its tensors.

    Raises:
        SettingsInvalid: its settings do not fit the model; with a named reason and the next step.
    """
    check_packing(model, config.training.packing)
    check_length(model, config.training.max_sequence_length)
    if (lora := config.adapter) is not None:
        return find_targets(shapes, lora, model)
    reached = reach(shapes, model)
    check_full_base(reached, model)
    return Targets(reached.layers, (), reached)


def find_targets(shapes: Shapes, lora: LoraSettings, config: Mapping[str, Any]) -> Targets:
    """Return what the settings adapt.

    Raises:
        SettingsInvalid: TARGET_MODULES_NOT_FOUND, naming what there is.
    """
    modules, parameters = target_modules(shapes, lora, config), target_parameters(shapes, lora, config)
    return Targets(tuple(modules), tuple(parameters), reach(shapes, config))


def check_architecture(model: BaseModel) -> None:
    """Refuse what is no causal language model that transformers knows, alone or with vision or audio.

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID.
    """
    config = model.config
    names, kind = config.get("architectures") or [], str(config.get("model_type"))
    if not isinstance(names, list) or not any(str(name).endswith((*CAUSAL, CONDITIONAL)) for name in names):
        raise invalid(f"its architectures are {names}, none of them a causal language model; choose another model")
    from transformers.models.auto.auto_mappings import CONFIG_MAPPING_NAMES

    if kind not in CONFIG_MAPPING_NAMES:
        code = ", and its own code (auto_map) is never run" if "auto_map" in config else ""
        raise invalid(f"model_type {kind!r} is unknown to transformers{code}; choose another model")
    if is_conditional(config):
        text = text_config(config)
        if text is config or config.get("is_encoder_decoder") or text.get("is_encoder_decoder"):
            alone = classes(TEXT).get(f"{kind}_text")
            instead = f"a text model such as {alone}" if alone else "a causal language model"
            raise invalid(
                f"its architectures are {names}, but its config.json has no text_config of a decoder that could be "
                f"trained alone; restore its config.json, or take {instead}"
            )
    if kind not in classes(WITH_OTHERS if is_conditional(config) else TEXT):
        raise invalid(f"transformers has no language model of model_type {kind!r} alone; choose another model")
    _check_own_code(config, kind)
    if (why := unsupported(kind)) is not None:
        raise invalid(f"model_type {kind!r} is not supported: {why}; choose another model")
    _check_direction(text_config(config))
    if quantization := config.get("quantization_config"):
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        raise invalid(f"it is quantized already ({method}); give the 16-bit original, Trimtab quantizes it itself")


def _check_own_code(config: Mapping[str, Any], kind: str) -> None:
    """Refuse a model whose own code is of another class than the one that transformers has for its kind."""
    own = config.get("auto_map")
    named = own.get("AutoModelForCausalLM") if isinstance(own, dict) else None
    known = classes(TEXT).get(kind)
    if not isinstance(named, str) or not isinstance(known, str):
        return
    name = named.rpartition(".")[2]
    if name.lower() != known.lower():
        raise invalid(
            f"it is computed by its own code ({name} in auto_map), which is never run, and is no {known}, which "
            f"transformers has for model_type {kind!r}; choose another model"
        )


def _check_direction(text: Mapping[str, Any]) -> None:
    """Refuse a decoder whose config makes it an encoder, as those of embedding models are; \"vision\" is of images."""
    for key, wrong in (("use_bidirectional_attention", (True, "all")), ("is_causal", (False,))):
        if text.get(key) in wrong:
            raise invalid(f"of {key} {json.dumps(text[key])} in its config.json {BOTH_WAYS}; choose another model")


def check_full_base(reached: Reach, config: Mapping[str, Any]) -> None:
    """Refuse a base model that is not trained whole: one with experts, or with vision or audio.

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID.
    """
    if is_conditional(config):
        what = "a model that also takes images or sounds"
    elif reached.expert_weights:
        what = "a mixture of experts"
    else:
        return
    raise invalid(
        f"{what} is not trained whole (lora.type: None); leave lora.type out to train an adapter, or take a "
        "dense text model"
    )


def check_packing(config: Mapping[str, Any], packing: bool) -> None:
    """Refuse packing for a kind of model whose rows would influence each other.

    Raises:
        SettingsInvalid: SETTINGS_INVALID.
    """
    if packing and (kind := config.get("model_type")) in NOT_PACKED:
        raise SettingsInvalid(
            f"training.packing: rows of one sequence influence each other in models of model_type {kind!r}; set it to "
            "false"
        )


def check_length(config: Mapping[str, Any], maximum: int) -> None:
    """Refuse sequences longer than the positions the model was made for.

    Raises:
        SettingsInvalid: SEQUENCE_TOO_LONG.
    """
    limit = context_length(config)
    if limit is not None and maximum > limit:
        raise SettingsInvalid(
            f"training.maxSequenceLength is {maximum}, but the base model takes at most {limit} tokens; set it to "
            f"{limit} or less",
            Reason.SEQUENCE_TOO_LONG,
        )


def context_length(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens the model was made for, prompt and answer together; None if its config does not say."""
    text = text_config(config)
    limit = text.get("max_position_embeddings", text.get("n_positions"))
    return limit if isinstance(limit, int) else None


def read_shapes(model: BaseModel) -> Shapes:
    """Return the shape of every tensor, from the headers of all shards.

    A safetensors file is 8 bytes of header length, a JSON header, then the tensors; the header says where the last one
    ends, so a truncated file is found without reading it (https://huggingface.co/docs/safetensors).

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID, naming the shard.
    """
    shapes: Shapes = {}
    for name in model.shards:
        header, begin = tensor_header(model, name)
        end = 0
        for tensor, entry in header.items():
            if tensor == "__metadata__":
                continue
            try:
                shapes[tensor] = [int(size) for size in entry["shape"]]
                kind = str(entry["dtype"])
                end = max(end, int(entry["data_offsets"][1]))
            except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
                raise invalid(f"{name} has a damaged header at {tensor}; upload it again") from error
            packed = tensor.endswith((".qweight", ".weight_packed"))
            if packed or (tensor.endswith(".weight") and len(shapes[tensor]) > 1 and kind not in NOT_QUANTIZED):
                raise invalid(
                    f"it is quantized already ({tensor} in {name} is {kind}); give the 16-bit original, Trimtab "
                    "quantizes it itself"
                )
        if begin + end != model.sizes[name]:
            raise invalid(f"{name} has {model.sizes[name]} bytes, but its header says {begin + end}; upload it again")
    return shapes


def target_modules(shapes: Shapes, lora: LoraSettings, config: Mapping[str, Any] | None = None) -> list[str]:
    """Return the full names of the linear layers that the settings adapt.

    A name means the module of that name and all whose name ends with it, as in peft.

    Raises:
        SettingsInvalid: TARGET_MODULES_NOT_FOUND, naming what there is.
    """
    reached = reach(shapes, config or {})
    linear = reached.layers
    if lora.target_modules == [ALL_LINEAR]:
        found = list(linear)
        missing = [] if linear else [ALL_LINEAR]
    else:
        found = [name for name in linear if any(matches(name, target) for target in lora.target_modules)]
        missing = [target for target in lora.target_modules if not any(matches(name, target) for name in linear)]
    if missing:
        there = sorted({name.rpartition(".")[2] for name in linear})
        out = sorted(target for target in missing if not is_reached(target, reached.left_out))
        past = past_adapter(config or {})
        kept = [target for target in out if past is None or is_reached(target, {past})]
        why = f"; {', '.join(kept[:8])} cannot be adapted in {_kind(reached)}" if kept else ""
        if past is not None and len(kept) < len(out):
            why += f"; {past} cannot be adapted in this kind of model, {PAST_ADAPTER_WHY[past]}"
        raise SettingsInvalid(
            f"lora.targetModules: the base model has no linear layer named {', '.join(missing[:8])}; it has "
            f"{', '.join(there[:24])}{why}",
            Reason.TARGET_MODULES_NOT_FOUND,
        )
    return found


def target_parameters(shapes: Shapes, lora: LoraSettings, config: Mapping[str, Any]) -> list[str]:
    """Return the full names of the joined tensors of experts that the settings adapt.

    Raises:
        SettingsInvalid: TARGET_MODULES_NOT_FOUND, naming what there is.
    """
    wanted, there = lora.target_parameters or [], reach(shapes, config).parameters
    missing = [target for target in wanted if not any(matches(name, target) for name in there)]
    if missing:
        names = sorted({".".join(name.split(".")[-2:]) for name in there})
        has = f"it has {', '.join(names[:24])}" if names else "it has none: leave lora.targetParameters out"
        raise SettingsInvalid(
            f"lora.targetParameters: the base model has no joined tensor of experts named {', '.join(missing[:8])}; "
            f"{has}",
            Reason.TARGET_MODULES_NOT_FOUND,
        )
    return [name for name in there if any(matches(name, target) for target in wanted)]


def _kind(reached: Reach) -> str:
    return "a mixture of experts, which have one tensor together" if reached.expert_weights else "a state-space model"


def tensor_header(model: BaseModel, name: str) -> tuple[dict[str, Any], int]:
    """Return the header of a file of safetensors, and where its tensors begin, without reading them.

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID, it is cut off or damaged.
    """
    start = model.store.start(name, 8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(HEADER_LIMIT, model.sizes[name]):
        raise invalid(f"{name} is no safetensors file, or cut off in its header; upload it again")
    try:
        header = json.loads(model.store.start(name, 8 + length)[8:])
    except (ValueError, RecursionError) as error:
        raise invalid(f"{name} has a damaged header; upload it again") from error
    if not isinstance(header, dict):
        raise invalid(f"{name} has a damaged header; upload it again")
    return header, 8 + length

"""Which modules of a loaded base model are adapted, by the names that peft is given; and that they are those told.

`prepare` tells the same from headers alone (`layers`); `check_layers` compares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from ...base.layers import ALL_LINEAR, is_embedding, is_reached, matches
from ...contract import Reason
from ...errors import SettingsInvalid
from .model import LanguageModel, some, text_part

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def linear_modules(base: PreTrainedModel, left_out: frozenset[str] = frozenset()) -> list[str]:
    """Return the full names of the linear layers that can be adapted.

    These are all of the text part but the output head, tables of tokens with what leads to them, and what is left out.
    """
    from transformers.pytorch_utils import Conv1D

    head, text = base.get_output_embeddings(), set(text_part(base).modules())
    return [
        name
        for name, module in base.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and module in text
        and module is not head
        and not is_embedding(name)
        and is_reached(name, left_out)
    ]


def resolve_targets(
    base: PreTrainedModel, wanted: list[str], left_out: frozenset[str] = frozenset()
) -> tuple[str, ...]:
    """Return the target modules by name, sorted: last parts of names where these say the same, else whole names.

    Raises:
        SettingsInvalid: TARGET_MODULES_NOT_FOUND, naming the modules that exist.
    """
    names = linear_modules(base, left_out)
    last_parts = sorted({name.rpartition(".")[2] for name in names})
    asked = last_parts if wanted == [ALL_LINEAR] else wanted
    missing = [want for want in asked if not any(matches(name, want) for name in names)]
    if missing or not asked:
        raise SettingsInvalid(
            f"lora.targetModules: {some(missing or wanted)} not among the base model's linear layers; "
            f"there are {', '.join(last_parts)}",
            Reason.TARGET_MODULES_NOT_FOUND,
        )
    reached = set(names)
    others = [name for name, _ in base.named_modules() if name not in reached]
    targets: set[str] = set()
    for want in asked:
        # peft takes a name for every module that ends with it: the head, a container, what is left out.
        alone = not any(matches(name, want) for name in others)
        targets.update([want] if alone else [name for name in names if matches(name, want)])
    return tuple(sorted(targets))


def check_layers(model: LanguageModel, expected: Sequence[str], parameters: Sequence[str]) -> None:
    """Refuse a base model of which other layers or parameters are adapted than its headers told.

    They may have other names in files than in memory, but the same last parts.

    Raises:
        SettingsInvalid: TARGET_MODULES_NOT_FOUND, naming the difference.
    """
    for field, names, found in zip(
        ("targetModules", "targetParameters"), (expected, parameters), adapted_parts(model.causal), strict=True
    ):
        told = Counter(name.rpartition(".")[2] for name in names)
        if told != found:
            differ = [
                f"{name} ({told[name]} in its files, {found[name]} adapted)"
                for name in sorted(told | found)
                if told[name] != found[name]
            ]
            raise SettingsInvalid(
                f"lora.{field}: {type(model.causal).__name__} has other layers than its files tell: {some(differ)}; "
                "name those that are the same",
                Reason.TARGET_MODULES_NOT_FOUND,
            )


def adapted_parts(base: nn.Module) -> tuple[Counter[str], Counter[str]]:
    """Return how many modules and how many parameters are adapted, by the last parts of their names."""
    from peft.tuners.lora import LoraLayer, ParamWrapper

    modules: Counter[str] = Counter()
    parameters: Counter[str] = Counter()
    for name, module in base.named_modules():
        if isinstance(module, ParamWrapper):
            parameters[module.parameter_name] += 1
        elif isinstance(module, LoraLayer):
            modules[name.rpartition(".")[2]] += 1
    return modules, parameters


def adapted_layers(base: nn.Module) -> list[Any]:
    """Return the adapted modules; each has `in_features` and `out_features`."""
    from peft.tuners.lora import LoraLayer, ParamWrapper

    return [m for m in base.modules() if isinstance(m, LoraLayer) and not isinstance(m, ParamWrapper)]


def adapted_tensors(base: nn.Module) -> list[nn.Parameter]:
    """Return the adapted parameters that are no linear layer's: joined tensors of experts [experts, ...]."""
    from peft.tuners.lora import ParamWrapper

    return [module.get_param() for module in base.modules() if isinstance(module, ParamWrapper)]

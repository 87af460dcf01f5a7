"""All weights of a base model, trained themselves (`lora.type: None`), and the model that is published of them.

Weights and gradients are float32 whatever the compute type, in which products are made: in bfloat16 a step of a small
learning rate would be rounded away. What is published has the files, names, shapes and types of the base, so whatever
loads the base loads it. `loading` and `train` call this.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ...base.base_model import CONFIG, GENERATION_CONFIG, INDEX, TOKENIZER
from ...base.layers import Shapes
from ...contract import QuantizationSettings, Reason
from ...contract.settings import QuantizationType
from ...errors import SettingsInvalid
from ...exporting.tensor_files import NAMES, Planned, write_tensors
from .. import parts
from .model import load_base, some
from .trained import Trained

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PLAIN = QuantizationSettings(type=QuantizationType.NONE)


class Full(Trained):
    """A model all of whose weights are trained.

    Attributes:
        files: the parameter that each tensor of the base's files is, by its name there. Of tied weights several may be
            one; of what is not among them (tensors that are never loaded) the base's values are published.
    """

    kept_as = parts.MODEL

    def __init__(self, causal: PreTrainedModel, files: Mapping[str, nn.Parameter], compute_type: torch.dtype) -> None:
        once = {id(parameter): name for name, parameter in sorted(files.items(), reverse=True)}
        super().__init__(causal, causal, {name: files[name] for name in once.values()}, compute_type)
        self.files = dict(files)

    def base_alone(self) -> AbstractContextManager[Any]:
        raise RuntimeError("the base model's weights are trained, so it is not there alone")

    def check_gradients(self) -> None:
        without = [name for name, parameter in self.parameters.items() if parameter.grad is None]
        if without:
            raise SettingsInvalid(
                f"no gradient reaches {len(without)} of the base model's {len(self.parameters)} weights "
                f"({without[0]}), so it cannot be trained whole; leave lora.type out to train an adapter"
            )

    def released(self) -> None:
        """Give the memory of weights and gradients back; nothing can be computed after that."""
        for parameter in self.parameters.values():
            parameter.data, parameter.grad = torch.empty(0), None

    def tensors_of_files(self, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return trained tensors by all the names that they have in the base's files."""
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        return {name: trained[names[id(parameter)]] for name, parameter in self.files.items()}


class Republished(Full):
    """A model that was trained whole, loaded from its published files; the base model is loaded when it is asked for.

    Both are in memory then, each in the compute type: less than training took.
    """

    def __init__(
        self,
        causal: PreTrainedModel,
        files: Mapping[str, nn.Parameter],
        compute_type: torch.dtype,
        base: Path,
    ) -> None:
        super().__init__(causal, files, compute_type)
        self._folder = base
        self._others: dict[str, Tensor] | None = None

    @contextmanager
    def base_alone(self) -> Iterator[None]:
        if self._others is None:
            base = load_base(self._folder, PLAIN, self.compute_type, self.device)
            self._others = {name: parameter.data for name, parameter in base.named_parameters()}
        self._swap(self._others)
        try:
            yield
        finally:
            self._swap(self._others)

    def _swap(self, others: dict[str, Tensor]) -> None:
        for name, parameter in self.causal.named_parameters():
            parameter.data, others[name] = others[name], parameter.data


def train_fully(base: PreTrainedModel, shapes: Shapes, compute_type: torch.dtype) -> Full:
    """Have all weights of a base model in float32 trained.

    Args:
        base: it, frozen.
        shapes: of the tensors in its files, by their names there.
        compute_type: of matrix products.

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID, as of `parameters_of_files`.
    """
    found = Full(base, parameters_of_files(base, shapes), compute_type)
    for parameter in found.parameters.values():
        parameter.requires_grad_(True)
    return found


def parameters_of_files(model: PreTrainedModel, shapes: Shapes) -> dict[str, nn.Parameter]:
    """Return the parameter that each tensor of some files is, by its name there.

    A name differs at most in its first part, by which a language model calls the model within it.

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID, a parameter is no tensor of the files.
    """
    first = f"{model.base_model_prefix}."
    found: dict[str, nn.Parameter] = {}
    missing: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names = (name, name.removeprefix(first), first + name)
        there = next((each for each in names if shapes.get(each) == list(parameter.shape)), None)
        if there is None:
            missing[id(parameter)] = name
        else:
            found[there] = parameter
    missing = {key: name for key, name in missing.items() if key not in {id(each) for each in found.values()}}
    if missing:
        raise SettingsInvalid(
            f"base model: {some(sorted(missing.values()))} of {type(model).__name__} are not tensors of their own in "
            "its files, so it cannot be published whole; leave lora.type out to train an adapter",
            Reason.BASE_MODEL_INVALID,
        )
    return found


def write_full(model: Full, trained: Mapping[str, Tensor], base: Path, folder: Path) -> None:
    """Write the model's files into a folder: those of the base in `base`, with these weights in the types they have.

    Args:
        model: tells which tensor is which.
        trained: float32, by published name.
    """
    tensors = model.tensors_of_files(trained)
    for shard in sorted(base.glob("*.safetensors")):
        with safe_open(str(shard), framework="pt") as file:
            planned = _planned(file)

            def made(name: str, file: Any = file, planned: dict[str, Planned] = planned) -> Tensor:
                return tensors[name].to(planned[name].dtype) if name in tensors else file.get_tensor(name)

            write_tensors(folder / shard.name, planned.values(), made)
    for name in (CONFIG, GENERATION_CONFIG, INDEX, *TOKENIZER):
        if (base / name).exists():
            shutil.copyfile(base / name, folder / name)


def load_full(folder: Path, base: Path, model: Full, trained: Mapping[str, Tensor]) -> Republished:
    """Load a published model as anybody would, with stock transformers, and make sure that it is what was trained.

    Args:
        folder: of its files.
        base: of the base model's.
        model: what was trained; nothing can be computed with it any more.
        trained: float32, by published name.

    Raises:
        ValueError: some of its weights did not arrive.
    """
    compute_type, where = model.compute_type, model.device
    model.released()
    causal = load_base(folder, PLAIN, compute_type, where)
    planned = planned_in(folder)
    shapes = {each.name: list(each.shape) for each in planned.values()}
    found = Republished(causal, parameters_of_files(causal, shapes), compute_type, base)
    wrong = sorted(found.parameters.keys() ^ trained.keys())
    for name in found.parameters.keys() & trained.keys():
        stored = trained[name].to(planned[name].dtype).to(compute_type)
        if not torch.equal(found.parameters[name].detach().cpu(), stored):
            wrong.append(name)
    if wrong:
        raise ValueError(f"the published model does not load as it was trained: {some(sorted(wrong))}")
    return found


def planned_in(folder: Path) -> dict[str, Planned]:
    """Return types and shapes of every tensor in the files of a model."""
    found: dict[str, Planned] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(str(shard), framework="pt") as file:
            found |= _planned(file)
    return found


def _planned(file: Any) -> dict[str, Planned]:
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 it is no dict
    return {name: Planned(name, NAMES[part.get_dtype()], tuple(part.get_shape())) for name, part in slices.items()}

"""A base model and an adapter become one, tensor by tensor: memory holds the adapter and one tensor, whatever the base.

The result has the files, the names and the shapes of the base, so whatever loads the base loads it. Sums are computed
in float32 and rounded once, to the type that is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ..base.base_model import invalid
from ..base.layers import Shapes
from ..contract import QuantizationSettings
from ..contract.exporting import WeightType
from .adaptation import Adaptation, NotMergeable
from .tensor_files import NAMES, Planned, write_tensors
from .training_weights import Held, Linear, as_trained

STORED = {WeightType.BFLOAT16: torch.bfloat16, WeightType.FLOAT32: torch.float32}


@dataclass(frozen=True)
class Merge:
    """How a base model in a folder and an adapter are joined.

    Attributes:
        folder: of the base model.
        compute_type: of training's matrix products.
        linears: layers by the names of their tensors in the files.
        modules: names of the adapted layers in memory, by the same.
        stored: the type that weights are stored in.
        wide: tensors that training held in float32 whatever its products' type; they are stored as they are.
    """

    folder: Path
    quantization: QuantizationSettings
    compute_type: torch.dtype
    adaptation: Adaptation
    linears: Mapping[str, Linear]
    modules: Mapping[str, str]
    stored: torch.dtype
    wide: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        folder: Path,
        held: Held,
        shapes: Shapes,
        adaptation: Adaptation,
        *,
        quantization: QuantizationSettings,
        compute_type: torch.dtype,
        weight_type: WeightType,
    ) -> Merge:
        """Return the plan, after checking that every part of the adapter has its place; nothing is computed yet.

        The folder may be empty still; `held` says how training held the base.

        Raises:
            NotMergeable: a layer of the adapter has no tensor of its shape in the files.
        """
        modules = {}
        for module in sorted(adaptation.modules):
            linear = held.linears.get(module)
            if linear is None:
                raise NotMergeable(f"its layer {module} is not one tensor of the base model's files")
            shape = adaptation.shape(module)
            there = tuple(shapes[linear.tensor])
            if (there[::-1] if linear.turned else there) != shape:
                raise NotMergeable(f"its layer {module} is {shape[0]} by {shape[1]}, the base model's {there}")
            modules[linear.tensor] = module
        return cls(
            folder,
            quantization,
            compute_type,
            adaptation,
            {each.tensor: each for each in held.linears.values()},
            modules,
            STORED[weight_type],
            held.wide,
        )

    def planned(self, shard: str) -> tuple[Planned, ...]:
        """Return what a shard is going to hold.

        Raises:
            SettingsInvalid: BASE_MODEL_INVALID, a tensor is of a type that cannot be written.
        """
        with self._open(shard) as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 it is no dict
            for name, part in slices.items():
                if part.get_dtype() not in NAMES:
                    raise invalid(
                        f"{name} in {shard} is of type {part.get_dtype()}, which cannot be exported; give the 16-bit "
                        "original"
                    )
            return tuple(
                Planned(name, self._kept(name, NAMES[part.get_dtype()]), tuple(part.get_shape()))
                for name, part in slices.items()
            )

    def alike(self, shards: list[str], name: str, other: str) -> bool:
        """Tell whether two tensors of the base model are there and the same."""
        found = []
        for shard in shards:
            with self._open(shard) as file:
                found += [file.get_tensor(each) for each in (name, other) if each in file.keys()]  # noqa: SIM118 it is no dict
        return len(found) == 2 and torch.equal(*found)

    def write(self, shard: str, planned: tuple[Planned, ...], target: Path) -> None:
        """Write one shard of the merged model."""
        with self._open(shard) as file:
            write_tensors(target, planned, lambda name: self.tensor(name, file.get_tensor(name)))

    def tensors(self, shard: str) -> Iterator[tuple[str, Tensor]]:
        """Yield every tensor of one shard of the merged model, in the order of `planned`."""
        with self._open(shard) as file:
            for name in file.keys():  # noqa: SIM118 it is no dict
                yield name, self.tensor(name, file.get_tensor(name))

    def tensor(self, name: str, weight: Tensor) -> Tensor:
        """Return a tensor of the merged model, given that of the base model."""
        linear, module = self.linears.get(name), self.modules.get(name)
        kind = torch.float32 if name in self.wide else self.compute_type
        made = as_trained(weight, linear, self.quantization, kind)
        if module is not None and linear is not None:
            turned = made.t() if linear.turned else made
            merged = self.adaptation.applied(module, turned)
            made = merged.t() if linear.turned else merged
        return made.to(self._kept(name, weight.dtype))

    def _kept(self, name: str, dtype: torch.dtype) -> torch.dtype:
        """Return the type in which a tensor of this type is stored: what is no number stays what it is."""
        if name in self.wide and self.stored is not torch.float32:
            return dtype
        return self.stored if dtype.is_floating_point else dtype

    def _open(self, shard: str) -> Any:
        return safe_open(str(self.folder / shard), framework="pt")


def with_type(config: dict[str, Any], stored: torch.dtype) -> dict[str, Any]:
    """Return config.json of a model whose weights are of this type, in all its parts."""
    name = str(stored).removeprefix("torch.")
    found = {key: value for key, value in config.items() if key != "torch_dtype"}
    for key, value in config.items():
        if isinstance(value, dict) and ("dtype" in value or "torch_dtype" in value):
            found[key] = with_type(value, stored)
    return {**found, "dtype": name}

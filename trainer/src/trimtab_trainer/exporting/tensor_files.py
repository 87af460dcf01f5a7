"""Safetensors written one tensor at a time: the header first, from names, types and shapes that are known before.

The library writes a file from tensors that are all in memory. The format: https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..storage.tensor_header import LENGTH_BYTES

TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
NAMES = {name: kind for kind, name in TYPES.items()}
ALIGNMENT = 8


@dataclass(frozen=True)
class Planned:
    """A tensor that is going to be written."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_tensors(file: Path, planned: Iterable[Planned], made: Callable[[str], Tensor]) -> None:
    """Write a file; `made` is called once for each tensor, in the order in which they lie, and gives its values.

    Wide types come first, as the library has it, so that every tensor is aligned.

    Raises:
        ValueError: a tensor is not of the type and the shape that was planned.
    """
    order = sorted(planned, key=lambda each: (-each.dtype.itemsize, each.name))
    header, end = dict[str, object](__metadata__={"format": "pt"}), 0
    for each in order:
        offsets = [end, end := end + each.size]
        header[each.name] = {"dtype": TYPES[each.dtype], "shape": list(each.shape), "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
        for each in order:
            tensor = made(each.name)
            if tensor.dtype != each.dtype or tuple(tensor.shape) != each.shape:
                raise ValueError(f"{each.name} is {tensor.dtype} {tuple(tensor.shape)}, planned was {each}")
            opened.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)


def index_of(shards: Mapping[str, Iterable[Planned]]) -> dict[str, object]:
    """Return model.safetensors.index.json of these shards."""
    tensors = {each.name: (shard, each) for shard, planned in shards.items() for each in planned}
    return {
        "metadata": {"total_size": sum(each.size for _, each in tensors.values())},
        "weight_map": {name: shard for name, (shard, _) in sorted(tensors.items())},
    }

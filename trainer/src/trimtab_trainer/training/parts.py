"""Tensors in files of bounded size: one file, or several parts where they are larger.

    adapter.safetensors                                      an adapter, as it is published
    model-00001-of-00003.safetensors, ...                    all weights of a model, in a checkpoint

A part is what a transfer that failed is begun with again, and what one upload has in memory at most.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

ADAPTER, MODEL = "adapter", "model"
"""What files of weights are called: of an adapter, and of all weights of a model."""
PART_BYTES = 1 << 30
_NAME = re.compile(r"(?P<stem>[a-z]+)(-(?P<number>\d{5})-of-(?P<count>\d{5}))?\.safetensors")


def save_adapter(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write an adapter's weights as they are published; the same weights give the same bytes.

    One metadata key only: safetensors writes several in random order.
    """
    save_file(dict(sorted(tensors.items())), file, metadata={"format": "pt"})


def save_parts(tensors: Mapping[str, Tensor], folder: Path, stem: str, most: int | None = None) -> None:
    """Write tensors as `<stem>.safetensors`, or in parts of at most so many bytes; a larger tensor is one alone."""
    most, parts, size = most or PART_BYTES, [dict[str, Tensor]()], 0
    for name, tensor in sorted(tensors.items()):
        size += tensor.nbytes
        if size > most and parts[-1]:
            parts.append({})
            size = tensor.nbytes
        parts[-1][name] = tensor
    for number, part in enumerate(parts, 1):
        which = f"-{number:05d}-of-{len(parts):05d}" if len(parts) > 1 else ""
        save_adapter(part, folder / f"{stem}{which}.safetensors")


def load_parts(folder: Path, stem: str) -> dict[str, Tensor]:
    """Read what `save_parts` wrote.

    Raises:
        ValueError, SafetensorError, OSError: it is not that, or a part is missing.
    """
    found = [(file, _NAME.fullmatch(file.name)) for file in sorted(folder.iterdir())]
    parts = [(file, name) for file, name in found if name is not None and name["stem"] == stem]
    counts = {name["count"] or "1" for _, name in parts}
    if len(counts) != 1 or int(*counts) != len(parts):
        raise ValueError(f"not all parts of {stem} are there")
    tensors: dict[str, Tensor] = {}
    for file, _ in parts:
        tensors |= load_file(file)
    return tensors


def is_weights(path: str) -> bool:
    """Tell whether a file holds weights, of an adapter or a model."""
    found = _NAME.fullmatch(path)
    return found is not None and found["stem"] in (ADAPTER, MODEL)


def weights_in(folder: Path) -> tuple[str, dict[str, Tensor]]:
    """Return what the weights in a folder are called, and them.

    Raises:
        ValueError, SafetensorError, OSError: there are none, or a part is missing.
    """
    stem = MODEL if any(file.name.startswith(MODEL) for file in folder.iterdir()) else ADAPTER
    return stem, load_parts(folder, stem)

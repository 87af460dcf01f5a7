"""The header of a safetensors file that others wrote: which tensors lie where, checked before a byte of them is read.

    8 bytes: length of the header, little-endian | the header, JSON | the tensors, one after the other

The format: https://huggingface.co/docs/safetensors. Torch-free; the agent reads adapters with it, the trainer what was
published.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..contract.parsing import Unreadable, read_object, whole_number

LENGTH_BYTES = 8
HEADER_BYTES = 16 << 20
"""Most bytes of a header; that of an adapter with 10,000 tensors has 1.5 million."""
DIMENSIONS = 16
NAME_CHARACTERS = 1024
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
"""Bits of an element; of a type that is not among them only the place is checked."""


@dataclass(frozen=True)
class TensorPlace:
    """One tensor of a file: `begin` and `end` count bytes from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def header_length(start: bytes, file_bytes: int) -> int:
    """Return the length of the header that the first 8 bytes of a file announce.

    Raises:
        Unreadable: it does not fit the file, or is beyond bounds.
    """
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    if len(start) < LENGTH_BYTES or not 2 <= length <= min(HEADER_BYTES, file_bytes - LENGTH_BYTES):
        raise Unreadable("its header does not fit the file")
    return length


def read_header(header: bytes, tensor_bytes: int) -> tuple[TensorPlace, ...]:
    """Return the tensors in the order they lie; together they fill the `tensor_bytes` after the header, with no gap.

    Raises:
        Unreadable: the header is none, or says something else.
    """
    document = read_object(header, HEADER_BYTES)
    document.pop("__metadata__", None)
    places = sorted((_place(name, entry) for name, entry in document.items()), key=lambda each: (each.begin, each.end))
    end = 0
    for each in places:
        if each.begin != end:
            raise Unreadable(f"{each.name} does not lie where the one before it ends")
        end = each.end
    if end != tensor_bytes:
        raise Unreadable(f"its tensors end at byte {end} of {tensor_bytes}")
    return tuple(places)


def places_in(file: Path) -> tuple[tuple[TensorPlace, ...], int]:
    """Return the tensors of a file in the order they lie, and at which of its bytes the first begins.

    Raises:
        Unreadable: it is no safetensors file, or not whole.
        OSError: it cannot be read.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        begin = LENGTH_BYTES + header_length(opened.read(LENGTH_BYTES), size)
        return read_header(opened.read(begin - LENGTH_BYTES), size - begin), begin


def _place(name: str, entry: Any) -> TensorPlace:
    if not name.isprintable() or not 0 < len(name) <= NAME_CHARACTERS:
        raise Unreadable(f"the name of a tensor is not 1 to {NAME_CHARACTERS} printable characters")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise Unreadable(f"{name} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not dtype.isprintable() or len(dtype) > 16:
        raise Unreadable(f"{name} has no type")
    if not isinstance(shape, list) or len(shape) > DIMENSIONS:
        raise Unreadable(f"{name} has no shape")
    if not isinstance(offsets, list) or len(offsets) != 2:
        raise Unreadable(f"{name} has no place")
    extents = tuple(whole_number(extent, f"an extent of {name}") for extent in shape)
    begin = whole_number(offsets[0], f"the begin of {name}")
    end = whole_number(offsets[1], f"the end of {name}", least=begin)
    if dtype in BITS and math.prod(extents) * BITS[dtype] != (end - begin) * 8:
        raise Unreadable(f"{name} has another size than its shape and type")
    return TensorPlace(name, dtype, extents, begin, end)

"""Whether the base model was ever trained on the control tokens that conversations are written with.

A foundation model has rows in its embedding for such tokens that nothing was learned of. LoRA does not change the
embedding, so a model can hardly learn from these rows to end a turn. Such a row is zero, or the same as another
control token's, or about as long as the rows that are surely unused: those beyond the tokenizer's last token, and
those of control tokens that the chat template does not write. Only a few dozen rows are read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.encoding.tokens import Vocabulary
from .architecture import tensor_header
from .base_model import BaseModel
from .layers import is_embedding

UNUSED_ROWS, ORDINARY_ROWS = 16, 32
LEAST_UNUSED = 4
NEARLY_ZERO = 1e-3
"""Of the median length of ordinary rows."""
SHORT, AS_SHORT = 0.6, 1.25
"""Unused rows tell something where none is longer than this share of that; and a row is one of them up to so many times
the longest."""

Rows = dict[int, npt.NDArray[np.float32]]


def untrained_tokens(model: BaseModel, vocabulary: Vocabulary) -> str:
    """Return a warning that names control tokens which the base model was never trained on; empty if there are none."""
    tokens, spare = vocabulary.written, vocabulary.spare
    table = _Table.find(model)
    if table is None or not tokens:
        return ""
    unused = table.read([*range(vocabulary.size, table.rows)[:UNUSED_ROWS], *spare[-UNUSED_ROWS:]])
    step = max(1, vocabulary.size // ORDINARY_ROWS)
    control = {*tokens.values(), *spare}
    ordinary = table.read(number for number in range(step // 2, vocabulary.size, step) if number not in control)
    found = untrained(table.read(tokens.values()), unused, ordinary)
    named = [text for text, number in sorted(tokens.items(), key=lambda item: item[1]) if number in found]
    if not named:
        return ""
    return (
        f"the base model was never trained on {', '.join(named)}: what its embedding has for them is like what it has "
        "for tokens that are not used, so it can hardly learn to begin and end turns; take a model that was trained on "
        "conversations, or a chat template with tokens that this one knows (dataset.chatTemplate)"
    )


def untrained(tokens: Rows, unused: Rows, ordinary: Rows) -> set[int]:
    """Return which tokens have a row that nothing was learned of.

    Args:
        tokens: rows float32[hidden] by id, to judge.
        unused: rows that are surely unused.
        ordinary: rows of tokens that were surely used.
    """
    typical = float(np.median([_length(row) for row in ordinary.values()])) if ordinary else 0.0
    lengths = [_length(row) for row in unused.values()]
    bound = NEARLY_ZERO * typical
    if len(lengths) >= LEAST_UNUSED and max(lengths) <= SHORT * typical:
        bound = max(bound, AS_SHORT * max(lengths))
    found = set()
    for number, row in tokens.items():
        others = (other for known in (tokens, unused) for each, other in known.items() if each != number)
        if _length(row) <= bound or any(np.array_equal(row, other) for other in others):
            found.add(number)
    return found


def _length(row: npt.NDArray[np.float32]) -> float:
    return float(np.linalg.norm(row))


class _Table:
    """The embedding of a base model, in the file where it lies."""

    def __init__(self, model: BaseModel, file: str, begin: int, shape: list[int], dtype: str) -> None:
        self._model, self._file, self._begin, self._dtype = model, file, begin, dtype
        self.rows, self._hidden = shape

    @classmethod
    def find(cls, model: BaseModel) -> _Table | None:
        """Return the embedding; None where there is none of two dimensions in a type that is read here."""
        for file in model.shards:
            header, begin = tensor_header(model, file)
            for name, entry in header.items():
                if _is_table(name, entry):
                    return cls(model, file, begin + entry["data_offsets"][0], entry["shape"], entry["dtype"])
        return None

    def read(self, numbers: Iterable[int]) -> Rows:
        """Return rows by their numbers, those that are there."""
        size = self._hidden * (4 if self._dtype == "F32" else 2)
        rows = {}
        for number in sorted(set(numbers)):
            if 0 <= number < self.rows:
                data = self._model.store.part(self._file, self._begin + number * size, size)
                rows[number] = self._floats(data)
        return rows

    def _floats(self, data: bytes) -> npt.NDArray[np.float32]:
        if self._dtype == "BF16":
            return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
        return np.frombuffer(data, np.float16 if self._dtype == "F16" else np.float32).astype(np.float32)


def _is_table(name: str, entry: Any) -> bool:
    return (
        "embed" in name.removesuffix(".weight").rpartition(".")[2]
        and is_embedding(name)
        and "position" not in name
        and entry.get("dtype") in ("F32", "F16", "BF16")
        and len(entry["shape"]) == 2
    )

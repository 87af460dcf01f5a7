"""What a model was trained on, and which rows of a task are among it: by answer, group, prompt and text.

A training writes keys of the answers and groups of all its rows beside its data, and the rows as they were written.
Rows are read one after the other and nothing of them is kept, so their number costs time and no memory.

A prompt is that of a trained row if its words are the same; one that more than `COMMON_SHARE` of the trained rows have
(and more than `COMMON_ROWS`) is an instruction, and no sign of anything. A text is in a trained row as `overlap` has
it: most of its word 3-grams are.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ...data.cleaning.nearduplicates import COMMON_ROWS, COMMON_SHARE, SAMPLE_ROWS, comparing
from ...data.cleaning.overlap import Asked
from ...data.cleaning.shingles import said, texts_of, words

PROMPT_WORDS = 3
"""Shorter prompts are asked of anybody."""


@dataclass(frozen=True)
class Trained:
    """What a model was trained on.

    Attributes:
        keys: of the answers and groups of all rows.
        rows: the rows as they were written, gzipped JSON lines; None where the training did not keep them.
    """

    keys: frozenset[bytes]
    rows: Path | None = None


@dataclass(frozen=True)
class AskedRow:
    """What is looked for: all that a row says, and what it asks, as one text or as several that may each be it."""

    text: str
    prompts: tuple[str, ...]


def asked_row(row: Mapping[str, Any]) -> AskedRow:
    """Return what is looked for of a row in one of training's formats."""
    return AskedRow(said(dict(row)), tuple(prompts_of(row))[-1:])


def asked_document(document: Mapping[str, Any]) -> AskedRow:
    """Return what is looked for of a document of a Harness task, any of whose texts may be what is asked."""
    texts = [text for key in sorted(document) for text in texts_of(document[key])]
    return AskedRow("\n".join(texts), tuple(texts))


def prompts_of(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was asked in a row: what stands before each answer of a conversation, without system messages."""
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        yield prompt
    elif isinstance(prompt, list):
        yield said({"messages": prompt})
    messages: Any = row.get("messages")
    for at, message in enumerate(messages if isinstance(messages, list) else ()):
        if isinstance(message, dict) and message.get("role") == "assistant":
            yield said({"messages": messages[:at]})


def among(asked: Sequence[AskedRow], rows: Path) -> list[bool]:
    """Tell of each row that is asked whether its prompt or its text is that of a trained row.

    Args:
        asked: the rows of a task.
        rows: the trained rows, gzipped JSON lines.
    """
    how = comparing(said(row) for row in islice(_read(rows), SAMPLE_ROWS))
    index = Asked((each.text for each in asked), how)
    wanted: dict[bytes, list[int]] = {}
    for number, each in enumerate(asked):
        for prompt in each.prompts:
            if key := _key(prompt):
                wanted.setdefault(key, []).append(number)
    found: set[int] = set()
    seen: Counter[bytes] = Counter()
    count = 0
    for row in _read(rows):
        count += 1
        found.update(index.held_by(said(row)))
        seen.update({key for key in map(_key, prompts_of(row)) if key in wanted})
    most = max(COMMON_ROWS, COMMON_SHARE * count)
    found.update(number for key, times in seen.items() if times <= most for number in wanted[key])
    return [number in found for number in range(len(asked))]


def _key(prompt: str) -> bytes | None:
    told = words(prompt)
    return hashlib.sha256(" ".join(told).encode(errors="surrogatepass")).digest() if len(told) >= PROMPT_WORDS else None


def _read(rows: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(rows, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)

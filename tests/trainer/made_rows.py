"""Rows on disk, as prepare writes them, made of lengths or texts without a tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from trimtab_trainer.contract import DatasetFormat
from trimtab_trainer.data.cleaning.steps import Audit, Kept
from trimtab_trainer.data.encoding.control import Held
from trimtab_trainer.data.encoding.template import Kind
from trimtab_trainer.data.encoding.tokens import is_learned
from trimtab_trainer.data.parts import Block, PartWriter, TokenisedRow
from trimtab_trainer.data.reading.formats import Row
from trimtab_trainer.data.rows import Rows, read_rows
from trimtab_trainer.storage import open_store

FORMAT = DatasetFormat.PROMPT_COMPLETION


@dataclass(frozen=True)
class Made:
    """A row: what it says, which of its tokens are learned, and what it has in the columns that are counted by."""

    kinds: tuple[int, ...]
    answer: str = "an answer of some words"
    prompt: str = "?"
    values: tuple[str | None, ...] = ()
    token: int = 0


def half_learned(length: int) -> tuple[int, ...]:
    """Return the kinds of a row of which the second half is learned."""
    return tuple(int(Kind.LAST) if n >= length // 2 else int(Kind.GIVEN) for n in range(length))


def turns(*lengths: tuple[int, int]) -> tuple[int, ...]:
    """Return the kinds of turns, each so many tokens of a question and so many of its answer."""
    kinds: list[int] = []
    for number, (asked, answered) in enumerate(lengths, 1):
        kinds += [int(Kind.GIVEN)] * asked
        kinds += [int(Kind.LAST if number == len(lengths) else Kind.LEARNED)] * answered
    return tuple(kinds)


def made_rows(folder: Path, rows: Sequence[Made], columns: Sequence[str] = (), per_block: int = 7) -> Rows:
    """Write rows of the source training into a folder and read them back."""
    store = open_store((folder / "store").as_uri(), None)
    writer = PartWriter(store, "rows", folder / "rows", "training")
    blocks = []
    for begin in range(0, len(rows), per_block):
        part = rows[begin : begin + per_block]
        kept = [
            Kept(
                Row(f"a.jsonl line {begin + n}", FORMAT, prompt=each.prompt, completion=each.answer),
                hashlib.sha256(repr(each).encode()).digest()[:16],
                each.values,
            )
            for n, each in enumerate(part)
        ]
        sequences = [
            TokenisedRow(
                n,
                np.full(len(each.kinds), each.token, np.int32),
                kinds := np.array(each.kinds, np.uint8),
                int(is_learned(kinds[1:]).sum()),
                control=Held.NOWHERE,
                language=0,
            )
            for n, each in enumerate(part)
        ]
        blocks.append(Block(Audit(read=len(part)), kept, sequences))
    writer.write(blocks)
    return read_rows(folder / "rows", columns)

"""What the rows held out for validation say, whatever tokens they become: so losses of two models can be compared.

A loss of each token is of another unit for each tokenizer. Bits per byte are not: the same nats, over the bytes of what
is learned, as it was written. And two runs measured the same only if they held out the same rows: the digest tells it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...contract import LossOn, canonical_json
from ..cleaning.steps import IDENTITY_BYTES
from ..fitting import Fitted, of_loss
from ..reading.messages import is_learned, spoken
from ..rows import Rows


@dataclass(frozen=True)
class Said:
    """What the rows of a side say.

    Attributes:
        digest: of the rows and of how much of each is used, in no order.
        bytes: UTF-8 bytes of what is learned of them, without the chat template's own words; None where a row is used
            in part: how much text that is depends on the tokens.
    """

    digest: str
    bytes: int | None

    def to_json(self) -> dict[str, Any]:
        """Return it as the view's manifest has it."""
        return {"digest": self.digest, "bytes": self.bytes}


def said(rows: Rows, fitted: Fitted, loss_on: LossOn) -> Said:
    """Return what the used rows of a side say.

    Args:
        rows: of all sources.
        fitted: those of the side.
        loss_on: what of them is learned.
    """
    conversations = np.cumsum(rows.first) - 1
    used = np.unique(conversations[fitted.rows])
    cut = {int(conversations[row]) for row in fitted.truncated}
    every = of_loss(rows, np.flatnonzero(np.isin(conversations, used)), loss_on)
    there = np.bincount(conversations[every], minlength=len(rows))
    taken = np.bincount(conversations[fitted.rows], minlength=len(rows))
    lengths = np.bincount(conversations[fitted.rows], weights=fitted.lengths, minlength=len(rows))
    names, partial, size = [], False, 0
    for head, line in rows.texts(np.flatnonzero(rows.first)[used]):
        row, conversation = json.loads(line), conversations[head]
        # Not the row's identity, in which columns are that it is only counted by.
        name = hashlib.sha256(canonical_json(row)).digest()[:IDENTITY_BYTES].hex()
        if int(conversation) in cut or taken[conversation] < there[conversation]:
            name, partial = f"{name} {int(lengths[conversation])} tokens", True
        names.append(name)
        size += _bytes(row, loss_on)
    text = "\n".join([loss_on.value, *sorted(names)])
    return Said(f"sha256:{hashlib.sha256(text.encode()).hexdigest()}", None if partial else size)


def _bytes(row: Mapping[str, Any], loss_on: LossOn) -> int:
    return sum(len(text.encode()) for text in _learned(row, loss_on))


def _learned(row: Mapping[str, Any], loss_on: LossOn) -> Iterator[str]:
    """Yield the texts of a row that are learned."""
    if "messages" in row:
        every = loss_on is LossOn.ALL_TOKENS
        turns = [each for each in row["messages"] if (each.get("weight") != 0 if every else is_learned(each))]
        yield from (spoken(each) for each in (turns[-1:] if loss_on is LossOn.LAST_TURN else turns))
        return
    if "chosen" in row or "label" in row:
        for key in ("chosen", "rejected", "completion"):
            value = row.get(key, "")
            yield from (spoken(each) for each in value if is_learned(each)) if isinstance(value, list) else (value,)
        return
    if loss_on is LossOn.ALL_TOKENS:
        yield row.get("prompt", "")
    yield row.get("completion", row.get("text", ""))

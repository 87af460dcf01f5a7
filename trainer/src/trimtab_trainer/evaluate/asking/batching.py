"""Work in batches that fit into memory: longest first, halved when memory runs out, ended between any two.

How items are grouped depends on their lengths and on settings alone, never on the memory that happens to be free: an
attempt that goes on elsewhere forms the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import torch

from ...errors import OutOfMemory
from ...interruption import Interruption
from ...report import Report
from ...training.validation import TOKENS_PER_BATCH
from ..memory import Exhausted, attempted

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def in_batches(
    items: list[Item],
    length: Callable[[Item], int],
    work: Callable[[list[Item]], Answer],
    *,
    batch_size: int | None,
    where: torch.device,
    stop: Interruption,
    report: Report,
) -> Iterator[tuple[list[Item], Answer]]:
    """Yield each batch of items with what `work` made of it.

    Args:
        items: in any order; those of equal length stay in theirs.
        length: tokens of an item, of which the memory depends.
        work: takes a batch; its results must not depend on how items are batched.
        batch_size: items of a batch; as many as make a few thousand tokens if absent.
        where: the device that computes.
        stop: raises `Interrupted` between batches, and inside of them where the caller is in `stop.at_once()`.
        report: is told of halvings.

    Raises:
        OutOfMemory: one item alone does not fit.
    """
    order = sorted(items, key=lambda item: -length(item))
    start, parts = 0, 1
    while start < len(order):
        stop.check()
        longest = length(order[start])
        wanted = batch_size or max(1, TOKENS_PER_BATCH[where.type] // max(longest, 1))
        size = max(1, wanted // parts)
        batch = order[start : start + size]
        answer = attempted(partial(work, batch))
        if not isinstance(answer, Exhausted):
            yield batch, answer
            start += len(batch)
            continue
        if len(batch) == 1:
            raise OutOfMemory(
                f"a single sequence of {longest} tokens does not fit into memory ({answer.reason}); raise the memory "
                "limit, or give the task shorter rows or a smaller maxNewTokens"
            )
        half = len(batch) // 2
        while max(1, wanted // parts) > half:
            parts *= 2
        report("memory ran out, batch halved", batch_size=max(1, wanted // parts), reason=answer.reason)

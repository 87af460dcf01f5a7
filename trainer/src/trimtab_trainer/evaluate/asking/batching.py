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


def _one(_: object) -> int:
    return 1


def _nothing(_: object) -> int:
    return 0


def _whole(item: Item) -> tuple[Item, ...]:
    return (item,)


def in_batches(
    items: list[Item],
    length: Callable[[Item], int],
    work: Callable[[list[Item]], Answer],
    *,
    lines: Callable[[Item], int] = _one,
    halves: Callable[[Item], tuple[Item, ...]] = _whole,
    alike: Callable[[Item], int] = _nothing,
    batch_size: int | None,
    where: torch.device,
    stop: Interruption,
    report: Report,
) -> Iterator[tuple[list[Item], Answer]]:
    """Yield each batch of items with what `work` made of it.

    Args:
        items: in any order; those of equal length stay in theirs.
        length: tokens of a line of an item, of which the memory depends.
        work: takes a batch; its results must not depend on how items are batched.
        lines: that an item takes in a batch.
        halves: cuts an item of several lines that is too large.
        alike: what the items of a batch have to have in common.
        batch_size: lines of a batch; as many as make a few thousand tokens if absent.
        where: the device that computes.
        stop: raises `Interrupted` between batches, and inside of them where the caller is in `stop.at_once()`.
        report: is told of halvings.

    Raises:
        OutOfMemory: one line alone does not fit.
    """
    order = sorted(items, key=lambda item: (alike(item), -length(item)))
    start, parts = 0, 1
    while start < len(order):
        stop.check()
        longest = length(order[start])
        wanted = batch_size or max(1, TOKENS_PER_BATCH[where.type] // max(longest, 1))
        size = max(1, wanted // parts)
        if lines(order[start]) > size:
            order[start : start + 1] = halves(order[start])
            continue
        end, taken = start, 0
        common = alike(order[start])
        while end < len(order) and alike(order[end]) == common and taken + lines(order[end]) <= size:
            taken += lines(order[end])
            end += 1
        batch = order[start:end]
        answer = attempted(partial(work, batch))
        if not isinstance(answer, Exhausted):
            yield batch, answer
            start = end
            continue
        if taken == 1:
            raise OutOfMemory(
                f"a single sequence of {longest} tokens does not fit into memory ({answer.reason}); raise the memory "
                "limit, or give the task shorter rows or a smaller maxNewTokens"
            )
        while max(1, wanted // parts) > taken // 2:
            parts *= 2
        report("memory ran out, batch halved", batch_size=max(1, wanted // parts), reason=answer.reason)

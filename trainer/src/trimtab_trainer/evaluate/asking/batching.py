"""Work in batches that fit into memory: longest first, halved when memory runs out, ended between any two.

How items are grouped depends on their lengths and on settings alone, never on the memory that happens to be free: an
attempt that goes on elsewhere forms the same batches.
"""

from __future__ import annotations

from bisect import insort_left
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
        halves: cuts an item of several lines that is too large. For its tokens alone it is not where most of them would
            be computed twice (see `_worth_halving`).
        alike: what the items of a batch have to have in common.
        batch_size: lines of a batch; as many as make a few thousand tokens if absent.
        where: the device that computes.
        stop: raises `Interrupted` between batches, and inside of them where the caller is in `stop.at_once()`.
        report: is told of halvings.

    Raises:
        OutOfMemory: one line alone does not fit.
    """

    def place(item: Item) -> tuple[int, int]:
        return alike(item), -length(item)

    order = sorted(items, key=place)
    start, parts = 0, 1
    while start < len(order):
        stop.check()
        longest = length(order[start])
        wanted = batch_size or max(1, TOKENS_PER_BATCH[where.type] // max(longest, 1))
        size = max(1, wanted // parts)
        end, taken = start, 0
        if lines(order[start]) > size:
            parted = halves(order[start])
            if batch_size or parts > 1 or _worth_halving(order[start], parted, lambda item: length(item) * lines(item)):
                del order[start]
                for half in reversed(parted):  # where they belong: what comes first has the longest lines
                    insort_left(order, half, lo=start, key=place)
                continue
            end, taken = start + 1, lines(order[start])
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
            raise too_long(longest, answer.reason)
        while max(1, wanted // parts) > taken // 2:
            parts *= 2
        report("memory ran out, batch halved", batch_size=max(1, wanted // parts), reason=answer.reason)


def too_long(tokens: int, reason: str) -> OutOfMemory:
    """Return the error that ends an evaluation: a sequence of so many tokens does not fit, alone."""
    return OutOfMemory(
        f"a single sequence of {tokens} tokens does not fit into memory ({reason}); raise the memory limit, or give "
        "the task shorter rows or a smaller maxNewTokens"
    )


def _worth_halving(item: Item, parted: tuple[Item, ...], tokens: Callable[[Item], int]) -> bool:
    """Tell whether halves together have half as many tokens again at most.

    Else most are a stem's, which each half computes anew: down to single lines that is several times the work. Such an
    item has less than twice the tokens of its stem, so than twice those of a single line.
    """
    return 2 * sum(map(tokens, parted)) <= 3 * tokens(item)

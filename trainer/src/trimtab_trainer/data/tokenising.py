"""Records become tokens a block at a time, by all processors there are; the blocks come back in their order.

What rows have to know of each other (which were there already) is decided here, in order; rendering and tokenising,
which is most of the work, is done by processes that know nothing of each other. So their number changes nothing.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait

from .cleaning.languages import language
from .cleaning.steps import Audit, Cleaner, Kept
from .encoding.tokens import RowsRefused, RowTokenizer, is_learned
from .parts import Block, TokenisedRow
from .reading.formats import Row
from .reading.readers import Record

BLOCK_RECORDS = 512
MOST_PROCESSES = 8
"""Each has a tokenizer of its own: about 150 MB."""
ALONE_RECORDS = 2 * BLOCK_RECORDS
"""So few records are done before other processes have started."""

Tokenise = Callable[[list[Row]], "Future[list[TokenisedRow]]"]


def blocks(records: Iterable[Record], cleaner: Cleaner, tokenise: Tokenise) -> Iterator[Block]:
    """Yield blocks of records, cleaned and tokenised, in order; a few are made ahead.

    Raises:
        DataInvalid: a row is not what it should be.
        RowsRefused: the chat template refuses rows, all of them counted.
        SettingsInvalid: CHAT_TEMPLATE_INVALID.
    """
    waiting: deque[tuple[Audit, list[Kept], Future[list[TokenisedRow]]]] = deque()
    refused: list[RowsRefused] = []
    stream = iter(records)
    while batch := list(islice(stream, BLOCK_RECORDS)):
        audit = Audit()
        rows = list(cleaner.clean(batch, audit))
        if cleaner.refuses:
            continue  # stored as read, the row at fault would be behind whoever comes next
        waiting.append((audit, rows, tokenise([kept.row for kept in rows])))
        if len(waiting) > processes() + 1:
            yield from _done(refused, *waiting.popleft())
    while waiting:
        yield from _done(refused, *waiting.popleft())
    if refused:
        raise RowsRefused(refused[0].first, refused[0].reason, sum(each.count for each in refused))


def _done(
    refused: list[RowsRefused], audit: Audit, rows: list[Kept], sequences: Future[list[TokenisedRow]]
) -> Iterator[Block]:
    """Yield a block, unless rows of it or of one before are refused."""
    try:
        block = Block(audit, rows, sequences.result())
    except RowsRefused as error:
        refused.append(error)
        return
    if not refused:
        yield block


def processes() -> int:
    """Return how many processes tokenise: one for each processor that may be used."""
    return min(MOST_PROCESSES, len(os.sched_getaffinity(0)))


@contextmanager
def tokenising(tokenizer: RowTokenizer, make: Callable[[], RowTokenizer]) -> Iterator[Tokenise]:
    """Give a function that tokenises rows: the first here, and once there are many, in other processes.

    Args:
        tokenizer: for what is done here.
        make: makes the same for the other processes.
    """
    count = processes()
    pool: ProcessPoolExecutor | None = None
    alone = 0

    def tokenise(rows: list[Row]) -> Future[list[TokenisedRow]]:
        nonlocal pool, alone
        if count > 1 and alone >= ALONE_RECORDS and pool is None:
            # Other processes are not forked: tokenizers and pyarrow have threads by now.
            pool = ProcessPoolExecutor(count, get_context("spawn"), _begin, (make,))
        if pool is not None:
            return pool.submit(_tokenise_there, rows)
        alone += len(rows)
        done: Future[list[TokenisedRow]] = Future()
        try:
            done.set_result(_tokenise(tokenizer, rows))
        except RowsRefused as error:
            done.set_exception(error)
        return done

    try:
        yield tokenise
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


_TOKENIZER: list[RowTokenizer] = []
"""Of this process, where it is one of several."""


def _begin(make: Callable[[], RowTokenizer]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there is a process for each processor
    _TOKENIZER[:] = [make()]


def _end_with_parent() -> None:
    """End this process when the one that started it is gone: killed, it cannot say so, and the queue stays open."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _tokenise_there(rows: list[Row]) -> list[TokenisedRow]:
    return _tokenise(_TOKENIZER[0], rows)


def _tokenise(tokenizer: RowTokenizer, rows: list[Row]) -> list[TokenisedRow]:
    numbers = {id(row): number for number, row in enumerate(rows)}
    return [
        TokenisedRow(
            numbers[id(each.row)],
            each.tokens,
            each.kinds,
            int(is_learned(each.kinds[1:]).sum()),
            each.control,
            language(each.row.answer),
        )
        for each in tokenizer.tokenise(rows)
    ]

"""What a person should know of the data, a sentence each; and the refusal of data of which too much was dropped."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...contract import DataAudit
from ...errors import TooMuchDropped
from ..cleaning.steps import MOST_CHARACTERS, OVERSIZED
from ..request import Request
from ..rows import Rows
from .figures import COLUMN, groups_of
from .selection import ASKED, LEAKED, NEAR, SIDES, TOO_LONG, Selection, length_for_most

CLEANED = {
    "blank": "have a blank answer",
    "duplicate": "repeat another row",
    "invalid": "have invalid text",
    "unsupervised": "have nothing to learn",
    OVERSIZED: f"have more than {MOST_CHARACTERS:,} characters",
}
DECIDED = {
    NEAR: "say nearly what another row says",
    ASKED: "hold what Evaluations ask",
    LEAKED: "say what held-out rows say",
}
NAMED, NAME_LENGTH = 5, 40


def check_dropped(
    rows: Rows, selection: Selection, summary: dict[str, Any], told: dict[str, Any], request: Request
) -> None:
    """Refuse data of which more than `maximumDropped` was dropped.

    Raises:
        TooMuchDropped: DATASET_INVALID.
    """
    maximum = request.cleaning.maximum_dropped
    if dropped_share(rows, summary, told, request) > maximum:
        raise TooMuchDropped(
            f"{_of_dropped(rows, selection, summary, told, request)}; that is more than "
            f"dataset.cleaning.maximumDropped = {maximum:g}: correct the data, or raise it"
        )


def dropped_share(rows: Rows, summary: dict[str, Any], told: dict[str, Any], request: Request) -> float:
    """Return the share of what was read that is not used."""
    return float(summary["dropped"]) / max(1, rows_read(rows, told["rowsRead"], request))


def notices_of(
    rows: Rows, selection: Selection, summary: dict[str, Any], told: dict[str, Any], request: Request
) -> list[str]:
    """Return the notices of a view; they name no files, so that they are the same for the same rows."""
    cleaning = request.cleaning
    notices = []
    if dropped_share(rows, summary, told, request) > cleaning.warn_dropped:
        notices.append(
            f"{_of_dropped(rows, selection, summary, told, request)} "
            f"(dataset.cleaning.warnDropped is {cleaning.warn_dropped:g})"
        )
    if oversized := told["findings"].get(OVERSIZED):
        notices.append(f"{oversized} rows {CLEANED[OVERSIZED]}, and are dropped whatever tooLong says; split them")
    if truncated := sum(len(selection.sides[side].truncated) for side in SIDES):
        limit = request.training.max_sequence_length
        notices.append(
            f"{truncated} rows are cut behind the last answer that fits into training.maxSequenceLength = {limit} "
            f"tokens{_raise_it(rows, selection, request)}"
        )
    audit = request.dataset.audit or DataAudit()
    by = groups_of(rows, selection, request)
    for name in audit.columns:
        groups = by[f"{COLUMN}{name}"]
        if not any(rows.values[name]):
            notices.append(f"no row has a value in the column {name}, which dataset.audit.columns names")
        small = [group["value"] for group in groups if group["share"] < audit.minimum_share]
        if small:
            shown = ", ".join(str(value)[:NAME_LENGTH] for value in small[:NAMED])
            more = f" and {len(small) - NAMED} more" if len(small) > NAMED else ""
            notices.append(
                f"{len(small)} of {len(groups)} groups of the column {name} have less than "
                f"{100 * audit.minimum_share:g} % of the rows: {shown}{more}"
            )
    return notices


def _of_dropped(
    rows: Rows, selection: Selection, summary: dict[str, Any], told: dict[str, Any], request: Request
) -> str:
    counts = [(told["findings"].get(name, 0), words) for name, words in CLEANED.items() if name != "invalid"]
    if told["findings"]["invalid"] and request.cleaning.invalid_text.value == "Drop":
        counts.append((told["findings"]["invalid"], CLEANED["invalid"]))
    counts.extend((summary["droppedFor"].get(reason, 0), words) for reason, words in DECIDED.items())
    if too_long := summary["droppedFor"][TOO_LONG]:
        limit = request.training.max_sequence_length
        longer = f"are longer than training.maxSequenceLength = {limit} tokens"
        words = f"{longer}{_raise_it(rows, selection, request)}"
        counts.append((too_long, words))
    listed = "; ".join(f"{count} {words}" for count, words in sorted(counts, key=lambda each: -each[0]) if count)
    read = rows_read(rows, told["rowsRead"], request)
    return f"{summary['dropped']} of {read} rows are dropped: {listed}"


def _raise_it(rows: Rows, selection: Selection, request: Request) -> str:
    """Return which maxSequenceLength would do, in words."""
    limit, answers = request.training.max_sequence_length, request.training.method.answers
    long = {side: each for side, each in selection.sides.items() if len(each.dropped) or len(each.truncated)}
    enough = max(length_for_most(rows, each, answers) for each in long.values())
    longest = max(each.longest for each in long.values())
    if enough <= limit:
        return f" (the longest has {longest})"
    more = f", to {longest} to keep all" if longest > enough else ""
    return f" (raise it to {enough} to keep {'99 % of them' if more else 'them'} whole{more})"


def rows_read(rows: Rows, read: int, request: Request) -> int:
    """Return how many rows were read; a conversation that became several counts as these, a pair of answers is one."""
    return read + len(rows) // request.training.method.answers - int(np.count_nonzero(rows.first))

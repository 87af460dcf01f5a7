"""The audit of what is used: rows, tokens, length, language and answers, by source, file and named columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..cleaning.languages import LANGUAGES
from ..request import Request
from ..rows import SOURCES, Rows
from .selection import SIDES, Selection, longest

Int64 = npt.NDArray[np.int64]

COLUMN = "column "
"""Before the names of columns, in the names of groups."""
MOST_GROUPS = 200
"""Of files, that are told one by one; the others are counted together."""
NAMED_LANGUAGES, NAMED_ANSWERS = 3, 5
BUCKETS = 40


def audit_of(
    rows: Rows, selection: Selection, request: Request, told: dict[str, Any], summary: dict[str, Any]
) -> dict[str, Any]:
    """Return the audit of a view of rows, as it stands in audit.json."""
    answers = request.training.method.answers
    return {
        "rowsRead": told["rowsRead"],
        "format": told["format"],
        "findings": told["findings"],
        "ignoredColumns": told["ignoredColumns"],
        "dropped": summary["droppedFor"],
        "sides": {
            side: _figures(rows, selection.sides[side].rows, answers)
            for side in SIDES
            if len(selection.sides[side].rows)
        },
        "groups": groups_of(rows, selection, request),
        "balance": summary.get("balance"),
        "notices": summary.get("notices", []),
        "lengths": histogram(longest(rows, used(selection), answers), request.training.max_sequence_length),
        "maxSequenceLength": request.training.max_sequence_length,
        "choices": request.choices,
        "near": near_figures(rows, selection),
    }


def used(selection: Selection) -> Int64:
    """Return the numbers of the rows that are used on any side, ascending."""
    return np.sort(np.concatenate([selection.sides[side].rows for side in SIDES]))


def groups_of(rows: Rows, selection: Selection, request: Request) -> dict[str, list[dict[str, Any]]]:
    """Return figures of the groups of rows that are used: by source, language, and columns that are named."""
    chosen, answers = used(selection), request.training.method.answers
    # Answers of one row stay together, in the group of the first: their languages may differ.
    firsts = np.repeat(chosen[::answers], answers)
    by: dict[str, tuple[Int64, tuple[str | None, ...]]] = {
        "source": (rows.source[firsts].astype(np.int64), SOURCES),
        "language": (rows.languages[firsts].astype(np.int64), LANGUAGES),
    }
    for name in request.columns.counted:
        by[f"{COLUMN}{name}"] = (rows.columns[name][firsts], rows.values[name])
    return {
        name: [
            {"value": "(none)" if values[code] is None else values[code], **_figures(rows, own, answers, len(chosen))}
            for code in np.unique(codes).tolist()
            for own in [chosen[codes == code]]
        ]
        for name, (codes, values) in by.items()
    }


def by_file(rows: Rows, selection: Selection, answers: int) -> list[dict[str, Any]]:
    """Return figures of the rows that are used, by the files they come from; `answers` of each row."""
    chosen = used(selection)
    names = [name.rpartition(" ")[0] for name in rows.file_names]
    order = {name: number for number, name in enumerate(dict.fromkeys(names))}
    files = np.array([order[name] for name in names], np.int64)[rows.files[chosen]]
    most = np.argsort(-np.bincount(files), kind="stable")[:MOST_GROUPS].tolist()
    listed = list(order)
    found = [{"value": listed[code], **_figures(rows, chosen[files == code], answers, len(chosen))} for code in most]
    return [each for each in found if each["rows"]]


def _figures(rows: Rows, chosen: Int64, answers: int, of: int | None = None) -> dict[str, Any]:
    lengths = rows.lengths[chosen]
    tokens, learned = int(lengths.sum()), int(rows.learned[chosen].sum())
    found = {
        "rows": len(chosen) // answers,
        "tokens": tokens,
        "supervisedTokens": learned,
        "supervisedShare": round(learned / max(1, tokens), 4),
        "medianLength": int(np.median(lengths)) if len(lengths) else 0,
        "longest": int(lengths.max(initial=0)),
        "languages": _languages(rows.languages[chosen][::answers]),
        "answers": _answers(rows, chosen),
    }
    return found if of is None else found | {"share": round(len(chosen) / max(1, of), 4)}


def _languages(codes: npt.NDArray[np.uint8]) -> list[dict[str, Any]]:
    counts = np.bincount(codes, minlength=len(LANGUAGES))
    order = np.argsort(-counts, kind="stable")[:NAMED_LANGUAGES].tolist()
    return [{"name": LANGUAGES[code], "rows": int(counts[code])} for code in order if counts[code]]


def _answers(rows: Rows, chosen: Int64) -> dict[str, Any]:
    """Return how answers are distributed: how many are distinct, and how much of the rows the commonest ones have."""
    keys = np.ascontiguousarray(rows.answers[chosen]).view("V32").ravel()
    counts = np.sort(np.unique(keys, return_counts=True)[1])[::-1]
    return {
        "distinct": len(counts),
        "commonest": [round(int(count) / max(1, len(chosen)), 4) for count in counts[:NAMED_ANSWERS]],
    }


def histogram(lengths: Int64, limit: int) -> dict[str, Any]:
    """Return how many rows have how many tokens: counts of `BUCKETS` equal steps up to the limit."""
    step = max(1, -(-limit // BUCKETS))
    counts = np.bincount(np.minimum(lengths // step, BUCKETS), minlength=BUCKETS + 1)
    return {"step": step, "counts": counts.tolist()}


def near_figures(rows: Rows, selection: Selection) -> dict[str, int] | None:
    """Return how many rows are near duplicates of another, and in how many clusters; None if not looked for."""
    if selection.alike is None:
        return None
    # What became several sequences, as a pair does, is no near duplicate of itself.
    counts = np.unique(selection.alike[rows.first], return_counts=True)[1]
    return {"clusters": int((counts > 1).sum()), "rows": int(counts[counts > 1].sum()), "largest": int(counts.max())}

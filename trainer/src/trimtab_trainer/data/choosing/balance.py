"""Groups of rows made to count alike: each row of a small group is repeated, or weighs more in the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...contract import Balance, BalanceBy
from ..fitting import Fitted
from ..rows import Rows

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Balanced:
    """Rows with their repetitions, the weight of each float32[n] if they weigh, and what was done, for the manifest."""

    fitted: Fitted
    weights: npt.NDArray[np.float32] | None
    done: dict[str, Any]


def balanced(rows: Rows, fitted: Fitted, balance: Balance, size: int = 1) -> Balanced:
    """Return the rows of one side, balanced by a column; `size` of them together are one, the two of a pair.

    A group's factor is the rows of the largest group divided by its own, at most `maximum`. A row is repeated as often
    as the factor says whole times, and once more for a part of the group: the first by identity, so that the same rows
    are chosen whatever their order.
    """
    codes = rows.columns[balance.column][fitted.rows]
    counts = np.bincount(codes, minlength=len(rows.values[balance.column]))
    factors = np.minimum(counts.max(initial=0) / np.maximum(counts, 1), balance.maximum)
    if balance.by is BalanceBy.WEIGHT:
        done = _done(rows, balance, counts // size, factors, counts // size)
        return Balanced(fitted, factors[codes].astype(np.float32), done)
    repeats = np.zeros(len(codes) // size, np.int64)
    for code in np.flatnonzero(counts).tolist():
        own = np.flatnonzero(codes[::size] == code)  # in the order of identities, as fitted rows are
        wanted = round(float(factors[code]) * len(own))
        repeats[own] = wanted // len(own)
        repeats[own[: wanted % len(own)]] += 1
    places = np.repeat(np.arange(len(codes)).reshape(-1, size), repeats, axis=0).ravel()
    again = Fitted(
        fitted.rows[places],
        fitted.lengths[places],
        fitted.dropped,
        fitted.truncated,
        fitted.longest,
    )
    now = np.bincount(codes[::size], weights=repeats, minlength=len(counts)).astype(np.int64)
    return Balanced(again, None, _done(rows, balance, counts // size, factors, now))


def _done(rows: Rows, balance: Balance, counts: Int64, factors: npt.NDArray[np.float64], now: Int64) -> dict[str, Any]:
    return {
        "column": balance.column,
        "by": balance.by.value,
        "maximum": balance.maximum,
        "groups": [
            {
                "value": value,
                "rows": int(counts[code]),
                "factor": round(float(factors[code]), 4),
                "rowsAfter": int(now[code]),
            }
            for code, value in enumerate(rows.values[balance.column])
            if counts[code]
        ],
    }

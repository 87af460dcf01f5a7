"""What guards say is read without ever raising: what is not understood is not told."""

from __future__ import annotations

from typing import Any

import pytest
from trimtab_operator.domain.adapterrollout.canary.counts import Counts, Times

NONE = {"n": 0, "sum": 0.0, "squares": 0.0}
TOLD: dict[str, Any] = {
    "requests": 9,
    "answers": 4,
    "errors": 1,
    "rejected": 2,
    "disconnected": 1,
    "running": 1,
    "first": {"n": 3, "sum": -1.5, "squares": 2.5},
    "chunk": NONE,
    "token": NONE,
    "whole": NONE,
    "of_a_later_version": {"x": 1},
}
OLD = {"requests": 3, "errors": 0, "rejected": 0, "total": {"sum": 1.0, "buckets": [3]}}


def test_counts_by_the_alias_are_read() -> None:
    counts = Counts.of({**OLD, "byAlias": TOLD})
    assert (counts.requests, counts.errors, counts.disconnected, counts.running) == (7, 1, 1, 1)
    assert (counts.seen, counts.first, counts.told) == (9, Times(3, -1.5, 2.5), True)


NOT_TOLD: dict[str, Any] = {
    "an earlier guard": OLD,
    "nothing": None,
    "text": "x",
    "a list": {"byAlias": [1]},
    "a count is missing": {"byAlias": {name: value for name, value in TOLD.items() if name != "errors"}},
    "a negative count": {"byAlias": {**TOLD, "errors": -1}},
    "a count without end": {"byAlias": {**TOLD, "errors": 10**400}},
    "a truth value": {"byAlias": {**TOLD, "errors": True}},
    "a time that is none": {"byAlias": {**TOLD, "first": {"n": 1, "sum": float("nan"), "squares": 1.0}}},
    "a sum without end": {"byAlias": {**TOLD, "first": {"n": 1, "sum": 10**400, "squares": 1.0}}},
    "times that are text": {"byAlias": {**TOLD, "first": "fast"}},
}


@pytest.mark.parametrize("body", NOT_TOLD.values(), ids=NOT_TOLD)
def test_what_is_not_understood_is_not_told(body: Any) -> None:
    assert Counts.of(body) == Counts(told=False)


def test_one_that_does_not_tell_makes_the_sum_unknown() -> None:
    told = Counts.of({"byAlias": TOLD})
    assert (told + Counts(told=False)).told is False
    assert told.since(Counts(told=False)).told is False
    assert (told + told).requests == 14


def test_what_runs_runs_now_whatever_ran_at_the_mark() -> None:
    now, mark = Counts(requests=10, disconnected=3, running=4), Counts(requests=6, disconnected=1, running=7)
    window = now.since(mark)
    assert (window.requests, window.disconnected, window.running, window.seen) == (4, 2, 4, 10)

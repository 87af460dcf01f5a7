"""What of a sweep is part of `make test`."""

from __future__ import annotations

from tests.long import LONG, first_and_last, long_unless


def test_the_first_and_the_last_of_each_kind_are_taken_once() -> None:
    assert first_and_last(["a", "b", "a", "c", "a", "b"]) == [1, 2, 4, 5, 6]
    assert first_and_last([]) == []


def test_cases_keep_their_order_and_those_that_are_not_kept_are_long() -> None:
    found = long_unless(lambda number: number % 2 == 0, range(3))
    assert [(each.values, tuple(mark.name for mark in each.marks)) for each in found] == [
        ((0,), ()),
        ((1,), (LONG.name,)),
        ((2,), ()),
    ]

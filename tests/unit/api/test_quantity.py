"""Quantities, as people and device plugins write them, and as nobody should."""

from __future__ import annotations

import pytest
from trimtab_operator.api.pods.quantity import LARGEST, count_of

COUNTS: list[tuple[object, int]] = [
    (0, 0),
    (2, 2),
    ("2", 2),
    ("2.0", 2),
    ("2.", 2),
    (".5", 1),
    ("1500m", 2),
    ("1000m", 1),
    ("1k", 1000),
    ("1Ki", 1024),
    ("1.5Gi", 1_610_612_736),
    ("1e3", 1000),
    ("1E", 10**18),
    ("2e-1", 1),
    (2.0, 2),
    ("8Ei", LARGEST),
    ("1e999", LARGEST),
    ("9" * 64, LARGEST),
]
NOTHING: list[object] = [
    *("", " ", "x", "1x", "0x10", "1 k", "-3", "-1e999", "nan", "inf", "1e9999", "1_000", "٣", "9" * 65, "1k\n"),
    *(None, [], {}, b"2", float("nan"), float("inf"), -1),
]


@pytest.mark.parametrize(("quantity", "count"), COUNTS, ids=repr)
def test_a_quantity_is_a_whole_number_rounded_up(quantity: object, count: int) -> None:
    assert count_of(quantity) == count


@pytest.mark.parametrize("quantity", NOTHING, ids=repr)
def test_what_is_no_quantity_counts_as_nothing_and_raises_nothing(quantity: object) -> None:
    assert count_of(quantity) == 0

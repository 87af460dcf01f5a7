"""What of a sweep is part of `make test`, and that the weekly workflow has all of every sweep."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tests.long import LONG, first_and_last, long_unless

ROOT = Path(__file__).parents[2]
OWN = Path(__file__).relative_to(ROOT)


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


def test_each_file_with_a_sweep_is_in_one_part_of_the_weekly_workflow_and_no_part_is_without() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/long.yaml").read_text())
    parts = workflow["jobs"]["sweeps"]["strategy"]["matrix"]["part"]
    files = [file.relative_to(ROOT) for file in (ROOT / "tests").rglob("test_*.py")]
    swept = [
        file
        for file in files
        if file != OWN and re.search(r"^from tests\.long import", (ROOT / file).read_text(), re.M)
    ]
    placed = {str(file): [part for part in parts if file.is_relative_to(part)] for file in swept}
    assert all(len(found) == 1 for found in placed.values()), placed
    assert {part for (part,) in placed.values()} == set(parts)

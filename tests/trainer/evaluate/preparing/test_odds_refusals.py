"""Equalised odds of rows that are too few: known from labels and groups alone, before a model is asked."""

from __future__ import annotations

from typing import Any

import pytest
from trimtab_trainer.contract import Reason
from trimtab_trainer.errors import DataInvalid

from tests.trainer.evaluate.bench import EvaluationBench, chat

BOUND = {"metric": "task/accuracy", "maximumOddsGap": 0.1, "minimumGroupRows": 10}


def labelled(bench: EvaluationBench, counts: dict[tuple[str, str], int], labels: list[str], **bound: Any) -> None:
    """Ask for rows of so many of each label and group, no two alike."""
    rows = [
        chat(f"What is number {group} {number}?", label, kind=group)
        for (label, group), count in counts.items()
        for number in range(count)
    ]
    bench.task("Classification", rows, labels=labels, groupBy="kind")
    bench.document["thresholds"] = [{**BOUND, **bound}]


def refusal(bench: EvaluationBench) -> str:
    with pytest.raises(DataInvalid) as caught:
        bench.prepare()
    assert caught.value.reason is Reason.GROUP_MISSING
    assert not bench.output.list("evaluations/")
    return caught.value.message


def test_cells_that_are_all_too_small_are_refused_with_the_nearest_and_how_many_rows_it_lacks(
    bench: EvaluationBench,
) -> None:
    counts = {("yes", "a"): 14, ("yes", "b"): 7, ("no", "a"): 9, ("no", "b"): 6}
    labelled(bench, counts, ["yes", "no"])
    assert refusal(bench) == (
        "task task: maximumOddsGap needs two groups of at least 10 rows and 5 clusters that a rate of one label is of; "
        "nearest is truePositiveRate of yes, with a (14 rows in 14 clusters), b (7 rows in 7 clusters), which lacks 3 "
        "rows of clusters of their own; add rows, raise dataset.limit, or lower minimumGroupRows"
    )


def test_of_three_labels_the_rows_of_two_that_are_not_the_third_may_be_enough(bench: EvaluationBench) -> None:
    """No label has two groups of ten rows; each has them of the rows where it is wrong."""
    labels = ["red", "green", "blue"]
    labelled(bench, {(label, group): 7 for label in labels for group in ("a", "b")}, labels)
    (warning,) = bench.prepare().warnings
    assert warning == (
        "task task: maximumOddsGap promises nothing of truePositiveRate of red, truePositiveRate of green, "
        "truePositiveRate of blue: no two groups have 10 rows and 5 clusters of each; add rows, or lower "
        "minimumGroupRows"
    )


def test_groups_that_are_pooled_count_together(bench: EvaluationBench) -> None:
    counts = {(label, group): 6 for label in ("yes", "no") for group in ("b", "c")}
    labelled(bench, counts | {("yes", "a"): 12, ("no", "a"): 12}, ["yes", "no"])
    assert bench.prepare().warnings == ()


def test_a_label_that_no_row_has_is_warned_of_and_the_others_are_compared(bench: EvaluationBench) -> None:
    counts = {(label, group): 12 for label in ("yes", "no") for group in ("a", "b")}
    labelled(bench, counts, ["yes", "no", "never"])
    (warning,) = bench.prepare().warnings
    assert "of truePositiveRate of never: " in warning
    assert bench.said("prepared with a warning")


def test_rows_enough_of_too_few_clusters_are_refused(bench: EvaluationBench) -> None:
    rows = [
        {**chat(f"What is number {group} {number}?", "yes", kind=group), "group": f"{group}{number % 2}"}
        for group in ("a", "b")
        for number in range(20)
    ]
    more = [chat(f"What else is number {group} {number}?", "no", kind=group) for group in "ab" for number in range(5)]
    bench.task("Classification", [*rows, *more], labels=["yes", "no"], groupBy="kind")
    bench.document["thresholds"] = [BOUND]
    message = refusal(bench)
    assert "truePositiveRate of yes, with a (20 rows in 2 clusters), b (20 rows in 2 clusters)" in message
    assert "lacks 6 rows" in message


def test_other_bounds_ask_nothing_of_labels(bench: EvaluationBench) -> None:
    counts = {("yes", "a"): 14, ("yes", "b"): 7, ("no", "a"): 9, ("no", "b"): 6}
    labelled(bench, counts, ["yes", "no"])
    bench.document["thresholds"] = [{"metric": "task/accuracy", "maximumGroupGap": 0.1, "minimumGroupRows": 10}]
    assert bench.prepare().warnings == ()

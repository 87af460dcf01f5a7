"""Equalised odds as a bound: what chance explains of many labels' rates is no gap, and a gap of one of them is one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from trimtab_trainer.contract import Check, EvaluationOutcome, Threshold
from trimtab_trainer.contract.gate.verdict import VerdictReason, judge
from trimtab_trainer.evaluate.comparison import compare
from trimtab_trainer.evaluate.rows import RowScore

from tests.trainer.evaluate.scored import about, choice_rows, choice_scores, task

BOUND = {"metric": "t/accuracy", "maximumOddsGap": 0.1, "minimumGroupRows": 20, "confidence": 0.95}


def threshold(**bound: Any) -> Threshold:
    return Threshold.model_validate({name: value for name, value in (BOUND | bound).items() if value is not None})


def checked(answers: list[int], groups: list[str], scores: list[RowScore], labels: list[str], **bound: Any) -> Check:
    asked = task("Classification", labels=labels, groupBy="group")
    rows = choice_rows(answers, labels, groups)
    thresholds = [(0, threshold(**bound))]
    _, checks = compare(asked, about(len(rows)), rows, scores, None, thresholds, seed=17, resamples=1_000)
    (check,) = checks
    return check


def verdict(check: Check, **bound: Any) -> tuple[bool, VerdictReason, str]:
    facts = {"reportUri": "s3://o/r", "resultsDigest": "sha256:" + "a" * 64, "rows": 1, "results": []}
    outcome = EvaluationOutcome.model_validate({**facts, "checks": [check]})
    found = judge([threshold(**bound)], EvaluationOutcome.unpack(outcome.pack(4_000)))
    return found.passed, found.reason, found.message


def unequal() -> tuple[list[int], list[str], list[RowScore]]:
    """Return answers, groups and scores: of one group it says yes too often, of the other no; both right as often."""
    answers = [number % 2 for number in range(800)]
    groups = ["a" if number < 400 else "b" for number in range(800)]
    said = [
        (0 if group == "a" else 1) if number % 5 == 0 else answer
        for number, (answer, group) in enumerate(zip(answers, groups, strict=True))
    ]
    return answers, groups, choice_scores(said, choices=2)


def test_odds_that_differ_do_not_pass_though_the_accuracy_is_the_same() -> None:
    check = checked(*unequal(), ["no", "yes"])
    assert check.estimate == pytest.approx(0.2)
    assert check.low is not None
    assert 0.1 < check.low < 0.2
    passed, reason, message = verdict(check)
    assert (passed, reason) == (False, VerdictReason.GROUP_GAP)
    assert message.startswith("truePositiveRate of ")
    assert "in t differs by 0.2 between the groups" in message
    of_accuracy: dict[str, Any] = {"maximumOddsGap": None, "maximumGroupGap": 0.1}
    answers, groups, scores = unequal()
    same = checked(answers, groups, scores, ["no", "yes"], **of_accuracy)
    assert verdict(same, **of_accuracy)[0], "the accuracy alone shows nothing"


def test_chance_alone_is_no_gap_however_many_labels_there_are() -> None:
    """Ten labels have twenty rates: each held to 0.95 by itself, half of the draws would be found to differ."""
    random, draws, found = np.random.default_rng(8), 30, 0
    for _ in range(draws):
        answers = random.integers(0, 10, 900)
        said = np.where(random.random(900) < 0.7, answers, random.integers(0, 10, 900))
        groups = [f"g{number % 3}" for number in range(900)]
        labels = [f"label {number}" for number in range(10)]
        scores = choice_scores(said.tolist(), choices=10)
        check = checked(answers.tolist(), groups, scores, labels, maximumOddsGap=0.0)
        assert check.low is not None
        found += check.low > 0
    print(f"{found} of {draws} draws of equal odds differ beyond chance")
    assert found <= 4


def test_rates_of_too_few_rows_are_not_compared_and_without_any_nothing_is_known() -> None:
    answers = [0] * 200 + [1] * 12
    groups = ["a", "b"] * 106
    scores = choice_scores([0] * 200 + [1 if number % 2 else 0 for number in range(12)], choices=3)
    labels = ["often", "seldom", "never"]
    check = checked(answers, groups, scores, labels)
    assert check.figure is not None
    assert check.figure != "truePositiveRate of seldom", "of six rows a group"
    assert check.low == 0
    unknown = checked(answers, groups, scores, labels, minimumGroupRows=150)
    assert unknown.estimate is None
    assert verdict(unknown)[:2] == (False, VerdictReason.METRIC_MISSING)


def test_a_prediction_that_is_not_known_leaves_nothing_known() -> None:
    answers, groups, scores = unequal()
    scores[3] = replace(scores[3], log_likelihoods=(float("nan"), -1.0))
    assert checked(answers, groups, scores, ["no", "yes"]).estimate is None

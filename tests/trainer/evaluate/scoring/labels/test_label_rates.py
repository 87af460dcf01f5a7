"""The rates of labels: those of scikit-learn's confusion matrices, and by group with their gap."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import multilabel_confusion_matrix
from trimtab_trainer.evaluate.comparison import compare
from trimtab_trainer.evaluate.scoring.labels.label_rates import RATED_LABELS, label_rates

from tests.trainer.evaluate.scored import LABELS, about, choice_rows, choice_scores, task


def test_rates_are_those_of_the_confusion_matrix_of_each_label() -> None:
    random = np.random.default_rng(3)
    answers, said = random.integers(0, len(LABELS), 300), random.integers(0, len(LABELS), 300)
    rows = choice_rows(answers.tolist())
    true_rates, false_rates = label_rates(
        task("Classification", labels=list(LABELS)), rows, choice_scores(said.tolist())
    )
    found = [each.values(each.statistics.sum(axis=0)) for each in (true_rates, false_rates)]
    for at, ((true_no, false_yes), (false_no, true_yes)) in enumerate(multilabel_confusion_matrix(answers, said)):
        assert found[0][at] == pytest.approx(true_yes / (true_yes + false_no))
        assert found[1][at] == pytest.approx(false_yes / (false_yes + true_no))
    assert true_rates.results == tuple(f"truePositiveRate of {label}" for label in LABELS)
    assert not true_rates.lower_is_better
    assert false_rates.lower_is_better


def test_of_many_labels_those_with_the_most_rows_are_told() -> None:
    labels = [f"label {number}" for number in range(15)]
    answers = [number for number in range(15) for _ in range(1 + number)]
    asked = task("Classification", labels=labels)
    rows = choice_rows(answers, labels)
    rates = label_rates(asked, rows, choice_scores(answers, choices=15))
    assert rates[0].results == tuple(f"truePositiveRate of {label}" for label in labels[-RATED_LABELS:])


def test_a_model_that_errs_for_one_group_alone_has_a_gap_that_its_accuracy_hides() -> None:
    """Of one group it says yes too often, of the other no: both are right as often."""
    answers = [number % 2 for number in range(800)]
    groups = ["a" if number < 400 else "b" for number in range(800)]
    said = [
        (0 if group == "a" else 1) if number % 5 == 0 else answer
        for number, (answer, group) in enumerate(zip(answers, groups, strict=True))
    ]
    labels = list(LABELS[:2])
    asked = task("Classification", labels=labels, groupBy="group")
    rows = choice_rows(answers, labels, groups)
    found, _ = compare(asked, about(800), rows, choice_scores(said, choices=2), None, [], seed=17, resamples=1_000)
    tables = {each.metric: each for each in found.groups}
    accuracy, odds = tables["accuracy"], tables[f"truePositiveRate of {labels[0]}"]
    assert accuracy.gap_low == 0
    assert accuracy.gap == pytest.approx(0.0)
    assert odds.gap == pytest.approx(0.2)
    assert odds.gap_low is not None
    assert odds.gap_low > 0.1
    assert odds.worst == "b"
    false_rate = tables[f"falsePositiveRate of {labels[0]}"]
    assert (false_rate.worst, false_rate.lower_is_better) == ("a", True)

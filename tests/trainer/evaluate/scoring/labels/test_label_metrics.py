"""Metrics of labels equal scikit-learn, also on predictions that nobody wants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sklearn
from trimtab_trainer.evaluate.rows import RowScore, Sequence
from trimtab_trainer.evaluate.scoring.metrics import measures

from tests.trainer.evaluate.scored import (
    LABELS,
    choice_rows,
    choice_scores,
    figures,
    row,
    task,
    text_scores,
)

EXACT = 1e-9


def labels(seed: int, count: int, high: int = len(LABELS)) -> list[int]:
    return [int(each) for each in np.random.default_rng(seed).integers(0, high, count)]


CLASSES: dict[str, tuple[list[int], list[int]]] = {
    "random": (labels(1, 300), labels(2, 300)),
    "mostly right": (labels(3, 300), [a if i % 5 else 0 for i, a in enumerate(labels(3, 300))]),
    "a label that no row has": (labels(4, 50, 2), labels(5, 50, 2)),
    "a single class": ([1] * 20, [1] * 20),
    "all wrong": ([0] * 20, [1] * 20),
    "one row": ([2], [2]),
    "perfect, and a label that no row has": (labels(8, 40, 2), labels(8, 40, 2)),
    "a label that is predicted only": ([0, 1] * 10, [0, 2] * 10),
}


@pytest.mark.parametrize("name", CLASSES)
def test_classification_is_that_of_scikit_learn(name: str) -> None:
    answers, chosen = CLASSES[name]
    found = figures(measures(task("Classification"), choice_rows(answers), choice_scores(chosen)))
    want = _by_scikit_learn(answers, chosen)
    assert found.keys() - want.keys() == {"brierScore", "calibrationError"}
    assert {name: found[name] for name in want} == pytest.approx(want, EXACT, EXACT)


def test_an_answer_that_is_no_label_is_a_wrong_class_that_is_never_right() -> None:
    answers = labels(6, 60)
    texts = [LABELS[a] if i % 3 else "banana" for i, a in enumerate(labels(7, 60))]
    settings = task("Classification", predictBy="Generation")
    found = figures(measures(settings, choice_rows(answers), text_scores(texts)))
    chosen = [LABELS.index(each) if each in LABELS else 99 for each in texts]
    assert found == pytest.approx(_by_scikit_learn(answers, chosen), EXACT, EXACT)


def _by_scikit_learn(answers: list[int], chosen: list[int]) -> dict[str, float]:
    want = {"accuracy": float(sklearn.accuracy_score(answers, chosen))}
    there = sorted({*answers, *chosen} & set(range(len(LABELS))))
    for average in ("macro", "micro"):
        precision, recall, f1, _ = sklearn.precision_recall_fscore_support(
            answers, chosen, labels=there, average=average, zero_division=0
        )
        ending = average.capitalize()
        want |= {f"precision{ending}": precision, f"recall{ending}": recall, f"f1{ending}": f1}
    return want


def test_normalised_accuracy_divides_by_characters() -> None:
    choices = ("no", "a much longer choice")
    sequences = tuple(Sequence((1, 2), ((1, 2),), len(each), len(each)) for each in choices)
    rows = [row(0, choices=choices, sequences=sequences, answer=1)]
    scores = [RowScore(0, log_likelihoods=(-2.0, -5.0))]
    settings = task("MultipleChoice", metrics=["Accuracy", "AccuracyNormalized"])
    assert figures(measures(settings, rows, scores)) == {"accuracy": 0.0, "accuracyNormalized": 1.0}


def test_rows_of_a_multiple_choice_task_may_have_different_numbers_of_choices() -> None:
    rows = [choice_rows([1], ("a", "b"))[0], row(1, **_choices(("a", "b", "c", "d"), 3))]
    scores = [RowScore(0, log_likelihoods=(-2.0, -1.0)), RowScore(1, log_likelihoods=(-2.0, -1.0, -3.0, -4.0))]
    assert figures(measures(task("MultipleChoice"), rows, scores))["accuracy"] == 0.5


def _choices(names: tuple[str, ...], answer: int) -> dict[str, Any]:
    sequences = tuple(Sequence((1, 2), ((1, 2),), 1, 1) for _ in names)
    return {"choices": names, "sequences": sequences, "answer": answer}


def test_a_model_to_which_all_choices_are_as_likely_is_right_in_none() -> None:
    """Where the right answer is listed first, the first of equals would be right in all."""
    rows = choice_rows([0] * 40)
    tied = [replace(each, log_likelihoods=(-2.0,) * len(each.log_likelihoods)) for each in choice_scores([0] * 40)]
    for kind, metric in (("Classification", "Accuracy"), ("MultipleChoice", "Accuracy"), ("Classification", "F1")):
        (measure, *_) = measures(task(kind, metrics=[metric]), rows, tied)
        assert measure.values(measure.statistics.astype(np.float64).sum(axis=0))[0] == 0

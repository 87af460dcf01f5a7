"""Pairs of rows that differ in a group's word: which are pairs, and when their answers differ."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from trimtab_trainer.contract import EvaluationTask, Threshold
from trimtab_trainer.evaluate.comparison import compare
from trimtab_trainer.evaluate.rows import EvaluationRow, RowScore
from trimtab_trainer.evaluate.scoring.groups.counterfactuals import pairs_of
from trimtab_trainer.evaluate.scoring.measure import Measure
from trimtab_trainer.evaluate.scoring.metrics import measures

from tests.trainer.evaluate.scored import about, choice_rows, choice_scores, task, text_rows, text_scores


def paired(rows: list[EvaluationRow], *pairs: str | None) -> list[EvaluationRow]:
    """Return rows of these pairs, each a cluster."""
    order = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
    return [replace(row, pair=pair, cluster=order[pair]) for row, pair in zip(rows, pairs, strict=True)]


def changed(of: EvaluationTask, rows: list[EvaluationRow], scores: list[RowScore]) -> Measure:
    """Return the measure of the pairs."""
    (found,) = (each for each in measures(of, rows, scores) if each.results == ("changedRatio",))
    return found


def share(measure: Measure) -> float:
    return float(measure.values(measure.statistics.sum(axis=0))[0])


def test_two_rows_or_more_of_a_value_are_a_pair() -> None:
    rows = paired(text_rows(["x"] * 7), "a", "b", "a", None, "c", "b", "a")
    assert pairs_of(rows) == [[0, 2, 6], [1, 5]], "c stands alone, and None is no value"


def test_decisions_differ_whatever_is_right() -> None:
    rows = paired(choice_rows([0, 0, 1, 1, 2]), "a", "a", "b", "b", None)
    same_but_wrong = changed(task("Classification", pairs="p"), rows, choice_scores([1, 1, 0, 1, 2]))
    assert share(same_but_wrong) == 0.5
    assert same_but_wrong.taken is not None
    assert same_but_wrong.taken.tolist() == [0, 2]
    one_differs = changed(task("Classification", pairs="p"), rows, choice_scores([0, 1, 0, 1, 2]))
    assert share(one_differs) == 1.0


def test_choices_are_told_apart_by_their_text_not_by_their_place() -> None:
    left = choice_rows([0], choices=("yes", "no"))
    right = [replace(row, number=1) for row in choice_rows([0], choices=("no", "yes"))]
    rows = paired([*left, *right], "a", "a")
    of = task("MultipleChoice", pairs="p", dataset={"uri": "file:///rows.jsonl"})
    assert share(changed(of, rows, choice_scores([0, 1], choices=2))) == 0.0
    assert share(changed(of, rows, choice_scores([0, 0], choices=2))) == 1.0


@pytest.mark.parametrize(
    ("kind", "texts", "differs"),
    [
        ("Generation", ["Yes,  it is.", "Yes, it is."], 0.0),
        ("Generation", ["Yes", "No"], 1.0),
        ("Generation", ["Größe", "Gro\u0308ße"], 0.0),
        ("Regression", ["about 12", "12.0"], 0.0),
        ("Regression", ["12", "13"], 1.0),
        ("Regression", ["12", "none"], 1.0),
        ("Regression", ["nothing", "none"], 1.0),
        ("Generation", ["", " \n"], 1.0),
        ("Refusal", ["", ""], 1.0),
        ("Generation", ["<think>\n\n</think>\n"] * 2, 1.0),
        ("Refusal", ["<think>I cannot help.</think>"] * 2, 1.0),
        ("Refusal", ["I can't help with that.", "I'm sorry, but no."], 0.0),
        ("Refusal", ["I can't help with that.", "Of course: like this."], 1.0),
    ],
)
def test_answers_are_compared_by_what_they_decide(kind: str, texts: list[str], differs: float) -> None:
    rows = [replace(row, number_reference=1.0, refuse=True) for row in text_rows(["x", "x"])]
    of = task(kind, pairs="p", dataset={"uri": "file:///rows.jsonl"})
    assert share(changed(of, paired(rows, "a", "a"), text_scores(texts))) == differs


def test_a_model_that_decides_nothing_is_fair_to_no_pair() -> None:
    rows = paired(choice_rows([0, 0]), "a", "a")
    tied = [replace(each, log_likelihoods=(-2.0,) * 3) for each in choice_scores([0, 0])]
    assert share(changed(task("Classification", pairs="p"), rows, tied)) == 1.0
    in_words = task("Classification", pairs="p", predictBy="Generation")
    assert share(changed(in_words, rows, text_scores(["banana", "banana"]))) == 1.0
    written = task("Generation", pairs="p", metrics=["ChangedRatio"])
    assert share(changed(written, rows, text_scores(["\u200b", "\u200b"]))) == 1.0


def test_a_decision_that_is_unknown_makes_the_figure_unknown() -> None:
    rows = paired(choice_rows([0, 0, 1, 1]), "a", "a", "b", "b")
    scores = choice_scores([0, 0, 1, 1])
    scores[3] = RowScore(3, log_likelihoods=(math.nan, -1.0, -1.0))
    assert math.isnan(share(changed(task("Classification", pairs="p"), rows, scores)))


def test_pairs_are_what_is_drawn_and_a_threshold_is_held_against_them() -> None:
    random = np.random.default_rng(3)
    pairs = [f"p{n // 2}" for n in range(400)]
    rows = paired(choice_rows([0] * 400), *pairs)
    differing = random.random(200) < 0.1
    chosen = [int(differing[n // 2]) if n % 2 else 0 for n in range(400)]
    bound = Threshold.model_validate({"metric": "t/changedRatio", "maximum": 0.2, "confidence": 0.95})
    of = task("Classification", pairs="p")
    results, checks = compare(of, about(400), rows, choice_scores(chosen), None, [(0, bound)], seed=1, resamples=1000)
    (found,) = (each for each in results.results if each.metric == "changedRatio")
    assert found.value == pytest.approx(differing.mean())
    assert found.count == 200
    assert found.low is not None
    assert found.high is not None
    half = 1.96 * math.sqrt(differing.mean() * (1 - differing.mean()) / 200)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.25), "of 200 pairs, not of 400 rows"
    assert checks[0].p_pass is not None
    assert checks[0].p_pass < 0.01


def test_it_is_no_default_without_pairs_and_needs_them_by_name() -> None:
    assert "ChangedRatio" not in [str(each) for each in task("Classification").chosen_metrics]
    with pytest.raises(ValueError, match="pairs and the metric ChangedRatio need each other"):
        task("Classification", metrics=["ChangedRatio"])
    with pytest.raises(ValueError, match=r"pairs needs dataset\.uri, all of its rows"):
        task("Generation", pairs="p", temperature=0.5)
    with pytest.raises(ValueError, match="pairs is for the type"):
        task("Perplexity", pairs="p")

"""Each metric equals the library that defines it, also on predictions that nobody wants."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sklearn
from trimtab_trainer.evaluate.rows import RowScore
from trimtab_trainer.evaluate.scoring.metrics import measures

from tests.trainer.evaluate.scored import (
    LABELS,
    choice_rows,
    choice_scores,
    figures,
    likelihood_rows,
    likelihood_scores,
    row,
    task,
    text_rows,
    text_scores,
)

EXACT = 1e-9


def test_perplexity_weighs_tokens_and_bits_weigh_bytes() -> None:
    tokens, likelihoods = [1, 10, 3], [-4.0, -11.0, -0.5]
    found = figures(measures(task("Perplexity"), likelihood_rows(tokens), likelihood_scores(likelihoods)))
    want = {"perplexity": math.exp(15.5 / 14), "bitsPerByte": 15.5 / math.log(2) / (14 * 4)}
    assert found == pytest.approx(want, EXACT, EXACT)


def test_numbers_are_compared_where_there_are_any() -> None:
    references, texts = [1.0, -2.5, 1000.0, 7.0], ["It is 3", "-2", "about 1,010.5 rows", "none"]
    rows = [row(at, number_reference=value) for at, value in enumerate(references)]
    found = figures(measures(task("Regression"), rows, text_scores(texts)))
    parsed = [3.0, -2.0, 1010.5]
    assert found == pytest.approx(
        {
            "meanAbsoluteError": sklearn.mean_absolute_error(references[:3], parsed),
            "meanSquaredError": sklearn.mean_squared_error(references[:3], parsed),
            "unparsableRatio": 0.25,
            "truncatedRatio": 0.0,
            "tokensPerAnswer": 3.0,
        },
        EXACT,
        EXACT,
    )


def test_an_error_of_no_row_is_unknown() -> None:
    rows = [row(0, number_reference=1.0)]
    found = figures(measures(task("Regression"), rows, text_scores(["no idea"])))
    assert math.isnan(found["meanAbsoluteError"])
    assert found["unparsableRatio"] == 1.0


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("kind", ["Perplexity", "Classification", "MultipleChoice"])
def test_a_likelihood_that_is_no_number_makes_every_figure_unknown(kind: str, value: float) -> None:
    if kind == "Perplexity":
        rows, scores = likelihood_rows([3, 4]), likelihood_scores([-3.0, value])
    else:
        rows, scores = choice_rows([0, 1]), [*choice_scores([0]), RowScore(1, log_likelihoods=(value, -1.0, -2.0))]
    found = figures(measures(task(kind), rows, scores))
    assert found
    assert all(math.isnan(each) for each in found.values())


def test_harness_figures_are_means_in_the_order_they_are_named() -> None:
    scores = [RowScore(0, figures={"acc": 1.0, "ppl": 3.0}), RowScore(1, figures={"acc": 0.0, "ppl": 5.0})]
    found = measures(task("Harness"), [row(0), row(1)], scores, lower_is_better={"ppl": True, "acc": False})
    assert figures(found) == {"ppl": 4.0, "acc": 0.5}
    assert [(each.lower_is_better, each.range) for each in found] == [(True, None), (False, (0.0, 1.0))]


def test_a_harness_figure_that_a_row_lacks_is_unknown() -> None:
    scores = [RowScore(0, figures={"acc": 1.0}), RowScore(1, figures={})]
    found = figures(measures(task("Harness"), [row(0), row(1)], scores, lower_is_better={"acc": False}))
    assert math.isnan(found["acc"])


MISMATCHES: dict[str, tuple[str, list[Any], list[Any], str]] = {
    "no rows": ("Perplexity", [], [], "not those of its 0 rows"),
    "a score too few": ("Perplexity", likelihood_rows([1, 2]), likelihood_scores([-1.0]), "1 scores are not"),
    "another order": ("Perplexity", likelihood_rows([1, 2]), likelihood_scores([-1, -2])[::-1], "in order"),
    "no text": ("Generation", text_rows(["a"]), likelihood_scores([-1.0]), "without a generated text"),
    "no number": ("Regression", text_rows(["a"]), text_scores(["1"]), "no number to compare with"),
    "no answer": ("Classification", [row(0, choices=LABELS)], choice_scores([0]), "without a right answer"),
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_scores_of_other_rows_are_refused(name: str) -> None:
    kind, rows, scores, message = MISMATCHES[name]
    with pytest.raises(ValueError, match=message):
        measures(task(kind), rows, scores)


@pytest.mark.parametrize("kind", ["Generation", "Regression"])
def test_answers_that_were_cut_off_are_counted(kind: str) -> None:
    rows = [row(at, number_reference=1.0, reference="1") for at in range(4)]
    scores = [RowScore(at, text="1", stopped=at > 0) for at in range(4)]
    assert figures(measures(task(kind), rows, scores))["truncatedRatio"] == 0.25


def test_answers_with_a_form_are_what_they_are() -> None:
    tools = json.dumps({"ping": "{}"})
    rows = [row(at, schema=tools, calls='[["ping",{}]]') for at in range(3)]
    found = figures(measures(task("ToolCalls"), rows, text_scores(['{"name": "ping"}', "no", "{"])))
    shares = {"exactMatch": 1 / 3, "validRatio": 1 / 3, "nameAccuracy": 1 / 3, "argumentsAccuracy": 1 / 3}
    assert found == pytest.approx(shares | {"truncatedRatio": 0.0, "tokensPerAnswer": 7 / 3}, EXACT)

    rows = [row(at, reference='{"a": 1}', schema='{"type": "object"}') for at in range(4)]
    texts = ['{"a": 1.0}', '{"a": 2}', "[]", "words"]
    found = figures(measures(task("JsonSchema", metrics=["ValidRatio", "ExactMatch"]), rows, text_scores(texts)))
    assert found == pytest.approx({"validRatio": 0.5, "exactMatch": 0.25}, EXACT)
    of_task = task("JsonSchema", metrics=["ValidRatio"], jsonSchema='{"type": "array"}')
    assert figures(measures(of_task, rows, text_scores(texts))) == pytest.approx({"validRatio": 0.25}, EXACT)

    found = figures(measures(task("Regex", metrics=["MatchRatio"]), text_rows(["1"] * 2), text_scores(["is 7", "is"])))
    assert found == pytest.approx({"matchRatio": 0.5}, EXACT)


@pytest.mark.parametrize("kind", ["ToolCalls", "JsonSchema"])
def test_rows_of_another_task_are_no_rows_of_this_one(kind: str) -> None:
    with pytest.raises(ValueError, match=r"to (compare with|check against)"):
        measures(task(kind), text_rows(["1"]), text_scores(["1"]))


def test_seconds_are_told_where_they_were_measured_and_unknown_elsewhere() -> None:
    rows, timed = text_rows(["1"] * 2), task("Regex", metrics=["SecondsPerAnswer", "TokensPerAnswer"])
    scores = [RowScore(at, text="1", tokens=2, seconds=0.5 + at) for at in range(2)]
    assert timed.timed
    assert not task("Regex").timed
    assert figures(measures(timed, rows, scores)) == pytest.approx({"secondsPerAnswer": 1.0, "tokensPerAnswer": 2.0})
    untimed = figures(measures(timed, rows, text_scores(["1", "2 3"])))
    assert math.isnan(untimed["secondsPerAnswer"])
    assert untimed["tokensPerAnswer"] == 2.5


def test_a_judges_figures_are_of_the_rows_that_have_them() -> None:
    judging = {"instructions": "Prefer what is right."}
    asked = task("Judge", judging=judging, metrics=["WinRate", "InconsistentRatio", "Agreement"])
    of_rows = [
        {"winRate": 1.0, "agreement": 1.0},
        {"winRate": 0.5},
        {"winRate": 0.0, "agreement": 0.0},
        {"winRate": 1.0},
    ]
    scores = [RowScore(at, text="", figures={"inconsistentRatio": 0.25} | each) for at, each in enumerate(of_rows)]
    found = measures(asked, text_rows([""] * 4), scores)
    assert figures(found) == pytest.approx({"winRate": 0.625, "inconsistentRatio": 0.25, "agreement": 0.5})
    assert [each.lower_is_better for each in found] == [False, True, False]
    assert [each.range for each in found] == [(0.0, 1.0), (1.0, 0.0), (0.0, 1.0)]
    agreement = found[-1]
    assert agreement.taken is not None
    assert agreement.taken.tolist() == [0, 2]
    assert agreement.among(np.array([2, 3])).tolist() == [2]
    scored = task("Judge", judging=judging | {"mode": "Rubric", "maximumScore": 7}, metrics=["JudgeScore"])
    (score,) = measures(scored, text_rows([""]), [RowScore(0, text="", figures={"judgeScore": 6.0})])
    assert score.range == (1.0, 7.0)

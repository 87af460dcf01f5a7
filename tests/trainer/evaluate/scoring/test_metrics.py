"""Each metric equals the library that defines it, also on predictions that nobody wants."""

from __future__ import annotations

import json
import math
import unicodedata
from typing import Any

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sklearn import metrics as sklearn
from trimtab_trainer.contract.evaluation import BleuTokenizer
from trimtab_trainer.evaluate.rows import RowScore, Sequence
from trimtab_trainer.evaluate.scoring.measure import Measure
from trimtab_trainer.evaluate.scoring.metrics import measures
from trimtab_trainer.evaluate.scoring.parsing import parse_label, parse_number
from trimtab_trainer.evaluate.scoring.text_metrics import bleu, bleu_statistics, chrf, chrf_statistics

from tests.trainer.evaluate.scored import (
    LABELS,
    choice_rows,
    choice_scores,
    likelihood_rows,
    likelihood_scores,
    random_texts,
    row,
    task,
    text_rows,
    text_scores,
)

EXACT = 1e-9


def figures(found: list[Measure]) -> dict[str, float]:
    """Return every figure of the rows as they are."""
    values: dict[str, float] = {}
    for each in found:
        of_all = each.values(each.statistics.astype(np.float64).sum(axis=0))
        values |= dict(zip(each.results, of_all.tolist(), strict=True))
    return values


TEXTS: dict[str, tuple[list[str], list[str]]] = {
    "random texts": (random_texts(200, 1), random_texts(200, 2)),
    "texts that are nearly right": (random_texts(50, 3), [f"{each} the end" for each in random_texts(50, 3)]),
    "all right": (random_texts(30, 4), random_texts(30, 4)),
    "all wrong": (["alpha beta gamma"] * 5, ["delta epsilon"] * 5),
    "empty answers": ([""] * 4, random_texts(4, 5)),
    "empty references": (random_texts(4, 6), [""] * 4),
    "nothing at all": (["", ""], ["", ""]),
    "one word": (["word"], ["word"]),
    "too short for four-grams": (["a b c", "d"], ["a b c", "d e"]),
    "other scripts": (["名前は何ですか", "Größe naïve", "🙂🙂"], ["名前は", "Größe", "🙂"]),
    "whitespace": (["  x \n", "\t"], ["x", " "]),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_metrics_are_those_of_their_libraries(name: str) -> None:
    texts, references = TEXTS[name]
    found = figures(measures(task("Generation"), text_rows(references), text_scores(texts)))

    rouge = RougeScorer(["rougeL"], use_stemmer=False)
    want = {
        "bleu": BLEU().corpus_score(texts, [references]).score,
        "chrF": CHRF().corpus_score(texts, [references]).score,
        "rougeL": float(
            np.mean([rouge.score(b, a)["rougeL"].fmeasure for a, b in zip(texts, references, strict=True)])
        ),
        "exactMatch": sklearn.accuracy_score([b.strip() for b in references], [a.strip() for a in texts]),
    }
    assert {key: found[key] for key in want} == pytest.approx(want, EXACT, EXACT)
    assert next(iter(found)) == "rougeL", "the headline is first"


@pytest.mark.parametrize("tokenizer", BleuTokenizer)
def test_bleu_is_sacrebleus_by_each_of_its_tokenizers(tokenizer: BleuTokenizer) -> None:
    texts = ["他们在北京看见了一只猫。", "The cat's “new” hat, isn't it?", "名前は何ですか", "a b c d e"]
    references = ["他们在北京看见一只大猫。", 'The cat\'s "new" hat is not it.', "名前は何でしたか", "a b c d f"]
    asked = task("Generation", bleuTokenizer=tokenizer.value)
    found = figures(measures(asked, text_rows(references), text_scores(texts)))
    want = BLEU(tokenize=tokenizer.value.lower()).corpus_score(texts, [references]).score
    assert found["bleu"] == pytest.approx(want, EXACT, EXACT)
    usual = BLEU().corpus_score(texts, [references]).score
    assert (found["bleu"] == pytest.approx(usual)) == (tokenizer is BleuTokenizer.MTEVAL_13A)


def test_letters_that_are_composed_in_another_way_are_the_same() -> None:
    whole = ["café crème à la carte", "Größe über alles gestern"]
    apart = [unicodedata.normalize("NFD", each) for each in whole]
    assert apart != whole
    found = figures(measures(task("Generation"), text_rows(whole), text_scores(apart)))
    assert (found["exactMatch"], found["tokenF1"]) == (1.0, 1.0)
    assert [found["chrF"], found["bleu"]] == pytest.approx([100.0, 100.0])
    assert parse_label(unicodedata.normalize("NFD", "Café"), ["café", "bar"]) == 0
    assert parse_label("café", [unicodedata.normalize("NFD", "café"), "bar"]) == 0


def test_corpus_metrics_of_many_weightings_at_once_are_those_of_each() -> None:
    texts, references = TEXTS["random texts"]
    random = np.random.default_rng(7)
    weights = random.multinomial(6, np.full(len(texts), 1 / len(texts)), size=40)
    of_bleu = bleu(weights @ bleu_statistics(texts, references))
    of_chrf = chrf(weights @ chrf_statistics(texts, references))

    for at, counts in enumerate(weights):
        drawn = np.repeat(np.arange(len(texts)), counts)
        hypotheses, right = [texts[i] for i in drawn], [references[i] for i in drawn]
        assert of_bleu[at] == pytest.approx(BLEU().corpus_score(hypotheses, [right]).score, EXACT, EXACT)
        assert of_chrf[at] == pytest.approx(CHRF().corpus_score(hypotheses, [right]).score, EXACT, EXACT)


def test_bleu_of_a_row_leaves_out_the_orders_that_it_has_not() -> None:
    texts, references = TEXTS["random texts"]
    found = bleu(bleu_statistics(texts, references), effective_order=True)
    scorer = BLEU(effective_order=True)
    want = [scorer.sentence_score(a, [b]).score for a, b in zip(texts, references, strict=True)]
    assert found == pytest.approx(want, EXACT, EXACT)


@pytest.mark.parametrize(
    ("text", "reference", "want"),
    [
        ("The cat sat.", "a cat sat", 1.0),
        ("cat", "cat sat on", 0.5),
        ("dog", "cat", 0.0),
        ("", "", 1.0),
        ("the", "a", 1.0),
        ("", "cat", 0.0),
        ("cat cat", "cat", 2 / 3),
    ],
)
def test_token_f1_compares_bags_of_words_as_squad_does(text: str, reference: str, want: float) -> None:
    found = figures(measures(task("Generation", metrics=["TokenF1"]), text_rows([reference]), text_scores([text])))
    assert found == {"tokenF1": pytest.approx(want)}


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


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", 42.0),
        ("6 * 7 = 42.", 42.0),
        ("-3.5", -3.5),
        ("\u22123", -3.0),
        ("x=-3", -3.0),
        ("on 2024-05", 5.0),
        ("1,234,567.25 bytes", 1234567.25),
        ("1,23", 23.0),
        ("12,3456", 3456.0),
        ("12 %", 12.0),
        ("$5", 5.0),
        (".5", 0.5),
        ("1e-3", 0.001),
        ("2E5 rows", 200000.0),
        ("1e999", None),
        ("", None),
        ("none, e and -", None),
        ("٣", None),
    ],
)
def test_the_last_number_of_an_answer_counts(text: str, number: float | None) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize(
    ("text", "index"),
    [("Pod", 0), (" Pod\n", 0), ("pod", None), ("JOB", 2), ("Pod.", None), ("", None)],
)
def test_a_label_is_the_whole_answer(text: str, index: int | None) -> None:
    assert parse_label(text, ("Pod", "POD", "Job")) == index


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

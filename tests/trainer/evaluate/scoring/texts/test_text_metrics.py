"""Metrics of generated text equal the libraries that define them, also on texts that nobody wants."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sklearn import metrics as sklearn
from trimtab_trainer.contract.evaluation import BleuTokenizer
from trimtab_trainer.evaluate.scoring.metrics import measures
from trimtab_trainer.evaluate.scoring.texts.text_metrics import bleu, bleu_statistics, chrf, chrf_statistics

from tests.trainer.evaluate.scored import (
    figures,
    random_texts,
    task,
    text_rows,
    text_scores,
)

EXACT = 1e-9

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

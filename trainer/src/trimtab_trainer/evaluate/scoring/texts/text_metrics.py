"""Metrics of generated text as per-row statistics, by the libraries that define them. No torch.

Exact match and token F1 are means over rows, ROUGE-L is the mean of rouge-score's F, BLEU and chrF are corpus metrics:
sacrebleu counts n-grams per row, and the value is computed from the sums of the counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ....contract.evaluation import BleuTokenizer
from ...statistics import Array

BLEU_ORDER = 4
CHRF_ORDER = 6
CHRF_BETA = 2
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(texts: Sequence[str], references: Sequence[str]) -> Array:
    """Return 1 for each text that is its reference but for whitespace at both ends, else 0; [rows]."""
    return np.array([float(a.strip() == b.strip()) for a, b in zip(texts, references, strict=True)], np.float64)


def normalized_tokens(text: str) -> list[str]:
    """Return words as SQuAD's evaluation script compares them: lower case, no ASCII punctuation, no articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def token_f1(texts: Sequence[str], references: Sequence[str]) -> Array:
    """Return SQuAD's F1 of the bags of words; 1 where both are empty, 0 where one is; [rows]."""
    return np.array([_token_f1(a, b) for a, b in zip(texts, references, strict=True)], np.float64)


def _token_f1(text: str, reference: str) -> float:
    answered, right = normalized_tokens(text), normalized_tokens(reference)
    if not answered or not right:
        return float(answered == right)
    common = (Counter(answered) & Counter(right)).total()
    if common == 0:
        return 0.0
    precision, recall = common / len(answered), common / len(right)
    return 2 * precision * recall / (precision + recall)


def rouge_l(texts: Sequence[str], references: Sequence[str]) -> Array:
    """Return rouge-score's rougeL F of each row, without stemming; [rows].

    Its words are runs of a-z and 0-9: text in other scripts has none, and scores 0 (chrF is for those).
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    return np.array(
        [scorer.score(b, a)["rougeL"].fmeasure for a, b in zip(texts, references, strict=True)],
        np.float64,
    )


def bleu_statistics(
    texts: Sequence[str], references: Sequence[str], tokenizer: BleuTokenizer = BleuTokenizer.MTEVAL_13A
) -> Array:
    """Return lengths of answer and reference, matching n-grams and n-grams by order; [rows, 2 + 2 * 4].

    sacrebleu's defaults: cased, and if no other tokenizer is named 13a.
    """
    from sacrebleu.metrics.bleu import BLEU

    # The order matters only for the score of the row, which is not used; it spares a warning per row.
    metric = BLEU(effective_order=True, tokenize=tokenizer.value.lower())
    rows = []
    for text, reference in zip(texts, references, strict=True):
        found = metric.sentence_score(text, [reference])
        rows.append([found.sys_len, found.ref_len, *found.counts, *found.totals])
    return np.array(rows, np.float64)


def bleu(sums: Array, *, effective_order: bool = False) -> Array:
    """Return BLEU (0 to 100) from sums of `bleu_statistics`, as sacrebleu does with its `exp` smoothing; [...].

    Args:
        sums: [..., 2 + 2 * 4].
        effective_order: leave out orders that the answer has no n-grams of, for single rows.
    """
    answered, reference = sums[..., 0], sums[..., 1]
    matches, totals = sums[..., 2 : 2 + BLEU_ORDER], sums[..., 2 + BLEU_ORDER :]
    with np.errstate(all="ignore"):
        brevity = np.where(answered < reference, np.exp(1 - reference / answered), 1.0)
        brevity = np.where(answered > 0, brevity, np.where(reference > 0, 0.0, 1.0))
        # Every order without a match halves the pseudo-count again (NIST mteval-v13a).
        unmatched = (matches == 0) & (totals > 0)
        halvings = np.cumsum(unmatched, axis=-1)
        precision = np.where(unmatched, 0.5**halvings, matches) * 100 / totals
        present = np.cumprod(totals > 0, axis=-1).astype(bool)
        logarithms = np.where(present, np.log(precision), 0.0).sum(axis=-1)
        orders = present.sum(axis=-1)
        complete = orders == BLEU_ORDER
        score = brevity * np.exp(logarithms / np.maximum(orders, 1))
    defined = matches.any(axis=-1) & (complete | (effective_order & (orders > 0)))
    return np.where(np.isnan(sums).any(axis=-1), np.nan, np.where(defined, score, 0.0))


def chrf_statistics(texts: Sequence[str], references: Sequence[str]) -> Array:
    """Return character n-grams of answer, of reference, and in both, by order; [rows, 3 * 6]."""
    from sacrebleu.metrics.chrf import CHRF

    # sacrebleu's own bootstrap uses these statistics; its public scores do not hold them.
    rows = CHRF(char_order=CHRF_ORDER, beta=CHRF_BETA)._extract_corpus_statistics(list(texts), [list(references)])
    return np.array(rows, np.float64)


def chrf(sums: Array) -> Array:
    """Return chrF2 (0 to 100) from sums of `chrf_statistics`, as sacrebleu does; [...]."""
    answered, reference, matches = sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]
    both = (answered > 0) & (reference > 0)
    factor = CHRF_BETA**2
    with np.errstate(all="ignore"):
        orders = np.maximum(both.sum(axis=-1), 1)
        precision = np.where(both, matches / answered, 0.0).sum(axis=-1) / orders
        recall = np.where(both, matches / reference, 0.0).sum(axis=-1) / orders
        score = 100 * (1 + factor) * precision * recall / (factor * precision + recall)
    score = np.where(precision + recall > 0, score, 0.0)
    return np.where(np.isnan(sums).any(axis=-1), np.nan, score)

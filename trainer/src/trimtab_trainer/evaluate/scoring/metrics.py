"""Metrics: per-row sufficient statistics, and the figure that sums of them give. No torch.

Resampling draws rows, so a metric must be recomputed from any weighting of its rows. Every metric here is a function of
sums over rows: perplexity of negative log-likelihoods and tokens, BLEU of n-gram counts, macro F1 of true positives,
predictions and answers by label, a mean of values and rows. On the rows as they are each equals the figure of the
library that defines it.

A log-likelihood that is not a number (a damaged adapter) makes its row's statistics, and every sum with that row, NaN:
the figure is then unknown, never quietly that of the other rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...contract import EvaluationTask, Metric, TaskType
from ...contract.evaluation import (
    DEFAULT_NEW_TOKENS,
    LOWER_IS_BETTER,
    OF_ANSWERS,
    OF_PROBABILITIES,
    RESULTS,
    BleuTokenizer,
)
from ..rows import EvaluationRow, RowScore
from ..statistics import Array, BrokenRow
from .groups.counterfactuals import changed_measure, decisions
from .labels.calibration import calibration
from .labels.label_metrics import choice_measure
from .measure import Measure, mean, ratio
from .pair_metrics import pair_values
from .structured.structured_metrics import STRUCTURED, structured_values
from .texts.parsing import composed, parse_number, says_nothing, written
from .texts.refusals import is_refusal
from .texts.text_metrics import bleu, bleu_statistics, chrf, chrf_statistics, exact_match, rouge_l, token_f1

NATS_OF_A_BROKEN_ROW = 1.0
"""By how much the mean likelihood of a row's tokens is worse where a model is broken for it: a perplexity times 2.7."""
BYTES_OF_A_TOKEN = 4.0
"""About as many, to count the same in bits per byte."""


def measures(
    task: EvaluationTask,
    rows: Sequence[EvaluationRow],
    scores: Sequence[RowScore],
    *,
    lower_is_better: Mapping[str, bool] | None = None,
) -> list[Measure]:
    """Return the metrics of a task, the headline first.

    Args:
        lower_is_better: of a Harness task, its metrics in their order, and whether less is better.

    Raises:
        ValueError: there are no rows, or the scores are not those of the rows.
    """
    if not rows or [row.number for row in rows] != [score.number for score in scores]:
        raise ValueError(f"task {task.name}: {len(scores)} scores are not those of its {len(rows)} rows, in order")
    if task.type is TaskType.HARNESS:
        return _harness(scores, lower_is_better)
    if Metric.CHANGED_RATIO in task.chosen_metrics:
        own = [each for each in task.chosen_metrics if each is not Metric.CHANGED_RATIO]
        found = _of_type(task, own, rows, scores)
        changed = changed_measure(rows, decisions(task, rows, scores))
        found.insert(task.chosen_metrics.index(Metric.CHANGED_RATIO), changed)
        return found
    return _of_type(task, task.chosen_metrics, rows, scores)


def _of_type(
    task: EvaluationTask, chosen: Sequence[Metric], rows: Sequence[EvaluationRow], scores: Sequence[RowScore]
) -> list[Measure]:
    """Return metrics of a task that are not those of pairs."""
    match task.type:
        case TaskType.PERPLEXITY:
            return [_likelihood(metric, rows, scores) for metric in chosen]
        case TaskType.GENERATION:
            texts, references = written(task, scores), [row.reference for row in rows]
            return [
                _written(metric, task, scores) if metric in OF_ANSWERS else _text(metric, task, texts, references)
                for metric in chosen
            ]
        case TaskType.REGRESSION:
            errors = _errors(task, rows, scores)
            return [
                _written(metric, task, scores) if metric in OF_ANSWERS else _regression(metric, errors)
                for metric in chosen
            ]
        case kind if kind in STRUCTURED:
            values = structured_values(task, rows, written(task, scores))
            return [
                _written(metric, task, scores)
                if metric in OF_ANSWERS
                else mean(RESULTS[metric][0], values[metric], range=(0.0, 1.0))
                for metric in chosen
            ]
        case TaskType.REFUSAL:
            texts = written(task, scores)
            return [
                _written(metric, task, scores) if metric in OF_ANSWERS else _refused(metric, task, rows, texts)
                for metric in chosen
            ]
        case TaskType.JUDGE:
            return [
                _written(metric, task, scores) if metric in OF_ANSWERS else _judged(metric, task, scores)
                for metric in chosen
            ]
        case TaskType.PREFERENCE:
            return [_pairs(metric, rows, scores) for metric in chosen]
        case _:
            return [
                calibration(metric, rows, scores)
                if metric in OF_PROBABILITIES
                else choice_measure(metric, task, rows, scores)
                for metric in chosen
            ]


def _likelihood(metric: Metric, rows: Sequence[EvaluationRow], scores: Sequence[RowScore]) -> Measure:
    nats = np.array([-sum(score.log_likelihoods) for score in scores], np.float64)
    nats[~np.isfinite(nats)] = np.nan
    per_byte = metric is Metric.BITS_PER_BYTE
    sizes = [sum(each.bytes if per_byte else each.counted for each in row.sequences) for row in rows]
    statistics = np.stack([nats / math.log(2) if per_byte else nats, np.array(sizes, np.float64)], axis=1)
    return Measure(
        RESULTS[metric],
        statistics,
        ratio if per_byte else _perplexity,
        "bits per byte" if per_byte else "nats per token",
        ratio(statistics)[:, 0],
        lower_is_better=True,
        broken_row=BrokenRow(
            NATS_OF_A_BROKEN_ROW / math.log(2) / BYTES_OF_A_TOKEN if per_byte else NATS_OF_A_BROKEN_ROW,
            logarithmic=not per_byte,
        ),
        weights=statistics[:, 1],
        least=0.0 if per_byte else 1.0,
    )


def _perplexity(sums: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.exp(ratio(sums))


def _text(metric: Metric, task: EvaluationTask, answers: list[str], right: list[str]) -> Measure:
    (name,) = RESULTS[metric]
    texts, references = list(map(composed, answers)), list(map(composed, right))
    if metric is Metric.BLEU:
        statistics = bleu_statistics(texts, references, task.bleu_tokenizer or BleuTokenizer.MTEVAL_13A)
        by_row = bleu(statistics, effective_order=True)
        return _corpus(name, statistics, bleu, by_row)
    if metric is Metric.CHRF:
        statistics = chrf_statistics(texts, references)
        return _corpus(name, statistics, chrf, chrf(statistics))
    by_metric = {Metric.EXACT_MATCH: exact_match, Metric.TOKEN_F1: token_f1, Metric.ROUGE_L: rouge_l}
    return mean(name, by_metric[metric](texts, references), range=(0.0, 1.0))


def _corpus(name: str, statistics: Array, score: Callable[[Array], Array], by_row: Array) -> Measure:
    """Return a metric of all texts together, in which a row weighs what its reference, the second column, is long."""
    ends = 0.0, 100.0
    return Measure(
        (name,), statistics, lambda s: score(s)[..., None], name, by_row, range=ends, weights=statistics[:, 1]
    )


def _refused(metric: Metric, task: EvaluationTask, rows: Sequence[EvaluationRow], texts: Sequence[str]) -> Measure:
    """Return the share of refusals among the rows that are to be refused, or among the others.

    An answer that says nothing is no refusal where one is wanted, and as good as one where it is not.
    """
    if any(row.refuse is None for row in rows):
        raise ValueError("a row that does not say whether it is to be refused")
    wanted = metric is Metric.REFUSED_RATIO
    refused = [is_refusal(text, task.pattern) if not says_nothing(text) else not wanted for text in texts]
    taken = np.array([row.refuse is wanted for row in rows])
    values = np.where(taken, np.array(refused, np.float64), np.nan)
    return _of_some(RESULTS[metric][0], values, lower_is_better=not wanted)


def _of_some(name: str, values: Array, *, lower_is_better: bool = False) -> Measure:
    """Return a share of the rows that have a value, [rows] in 0 to 1 or NaN."""
    there = ~np.isnan(values)
    statistics = np.stack([np.where(there, values, 0.0), there.astype(np.float64)], axis=1)
    ends = (1.0, 0.0) if lower_is_better else (0.0, 1.0)
    return Measure((name,), statistics, ratio, name, values, lower_is_better, ends, taken=np.flatnonzero(there))


def _judged(metric: Metric, task: EvaluationTask, scores: Sequence[RowScore]) -> Measure:
    """Return what a judge said of each row; agreement is a share of the rows that people judged."""
    (name,) = RESULTS[metric]
    values = np.array([(score.figures or {}).get(name, math.nan) for score in scores], np.float64)
    if metric is Metric.AGREEMENT:
        return _of_some(name, values)
    low, high = task.judging.scores if metric is Metric.JUDGE_SCORE and task.judging is not None else (0, 1)
    less = name in LOWER_IS_BETTER
    ends = (float(high), float(low)) if less else (float(low), float(high))
    return mean(name, values, lower_is_better=less, range=ends)


def _written(metric: Metric, task: EvaluationTask, scores: Sequence[RowScore]) -> Measure:
    """Return how answers were written: how many were cut off, their tokens, their seconds.

    Answers that maxNewTokens cut off say less than the model would have.
    """
    (name,) = RESULTS[metric]
    if metric is Metric.TRUNCATED_RATIO:
        cut = np.array([not score.stopped for score in scores], np.float64)
        return mean(name, cut, lower_is_better=True, range=(1.0, 0.0))
    of_tokens = metric is Metric.TOKENS_PER_ANSWER
    told = [score.tokens if of_tokens else score.seconds for score in scores]
    values = np.array([math.nan if each is None else each for each in told], np.float64)
    most = float(task.max_new_tokens or DEFAULT_NEW_TOKENS)
    measured = mean(name, values, lower_is_better=True, range=(most, 0.0) if of_tokens else None)
    return measured if of_tokens else replace(measured, least=0.0)


def _errors(task: EvaluationTask, rows: Sequence[EvaluationRow], scores: Sequence[RowScore]) -> Array:
    """Return parsed minus right number, NaN where nothing could be parsed; [rows]."""
    errors = np.full(len(rows), np.nan)
    for index, (row, text) in enumerate(zip(rows, written(task, scores), strict=True)):
        if row.number_reference is None:
            raise ValueError(f"task {task.name}: row {row.number} has no number to compare with")
        answer = parse_number(text)
        if answer is not None:
            errors[index] = answer - row.number_reference
    return errors


def _regression(metric: Metric, errors: Array) -> Measure:
    (name,) = RESULTS[metric]
    parsable = ~np.isnan(errors)
    if metric is Metric.UNPARSABLE_RATIO:
        return mean(name, (~parsable).astype(np.float64), lower_is_better=True, range=(1.0, 0.0))
    by_row = np.abs(errors) if metric is Metric.MEAN_ABSOLUTE_ERROR else errors**2
    statistics = np.stack([np.where(parsable, by_row, 0.0), parsable.astype(np.float64)], axis=1)
    endless, there = BrokenRow(math.inf), statistics[:, 1]
    return Measure(
        (name,), statistics, ratio, name, by_row, lower_is_better=True, broken_row=endless, weights=there, least=0.0
    )


def _pairs(metric: Metric, rows: Sequence[EvaluationRow], scores: Sequence[RowScore]) -> Measure:
    (name,) = RESULTS[metric]
    share = metric not in (Metric.PAIR_MARGIN, Metric.REWARD_MARGIN)
    return mean(name, pair_values(metric, rows, scores), range=(0.0, 1.0) if share else None)


def _harness(scores: Sequence[RowScore], lower_is_better: Mapping[str, bool] | None) -> list[Measure]:
    names = list(lower_is_better) if lower_is_better is not None else list(scores[0].figures or {})
    found = []
    for name in names:
        values = np.array([(score.figures or {}).get(name, math.nan) for score in scores], np.float64)
        values[~np.isfinite(values)] = np.nan
        less = lower_is_better[name] if lower_is_better is not None else name in LOWER_IS_BETTER
        share = bool(((values >= 0) & (values <= 1)).all())
        ends = (1.0, 0.0) if less else (0.0, 1.0)
        found.append(mean(name, values, lower_is_better=less, range=ends if share else None))
    return found

"""Data on which a gate errs, each with its truth at the limit of a threshold; and such on which it should not hesitate.

Each situation draws rows of a known law and returns what an evaluation would know of them: a threshold, and a figure
for each draw. Whether a draw passes is said by the functions that evaluations use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from trimtab_trainer.contract import Check, Threshold
from trimtab_trainer.contract.gate.bounds import Finding, judge_bounds
from trimtab_trainer.evaluate.statistics import (
    Array,
    BrokenRow,
    Figure,
    Indices,
    Resampling,
    bound_checks,
    p_at_least,
    worse_check,
)

CONFIDENCE = 0.95
TOLERANCE = 0.02
"""Of regressions."""
COLUMNS = 250
"""Draws at once: they share the resamples' counts, which do not depend on the rows' values."""

Random = np.random.Generator
Made = Iterator[tuple[Threshold, Figure]]


@dataclass(frozen=True)
class Size:
    """How much is drawn: rows, draws, and resamples of each."""

    rows: int
    draws: int
    resamples: int


@dataclass(frozen=True)
class Situation:
    """A law of rows.

    Attributes:
        draw: so many figures of so many rows.
        promised: whether a verdict on it is promised to hold: not of shares of broken rows that a mean cannot see.
    """

    name: str
    draw: Callable[[Random, Size], Made]
    promised: bool = True


def passed(threshold: Threshold, check: Check) -> bool:
    """Return whether a bound is kept."""
    return judge_bounds([threshold], [check])[0].finding is Finding.KEPT


def share_passed(situation: Situation, size: Size, seed: int) -> tuple[float, float]:
    """Return the share of draws that pass, and of those that the bootstrap alone would pass."""
    found = plain = count = 0
    for threshold, figure in situation.draw(np.random.default_rng([seed, size.rows]), size):
        count += 1
        (check,) = bound_checks(0, threshold, figure)
        found += passed(threshold, check)
        plain += _plain(threshold, figure)
    return found / count, plain / count


def _plain(threshold: Threshold, figure: Figure) -> bool:
    """Return whether a bootstrap alone would pass it."""
    if figure.range is not None:
        target = replace(figure.target, sizes=None, weights=None)
        baseline = replace(figure.baseline, sizes=None, weights=None) if figure.baseline is not None else None
        (check,) = bound_checks(0, threshold, replace(figure, target=target, baseline=baseline, graded=False))
        return passed(threshold, check)
    ((name, limit),) = threshold.limits.items()
    judged = figure.target if name == "maximum" else figure.loss(relative=True)
    # An edge so far away that something was seen beyond it, and nothing follows.
    p = p_at_least(replace(judged, sizes=None, weights=None), limit, edge=-1e15, span=1e15)
    return judged.estimate <= limit and p <= 1 - CONFIDENCE


def _threshold(**bounds: float) -> Threshold:
    return Threshold.model_validate({"metric": "t/x", "confidence": CONFIDENCE, **bounds})


def _figures(
    size: Size,
    sides: list[Array],
    values: Callable[[Array], Array],
    *,
    clusters: list[int] | None = None,
    weights: list[Array] | None = None,
    lower: bool = False,
    range: tuple[float, float] | None = None,  # noqa: A002 - the field of Figure that it fills
    broken: list[BrokenRow] | None = None,
    graded: bool = False,
) -> Iterator[Figure]:
    """Return the figure of every draw; sides are [rows, draws, k], weights [rows] of each draw."""
    rows, draws, _ = sides[0].shape
    resampling = Resampling(clusters or np.arange(rows).tolist(), seed=1, resamples=size.resamples)
    for start in np.arange(0, draws, COLUMNS):
        some = [side[:, start : start + COLUMNS] for side in sides]
        count, width = some[0].shape[1:]
        parts = [
            resampling.part(side.reshape(rows, -1), partial(_by_draw, values=values, shape=(count, width)))
            for side in some
        ]
        found = resampling.distributions(parts)
        for at in np.arange(count):
            ours, theirs = found[0][at], found[1][at] if len(found) > 1 else None
            if weights is not None:
                ours = replace(ours, weights=weights[start + at])
                theirs = replace(theirs, weights=weights[start + at]) if theirs is not None else None
            yield Figure(
                "t",
                "x",
                rows,
                ours,
                theirs,
                lower,
                range,
                broken_row=None if broken is None else broken[start + at],
                graded=graded,
            )


def _by_draw(sums: Array, *, values: Callable[[Array], Array], shape: tuple[int, int]) -> Array:
    return values(sums.reshape(*sums.shape[:-1], *shape))


def ratios(sums: Array) -> Array:
    """Return the first statistic by the second: [..., draws, 2] to [..., draws]."""
    with np.errstate(all="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1], np.float64)


def perplexities(sums: Array) -> Array:
    return np.asarray(np.exp(ratios(sums)), np.float64)


def _means(values: Array) -> Array:
    return np.stack([values, np.ones_like(values)], axis=-1)


# -- errors of numbers: no bound ---------------------------------------------------------------------------------------


def errors(draw: Callable[[Random, tuple[int, int]], Array], limit: float, random: Random, size: Size) -> Made:
    """Yield means of errors against a `maximum`."""
    values = draw(random, (size.rows, size.draws))
    broken = [BrokenRow(math.inf)] * size.draws
    for figure in _figures(size, [_means(values)], ratios, lower=True, broken=broken):
        yield _threshold(maximum=limit), figure


def lognormal(sigma: float) -> Situation:
    return Situation(
        f"errors, lognormal, sigma {sigma:g}",
        partial(errors, lambda r, shape: r.lognormal(0, sigma, shape), math.exp(sigma**2 / 2)),
    )


def catastrophes(share: float, *, promised: bool) -> Situation:
    """Return errors around 1, of which a share is 50."""

    def draw(random: Random, shape: tuple[int, int]) -> Array:
        return np.where(random.random(shape) < share, 50.0, random.normal(1, 0.3, shape))

    return Situation(
        f"errors, {share:.1%} of rows are 50 times as bad", partial(errors, draw, 1 + 49 * share), promised
    )


# -- perplexities ------------------------------------------------------------------------------------------------------


def perplexity(effect: Callable[[Random, tuple[int, int]], Array], spread: float, random: Random, size: Size) -> Made:
    """Yield relative regressions of perplexity, of rows of lognormal numbers of tokens.

    Args:
        effect: in nats per token by row, over that of an unchanged model.
        spread: sigma of the numbers of tokens.
    """
    shape = size.rows, size.draws
    tokens = np.ceil(random.lognormal(4, spread, shape))
    base = random.gamma(8, 0.25, shape)
    sides = [np.stack([nats * tokens, tokens], axis=-1) for nats in (base + effect(random, shape), base)]
    broken = [BrokenRow(1.0, logarithmic=True)] * size.draws
    weights = list(tokens.T)
    for figure in _figures(size, sides, perplexities, weights=weights, lower=True, broken=broken):
        yield _threshold(maximumRelativeRegression=TOLERANCE), figure


def maximum_perplexity(spread: float, random: Random, size: Size) -> Made:
    """Yield perplexities at their `maximum`, of rows that differ much, and of lognormal numbers of tokens."""
    tokens = np.ceil(random.lognormal(3.5, spread, (size.rows, size.draws)))
    sides = [np.stack([random.normal(4, 0.7, tokens.shape) * tokens, tokens], axis=-1)]
    broken = [BrokenRow(1.0, logarithmic=True)] * size.draws
    for figure in _figures(size, sides, perplexities, weights=list(tokens.T), lower=True, broken=broken):
        yield _threshold(maximum=math.exp(4)), figure


def broken_rows(share: float, nats: float, *, noise: float, spread: float, promised: bool) -> Situation:
    """Return a model that is unchanged but for a share of rows, which bring it to the limit."""

    def effect(random: Random, shape: tuple[int, int]) -> Array:
        broken = np.where(random.random(shape) < share, nats, 0.0)
        return broken - share * nats + math.log1p(TOLERANCE) + random.normal(0, noise, shape) * (noise > 0)

    rest = f"the others vary by {noise:g}" if noise else "the others do not vary"
    name = f"perplexity, {share:.1%} of rows broken by {nats:g} nats, {rest}, tokens' sigma {spread:g}"
    return Situation(name, partial(perplexity, effect, spread), promised)


def heavy_changes(random: Random, shape: tuple[int, int]) -> Array:
    return 0.05 * random.standard_t(2.5, shape) + math.log1p(TOLERANCE)


def unchanged(random: Random, shape: tuple[int, int]) -> Array:
    return random.normal(0, 0.06, shape)


# -- shares of right answers, in clusters ------------------------------------------------------------------------------


def accuracy(sizes: Callable[[Random, int], Indices], right: float, alike: float, random: Random, size: Size) -> Made:
    """Yield accuracies of clusters at their `minimum`.

    Args:
        sizes: of clusters with about so many rows.
        right: the true accuracy, and the minimum.
        alike: correlation of a cluster's rows: 1 if all are right or none is.
    """
    for _ in range(SIZES_DRAWN):
        drawn = sizes(random, size.rows)
        clusters = np.repeat(np.arange(len(drawn)), drawn)
        shape = len(drawn), max(size.draws // SIZES_DRAWN, 1)
        if alike >= 1:
            of_cluster = (random.random(shape) < right).astype(np.float64)
        else:
            scale = 1 / alike - 1
            of_cluster = random.beta(right * scale, (1 - right) * scale, shape)
        values = (random.random((len(clusters), shape[1])) < of_cluster[clusters]).astype(np.float64)
        for figure in _figures(size, [_means(values)], ratios, clusters=clusters.tolist(), range=(0.0, 1.0)):
            yield _threshold(minimum=right), figure


SIZES_DRAWN = 4
"""Sets of sizes of clusters: the few large ones decide, and differ."""


def pareto_sizes(random: Random, rows: int) -> Indices:
    return _up_to(rows, np.maximum(1, random.pareto(1.0, rows) * 3).astype(int))


def lognormal_sizes(random: Random, rows: int) -> Indices:
    return _up_to(rows, np.maximum(1, random.lognormal(1.5, 1.0, rows)).astype(int))


def zipf_sizes(random: Random, rows: int) -> Indices:
    return _up_to(rows, np.maximum(1, rows / 8 / random.permutation(np.arange(1, rows + 1))).astype(int))


def even_sizes(random: Random, rows: int) -> Indices:
    return np.full(max(rows // 5, 1), 5)


def single_rows(random: Random, rows: int) -> Indices:
    return np.ones(rows, int)


def _up_to(rows: int, sizes: Indices) -> Indices:
    return sizes[: int(np.searchsorted(np.cumsum(sizes), rows)) + 1]


def paired_accuracy(lost: float, won: float, random: Random, size: Size) -> Made:
    """Yield regressions of accuracy: so many rows are lost and so many won."""
    uniform = random.random((size.rows, size.draws))
    base = np.where(uniform < lost, 1.0, np.where(uniform < lost + won, 0.0, random.random(uniform.shape) < 0.8))
    target = np.where(uniform < lost, 0.0, np.where(uniform < lost + won, 1.0, base))
    for figure in _figures(size, [_means(target), _means(base)], ratios, range=(0.0, 1.0)):
        yield _threshold(maximumRegression=TOLERANCE), figure


def words(spread: float, right: float, random: Random, size: Size) -> Made:
    """Yield shares of right words at their `minimum`, of texts that are right as a whole or not at all.

    Args:
        spread: sigma of the lognormal lengths.
    """
    lengths = np.ceil(random.lognormal(3, spread, (size.rows, size.draws)))
    sums = np.stack([(random.random(lengths.shape) < right) * lengths, lengths], axis=-1)
    for figure in _figures(size, [sums], ratios, weights=list(lengths.T), range=(0.0, 1.0), graded=True):
        yield _threshold(minimum=right), figure


# -- figures with bounds that most rows are far from -------------------------------------------------------------------

MOST_TOKENS = 512.0


def tokens_per_answer(endless: float, random: Random, size: Size) -> Made:
    """Yield mean lengths of answers at their `maximum`, of which a share goes on until it is cut off."""
    shape = size.rows, size.draws
    lengths = np.where(random.random(shape) < endless, MOST_TOKENS, random.gamma(4, 8, shape))
    for figure in _figures(size, [_means(lengths)], ratios, lower=True, range=(MOST_TOKENS, 0.0), graded=True):
        yield _threshold(maximum=32 * (1 - endless) + MOST_TOKENS * endless), figure


def nearly_right(silent: float, random: Random, size: Size) -> Made:
    """Yield means of texts that are nearly right at their `minimum`, of which a share says nothing."""
    shape = size.rows, size.draws
    values = np.where(random.random(shape) < silent, 0.0, random.beta(30, 2, shape))
    for figure in _figures(size, [_means(values)], ratios, range=(0.0, 1.0), graded=True):
        yield _threshold(minimum=30 / 32 * (1 - silent)), figure


def paired_texts(silent: float, random: Random, size: Size) -> Made:
    """Yield regressions of a mean of texts: a share says nothing any more, and the others are as good on the whole.

    With a share of 0 nothing is lost.
    """
    shape = size.rows, size.draws
    base = random.beta(4, 2, shape)
    changed = np.clip(base + random.normal(0, 0.03, shape), 0, 1)
    target = np.where(random.random(shape) < silent, 0.0, changed)
    for figure in _figures(size, [_means(target), _means(base)], ratios, range=(0.0, 1.0), graded=True):
        yield _threshold(maximumRegression=max(silent, TOLERANCE) * 4 / 6), figure


def worse_ratio(share: float, clustered: bool, size: Size, seed: int) -> float:
    """Return how many draws pass `maximumWorseRatio` when so large a share of rows is worse beyond measure."""
    random = np.random.default_rng([seed, size.rows])
    clusters = np.arange(size.rows) // (5 if clustered else 1)
    threshold = _threshold(maximumWorseRatio=share, worseBy=0.5)
    resampling = Resampling(clusters.tolist(), seed=1, resamples=size.resamples)
    count = 0
    for _ in range(size.draws):
        loss = np.where(random.random(size.rows) < share, 1e6, 0.0)
        if clustered:
            loss = loss[clusters * 5]
        count += passed(threshold, worse_check(0, threshold, loss, resampling))
    return count / size.draws


AT_THE_LIMIT = (
    lognormal(1),
    lognormal(1.5),
    lognormal(2),
    catastrophes(0.02, promised=True),
    catastrophes(0.01, promised=False),
    broken_rows(0.02, 1.0, noise=0.0, spread=1.2, promised=True),
    broken_rows(0.02, 1.0, noise=0.06, spread=1.2, promised=True),
    broken_rows(0.02, 1.0, noise=0.06, spread=0.6, promised=True),
    broken_rows(0.005, 4.0, noise=0.0, spread=0.6, promised=False),
    Situation("perplexity, changes of Student's t with 2.5 degrees", partial(perplexity, heavy_changes, 0.6)),
    Situation("perplexity at its maximum, tokens' sigma 1.2", partial(maximum_perplexity, 1.2)),
    Situation("perplexity at its maximum, tokens' sigma 1.6", partial(maximum_perplexity, 1.6)),
    Situation("accuracy, minimum 0.95", partial(accuracy, single_rows, 0.95, 1.0)),
    Situation("accuracy, 7 % lost and 5 % won", partial(paired_accuracy, 0.07, 0.05)),
    Situation("clusters, Pareto sizes, all right or all wrong", partial(accuracy, pareto_sizes, 0.9, 1.0)),
    Situation("clusters, Pareto sizes, correlation 0.25", partial(accuracy, pareto_sizes, 0.9, 0.25)),
    Situation("clusters, Zipf sizes, correlation 0.25", partial(accuracy, zipf_sizes, 0.85, 0.25)),
    Situation("clusters, lognormal sizes, all right or all wrong", partial(accuracy, lognormal_sizes, 0.9, 1.0)),
    Situation("clusters of 5, correlation 0.25", partial(accuracy, even_sizes, 0.85, 0.25)),
    Situation("words of texts that are right or wrong, lengths' sigma 1", partial(words, 1.0, 0.9)),
    Situation("tokens of answers, 2.0 % of which do not end", partial(tokens_per_answer, 0.02)),
    Situation("texts that are nearly right, 5.0 % of which say nothing", partial(nearly_right, 0.05)),
    Situation("texts, 3.0 % of which say nothing any more", partial(paired_texts, 0.03)),
)


def _better(random: Random, shape: tuple[int, int]) -> Array:
    return np.abs(random.normal(0, 1, shape))


BENIGN = (
    Situation("perplexity, unchanged, tokens' sigma 0.6", partial(perplexity, unchanged, 0.6)),
    Situation("perplexity, unchanged, tokens' sigma 1.2", partial(perplexity, unchanged, 1.2)),
    Situation("errors, half-normal, 10 % below the maximum", partial(errors, _better, 1.1 * math.sqrt(2 / math.pi))),
    Situation("errors, exponential, 20 % below the maximum", partial(errors, lambda r, s: r.exponential(1, s), 1.2)),
    Situation("accuracy, 1 % lost and 1 % won", partial(paired_accuracy, 0.01, 0.01)),
    Situation("texts, unchanged", partial(paired_texts, 0.0)),
)

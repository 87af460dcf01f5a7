"""Facts for the gate: what is known about each bound of a threshold. Whether it is kept is for the operator to say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from ...contract import Check, Threshold
from .broken_rows import BrokenRow, unseen
from .distribution import Distribution
from .figure import Figure, finite
from .p_values import MINIMUM_CLUSTERS, p_at_least, p_at_most
from .sample_size import rows_needed

MINIMUM_OF_A_KIND = 5
"""Clusters of every label, below which a mean over labels excludes nothing: resamples of two rows do not show how
otherwise two others might be. With it at most 2 % of tests at 0.05 pass at the bound, without 8 % on 50 rows of ten
labels (`make bench-gate`)."""

PValue = Callable[[Distribution, float], float]


@dataclass(frozen=True)
class _Bound:
    """One bound of a threshold, and what is held against it.

    Attributes:
        name: as in the threshold.
        limit: what it allows.
        distribution: of the value, or of the loss against the baseline.
        tolerance: of a regression what is allowed of it; None of a value.
        broken: p of the truth just beyond the limit; a small one excludes it.
        kept: p of the truth just within the limit.
        value: of the figure at the limit.
        share: of rows that lose all of the range which would bring a figure with bounds to the limit; None without.
        end: the value of a figure with bounds that lies beyond the limit; None without.
        sure: no value that the figure can take is beyond the limit.
    """

    name: str
    limit: float
    distribution: Distribution
    tolerance: float | None
    broken: PValue
    kept: PValue
    value: float
    share: float | None
    end: float | None
    sure: bool


def bound_checks(index: int, threshold: Threshold, figure: Figure) -> list[Check]:
    """Return what is known about the bounds of one threshold, but for its group gap.

    The estimate is None where the figure is not a finite number; nothing is known then, and nothing excluded.

    Args:
        index: of the threshold in the configuration.

    Raises:
        ValueError: a bound needs a baseline and there is none.
    """
    bounds = (*_of_value(threshold, figure), *_of_loss(threshold, figure))
    return [_check(index, each, threshold.confidence, figure) for each in bounds]


def _of_value(threshold: Threshold, figure: Figure) -> Iterator[_Bound]:
    low, high = figure.ends
    least = figure.least if low is None else low
    scale = figure.rows_have_scale
    below = partial(p_at_most, edge=high, span=figure.span, rows_have_scale=scale)
    above = partial(p_at_least, edge=low, span=figure.span, rows_have_scale=scale)
    for name, limit, best, worst, broken, kept in (
        ("minimum", threshold.minimum, high, low, below, above),
        ("maximum", threshold.maximum, low, high, above, below),
    ):
        if limit is not None:
            share = None if best is None else _part(abs(limit - best), figure.span)
            end = least if name == "minimum" else high
            sure = end is not None and (limit <= end if name == "minimum" else limit >= end)
            yield _Bound(name, limit, figure.target, None, broken, kept, limit, share, worst, sure)


def _of_loss(threshold: Threshold, figure: Figure) -> Iterator[_Bound]:
    for name, limit, relative in (
        ("maximumRegression", threshold.maximum_regression, False),
        ("maximumRelativeRegression", threshold.maximum_relative_regression, True),
    ):
        if limit is None:
            continue
        loss, span, scale = figure.loss(relative=relative), figure.span, figure.rows_have_scale
        if span is not None and relative and figure.baseline is not None and figure.baseline.estimate:
            span = span / abs(figure.baseline.estimate)
        yield _Bound(
            name,
            limit,
            loss,
            limit,
            # One row can lose all of the range; while no row lost anything, the loss was not seen.
            broken=partial(p_at_least, edge=0.0, span=span, rows_have_scale=scale),
            kept=partial(p_at_most, edge=span, span=None if span is None else 2 * span, rows_have_scale=scale),
            value=figure.value_at(limit, relative=relative),
            share=_part(limit, span),
            end=None if figure.range is None else figure.range[0],
            sure=_is_sure(limit, figure, relative=relative),
        )


def _is_sure(limit: float, figure: Figure, *, relative: bool) -> bool:
    """Tell whether no loss is larger than a limit: all of the range; of what is 0 at the worst, all that there was."""
    if figure.range is None or figure.span is None:
        return False
    largest = figure.span if not relative else 1.0 if figure.range[0] == 0 < figure.range[1] else math.inf
    return limit >= largest


def _part(distance: float, span: float | None) -> float | None:
    """Return which part of a range a distance is; None of nothing, which no number of rows would show."""
    return min(distance / span, 1.0) if span and distance > 0 else None


def _share_to_see(bound: _Bound, figure: Figure) -> float | None:
    """Return the share of broken rows that has to be seen if there is one; None where rows are all or nothing.

    Of a figure with bounds a broken row is one at the end that lies beyond the limit: an answer that says nothing, or
    that goes on to its last token.
    """
    estimate = figure.target.estimate
    if bound.end is None:
        return None if figure.broken_row is None else figure.broken_row.share(estimate, bound.value)
    if not figure.graded or estimate == bound.end:
        return None
    return BrokenRow(abs(bound.end - estimate)).share(estimate, bound.value)


def _check(index: int, bound: _Bound, confidence: float | None, figure: Figure) -> Check:
    facts: dict[str, float | int | None] = {"estimate": finite(bound.distribution.estimate)}
    fewest, rows = figure.fewest, figure.rows
    if confidence is not None and bound.sure and facts["estimate"] is not None:
        # However few the rows are, and however alike: there is nothing that they would have to exclude.
        facts |= {"p_pass": 0.0, "p_fail": 1.0, "clusters": figure.clusters}
    elif confidence is not None and fewest is not None and fewest < MINIMUM_OF_A_KIND:
        times = MINIMUM_OF_A_KIND / max(fewest, 1), MINIMUM_CLUSTERS / max(bound.distribution.effective_units, 1)
        needed = math.ceil(rows * max(times))
        facts |= {"p_pass": 1.0, "p_fail": 1.0, "rows_needed": needed, "clusters": figure.clusters}
    elif confidence is not None and facts["estimate"] is not None:
        share = _share_to_see(bound, figure)
        hidden = 0.0 if share is None else unseen(share, bound.distribution.weighs)
        broken = bound.broken(bound.distribution, bound.limit)
        facts["p_pass"] = max(broken, hidden)
        kept = bound.kept(bound.distribution, bound.limit)
        facts["p_fail"] = kept
        facts["clusters"] = figure.clusters
        facts["rows_needed"] = rows_needed(
            bound.distribution,
            bound.limit,
            bound.tolerance,
            rows=rows,
            confidence=confidence,
            p=min(broken, kept),
            share=min((each for each in (share, bound.share) if each is not None), default=None),
        )
    return Check.model_validate({"threshold": index, "bound": bound.name, **facts})

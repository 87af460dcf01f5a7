"""Facts for the gate: what is known about each bound of a threshold. Whether it is kept is for the operator to say."""

from __future__ import annotations

from functools import partial

from ...contract import Check, Threshold
from .distribution import Distribution
from .figure import Figure, finite
from .p_values import p_at_least, p_at_most
from .sample_size import rows_needed


def bound_checks(index: int, threshold: Threshold, figure: Figure) -> list[Check]:
    """Return what is known about the bounds of one threshold, but for its group gap.

    The estimate is None where the figure is not a finite number; nothing is known then, and nothing excluded.

    Raises:
        ValueError: a bound needs a baseline and there is none.
    """
    low, high = (None, None) if figure.range is None else (min(figure.range), max(figure.range))
    span = None if low is None or high is None else high - low
    found = []
    below, above = partial(p_at_most, edge=high, span=span), partial(p_at_least, edge=low, span=span)
    for name, bound, excluded in (
        ("minimum", threshold.minimum, (below, above)),
        ("maximum", threshold.maximum, (above, below)),
    ):
        if bound is not None:
            found.append(
                _check(
                    index,
                    name,
                    distribution=figure.target,
                    limit=bound,
                    tolerance=None,
                    excluded=excluded,
                    threshold=threshold,
                    rows=figure.rows,
                )
            )
    for name, bound, relative in (
        ("maximumRegression", threshold.maximum_regression, False),
        ("maximumRelativeRegression", threshold.maximum_relative_regression, True),
    ):
        if bound is not None:
            loss = figure.loss(relative=relative)
            scale = span
            if span is not None and relative and figure.baseline is not None and figure.baseline.estimate:
                scale = span / abs(figure.baseline.estimate)
            # One row can lose all of the range; while no row lost anything, the loss was not seen.
            excluded = (
                partial(p_at_least, edge=0.0, span=scale),
                partial(p_at_most, edge=scale, span=None if scale is None else 2 * scale),
            )
            found.append(
                _check(
                    index,
                    name,
                    distribution=loss,
                    limit=bound,
                    tolerance=bound,
                    excluded=excluded,
                    threshold=threshold,
                    rows=figure.rows,
                )
            )
    return found


def _check(
    index: int,
    bound: str,
    *,
    distribution: Distribution,
    limit: float,
    tolerance: float | None,
    excluded: tuple[partial[float], partial[float]],
    threshold: Threshold,
    rows: int,
) -> Check:
    facts: dict[str, float | int | None] = {"estimate": finite(distribution.estimate)}
    if threshold.confidence is not None and facts["estimate"] is not None:
        worse, better = excluded
        facts["p_pass"] = worse(distribution, limit)
        facts["p_fail"] = better(distribution, limit)
        facts["rows_needed"] = rows_needed(distribution, limit, tolerance, rows=rows, confidence=threshold.confidence)
    return Check.model_validate({"threshold": index, "bound": bound, **facts})

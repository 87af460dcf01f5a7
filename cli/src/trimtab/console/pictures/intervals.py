"""A figure against its thresholds: a dot with its interval, the baseline, and where it may not be. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .curve import drawable

WIDTH, HEIGHT, MARGIN = 320, 34, 12


@dataclass(frozen=True)
class Bound:
    """A number that a figure may not be above (`upper`) or below."""

    value: float
    upper: bool
    word: str


@dataclass(frozen=True)
class Span:
    """The picture in pixels; what is not known is None. `barred` are stretches that break a bound."""

    value: float | None
    low: float | None
    high: float | None
    baseline: float | None
    bounds: tuple[tuple[float, bool], ...]
    barred: tuple[tuple[float, float], ...]
    width: int = WIDTH
    height: int = HEIGHT


def span(
    value: float | None, low: float | None, high: float | None, baseline: float | None, bounds: Iterable[Bound]
) -> Span | None:
    """Return a figure with its interval on a scale of its own, None where there is no number at all."""
    limits = tuple(bounds)
    numbers = [value, low, high, baseline, *(each.value for each in limits)]
    known = [each for each in numbers if each is not None and drawable(each)]
    if value is None or not drawable(value) or not known:
        return None
    least, most = min(known), max(known)
    room = (most - least) * 0.12 or abs(most) * 0.1 or 1.0
    least, most = least - room, most + room

    def place(number: float | None) -> float | None:
        if number is None or not drawable(number):
            return None
        return round(MARGIN + (number - least) / (most - least) * (WIDTH - 2 * MARGIN), 1)

    barred = []
    for each in limits:
        at = place(each.value)
        if at is not None:
            barred.append((at, WIDTH - MARGIN) if each.upper else (MARGIN, at))
    marks = tuple((at, each.upper) for each in limits if (at := place(each.value)) is not None)
    return Span(place(value), place(low), place(high), place(baseline), marks, tuple(barred))

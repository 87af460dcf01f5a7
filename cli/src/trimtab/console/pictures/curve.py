"""Curves as SVG, for tables, for pages without scripts and for exports; a live page draws over them. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]
WIDTH, HEIGHT = 760, 280
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 26
TICKS = 5
NARROW = 1e-9
"""Of the size of numbers: what differs by less is drawn as one."""
LARGEST = 1e12
"""What is beyond it is no loss, and is left out."""


@dataclass(frozen=True)
class Series:
    """Values over steps; `role` is loss or validation, `hue` from 0 tells runs apart."""

    name: str
    points: tuple[Point, ...]
    role: str = "loss"
    hue: int = 0


@dataclass(frozen=True)
class Path:
    """A line, and where it ends."""

    series: Series
    d: str
    end: Point


@dataclass(frozen=True)
class Plot:
    """Lines and axes in pixels; labels with their place."""

    paths: tuple[Path, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def spark(values: Sequence[float], width: int = 96, height: int = 24) -> str:
    """Return the path of values between the lowest and the highest, empty for fewer than two."""
    known = [value for value in values if drawable(value)]
    if len(known) < 2:
        return ""
    low, high = min(known), max(known)
    scale = (height - 4) / (high - low) if high > low else 0.0
    step = (width - 4) / (len(known) - 1)
    places = (f"{2 + step * place:.1f},{height - 2 - (value - low) * scale:.1f}" for place, value in enumerate(known))
    return "M" + " L".join(places)


def plot(series: Sequence[Series]) -> Plot | None:
    """Return curves with axes, None where there is nothing to draw. Points that are not finite are left out."""
    drawn = [(each, [(x, y) for x, y in each.points if drawable(x) and drawable(y)]) for each in series]
    points = list(itertools.chain.from_iterable(found for _, found in drawn))
    if not points:
        return None
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x_low, x_high = min(xs), max(xs)
    y_ticks = ticks(min(ys), max(ys))
    y_low, y_high = min(y_ticks[0], *ys), max(y_ticks[-1], *ys)
    if x_high == x_low:
        x_high = x_low + 1

    def place(x: float, y: float) -> Point:
        across = LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        down = TOP + (y_high - y) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)
        return round(across, 1), round(down, 1)

    paths = tuple(
        Path(each, "M" + " L".join(f"{x},{y}" for x, y in (place(*point) for point in found)), place(*found[-1]))
        for each, found in drawn
        if found
    )
    return Plot(
        paths,
        across=tuple((place(x, y_low)[0], _label(x)) for x in ticks(x_low, x_high) if x_low <= x <= x_high),
        up=tuple((place(x_low, y)[1], _label(y)) for y in y_ticks),
    )


def drawable(value: float) -> bool:
    """Return whether a number has a place in a picture."""
    return abs(value) <= LARGEST  # of what is no number this is False too


def ticks(low: float, high: float, count: int = TICKS, *, whole: bool = False) -> list[float]:
    """Return round numbers from at most `low` to at least `high`, about as many as asked for; `whole` ones alone."""
    if not high - low > max(abs(low), abs(high), 1.0) * NARROW:
        low, high = low - 0.5 * max(abs(low), 1.0), high + 0.5 * max(abs(high), 1.0)
    raw = (high - low) / max(1, count - 1)
    if whole:
        raw = max(raw, 1.0)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(
        each * magnitude for each in ((1, 2, 5, 10) if whole else (1, 2, 2.5, 5, 10)) if each * magnitude >= raw * 0.999
    )
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [place * step for place in range(first, last + 1)]


def _label(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:,.6g}k"
    return f"{value:.4g}"

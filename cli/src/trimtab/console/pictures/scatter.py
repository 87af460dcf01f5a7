"""Trials of a sweep as SVG: value over order with the best so far, and value over one parameter. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .curve import drawable, ticks

WIDTH, HEIGHT = 360, 180
LEFT, RIGHT, TOP, BOTTOM = 52, 26, 10, 24


@dataclass(frozen=True)
class Dot:
    """A trial; `best` is the best of all."""

    x: float
    y: float
    word: str
    best: bool


@dataclass(frozen=True)
class Scatter:
    """Dots and axes in pixels; `line` is the best so far as a path, empty without one."""

    title: str
    dots: tuple[Dot, ...]
    line: str
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def scatter(
    title: str,
    points: Sequence[tuple[float, float, str]],
    best: str,
    *,
    log: bool = False,
    names: Sequence[str] = (),
    minimize: bool | None = None,
) -> Scatter | None:
    """Return (x, y, word) as dots, None without any.

    Args:
        log: the x axis is logarithmic, where all are above 0.
        names: of x where these are places in a list.
        minimize: draw the best so far, of the lowest or the highest; None draws none.
    """
    known = [(x, y, word) for x, y, word in points if drawable(x) and drawable(y)]
    if not known:
        return None
    log = log and all(x > 0 for x, _, _ in known)
    scaled = [(math.log10(x) if log else x, y, word) for x, y, word in known]
    xs, ys = [x for x, _, _ in scaled], [y for _, y, _ in scaled]
    left, right = min(xs), max(xs)
    if right == left:
        left, right = left - 0.5, right + 0.5
    up = ticks(min(ys), max(ys), 4)
    low, high = min(up[0], *ys), max(up[-1], *ys)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + 6 + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT - 12)
        return round(across, 1), round(TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    if names:
        marks = [(float(index), names[index]) for index in sorted({int(x) for x in xs}) if 0 <= index < len(names)]
    elif log:
        marks = [(left, f"{10**left:.1e}"), (right, f"{10**right:.1e}")]
    else:
        whole = all(float(x).is_integer() for x in xs)
        marks = [(each, f"{each:.4g}") for each in ticks(left, right, 4, whole=whole) if left <= each <= right]
    return Scatter(
        title,
        tuple(Dot(*place(x, y), word, word == best) for x, y, word in scaled),
        "" if minimize is None else _best_so_far([(*place(x, y), y) for x, y, _ in scaled], minimize),
        tuple((place(x, low)[0], word[:14]) for x, word in marks),
        tuple((place(left, y)[1], f"{y:.4g}") for y in up),
    )


def _best_so_far(places: Sequence[tuple[float, float, float]], minimize: bool) -> str:
    path, best = "", None
    for x, y, value in places:
        if best is None or (value < best if minimize else value > best):
            path += f"{'M' if best is None else ' H'}{x}" + (f",{y}" if best is None else f" V{y}")
            best = value
    return path + f" H{places[-1][0]}"

"""Line charts over the steps of a run, as inline SVG. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from ..pages.drawing import PAD, TEXT, Scale, path, picture, pixel, round_figures, scale_of
from ..pages.wording import figure

WIDTH, HEIGHT = 360, 200
"""Narrow, so that three stand side by side on a desk and one fits on a telephone, with letters of the same size."""
LEFT, FOOT = 52, 24
LEAST_WIDE = 400
"""Pixels of a scale that has room for more figures."""


@dataclass(frozen=True)
class Series:
    """One line: its class in the style sheet, what it is called, and (step, value) in ascending steps."""

    kind: str
    name: str
    points: tuple[tuple[int, float], ...]

    @property
    def known(self) -> tuple[tuple[int, float], ...]:
        """The points that can be drawn."""
        return tuple((step, value) for step, value in self.points if math.isfinite(value))

    def words(self, said: Callable[[float], str]) -> str:
        """Return the line in words: where it begins and ends, and its lowest and highest value."""
        points = self.known
        if len(points) == 1:
            return f"{self.name}: {said(points[0][1])} at step {points[0][0]:,}"
        (first, begin), (last, end) = points[0], points[-1]
        low, high = (pick(points, key=lambda point: point[1]) for pick in (min, max))
        return (
            f"{self.name}: {said(begin)} at step {first:,}, {said(end)} at step {last:,}; "
            f"lowest {said(low[1])} at step {low[0]:,}, highest {said(high[1])} at step {high[0]:,}"
        )


def line_chart(title: str, series: Sequence[Series], published: int | None = None, unit: str = "") -> Markup:
    """Draw lines over one axis of steps, with an upright mark at the step that was published.

    Returns nothing where no point can be drawn.
    """
    drawn = [each for each in series if each.known]
    y = scale_of((value for each in drawn for _, value in each.known), HEIGHT - FOOT, PAD + 4)
    if y is None:
        return Markup("")
    if all(value >= 0 for each in drawn for _, value in each.known):
        y = replace(y, low=max(0.0, y.low))
    steps = [step for each in drawn for step, _ in each.known]
    x = Scale(min(steps), max(steps), LEFT, WIDTH - PAD)
    if not x.drawable:
        x = Scale(steps[0] - 1, steps[0] + 1, LEFT, WIDTH - PAD)
    body = grid(x, y)
    if published is not None and x.low <= published <= x.high:
        body += path("overall", f"M{x(published)} {PAD}V{HEIGHT - FOOT}")
    for each in drawn:
        places = [f"{x(step)} {y(value)}" for step, value in each.known]
        body += path(f"line {each.kind}", "M" + "L".join(places))
        if len(places) <= 40:
            body += path(f"point {each.kind}", "".join(f"M{place}h0" for place in places))
    suffix = f" {unit}" if unit else ""
    words = "; ".join(each.words(lambda value: figure(value) + suffix) for each in drawn)
    return picture("curve", WIDTH, HEIGHT, f"{title}. {words}", body)


def grid(x: Scale, y: Scale, called: Callable[[float], bool] = float.is_integer) -> Markup:
    """Draw level lines at round values with their figures at the left, and below those of the other scale that are
    called for: steps are whole."""
    body = Markup("")
    for value, words in round_figures(y, 6):
        body += path("grid", f"M{pixel(x.start)} {y(value)}H{pixel(x.stop)}")
        body += TEXT.format(pixel(x.start - PAD), f"{float(y(value)) + 4:.1f}", "end", words)
    for value, _ in round_figures(x, 4 if x.stop - x.start < LEAST_WIDE else 6):
        if called(float(value)):
            end = float(x(value)) > x.stop - 18
            place = pixel(x.stop) if end else x(value)
            body += TEXT.format(place, pixel(y.start + FOOT - 6), "end" if end else "tick", figure(float(value), 0))
    return body

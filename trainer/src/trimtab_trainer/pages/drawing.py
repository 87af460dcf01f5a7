"""Pictures as inline SVG: colours come from the page's style sheet, every picture has its title in words.

Coordinates are pixels, rounded to a tenth, so that equal figures give equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from .wording import LARGEST, figure, visible

PAD = 6

_SVG = Markup(
    '<svg class="{kind}" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">'
    "<title>{title}</title>{body}</svg>"
)
TEXT = Markup('<text x="{}" y="{}" class="{}">{}</text>')
"""Of x, y, class and words."""


@dataclass(frozen=True)
class Scale:
    """A range of figures, and the pixels that it is drawn on."""

    low: float
    high: float
    start: float
    stop: float

    @property
    def drawable(self) -> bool:
        """Tell whether there is anything between its ends that floats can hold and tell apart."""
        return math.isfinite(self.low) and math.isfinite(self.high) and self.high / 2 - self.low / 2 > 0

    def __call__(self, value: float) -> str:
        """Return the pixel of a figure, never outside the drawing."""
        # Divided before it is subtracted: the difference of two figures can be infinite.
        share = (value / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return pixel(self.start + min(1.0, max(0.0, share)) * (self.stop - self.start))


def pixel(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def scale_of(values: Iterable[float | None], start: float, stop: float) -> Scale | None:
    """Return a scale that just holds some figures: what is to be seen is how far apart they are in their own noise."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return None
    low, high = min(known), max(known)
    if low == high:
        room = abs(low) / 10 or 1.0
        low, high = low - room, high + room
    room = (high / 2 - low / 2) / 6
    low, high = low - room, high + room
    scale = Scale(low, high, start, stop)
    return scale if scale.drawable else None


def picture(kind: str, width: int, height: int, title: str, body: Markup) -> Markup:
    return _SVG.format(kind=kind, width=width, height=height, title=visible(title), body=body)


def path(kind: str, data: str) -> Markup:
    return Markup('<path class="{}" d="{}"/>').format(kind, data) if data else Markup("")


def titled(kind: str, data: str, title: str) -> Markup:
    """Draw a path that says what it is when somebody points at it."""
    return Markup('<path class="{}" d="{}"><title>{}</title></path>').format(kind, data, visible(title))


def shortened_label(name: str, limit: int) -> str:
    """Return a name that fits beside a plot."""
    return name if len(name) <= limit else name[: limit - 1] + "…"


def round_figures(scale: Scale, most: int = 4) -> list[tuple[float, str]]:
    """Return figures to mark on a scale, about so many, each with its words: steps of 1, 2 or 5 at a power of ten."""
    raw = (scale.high - scale.low) / most
    if not 1e-12 * max(abs(scale.low), abs(scale.high)) < raw < LARGEST:
        return []
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * size for size in (1, 2, 5, 10) if power * size >= raw * (1 - 1e-9))
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    numbers = range(math.ceil(scale.low / step), math.floor(scale.high / step) + 1)
    return [(number * step, figure(number * step, places)) for number in numbers]


def upright_lines(scale: Scale, bottom: int) -> Markup:
    """Draw upright lines at round figures, with their words below."""
    body = Markup("")
    for value, words in round_figures(scale):
        body += path("grid", f"M{scale(value)} {PAD}V{bottom}")
        body += TEXT.format(scale(value), bottom + 16, "tick", words)
    return body

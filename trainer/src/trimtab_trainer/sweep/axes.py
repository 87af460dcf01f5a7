"""Parameters as axes: where a value stands, and what is written beside it. A value may be a number, a word or a whole
section of a spec."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..contract.digest import canonical_json
from ..contract.sweeps.record import numbers_of
from ..contract.sweeps.settings import Dimension, Scale, SweepParameter

MOST_PLACES = 12
"""Numbers of which there are more stand on a scale of their own, others each at its place."""
LABEL = 16
WIDE = 10.0
"""A scale whose ends are so many times apart, where nobody said what it is, is that of a logarithm."""


def label(value: Any, limit: int = LABEL) -> str:
    """Return a few characters for a value: of an address what tells it apart, its end."""
    if isinstance(value, dict) and isinstance(value.get("uri"), str):
        value = value["uri"].rstrip("/").rpartition("/")[2] or value["uri"]
    text = whole(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def whole(value: Any) -> str:
    """Return all of a value, as it is written in a spec: people copy it."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.12g}"
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


@dataclass(frozen=True)
class Axis:
    """One parameter.

    Attributes:
        name: its path.
        places: the values that have a place each, in order, as canonical JSON; None for a scale of numbers.
        low, high, log: of a scale.
    """

    name: str
    places: tuple[bytes, ...] | None = None
    low: float = 0.0
    high: float = 1.0
    log: bool = False

    def at(self, value: Any) -> float | None:
        """Return where a value stands, from 0 to 1; None for what has no place."""
        if self.places is not None:
            text = canonical_json(value)
            if text not in self.places:
                return None
            return 0.5 if len(self.places) == 1 else self.places.index(text) / (len(self.places) - 1)
        numbers = numbers_of([value])
        if numbers is None:
            return None
        low, high, number = (self._scaled(each) for each in (self.low, self.high, numbers[0]))
        return min(1.0, max(0.0, (number - low) / (high - low))) if high > low else 0.5

    @property
    def dimension(self) -> Dimension:
        """What a search knows of it: its places are numbered."""
        if self.places is not None:
            return Dimension(self.name, values=tuple(range(len(self.places))))
        return Dimension(self.name, low=self.low, high=self.high, log=self.log)

    def coordinate(self, value: Any) -> float:
        """Return where a value that has a place lies in that dimension."""
        if self.places is not None:
            return float(self.places.index(canonical_json(value)))
        return min(self.high, max(self.low, float(value)))

    def _scaled(self, number: float) -> float:
        return math.log10(max(number, self.low, 1e-300)) if self.log else number

    @property
    def marks(self) -> list[tuple[float, str, str]]:
        """What is written along it: where, in short, and in full."""
        if self.places is not None:
            values = [json.loads(each) for each in self.places]
            return [(self.at(each) or 0.0, label(each), whole(each)) for each in values]
        numbers = _decades(self.low, self.high) if self.log else [self.low, (self.low + self.high) / 2, self.high]
        rounded = [float(f"{each:.4g}") for each in numbers]
        return [(self.at(each) or 0.0, whole(each), whole(each)) for each in dict.fromkeys(rounded)]


def axis_of(name: str, declared: SweepParameter | None, values: Sequence[Any]) -> Axis:
    """Return the axis of a parameter, by what was said of it or else by the values that trials have."""
    if declared is not None and declared.range is not None:
        span = declared.range
        return Axis(name, low=span.minimum, high=span.maximum, log=span.scale is Scale.LOG)
    listed = declared.values if declared is not None and declared.values is not None else []
    distinct = {canonical_json(each): each for each in [*listed, *values]}
    numbers = numbers_of([*distinct.values()])
    if numbers is None or len(distinct) <= MOST_PLACES:
        order = sorted(distinct, key=lambda text: float(distinct[text])) if numbers is not None else [*distinct]
        return Axis(name, places=tuple(order))
    low, high = min(numbers), max(numbers)
    return Axis(name, low=low, high=high, log=low > 0 and high / low > WIDE)


def _decades(low: float, high: float) -> list[float]:
    """Return the ends of a logarithmic scale and the round figures between them that are not close to those."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inner = [10.0**power for power in powers if low < 10.0**power < high]
    if len(inner) < 2:
        inner = [size * 10.0**power for power in powers for size in (1, 2, 5) if low < size * 10.0**power < high]
    room = (math.log10(high) - math.log10(low)) / 8
    kept = [each for each in inner if math.log10(each / low) > room and math.log10(high / each) > room]
    step = max(1, math.ceil(len(kept) / 4))
    return [low, *kept[::step], high]

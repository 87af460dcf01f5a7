"""The curves of a run, small enough for a status: whoever reads an object can draw them, while it trains and after."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator

from .model import Received

POINTS = 64
"""Most points of either curve."""
CURVE_BYTES = 1_200
"""Most bytes of both as JSON: a status has to stay below 10 kB, whatever else it holds."""
DIGITS = 4
"""Significant digits of a loss."""

Points = Sequence[tuple[int, float]]
"""Steps, ascending, each with its nats per supervised token."""


class Curve(Received):
    """Training and validation loss in nats per supervised token, each value with its optimizer step."""

    steps: tuple[int, ...] = Field(default=(), max_length=POINTS)
    loss: tuple[float, ...] = Field(default=(), max_length=POINTS)
    validation_steps: tuple[int, ...] = Field(default=(), max_length=POINTS)
    validation_loss: tuple[float, ...] = Field(default=(), max_length=POINTS)

    @model_validator(mode="after")
    def _in_pairs(self) -> Self:
        for steps, values in ((self.steps, self.loss), (self.validation_steps, self.validation_loss)):
            if len(steps) != len(values):
                raise ValueError("every value of a curve has its step")
            if any(after <= before for before, after in zip((-1, *steps), steps, strict=False)):
                raise ValueError("the steps of a curve ascend from 0 on")
            if not all(map(math.isfinite, values)):
                raise ValueError("the values of a curve are finite")
        return self

    @classmethod
    def of(cls, training: Points, validation: Points = (), points: int = POINTS) -> Self | None:
        """Return curves of at most so many points that fit into their bytes; None where there is nothing to draw.

        A point of the training curve is the mean of those that it stands for, at the step of the last one; evaluations
        are left out, all but the newest.
        """
        while points > 0:
            means, newest = _means(training, points), _every(validation, points)
            curve = cls(
                steps=tuple(step for step, _ in means),
                loss=tuple(_rounded(loss) for _, loss in means),
                validation_steps=tuple(step for step, _ in newest),
                validation_loss=tuple(_rounded(loss) for _, loss in newest),
            )
            if curve == cls():
                return None
            if curve.size <= CURVE_BYTES:
                return curve
            points = points * 7 // 8
        return None

    @property
    def size(self) -> int:
        """Bytes of its JSON."""
        return len(json.dumps(self.to_json(), separators=(",", ":")))

    def fitting(self) -> Self | None:
        """Return the same with as many points as fit into the bytes: a trainer of another version may tell more."""
        curve: Self | None = self
        while curve is not None and curve.size > CURVE_BYTES:
            curve = curve.thinner()
        return curve

    def thinner(self) -> Self | None:
        """Return the same with half of the points; None where few are left."""
        points = max(len(self.steps), len(self.validation_steps)) // 2
        pairs = zip(self.steps, self.loss, strict=True), zip(self.validation_steps, self.validation_loss, strict=True)
        return self.of(list(pairs[0]), list(pairs[1]), points) if points >= 4 else None


def _means(training: Points, points: int) -> Points:
    size = max(1, math.ceil(len(training) / points))
    groups = [training[first : first + size] for first in range(0, len(training), size)]
    return [(group[-1][0], math.fsum(loss for _, loss in group) / len(group)) for group in groups]


def _every(validation: Points, points: int) -> Points:
    size = max(1, math.ceil(len(validation) / points))
    return list(validation[::-1][::size])[::-1]


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")

"""Figures that the other side tells: one that cannot be kept is left out, and is no reason to leave out the others."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationError

from .curve import Curve

COUNTED_TO, FIGURE_TO = 2**53, 1e15
"""The most that a step or a figure may be: what is above is of no trainer."""


def figure(told: object) -> object:
    """Return a number, or None for one that tells nothing: a loss that is not finite is that of a run that diverged."""
    number = isinstance(told, int | float) and not isinstance(told, bool)
    return told if number and -FIGURE_TO <= told <= FIGURE_TO else None  # type: ignore[operator]


def count(told: object) -> object:
    """Return a whole number from 0 on, None for anything else."""
    number = isinstance(told, int) and not isinstance(told, bool)
    return told if number and 0 <= told <= COUNTED_TO else None  # type: ignore[operator]


def curves(told: object) -> Curve | None:
    """Return both curves, or None for what cannot be drawn."""
    try:
        found = Curve.model_validate(told)
    except ValidationError:
        return None
    steps, values = (*found.steps, *found.validation_steps), (*found.loss, *found.validation_loss)
    bounded = all(step <= COUNTED_TO for step in steps) and all(abs(value) <= FIGURE_TO for value in values)
    return found.fitting() if bounded else None


WHOLE = Annotated[int, Field(ge=0, le=COUNTED_TO)]
"""Without which the rest means nothing."""
COUNT = Annotated[int | None, BeforeValidator(count)]
FIGURE = Annotated[float | None, BeforeValidator(figure)]
CURVES = Annotated[Curve | None, BeforeValidator(curves)]

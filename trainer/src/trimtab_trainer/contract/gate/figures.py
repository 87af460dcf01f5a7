"""Figures and words of the other side: what cannot be kept is left out, and is no reason to leave out the others."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationError

from ..curve import Curve
from ..model import Received

COUNTED_TO, FIGURE_TO = 2**53, 1e15
"""The most that a step or a figure may be: what is above is of no trainer."""


def figure(told: object) -> object:
    """Return a number, or None for one that tells nothing: a loss that is not finite is that of a run that diverged."""
    if isinstance(told, bool) or not isinstance(told, int | float):
        return None
    return told if -FIGURE_TO <= told <= FIGURE_TO else None


def count(told: object) -> object:
    """Return a whole number from 0 on, None for anything else."""
    if isinstance(told, bool) or not isinstance(told, int):
        return None
    return told if 0 <= told <= COUNTED_TO else None


def curves(told: object) -> Curve | None:
    """Return both curves, or None for what cannot be drawn."""
    try:
        found = Curve.model_validate(told)
    except ValidationError:
        return None
    steps, values = (*found.steps, *found.validation_steps), (*found.loss, *found.validation_loss)
    bounded = all(step <= COUNTED_TO for step in steps) and all(abs(value) <= FIGURE_TO for value in values)
    return found.fitting() if bounded else None


def preference(told: object) -> object:
    """Return the figures of a preference method, or None for what is none."""
    return told if isinstance(told, dict | PreferenceFigures) else None


def text(told: object) -> object:
    """Return a text, an empty one for anything else."""
    return told if isinstance(told, str) else ""


def texts(told: object) -> object:
    """Return the texts among what is listed."""
    return [each for each in told if isinstance(each, str)] if isinstance(told, list | tuple) else []


WHOLE = Annotated[int, Field(ge=0, le=COUNTED_TO)]
"""Without which the rest means nothing."""
COUNT = Annotated[int | None, BeforeValidator(count)]
FIGURE = Annotated[float | None, BeforeValidator(figure)]
TEXT = Annotated[str, BeforeValidator(text)]
TEXTS = BeforeValidator(texts)
"""Of a list of texts."""
CURVES = Annotated[Curve | None, BeforeValidator(curves)]


class PreferenceFigures(Received):
    """How often and by how much the wanted answers are preferred, under names like those of TRL's logs.

    A reward is beta times what an answer gained over the model before training, of ORPO beta times its mean
    log-probability of a token; the other log-probabilities are sums over an answer, in nats.
    """

    accuracy: FIGURE = Field(default=None, description="share of pairs whose chosen answer has more reward")
    margin: FIGURE = Field(default=None, description="mean reward of the wanted answers minus that of the others")
    chosen_reward: FIGURE = None
    rejected_reward: FIGURE = None
    chosen_log_probability: FIGURE = None
    rejected_log_probability: FIGURE = None


PREFERENCE = Annotated[PreferenceFigures | None, BeforeValidator(preference)]

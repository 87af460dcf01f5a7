"""Conditions, and the events that follow their reasons."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from trimtab_operator.api import SUCCEEDED, Condition, State
from trimtab_operator.api.conditions import MESSAGE_LENGTH

from ..plan import Note
from ..views import format_time
from .subject import Work

EVENT_MESSAGE_LENGTH = 1024

TROUBLE = frozenset(
    {
        State.RETRYING,
        State.QUOTA_EXCEEDED,
        State.NAME_TAKEN,
        State.VOLUME_UNAVAILABLE,
        State.IMAGE_UNAVAILABLE,
        State.CONTAINER_INVALID,
        State.POD_REFUSED,
    }
)

ConditionStatus = Literal["True", "False", "Unknown"]


def condition_of(job: Work, kind: str = SUCCEEDED) -> Condition | None:
    """Return a condition as it is now."""
    return next((c for c in job.status.conditions if c.type == kind), None)


def is_over(job: Work) -> bool:
    """Say whether the work has ended: terminal is terminal, even when the children are gone."""
    condition = condition_of(job)
    return condition is not None and condition.status != "Unknown"


def make_condition(
    job: Work, status: ConditionStatus, reason: str, message: str, now: datetime, *, kind: str = SUCCEEDED
) -> Condition:
    """Return the new condition; lastTransitionTime moves only with the status."""
    previous = condition_of(job, kind)
    moved = previous is None or previous.status != status
    return Condition(
        type=kind,
        status=status,
        observed_generation=job.metadata.generation,
        last_transition_time=format_time(now) if moved or previous is None else previous.last_transition_time,
        reason=reason,
        message=cut(message, MESSAGE_LENGTH),
    )


def notes_of(job: Work, condition: Condition) -> tuple[Note, ...]:
    """Return the event of a transition: one when the reason changes, none otherwise.

    That an object which was just created is worked on goes without saying, in an event as little as elsewhere.
    """
    previous = condition_of(job, condition.type)
    trouble = condition.status == "False" or condition.reason in {state.value for state in TROUBLE}
    if (previous is None and condition.status == "Unknown" and not trouble) or (
        previous is not None and previous.reason == condition.reason
    ):
        return ()
    message = cut(condition.message, EVENT_MESSAGE_LENGTH)
    return (Note("Warning" if trouble else "Normal", condition.reason, message),)


def cut(text: str, length: int) -> str:
    """Return text of at most a length."""
    return text if len(text) <= length else text[: length - 3] + "..."

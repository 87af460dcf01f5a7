"""Conditions of every kind are made here, so that lastTransitionTime moves with the status and with nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from trimtab_operator.api import Condition
from trimtab_operator.api.status.conditions import MESSAGE_LENGTH

from .plan import Note
from .views import format_time

EVENT_MESSAGE_LENGTH = 1024

ConditionStatus = Literal["True", "False", "Unknown"]


def found(conditions: Iterable[Condition], kind: str) -> Condition | None:
    """Return the condition of a type, None where there is none yet."""
    return next((each for each in conditions if each.type == kind), None)


def condition(
    before: Iterable[Condition],
    kind: str,
    status: ConditionStatus,
    reason: str,
    message: str,
    *,
    generation: int | None,
    now: datetime,
    length: int = MESSAGE_LENGTH,
) -> Condition:
    """Return the new condition of a type; `before` are all that the object has, `length` is that of the message."""
    previous = found(before, kind)
    same = previous is not None and previous.status == status
    return Condition(
        type=kind,
        status=status,
        observed_generation=generation,
        last_transition_time=previous.last_transition_time if previous is not None and same else format_time(now),
        reason=reason,
        message=cut(message, length),
    )


def note_of(before: Condition | None, after: Condition, *, trouble: bool) -> tuple[Note, ...]:
    """Return the event of a transition: one when reason or status changes, none otherwise.

    What was waited for long enough ends with the reason that it waited for, and that it ended is news.
    """
    if before is not None and (before.reason, before.status) == (after.reason, after.status):
        return ()
    return (Note("Warning" if trouble else "Normal", after.reason, cut(after.message, EVENT_MESSAGE_LENGTH)),)


def cut(text: str, length: int) -> str:
    """Return text of at most a length."""
    return text if len(text) <= length else text[: length - 3] + "..."

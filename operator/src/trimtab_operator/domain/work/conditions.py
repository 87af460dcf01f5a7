"""Conditions, and the events that follow their reasons."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from trimtab_operator.api import SUCCEEDED, WARNED, Condition, State, WarnedReason

from ..conditions import ConditionStatus, condition, cut, found, note_of
from ..plan import Note
from .subject import S, Work

__all__ = ["ConditionStatus", "condition_of", "cut", "is_over", "make_condition", "note_warnings", "notes_of"]

WARNINGS_LENGTH = 512
"""Of the message of `Warned`; all of them are in the logs of the pod, and of a run in its report."""

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


class HasConditions(Protocol):
    """An object whose status says how it is."""

    @property
    def status(self) -> Any: ...


def condition_of(job: HasConditions, kind: str = SUCCEEDED) -> Condition | None:
    """Return a condition as it is now."""
    return found(job.status.conditions, kind)


def is_over(job: HasConditions) -> bool:
    """Say whether the work has ended: terminal is terminal, even when the children are gone."""
    summary = condition_of(job)
    return summary is not None and summary.status != "Unknown"


def make_condition(
    job: Work, status: ConditionStatus, reason: str, message: str, now: datetime, *, kind: str = SUCCEEDED
) -> Condition:
    """Return the new condition of a job."""
    return condition(job.status.conditions, kind, status, reason, message, generation=job.metadata.generation, now=now)


def notes_of(job: Work, after: Condition) -> tuple[Note, ...]:
    """Return the event of a transition: one when the reason changes, none otherwise.

    That an object which was just created is worked on goes without saying, in an event as little as elsewhere.
    """
    before = condition_of(job, after.type)
    trouble = after.status == "False" or after.type == WARNED or after.reason in {state.value for state in TROUBLE}
    if before is None and after.status == "Unknown" and not trouble:
        return ()
    return note_of(before, after, trouble=trouble)


def note_warnings(job: Work, status: S, warnings: Sequence[str], now: datetime, *, last: bool) -> S:
    """Return the status with what a stage that succeeded wants a person to know; `last`: it came after preparing.

    What preparing said holds for what follows too. When it is done again, its new words take the place of the old.
    """
    others = [each for each in status.conditions if each.type != WARNED]
    before = found(status.conditions, WARNED) if last else None
    said = [*([before.message] if before is not None else []), *warnings]
    if not said:
        return status.model_copy(update={"conditions": others})
    reason = WarnedReason.FINISHED_WITH_WARNINGS if last and warnings else WarnedReason.PREPARED_WITH_WARNINGS
    warned = make_condition(job, "True", reason.value, cut("; ".join(said), WARNINGS_LENGTH), now, kind=WARNED)
    return status.model_copy(update={"conditions": [*others, warned]})

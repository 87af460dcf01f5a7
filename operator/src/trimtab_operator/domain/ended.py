"""What is told of an object that has ended, and what is left to do: to delete it when its time is over."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from trimtab_operator.api import SUCCEEDED, Condition
from trimtab_operator.api.definitions.customresource import ObjectMeta

from .conditions import found
from .gitops import tracked_by
from .measures import Measure
from .plan import Delete
from .settings import Settings
from .views import parse_time


class Ended(Protocol):
    """A status that tells of an end."""

    @property
    def start_time(self) -> str | None: ...
    @property
    def completion_time(self) -> str | None: ...
    @property
    def conditions(self) -> Sequence[Condition]: ...


def reason_of(status: Ended, kind: str) -> str:
    """Return the reason of a condition, "Unknown" without it."""
    said = found(status.conditions, kind)
    return said.reason if said is not None else "Unknown"


def lived(metric: str, status: Ended) -> tuple[Measure, ...]:
    """Return how long an object lived that has just ended, by the reason of its end."""
    start, end = parse_time(status.start_time), parse_time(status.completion_time)
    if start is None or end is None:
        return ()
    return (Measure(metric, (reason_of(status, SUCCEEDED),), max(0.0, (end - start).total_seconds())),)


def comes_back(metadata: ObjectMeta, settings: Settings) -> str | None:
    """Return the mark of a tool that would create the object again as soon as it is deleted, and so run it for ever."""
    if settings.delete_what_gitops_tracks:
        return None
    return tracked_by(metadata.labels, metadata.annotations, settings.gitops_labels)


def time_is_over(
    kind: str, metadata: ObjectMeta, *, ttl: int | None, completed: str | None, settings: Settings, now: datetime
) -> tuple[Delete | None, float | None]:
    """Return the deletion of an object whose time is over, else in how many seconds that will be, None for never."""
    ended = parse_time(completed)
    if ttl is None or ended is None or comes_back(metadata, settings) is not None:
        return None, None
    left = (ended + timedelta(seconds=ttl) - now).total_seconds()
    if left > 0:
        return None, left
    return Delete(kind, metadata.namespace, metadata.name, metadata.uid), None

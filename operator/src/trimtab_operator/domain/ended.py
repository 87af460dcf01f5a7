"""What is left to do about an object that has ended: to delete it when its time is over."""

from __future__ import annotations

from datetime import datetime, timedelta

from trimtab_operator.api.customresource import ObjectMeta

from .gitops import tracked_by
from .plan import Delete
from .settings import Settings
from .views import parse_time


def comes_back(metadata: ObjectMeta, settings: Settings) -> str | None:
    """Return the mark of a tool that would create the object again as soon as it is deleted, and so run it for ever."""
    return None if settings.delete_what_gitops_tracks else tracked_by(metadata.labels, metadata.annotations)


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

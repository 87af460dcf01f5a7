"""What Jobs that have ended, and their pods, said before they were gone.

A policy may let Jobs be deleted as soon as they end (`ttlSecondsAfterFinished: 0`), and a janitor pods that have: what
they came to is decided on from what the watches told. It is forgotten soon, and with the process: then the next attempt
finds in object storage what was published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

from ...domain.cluster import Key
from ...domain.views import PODS_MAXIMUM, JobView, PodView

KEPT_SECONDS = 150.0
"""A round that fails again and again is tried every minute, and that may fail once more."""
KEPT_AT_MOST = 1024
"""Objects whose Jobs are kept, and Jobs whose pods are."""
JOBS_AT_MOST = 32
"""Of an object, which has one at a time."""

Parent = TypeVar("Parent")
View = TypeVar("View", bound=JobView | PodView)


class Departed:
    """Jobs that had ended and pods that were over, as they were last."""

    def __init__(self) -> None:
        self._jobs: _Lately[Key, JobView] = _Lately(JOBS_AT_MOST)
        self._pods: _Lately[str, PodView] = _Lately(PODS_MAXIMUM)

    def job(self, view: JobView) -> None:
        """Take in a Job that is gone."""
        if view.finished:
            self._jobs.add(Key(view.owner_kind, view.namespace, view.owner_name), view.uid, view)

    def pod(self, view: PodView) -> None:
        """Take in a pod that is gone."""
        if view.over:
            self._pods.add(view.job_uid, view.index, view)

    def jobs_of(self, key: Key) -> tuple[JobView, ...]:
        """Return the Jobs that said that they were of an object."""
        return self._jobs.of(key)

    def pods_of(self, job_uid: str, there: Sequence[PodView]) -> list[PodView]:
        """Return the last pod of each index of which a Job has none any more."""
        indexes = {pod.index for pod in there}
        return [pod for pod in self._pods.of(job_uid) if pod.index not in indexes]


class _Lately(Generic[Parent, View]):
    """The last views of what is gone by what they are looked up under, of each the longest gone in front.

    Those are in front too that were added to longest ago.
    """

    def __init__(self, at_most: int) -> None:
        self._at_most = at_most
        self._kept: dict[Parent, dict[Hashable, tuple[float, View]]] = {}

    def add(self, parent: Parent, which: Hashable, view: View) -> None:
        """Keep a view in place of the one before that was `which` of its parent's."""
        views, now = self._kept.pop(parent, {}), asyncio.get_running_loop().time()
        views.pop(which, None)
        while views and (len(views) >= self._at_most or _is_over(next(iter(views.values()))[0], now)):
            del views[next(iter(views))]
        views[which] = now, view
        while self._kept and (len(self._kept) >= KEPT_AT_MOST or _is_over(self._last_time(), now)):
            del self._kept[next(iter(self._kept))]
        self._kept[parent] = views

    def of(self, parent: Parent) -> tuple[View, ...]:
        now = asyncio.get_running_loop().time()
        return tuple(view for time, view in self._kept.get(parent, {}).values() if not _is_over(time, now))

    def _last_time(self) -> float:
        """Return when the parent in front was added to."""
        return next(reversed(next(iter(self._kept.values())).values()))[0]


def _is_over(time: float, now: float) -> bool:
    return now - time >= KEPT_SECONDS

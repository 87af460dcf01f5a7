"""What Jobs that have ended, and their pods, said before they were gone.

A policy may let Jobs be deleted as soon as they end (`ttlSecondsAfterFinished: 0`), and a janitor pods that have: what
they came to is decided on from what the watches told. It is forgotten soon, and with the process: then the next attempt
finds in object storage what was published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Generic, TypeVar

from ...domain.cluster import Key
from ...domain.views import JobView, PodView

KEPT_SECONDS = 60.0
KEPT_AT_MOST = 1024
"""Objects whose Jobs are kept, and Jobs whose pods are."""

Parent = TypeVar("Parent")
View = TypeVar("View", bound=JobView | PodView)


class Departed:
    """Jobs that had ended and pods that were over, as they were last."""

    def __init__(self) -> None:
        self._jobs: _Lately[Key, JobView] = _Lately()
        self._pods: _Lately[str, PodView] = _Lately()

    def job(self, view: JobView) -> None:
        """Take in a Job that is gone."""
        if view.finished:
            self._jobs.add(Key(view.owner_kind, view.namespace, view.owner_name), view)

    def pod(self, view: PodView) -> None:
        """Take in a pod that is gone."""
        if view.over:
            self._pods.add(view.job_uid, view)

    def jobs_of(self, key: Key) -> tuple[JobView, ...]:
        """Return the Jobs that said that they were of an object."""
        return self._jobs.of(key)

    def pods_of(self, job_uid: str, there: Sequence[PodView]) -> list[PodView]:
        """Return the last pod of each index of which a Job has none any more."""
        indexes = {pod.index for pod in there}
        last = {pod.index: pod for pod in self._pods.of(job_uid)}
        return [pod for index, pod in last.items() if index not in indexes]


class _Lately(Generic[Parent, View]):
    """Views of what is gone by what they are looked up under, those in front that were added to longest ago."""

    def __init__(self) -> None:
        self._kept: dict[Parent, tuple[float, tuple[View, ...]]] = {}

    def add(self, parent: Parent, view: View) -> None:
        others = tuple(each for each in self.of(parent) if each.uid != view.uid)
        self._kept.pop(parent, None)
        self._kept[parent] = asyncio.get_running_loop().time(), (*others, view)
        if len(self._kept) > KEPT_AT_MOST:
            del self._kept[next(iter(self._kept))]

    def of(self, parent: Parent) -> tuple[View, ...]:
        time, views = self._kept.get(parent, (0.0, ()))
        return views if views and time > asyncio.get_running_loop().time() - KEPT_SECONDS else ()

"""What is known of the cluster: FineTuneJobs as JSON text, Jobs and pods as the views that decisions need.

Four sources feed it: the list at the start, the watches, the answers to the operator's own writes, and the audits.
They overtake each other, so nothing here depends on their order:

* Of one object only a newer resourceVersion replaces what is there. The API conventions make resourceVersions of one
  resource comparable as integers (Kubernetes 1.35 and later; every earlier API server on etcd behaved so too).
* A uid that was deleted never comes back; it is remembered for a while, so that a late answer cannot revive it.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ..api import SUCCEEDED
from ..domain.views import JobView, PodView
from . import metrics
from .kube import FINETUNEJOBS, JOBS, PODS, Body, Resource

Key = tuple[str, str]
"""Namespace and name of a FineTuneJob."""

TOMBSTONE_SECONDS = 600.0

View = TypeVar("View")


def version_of(body: Body) -> int:
    """Return an object's resourceVersion as a number; 0 where it is none."""
    text = body["metadata"].get("resourceVersion", "")
    return int(text) if text.isdigit() else 0


@dataclass(frozen=True)
class StoredJob:
    """A FineTuneJob. Its body is kept as text, which takes a fifth of the memory of the parsed form."""

    key: Key
    text: bytes
    state: str
    over: bool

    @property
    def body(self) -> Body:
        body: Body = json.loads(self.text)
        return body

    @classmethod
    def of(cls, body: Body) -> StoredJob:
        conditions = body.get("status", {}).get("conditions", ())
        succeeded: Body = next((c for c in conditions if c.get("type") == SUCCEEDED), {})
        slim = {**body, "metadata": {k: v for k, v in body["metadata"].items() if k != "managedFields"}}
        key = (body["metadata"]["namespace"], body["metadata"]["name"])
        text = json.dumps(slim, separators=(",", ":")).encode()
        return cls(key, text, succeeded.get("reason", "New"), succeeded.get("status", "Unknown") != "Unknown")


@dataclass(frozen=True)
class Entry(Generic[View]):
    """An object in a store; `view` is None when it is none of ours and only its version matters."""

    uid: str
    namespace: str
    name: str
    version: int
    key: Key | None
    view: View | None


class Store(Generic[View]):
    """The objects of one resource, by uid, by (namespace, name) and by the uid of their parent."""

    def __init__(
        self,
        resource: Resource,
        view: Callable[[Body], View | None],
        key: Callable[[View], Key],
        parent: Callable[[View], str],
    ) -> None:
        self.resource = resource
        self._view = view
        self._key = key
        self._parent = parent
        self._entries: dict[str, Entry[View]] = {}
        self._named: dict[Key, str] = {}
        self._children: dict[str, set[str]] = {}
        self._deleted: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry[View]]:
        return iter(list(self._entries.values()))

    def named(self, namespace: str, name: str) -> Entry[View] | None:
        uid = self._named.get((namespace, name))
        return self._entries[uid] if uid else None

    def deleted(self, uid: str) -> bool:
        """Whether an object is known to be gone for good."""
        return uid in self._deleted

    def of_uid(self, uid: str) -> Entry[View] | None:
        return self._entries.get(uid)

    def of_parent(self, parent_uid: str) -> list[View]:
        entries = (self._entries[uid] for uid in self._children.get(parent_uid, ()))
        return [entry.view for entry in entries if entry.view is not None]

    def put(self, body: Body) -> Key | None:
        """Take in an object, and return whom it concerns, or None if that was known already."""
        metadata: dict[str, Any] = body["metadata"]
        uid, version = metadata["uid"], version_of(body)
        if uid in self._deleted:
            return None
        before = self._entries.get(uid)
        if before is not None and version <= before.version:
            return None
        same_name = self.named(metadata["namespace"], metadata["name"])
        if same_name is not None and same_name.uid != uid:
            if version < same_name.version:
                return None  # an earlier bearer of the name, reported late
            self.remove(same_name.uid)
        view = self._view(body)
        key = self._key(view) if view is not None else None
        entry = Entry(uid, metadata["namespace"], metadata["name"], version, key, view)
        self._forget_parent(before)
        self._entries[uid] = entry
        self._named[entry.namespace, entry.name] = uid
        if view is not None:
            self._children.setdefault(self._parent(view), set()).add(uid)
        metrics.CACHE_OBJECTS.labels(self.resource.plural).set(len(self._entries))
        return key

    def remove(self, uid: str) -> Key | None:
        """Forget an object for good, and return whom that concerns, or None if it was not known."""
        self._bury(uid)
        entry = self._entries.pop(uid, None)
        if entry is None:
            return None
        if self._named.get((entry.namespace, entry.name)) == uid:
            del self._named[entry.namespace, entry.name]
        self._forget_parent(entry)
        metrics.CACHE_OBJECTS.labels(self.resource.plural).set(len(self._entries))
        return entry.key

    def _forget_parent(self, entry: Entry[View] | None) -> None:
        if entry is not None and entry.view is not None:
            parent = self._parent(entry.view)
            siblings = self._children.get(parent, set())
            siblings.discard(entry.uid)
            if not siblings:
                self._children.pop(parent, None)

    def _bury(self, uid: str) -> None:
        now = asyncio.get_running_loop().time()
        self._deleted[uid] = now
        while self._deleted:  # in order of time
            oldest = next(iter(self._deleted))
            if self._deleted[oldest] > now - TOMBSTONE_SECONDS:
                return
            del self._deleted[oldest]


class Cache:
    """The three stores, and whom a change concerns."""

    def __init__(self) -> None:
        self.finetunejobs: Store[StoredJob] = Store(FINETUNEJOBS, StoredJob.of, lambda job: job.key, lambda job: "")
        self.jobs: Store[JobView] = Store(
            JOBS, JobView.of, lambda job: (job.namespace, job.owner_name), lambda job: job.owner_uid
        )
        self.pods: Store[PodView] = Store(
            PODS, PodView.of, lambda pod: (pod.namespace, pod.owner_name), lambda pod: pod.job_uid
        )

    def states(self) -> Counter[str]:
        """Return how many FineTuneJobs there are in each state."""
        return Counter(entry.view.state for entry in self.finetunejobs if entry.view is not None)

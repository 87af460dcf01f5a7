"""What is known of the cluster: our own kinds as JSON text, Jobs and pods as the views that decisions need.

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
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from ..api import SUCCEEDED
from ..domain.views import JobView, PodView
from . import metrics
from .kube import EVALUATIONS, FINETUNEJOBS, JOBS, PODS, Body, Resource


class Key(NamedTuple):
    """Whom a change concerns: a FineTuneJob or an Evaluation, which may have the same name."""

    kind: str
    namespace: str
    name: str


Place = tuple[str, str]
"""Namespace and name."""

TOMBSTONE_SECONDS = 600.0

View = TypeVar("View")


def version_of(body: Body) -> int:
    """Return an object's resourceVersion as a number; 0 where it is none."""
    text = body["metadata"].get("resourceVersion", "")
    return int(text) if text.isdigit() else 0


@dataclass(frozen=True)
class Stored:
    """A FineTuneJob or an Evaluation. Its body is kept as text: a fifth of the memory of the parsed form."""

    key: Key
    text: bytes
    state: str
    over: bool
    waits_for: str = ""
    """`<namespace>/<name>` of the FineTuneJob that an Evaluation cannot start without."""

    @property
    def body(self) -> Body:
        body: Body = json.loads(self.text)
        return body

    @classmethod
    def of(cls, kind: str, body: Body) -> Stored:
        conditions = body.get("status", {}).get("conditions", ())
        succeeded: Body = next((c for c in conditions if c.get("type") == SUCCEEDED), {})
        slim = {**body, "metadata": {k: v for k, v in body["metadata"].items() if k != "managedFields"}}
        key = Key(kind, body["metadata"]["namespace"], body["metadata"]["name"])
        text = json.dumps(slim, separators=(",", ":")).encode()
        over = succeeded.get("status", "Unknown") != "Unknown"
        name = body.get("spec", {}).get("target", {}).get("fineTuneJobName")
        waits = name and not over and "resolved" not in body.get("status", {})
        return cls(key, text, succeeded.get("reason", "New"), over, f"{key.namespace}/{name}" if waits else "")


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
        changed: Callable[[Key], None] = lambda key: None,
    ) -> None:
        self.resource = resource
        self._view = view
        self._key = key
        self._parent = parent
        self._changed = changed
        self._entries: dict[str, Entry[View]] = {}
        self._named: dict[Place, str] = {}
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
        if key is not None:
            self._changed(key)
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
        if entry.key is not None:
            self._changed(entry.key)
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
    """The stores, and whom a change concerns.

    `follow` is told of every Evaluation that waits for a FineTuneJob that changed, whichever source the change came
    from: an answer to an own write is no news to the watch that repeats it.
    """

    def __init__(self, follow: Callable[[Key], None] = lambda key: None) -> None:
        self._follow = follow
        self.finetunejobs: Store[Stored] = Store(
            FINETUNEJOBS, partial(Stored.of, FINETUNEJOBS.kind), _key, _waits_for, self._tell_followers
        )
        self.evaluations: Store[Stored] = Store(EVALUATIONS, partial(Stored.of, EVALUATIONS.kind), _key, _waits_for)
        self.jobs: Store[JobView] = Store(
            JOBS, JobView.of, lambda job: Key(job.owner_kind, job.namespace, job.owner_name), lambda job: job.owner_uid
        )
        self.pods: Store[PodView] = Store(
            PODS, PodView.of, lambda pod: Key(pod.owner_kind, pod.namespace, pod.owner_name), lambda pod: pod.job_uid
        )
        self.owners: dict[str, Store[Stored]] = {
            store.resource.kind: store for store in (self.finetunejobs, self.evaluations)
        }

    @property
    def stores(self) -> tuple[Store[Any], ...]:
        """All of them, owners first."""
        return (*self.owners.values(), self.jobs, self.pods)

    def states(self, kind: str = FINETUNEJOBS.kind) -> Counter[str]:
        """Return how many objects of a kind there are in each state."""
        return Counter(entry.view.state for entry in self.owners[kind] if entry.view is not None)

    def _tell_followers(self, key: Key) -> None:
        for evaluation in self.evaluations.of_parent(f"{key.namespace}/{key.name}"):
            self._follow(evaluation.key)


def _key(stored: Stored) -> Key:
    return stored.key


def _waits_for(stored: Stored) -> str:
    return stored.waits_for

"""What is known of the cluster: our own kinds as JSON text, Jobs, work pods and serving pods as the views that
decisions need.

Four sources feed it: the list at the start, the watches, the answers to the operator's own writes, and the audits.
They overtake each other, so nothing here depends on their order:

* Of one object only a newer resourceVersion replaces what is there. The API conventions make resourceVersions of one
  resource comparable as integers (Kubernetes 1.35 and later; every earlier API server on etcd behaved so too).
* A uid that was deleted never comes back; it is remembered for a while, so that a late answer cannot revive it. An
  object that lost its label is reported as deleted too: only what is newer than that brings it back.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from ..domain.views import MANAGED_BY_LABEL, SERVE, STAGE_LABEL, JobView, PodView, ServingPodView
from . import metrics
from .follow import SUMMARY_CONDITIONS, indexes_of, named_evaluation, names_claimed, passed_in, waiting_for
from .kube import ADAPTERROLLOUTS, EVALUATIONS, FINETUNEJOBS, JOBS, PODS, Body, Resource


class Key(NamedTuple):
    """Whom a change concerns: an object of one of our kinds, of which several may have the same name."""

    kind: str
    namespace: str
    name: str


Place = tuple[str, str]
"""Namespace and name."""

TOMBSTONE_SECONDS = 600.0
MANAGED_BY_US = f"{MANAGED_BY_LABEL}=trimtab"

View = TypeVar("View")


def version_of(body: Body) -> int:
    """Return an object's resourceVersion as a number; 0 where it is none."""
    text = body["metadata"].get("resourceVersion", "")
    return int(text) if text.isdigit() else 0


@dataclass(frozen=True)
class Stored:
    """An object of our kinds. Its body is kept as text: a fifth of the memory of the parsed form."""

    key: Key
    text: bytes
    state: str
    over: bool
    indexes: tuple[str, ...] = ()
    """Under what others look it up, see `follow`."""
    selects: Mapping[str, str] = field(default_factory=dict)
    """Labels of the pods that an AdapterRollout serves."""
    port: int | None = None
    """Port of the agents in those pods."""

    @property
    def body(self) -> Body:
        body: Body = json.loads(self.text)
        return body

    @classmethod
    def of(cls, kind: str, body: Body) -> Stored:
        conditions = body.get("status", {}).get("conditions", ())
        summary: Body = next((c for c in conditions if c.get("type") == SUMMARY_CONDITIONS[kind]), {})
        slim = {**body, "metadata": {k: v for k, v in body["metadata"].items() if k != "managedFields"}}
        key = Key(kind, body["metadata"]["namespace"], body["metadata"]["name"])
        serving = body.get("spec", {}).get("serving", {})
        over = kind != ADAPTERROLLOUTS.kind and summary.get("status", "Unknown") != "Unknown"
        return cls(
            key=key,
            text=json.dumps(slim, separators=(",", ":")).encode(),
            state=summary.get("reason", "New"),
            over=over,
            indexes=indexes_of(kind, body, over=over),
            selects=serving.get("selector", {}).get("matchLabels", {}),
            port=serving.get("port"),
        )


@dataclass(frozen=True)
class Entry(Generic[View]):
    """An object in a store; `view` is None when it is none of ours and only its version matters, `key` when nobody is
    to look at it but those who follow it."""

    uid: str
    namespace: str
    name: str
    version: int
    key: Key | None
    view: View | None


@dataclass(frozen=True)
class Tombstone:
    """That an object left, kept against late reports of it: when, and at which version, None for all of them."""

    buried: float
    version: int | None


class Store(Generic[View]):
    """The objects of one resource, by uid, by (namespace, name) and by what others look them up under."""

    def __init__(
        self,
        resource: Resource,
        view: Callable[[Body], View | None],
        key: Callable[[View], Key | None],
        parents: Callable[[View], tuple[str, ...]],
        changed: Callable[[Entry[View]], None] = lambda entry: None,
        *,
        name: str | None = None,
        selector: str = "",
        wants: Callable[[Body], bool] = lambda body: True,
    ) -> None:
        """Make an empty one; `changed` is told of every entry that is new or gone, `selector` is that of `wants`."""
        self.resource = resource
        self.name = name or resource.plural
        self.query: dict[str, str] = {"labelSelector": selector} if selector else {}
        self.wants = wants
        self._view = view
        self._key = key
        self._parents = parents
        self._changed = changed
        self._entries: dict[str, Entry[View]] = {}
        self._named: dict[Place, str] = {}
        self._children: dict[str, set[str]] = {}
        self._deleted: dict[str, Tombstone] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry[View]]:
        return iter(list(self._entries.values()))

    def named(self, namespace: str, name: str) -> Entry[View] | None:
        uid = self._named.get((namespace, name))
        return self._entries[uid] if uid else None

    def view(self, namespace: str, name: str) -> View | None:
        """Return what is known of the object with a name, None if there is none of ours."""
        entry = self.named(namespace, name)
        return entry.view if entry is not None else None

    def left(self, uid: str, version: int) -> bool:
        """Whether an object is known to have left since it had a version."""
        found = self._deleted.get(uid)
        return found is not None and (found.version is None or version <= found.version)

    def of_uid(self, uid: str) -> Entry[View] | None:
        return self._entries.get(uid)

    def of_parent(self, parent_uid: str) -> list[View]:
        entries = (self._entries[uid] for uid in self._children.get(parent_uid, ()))
        return [entry.view for entry in entries if entry.view is not None]

    def put(self, body: Body) -> Key | None:
        """Take in an object, and return whom it concerns, or None if that was known already."""
        metadata: dict[str, Any] = body["metadata"]
        uid, version = metadata["uid"], version_of(body)
        if self.left(uid, version):
            return None
        self._deleted.pop(uid, None)
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
        self._forget_parents(before)
        self._entries[uid] = entry
        self._named[entry.namespace, entry.name] = uid
        if view is not None:
            for parent in self._parents(view):
                self._children.setdefault(parent, set()).add(uid)
        metrics.CACHE_OBJECTS.labels(self.name).set(len(self._entries))
        self._changed(entry)
        return key

    def remove(self, uid: str, version: int | None = None) -> Key | None:
        """Forget an object, and return whom that concerns, or None if it was not known.

        `version` is that of its departure: a later one brings it back, for an object leaves a selection when it loses
        its label. None: it is gone for good.
        """
        self._bury(uid, version)
        entry = self._entries.get(uid)
        if entry is None or (version is not None and version < entry.version):
            return None
        del self._entries[uid]
        if self._named.get((entry.namespace, entry.name)) == uid:
            del self._named[entry.namespace, entry.name]
        self._forget_parents(entry)
        metrics.CACHE_OBJECTS.labels(self.name).set(len(self._entries))
        self._changed(entry)
        return entry.key

    def _forget_parents(self, entry: Entry[View] | None) -> None:
        if entry is None or entry.view is None:
            return
        for parent in self._parents(entry.view):
            siblings = self._children.get(parent, set())
            siblings.discard(entry.uid)
            if not siblings:
                self._children.pop(parent, None)

    def _bury(self, uid: str, version: int | None) -> None:
        now = asyncio.get_running_loop().time()
        before = self._deleted.pop(uid, None)
        if before is not None and (version is None or before.version is None):
            version = None
        self._deleted[uid] = Tombstone(now, version)
        while self._deleted:  # in order of time
            oldest = next(iter(self._deleted))
            if self._deleted[oldest].buried > now - TOMBSTONE_SECONDS:
                return
            del self._deleted[oldest]


class Cache:
    """The stores, and whom a change concerns.

    `follow` is told of everyone who depends on an object that changed, whichever source the change came from: an answer
    to an own write is no news to the watch that repeats it. `serving` is told that a serving pod came, changed or went.
    """

    def __init__(
        self, follow: Callable[[Key], None] = lambda key: None, serving: Callable[[], None] = lambda: None
    ) -> None:
        self._follow = follow
        self._serving = serving

        def own(resource: Resource, changed: Callable[[Entry[Stored]], None]) -> Store[Stored]:
            return Store(
                resource,
                partial(Stored.of, resource.kind),
                lambda stored: stored.key,
                lambda stored: stored.indexes,
                changed,
            )

        self.finetunejobs = own(FINETUNEJOBS, self._finetunejob_changed)
        self.evaluations = own(EVALUATIONS, self._evaluation_changed)
        self.rollouts = own(ADAPTERROLLOUTS, self._rollout_changed)
        self.jobs: Store[JobView] = Store(
            JOBS,
            JobView.of,
            lambda job: Key(job.owner_kind, job.namespace, job.owner_name),
            lambda job: (job.owner_uid,),
            selector=MANAGED_BY_US,
        )
        self.pods: Store[PodView] = Store(
            PODS,
            PodView.of,
            lambda pod: Key(pod.owner_kind, pod.namespace, pod.owner_name),
            lambda pod: (pod.job_uid,),
            selector=f"{MANAGED_BY_US},{STAGE_LABEL}!={SERVE}",
            wants=lambda body: not _serves(body),
        )
        self.serving: Store[ServingPodView] = Store(
            PODS,
            ServingPodView.of,
            lambda pod: None,
            lambda pod: (pod.namespace,),
            self._serving_pod_changed,
            name="serving-pods",
            selector=f"{STAGE_LABEL}={SERVE}",
            wants=_serves,
        )
        self.owners: dict[str, Store[Stored]] = {
            store.resource.kind: store for store in (self.finetunejobs, self.evaluations, self.rollouts)
        }

    @property
    def stores(self) -> tuple[Store[Any], ...]:
        """All of them, owners first."""
        return (*self.owners.values(), self.jobs, self.pods, self.serving)

    def states(self, kind: str = FINETUNEJOBS.kind) -> Counter[str]:
        """Return how many objects of a kind there are in each state."""
        return Counter(entry.view.state for entry in self.owners[kind] if entry.view is not None)

    def rollouts_of(self, pod: ServingPodView) -> list[Stored]:
        """Return the AdapterRollouts that a serving pod is meant for."""
        return [stored for stored in self.rollouts.of_parent(pod.namespace) if matches(stored.selects, pod.labels)]

    def pods_of(self, namespace: str, labels: Mapping[str, str]) -> list[ServingPodView]:
        """Return the serving pods with some labels."""
        return [pod for pod in self.serving.of_parent(namespace) if matches(labels, pod.labels)]

    def _finetunejob_changed(self, entry: Entry[Stored]) -> None:
        self._tell(self.evaluations, waiting_for(FINETUNEJOBS.kind, entry.namespace, entry.name))

    def _evaluation_changed(self, entry: Entry[Stored]) -> None:
        self._tell(self.rollouts, named_evaluation(entry.namespace, entry.name))
        if entry.view is None or entry.view.over:
            self._tell(self.rollouts, passed_in(entry.namespace))

    def _rollout_changed(self, entry: Entry[Stored]) -> None:
        self._tell(self.evaluations, waiting_for(ADAPTERROLLOUTS.kind, entry.namespace, entry.name))
        for index in names_claimed(entry.view.indexes) if entry.view is not None else ():
            self._tell(self.rollouts, index, but=entry.key)

    def _serving_pod_changed(self, entry: Entry[ServingPodView]) -> None:
        for stored in self.rollouts_of(entry.view) if entry.view is not None else ():
            self._follow(stored.key)
        self._serving()

    def _tell(self, followers: Store[Stored], index: str, but: Key | None = None) -> None:
        for stored in followers.of_parent(index):
            if stored.key != but:
                self._follow(stored.key)


def matches(wanted: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Tell whether labels hold all that are wanted; an empty selector selects nothing."""
    return bool(wanted) and all(labels.get(key) == value for key, value in wanted.items())


def _serves(body: Body) -> bool:
    return bool(body["metadata"].get("labels", {}).get(STAGE_LABEL) == SERVE)

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
import logging
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any, Generic, TypeVar

import orjson

from ...domain.cluster import Key
from ...domain.gitops import MARKS
from ...domain.kind import NOT_SERVING, AnyKind, Serving
from ...domain.kinds import KINDS
from ...domain.ownership import ORPHAN
from ...domain.review.policies import AUTHOR_ANNOTATION
from ...domain.views import MANAGED_BY_LABEL, SERVE, STAGE_LABEL, JobView, PodView, ServingPodView, labels_kept
from ...domain.work.building.queue import is_of_queue
from .. import metrics
from ..kube import JOBS, OWN, PODS, Body, Resource
from ..logs import keys
from ..rounds.gate import has_ended, summary_of
from .departed import Departed

log = logging.getLogger(__name__)

Place = tuple[str, str]
"""Namespace and name."""

TOMBSTONE_SECONDS = 600.0
MANAGED_BY_US = f"{MANAGED_BY_LABEL}=trimtab"

View = TypeVar("View")


def version_of(body: Body) -> int:
    """Return an object's resourceVersion as a number; 0 where it is none."""
    text = body["metadata"].get("resourceVersion", "")
    return int(text) if text.isdigit() else 0


def typed_item(item: Body, resource: Resource) -> Body:
    """Return an item of a list as it would be on its own: lists of built-in kinds leave out what all items share."""
    return {"apiVersion": resource.api_version, "kind": resource.kind, **item}


KEPT_METADATA = ("namespace", "name", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp")
ANNOTATIONS_KEPT = 64
ANNOTATION_LENGTH = 1024
"""Of one that is passed on. A longer one is left out: a part of it would say something else."""


def _rank(label: str, tracking: Collection[str]) -> int:
    """Return the order in which labels are kept: marks of tools, what is for a queue, all others."""
    return 0 if label in MARKS or label in tracking else 1 if is_of_queue(label) else 2


def _is_read(annotation: str) -> bool:
    """Tell whether the value of an annotation is asked for."""
    return annotation == AUTHOR_ANNOTATION or is_of_queue(annotation)


def slim(body: Body, tracking: Collection[str] = ()) -> Body:
    """Return what is read of an object of ours: annotations may be a quarter of a MiB, and nobody asks for most.

    `tracking` are the labels by which tools keep objects here (`Settings.gitops_labels`).
    """
    metadata = body["metadata"]
    kept = {key: metadata[key] for key in KEPT_METADATA if key in metadata}
    if labels := metadata.get("labels"):
        ordered = sorted(labels.items(), key=lambda each: _rank(each[0], tracking))
        kept["labels"] = labels_kept(ordered)
    annotations = metadata.get("annotations") or {}
    if metadata.get("deletionTimestamp") and (finalizers := metadata.get("finalizers")):
        kept["finalizers"] = [each for each in finalizers if each == ORPHAN]
    if owners := [each for each in metadata.get("ownerReferences") or () if each.get("controller")]:
        kept["ownerReferences"] = [{"uid": each["uid"], "controller": True} for each in owners[:1]]
    told = {key: "" for key in annotations if key in MARKS}  # that it is there says all
    told |= {k: v for k, v in annotations.items() if _is_read(k) and len(v) <= ANNOTATION_LENGTH}
    if told:
        ordered = sorted(told.items(), key=lambda each: each[0] != AUTHOR_ANNOTATION)
        kept["annotations"] = dict(islice(ordered, ANNOTATIONS_KEPT))
    return {**{key: body[key] for key in ("apiVersion", "kind", "spec", "status") if key in body}, "metadata": kept}


PACKED_LEVEL = 1
"""Of zlib: half of the size, and a tenth of a millisecond."""
TYPED_KEPT = 256
"""Objects whose typed form is kept: rounds about one of them often follow each other, and it is half of their cost."""


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """One version of an object of our kinds.

    Its body is kept as text, a fifth of the memory of the parsed form, and packed once it has ended: hardly anybody
    reads it then.
    """

    key: Key
    text: bytes
    state: str
    over: bool
    labels: Mapping[str, str] = field(default_factory=dict)
    rests: bool = False
    """Whether it has ended and nothing is left to do about it, as long as no Job of it lives."""
    completed: str = ""
    """When it ended."""
    indexes: tuple[str, ...] = ()
    """Under what others look it up."""
    serving: Serving = NOT_SERVING
    """The pods that it serves from."""

    @property
    def body(self) -> Body:
        body: Body = orjson.loads(zlib.decompress(self.text) if self.over else self.text)
        return body

    @classmethod
    def of(cls, kind: AnyKind, body: Body, tracking: Collection[str] = ()) -> Stored:
        small, over = slim(body, tracking), has_ended(kind, body)
        text = orjson.dumps(small)
        return cls(
            key=Key(kind.name, sys.intern(body["metadata"]["namespace"]), body["metadata"]["name"]),
            text=zlib.compress(text, PACKED_LEVEL) if over else text,
            state=sys.intern(summary_of(kind, body).get("reason", "New")),
            over=over,
            rests=over and kind.rests(body),
            labels=small["metadata"].get("labels", {}),
            completed=body.get("status", {}).get("completionTime", ""),
            indexes=kind.indexes(body, over),
            serving=kind.serves(body),
        )


@lru_cache(maxsize=TYPED_KEPT)
def typed(stored: Stored) -> Any:
    """Return the typed form of an object; of one version there is one for ever.

    Raises:
        pydantic.ValidationError: it was written under a version of its kind that is not known here.
    """
    return KINDS[stored.key.kind].parse(stored.body)


@dataclass(frozen=True, slots=True)
class Entry(Generic[View]):
    """An object in a store; `view` is None when only its version matters, because it is none of ours or its owner has
    ended, `key` when nobody is to look at it but those who follow it."""

    uid: str
    namespace: str
    name: str
    version: int
    key: Key | None
    view: View | None


@dataclass(frozen=True, slots=True)
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
        gone: Callable[[View], None] = lambda view: None,
    ) -> None:
        """Make an empty one; `changed` is told of every entry that is new or gone, `gone` is given what is known of
        what is gone, `selector` is that of `wants`."""
        self.resource = resource
        self.name = name or resource.plural
        self.query: dict[str, str] = {"labelSelector": selector} if selector else {}
        self.wants = wants
        self._view = view
        self._key = key
        self._parents = parents
        self._changed = changed
        self._gone = gone
        self._entries: dict[str, Entry[View]] = {}
        self._named: dict[Place, str] = {}
        self._children: dict[str, set[str]] = {}
        self._deleted: dict[str, Tombstone] = {}
        self._counted = metrics.CACHE_OBJECTS.labels(self.name)
        self.heard = metrics.LAST_EVENT.labels(self.name)
        """When a watch told of one last."""

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
        """Whether an object is known to have left since it had a version.

        One that is read at the very version of its departure is there, and is only not selected any more.
        """
        found = self._deleted.get(uid)
        return found is not None and (found.version is None or version < found.version)

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
        if before is not None and (version < before.version or (version == before.version and before.view is not None)):
            return None
        same_name = self.named(metadata["namespace"], metadata["name"])
        if same_name is not None and same_name.uid != uid:
            if version < same_name.version:
                return None  # an earlier bearer of the name, reported late
            self.remove(same_name.uid)
        view = self._read(body)
        key = self._key(view) if view is not None else None
        entry = Entry(uid, sys.intern(metadata["namespace"]), metadata["name"], version, key, view)
        self._forget_parents(before)
        self._entries[uid] = entry
        self._named[entry.namespace, entry.name] = uid
        if view is not None:
            for parent in self._parents(view):
                self._children.setdefault(parent, set()).add(uid)
        self._counted.set(len(self._entries))
        self._changed(entry)
        return key

    def note(self, body: Body) -> None:
        """Know of an object that it is there, and at which version: nobody asks for more of it until it changes."""
        metadata, version = body["metadata"], version_of(body)
        uid, namespace, name = metadata["uid"], sys.intern(metadata["namespace"]), metadata["name"]
        if uid in self._entries or self.left(uid, version) or (namespace, name) in self._named:
            return
        self._entries[uid] = Entry(uid, namespace, name, version, None, None)
        self._named[namespace, name] = uid
        self._counted.set(len(self._entries))

    def reads(self, body: Body) -> bool:
        """Tell whether an object is one of ours that something can be made of."""
        return self._read(body) is not None

    def _read(self, body: Body) -> View | None:
        """Return the view of an object; what no view can be made of is none of ours.

        One object must not end an audit or a watch for all others, whatever a tenant wrote into it.
        """
        try:
            return self._view(body)
        except Exception as error:  # counted and logged: what is left out can be seen
            metrics.UNREADABLE.labels(self.name).inc()
            metadata = body["metadata"]
            about = {"kind": self.resource.kind, "namespace": metadata["namespace"], "name": metadata["name"]}
            log.warning("object not readable", extra=keys(**about, err=f"{type(error).__name__} {error}"))
            return None

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
        self._counted.set(len(self._entries))
        if entry.view is not None:
            self._gone(entry.view)
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
    to an own write is no news to the watch that repeats it. `serving` is told that a serving pod came, changed or went,
    `seen` is given every new version of an object of ours before anything else is made of it. `tracking`: see `slim`.
    """

    def __init__(
        self,
        follow: Callable[[Key], None] = lambda key: None,
        serving: Callable[[], None] = lambda: None,
        seen: Callable[[AnyKind, Body], None] | None = None,
        tracking: Collection[str] = (),
    ) -> None:
        self.follow = follow
        self._serving = serving
        self._seen = seen
        self._tracking = tracking

        self.departed = Departed()
        self.owners: dict[str, Store[Stored]] = {kind.name: self._own(kind) for kind in KINDS.values()}
        self.jobs: Store[JobView] = Store(
            JOBS,
            JobView.of,
            lambda job: Key(job.owner_kind, job.namespace, job.owner_name),
            lambda job: (_index_of(Key(job.owner_kind, job.namespace, job.owner_name)),),
            selector=MANAGED_BY_US,
            wants=_is_managed_by_us,
            gone=self.departed.job,
        )
        self.pods: Store[PodView] = Store(
            PODS,
            PodView.of,
            self._whose,
            lambda pod: (pod.job_uid, _index_of(Key(pod.owner_kind, pod.namespace, pod.owner_name))),
            selector=f"{STAGE_LABEL},{STAGE_LABEL}!={SERVE}",  # of our domain: policies write over the other label
            wants=lambda body: not _serves(body),
            gone=self.departed.pod,
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

    def _own(self, kind: AnyKind) -> Store[Stored]:
        def changed(entry: Entry[Stored]) -> None:
            key, view = Key(kind.name, entry.namespace, entry.name), entry.view
            told = kind.concerns(key, view is None or view.over, view.indexes if view is not None else ())
            for index in told:
                self._tell(index, but=key)

        def view(body: Body) -> Stored:
            if self._seen is not None:
                self._seen(kind, body)
            return Stored.of(kind, body, self._tracking)

        return Store(OWN[kind.name], view, lambda stored: stored.key, lambda stored: stored.indexes, changed)

    @property
    def stores(self) -> tuple[Store[Any], ...]:
        """All of them, owners first."""
        return (*self.owners.values(), self.jobs, self.pods, self.serving)

    def states(self, kind: str) -> Counter[str]:
        """Return how many objects of a kind there are in each state."""
        return Counter(entry.view.state for entry in self.owners[kind] if entry.view is not None)

    def pods_served(self) -> tuple[int, int]:
        """Return how many pods of all rollouts are ready, of how many, as their statuses say."""
        told = [entry.view.serving for entry in self.owners["AdapterRollout"] if entry.view is not None]
        return sum(each.ready for each in told), sum(each.desired for each in told)

    def stored(self, key: Key) -> Stored | None:
        """Return an object of our kinds, None if there is none."""
        return self.owners[key.kind].view(key.namespace, key.name)

    def at_rest(self, key: Key) -> bool:
        """Tell whether an object has ended and nothing is left to do about it, because no Job of it lives either."""
        entry = self.owners[key.kind].named(key.namespace, key.name)
        if entry is None or entry.view is None or not entry.view.rests:
            return False
        return all(job.finished or job.deleting for job in self.jobs_of(key))

    def jobs_of(self, key: Key) -> list[JobView]:
        """Return the Jobs that say that they are of an object."""
        return self.jobs.of_parent(_index_of(key))

    def pods_saying(self, key: Key) -> list[PodView]:
        """Return the pods that say that they work for an object, in the order of their names."""
        return sorted(self.pods.of_parent(_index_of(key)), key=lambda pod: pod.name)

    def served_by(self, pod: ServingPodView) -> Iterator[Stored]:
        """Return the objects that a serving pod is meant for, one after the other."""
        found = (stored for store in self.owners.values() for stored in store.of_parent(pod.namespace))
        return (stored for stored in found if matches(stored.serving.labels, pod.labels))

    def pods_of(self, namespace: str, labels: Mapping[str, str]) -> list[ServingPodView]:
        """Return the serving pods with some labels."""
        return [pod for pod in self.serving.of_parent(namespace) if matches(labels, pod.labels)]

    def _whose(self, pod: PodView) -> Key | None:
        """Return whom a pod concerns: whoever its Job does, whatever its labels say; they tell where that is gone."""
        job = self.jobs.of_uid(pod.job_uid)
        if job is not None and job.key is not None:
            return job.key
        return Key(pod.owner_kind, pod.namespace, pod.owner_name) if pod.owner_name else None

    def _serving_pod_changed(self, entry: Entry[ServingPodView]) -> None:
        for stored in self.served_by(entry.view) if entry.view is not None else ():
            self.follow(stored.key)
        self._serving()

    def _tell(self, index: str, but: Key) -> None:
        for store in self.owners.values():
            for stored in store.of_parent(index):
                if stored.key != but:
                    self.follow(stored.key)


def matches(wanted: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Tell whether labels hold all that are wanted; an empty selector selects nothing."""
    return bool(wanted) and all(labels.get(key) == value for key, value in wanted.items())


def _index_of(key: Key) -> str:
    return "/".join(key)


def _is_managed_by_us(body: Body) -> bool:
    return bool(body["metadata"].get("labels", {}).get(MANAGED_BY_LABEL) == "trimtab")


def _serves(body: Body) -> bool:
    return bool(body["metadata"].get("labels", {}).get(STAGE_LABEL) == SERVE)

"""`Cluster`: what a kind may look up when it makes its snapshot, and what stood in the way of what it planned before.

The runtime answers from its cache, without I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from trimtab_trainer.contract import Progress

from .plan import Action, Body, Create
from .settings import Settings
from .views import JobView, PodView

if TYPE_CHECKING:
    from .adapterrollout.observed import ServingPod


class Key(NamedTuple):
    """An object of one of our kinds, of which several may have the same name."""

    kind: str
    namespace: str
    name: str


class NotUnderstood(Exception):
    """An object that another one refers to was written under a version of its kind that is not known here."""

    def __init__(self, key: Key) -> None:
        super().__init__(f"{key.kind} {key.name} cannot be understood")


@dataclass(frozen=True)
class NameTaken:
    """A child's name is held by an object of another owner.

    The runtime notes it when a creation meets such an object, looks at that object again before each later round,
    and forgets it when the name is free or ours.

    Attributes:
        name: kind and name.
        since: when it was met first.
        nobodys: whether it has no owner at all.
    """

    name: str
    since: datetime
    nobodys: bool = False

    def told(self) -> str:
        """Return what to say of it."""
        if self.nobodys:
            why = "something else made it, or a policy or a webhook takes owners away"
            return f"{self.name} is there and has no owner: {why}; delete or rename it"
        return f"{self.name} belongs to something else; delete or rename that"


@dataclass(frozen=True)
class Refusal:
    """What was to be done and the API server did not accept: by a quota, an admission policy or a webhook.

    The runtime notes it, and forgets it when something of the object's succeeds.

    Attributes:
        what: kind of object that was refused, for messages.
        words: of the API server.
        since: when it was refused first, without anything that succeeded in between, or that is waited for otherwise.
        tried: when it was tried last.
        fault: whether it is none of these, but an error of the API server's that lasts.
        action: what was to be done. A Job that may not be suspended, or go on, says nothing about the next one.
    """

    what: str
    words: str
    since: datetime
    tried: datetime
    fault: bool = False
    action: type[Action] = Create

    FIRST_PAUSE_SECONDS = 5.0
    LONGEST_PAUSE_SECONDS = 60.0

    def told(self, whose: str = "") -> str:
        """Return what to say of it."""
        who = "the API server does not take" if self.fault else "the namespace refuses"
        return f"{who} the {self.what}{whose}: {self.words}"

    def pause(self, now: datetime) -> float:
        """Return the seconds until it is worth another try: the longer it lasts, the more seldom."""
        lasts = (self.tried - self.since).total_seconds()
        again = self.tried + timedelta(seconds=min(max(lasts, self.FIRST_PAUSE_SECONDS), self.LONGEST_PAUSE_SECONDS))
        return max(0.0, (again - now).total_seconds())


class Cluster(Protocol):
    """A moment of what is known."""

    @property
    def settings(self) -> Settings: ...

    def named(self, kind: str, namespace: str, name: str) -> Any | None:
        """Return the typed form of an object of one of our kinds.

        Raises:
            NotUnderstood: there is one, of a version that is not known here.
        """

    def called(self, kind: str, namespace: str, name: str) -> tuple[Any, ...]:
        """Return the object as `named` does, if there is one; one that is not understood counts as none."""

    def indexed(
        self, kind: str, index: str, *, labels: Mapping[str, str] | None = None, newest: int | None = None
    ) -> tuple[Any, ...]:
        """Return the objects of a kind that are looked up under a word, those that are understood.

        Args:
            kind: of the objects.
            index: one of `indexes`.
            labels: that they have.
            newest: only so many, those that completed last, newest first.
        """

    def bodies(self, kind: str, index: str) -> tuple[Body, ...]:
        """Return the objects of a kind that are looked up under a word as they are, understood or not."""

    def serving_pods(
        self, namespace: str, rollout: str, labels: Mapping[str, str] | None = None
    ) -> tuple[tuple[ServingPod, ...], tuple[ServingPod, ...]]:
        """Return the serving pods with some labels, as a rollout sees them; and the others that hold something of it
        and may be told now that it is not wanted there."""

    def told_again_in(self, namespace: str, rollout: str) -> float | None:
        """Return in how many seconds a pod that holds something of a rollout may hear again that it is gone."""

    def term(self, namespace: str) -> int:
        """Return the first part of every document's sequence: of the Lease, or what pods held above it."""

    @property
    def can_sign(self) -> bool:
        """Whether there is a key to sign documents with."""

    def jobs_of(self, key: Key) -> Sequence[JobView]:
        """Return the Jobs that say that they are of an object, whether or not they are."""

    def departed(self, key: Key) -> Sequence[JobView]:
        """Return the Jobs that said that they are of an object and had ended before they went, lately."""

    def pods_saying(self, key: Key) -> Sequence[PodView]:
        """Return the pods that say that they work for an object, in the order of their names."""

    def pods_of(self, job_uid: str) -> Sequence[PodView]:
        """Return the pods of a Job. Of one that has ended also those that were over before they went, lately."""

    def progress(self, job_uid: str) -> Progress | None: ...
    def silent(self, job_uid: str) -> bool: ...
    def taken(self, key: Key) -> NameTaken | None: ...
    def refused(self, key: Key) -> Refusal | None: ...

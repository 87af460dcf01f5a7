"""`Plan`: what a decision consists of, as values that the runtime carries out and tests compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Body = dict[str, Any]
"""A Kubernetes object as JSON."""


@dataclass(frozen=True)
class Create:
    """Create an object. That it is there already is success only if its controller has the same uid."""

    body: Body


@dataclass(frozen=True)
class Delete:
    """Delete an object if it still has this uid; that it is gone is success."""

    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True)
class Suspend:
    """Write a Job's `suspend`, the one field of a live Job that is ever written."""

    namespace: str
    name: str
    uid: str
    suspend: bool


Action = Create | Delete | Suspend


@dataclass(frozen=True)
class Note:
    """An event, posted after the status that it tells of was written."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class EventsOf:
    """Inquiry: the events that regard an object, oldest first, as (reason, message)."""

    namespace: str
    uid: str


@dataclass(frozen=True)
class NodeOf:
    """Inquiry: whether a node is Ready; the answer is "Ready", "NotReady", "Gone" or "Forbidden" (to read)."""

    name: str


Inquiry = EventsOf | NodeOf


@dataclass(frozen=True)
class Plan:
    """What to do about one object: ask, or act, or write down.

    A plan holds inquiries, or actions, or a status; the runtime carries it out and plans again with what it learned,
    until a plan holds neither inquiries nor actions. So the status always tells of a world in which everything that
    was decided is done, and one write is enough.

    Attributes:
        inquiries: facts that are not watched; the next plan is made with their answers.
        actions: carried out in order; the first failure ends the round, which is repeated later.
        status: the whole desired status, written if it differs; None: there is nothing to say.
        notes: events, posted after the status was written, and only if it was.
        look_again_seconds: when to plan again if nothing happens.
        confirm: decide again on uncached reads before any of this is done, because it is costly or irreversible.
    """

    inquiries: tuple[Inquiry, ...] = ()
    actions: tuple[Action, ...] = ()
    status: Body | None = None
    notes: tuple[Note, ...] = ()
    look_again_seconds: float | None = None
    confirm: bool = False

"""`Plan`: what a decision consists of, as values that the runtime carries out and tests compare."""

from __future__ import annotations

from dataclasses import dataclass, field
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

    kind: Literal["Job", "FineTuneJob"]
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
    """Inquiry: whether a node is Ready; the answer is "Ready", "NotReady" or "Gone"."""

    name: str


Inquiry = EventsOf | NodeOf


@dataclass(frozen=True)
class Plan:
    """What to do about one object.

    `actions` are carried out in order, the first failure ends the round. `status` is the whole desired status, None
    where it must not be touched. `confirm` asks for a decision on uncached reads before anything of this plan is
    done. `inquiries` ask for facts that are not watched; when one is not answered yet, nothing else is done.
    """

    actions: tuple[Action, ...] = ()
    status: Body | None = None
    notes: tuple[Note, ...] = ()
    look_again_seconds: float | None = None
    confirm: bool = False
    inquiries: tuple[Inquiry, ...] = field(default=())

"""`Plan`: what a decision consists of, as values that the runtime carries out and tests compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from trimtab_agent.contract import Share
from trimtab_trainer.contract.sweeps.settings import SuggestionRequest

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
    """Write a child's `suspend`, the one field of a live child that is ever written."""

    namespace: str
    name: str
    uid: str
    suspend: bool
    kind: str = "Job"


Action = Create | Delete | Suspend


@dataclass(frozen=True)
class Adopt:
    """Give a child that has lost them its labels and its controller again.

    Attributes:
        body: of the child: kind, and in its metadata namespace, name, uid, and those labels and owner references.
    """

    body: Body


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
class PodsRefused:
    """Inquiry: what keeps a Job, by its uid, from getting pods; the answer is a `cluster.Refusal`, None where the last
    try succeeded, or nobody tells of one."""

    namespace: str
    uid: str


@dataclass(frozen=True)
class WarnedSince:
    """Inquiry: when the first of the warnings of some reasons that regard an object was seen; None without any."""

    namespace: str
    uid: str
    reasons: frozenset[str]


@dataclass(frozen=True)
class NodeOf:
    """Inquiry: whether a node is Ready; the answer is "Ready", "NotReady", "Gone" or "Forbidden" (to read)."""

    name: str


@dataclass(frozen=True)
class MountedShare:
    """Inquiry: the document that pods start from while nobody can call them; the answer is a Share, or None."""

    namespace: str
    rollout: str


@dataclass(frozen=True)
class AgentsOf:
    """Inquiry: what the agents of some pods, by uid, say at this moment; the next snapshot has it."""

    pods: tuple[str, ...]


@dataclass(frozen=True)
class IsMounted:
    """Inquiry: whether anything of a rollout's name lies where pods start from, a valid document or not."""

    namespace: str
    rollout: str


@dataclass(frozen=True)
class NextPoints:
    """Inquiry: where a search goes on; the answer is the points, fewer than asked for where there are no more."""

    request: SuggestionRequest


@dataclass(frozen=True)
class Importance:
    """Inquiry: what matters in a search; the answer is the share of each parameter by its position, none of too few
    trials."""

    request: SuggestionRequest


@dataclass(frozen=True)
class PolicyInForce:
    """Inquiry: since when an admission policy of the chart is in force; the answer is a `review.policies.Force`, which
    may be some seconds old."""

    policy: str


Inquiry = (
    EventsOf
    | PodsRefused
    | WarnedSince
    | NodeOf
    | MountedShare
    | IsMounted
    | AgentsOf
    | NextPoints
    | Importance
    | PolicyInForce
)

OF_THEMSELVES = (NextPoints, Importance)
"""Inquiries whose answers are functions of them alone: they hold whatever was read since."""


@dataclass(frozen=True)
class Document:
    """A share for one pod, to be signed and sent.

    `moves`: requests go elsewhere by it, `leaves`: also those that something answers until then.
    """

    pod: str
    uid: str
    address: str
    share: Share
    moves: bool = False
    leaves: bool = False


@dataclass(frozen=True)
class Withdrawal:
    """Nothing of a rollout is to be mounted for new pods any more."""

    namespace: str
    rollout: str


@dataclass(frozen=True)
class Plan:
    """What to do about one object: ask, or act, or write down.

    A plan holds inquiries, or what is to be done in this order: actions, the status, documents, notes. The runtime
    answers or carries out, and plans again until nothing is left. A status that tells of actions is written after them,
    so it tells of a world in which everything that was decided is done; documents follow the status, so whoever goes
    on after a crash knows what was decided, and finds in the pods' truth what was not sent.

    Attributes:
        inquiries: facts that are not watched; the next plan is made with their answers and those before.
        actions: carried out in order; the first failure ends the round, which is repeated later. A `Suspend` that is
            refused ends nothing: what comes after it does not depend on it.
        status: the whole desired status, written if it differs; None: there is nothing to say.
        documents: shares to sign and send, each to its pod, all at once: no answer is waited for by another.
        sequence: of the documents, None where there are none.
        mounted: what pods are to start from, put into its ConfigMap or taken away after the documents were sent.
        notes: events, posted after the status was written, and only if it was.
        aside: created or adopted last of all; one that cannot be is logged and tried again later, and hinders nothing.
        standing: an event of what is not done yet and no status tells of; posted when it is news, whatever is written.
        look_again_seconds: when to plan again if nothing happens.
        confirm: decide again on uncached reads before any of this is done, because it is costly or irreversible.
        follows_up: whether something may follow from the status itself, so that it is looked at again at once.
    """

    inquiries: tuple[Inquiry, ...] = ()
    actions: tuple[Action, ...] = ()
    status: Body | None = None
    documents: tuple[Document, ...] = ()
    sequence: tuple[int, int] | None = None
    mounted: Share | Withdrawal | None = None
    notes: tuple[Note, ...] = ()
    aside: tuple[Create | Adopt, ...] = ()
    standing: Note | None = None
    look_again_seconds: float | None = None
    confirm: bool = False
    follows_up: bool = True

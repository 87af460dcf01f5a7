"""`Kind`: everything that the rest of the operator has to know of one kind of custom resource.

Watches, cache, audits, rounds, metrics, permissions and generated files go through the list of them in `kinds`. A kind
is its models in `api/`, its folder here, and a line in that list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from trimtab_operator.api.definitions.customresource import CustomResource

from .cluster import Cluster, Key
from .measures import Measure
from .plan import Body, Inquiry, Plan

O = TypeVar("O")  # noqa: E741  an object of the kind
D = TypeVar("D")  # what a decision about it sees
Answers = Mapping[Inquiry, object]


@dataclass(frozen=True)
class Needs:
    """What a decision depends on, to be read anew before anything costly or irreversible is done.

    Attributes:
        itself: whether that is the object too. A status is refused if it was decided on from an earlier version, but
            nothing else is.
        objects: others of our kinds.
        jobs: names of Jobs, each with the uid that it had; None: it may be there without being known.
        agents: uids of serving pods whose agents have to say what is true at this moment.
    """

    itself: bool = True
    objects: tuple[Key, ...] = ()
    jobs: Mapping[str, str | None] = field(default_factory=dict)
    agents: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.itself or self.objects or self.jobs or self.agents)


def leaves_nothing(cluster: Cluster, key: Key, answers: Answers, now: datetime) -> Plan:
    """Return nothing to do after an object is gone: the garbage collector takes its children."""
    return Plan()


@dataclass(frozen=True, slots=True)
class Serving:
    """What is asked of an object that serves from pods far more often than it changes.

    Attributes:
        labels: of the pods.
        port: where it says that their agents listen, None if it does not.
        ready: how many pods answer with what is wanted, as its status says.
        desired: of how many.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    port: int | None = None
    ready: int = 0
    desired: int = 0


NOT_SERVING = Serving()


def serves_nothing(body: Body) -> Serving:
    """Return no labels: most kinds serve from no pods."""
    return NOT_SERVING


def always_more(body: Body) -> bool:
    """Return that there may be something left to do about an object, whatever it says."""
    return False


@dataclass(frozen=True)
class Kind(Generic[O, D]):
    """One kind.

    Attributes:
        crd: its models, names, columns and reasons; `crd.summary` is the condition whose reason is the state.
        ends: whether that condition says at last that an object has ended: True or False, and for good.
        parse: returns the typed form of a body; raises pydantic.ValidationError for one of a version that is not known.
        indexes: the words under which others look an object up; given its body and whether it has ended.
        concerns: the words of those who have to look when an object changed or is gone; given its key, whether it has
            ended or is gone, and its own indexes.
        observe: makes the snapshot for a decision, without I/O. The snapshot has a field `answers`.
        plan: the decision, a pure function of the snapshot and the time.
        needs: what the decision depends on beside the object itself; given the snapshot and what was planned.
        measures: what a status write tells as metrics; given both statuses in their typed form, and the time.
        gauge: name of the metric that counts objects by state.
        rests: whether nothing is left to do about an object that has ended, as long as no Job of it lives: there may be
            ten thousand of those after a restart, and most say so themselves.
        serves: the pods that it serves from.
        retire: what is left to be done when an object does not exist any more.
        later: types of conditions that are still written of an object that has ended, and nothing else of it.
        makes: names of those of our kinds that it makes objects of.
    """

    crd: CustomResource
    ends: bool
    parse: Callable[[Body], O]
    indexes: Callable[[Body, bool], tuple[str, ...]]
    concerns: Callable[[Key, bool, tuple[str, ...]], tuple[str, ...]]
    observe: Callable[[Cluster, O], D]
    plan: Callable[[D, datetime], Plan]
    needs: Callable[[D, Plan], Needs]
    measures: Callable[[Any, Any, datetime], tuple[Measure, ...]]
    gauge: str
    rests: Callable[[Body], bool] = always_more
    serves: Callable[[Body], Serving] = serves_nothing
    retire: Callable[[Cluster, Key, Answers, datetime], Plan] = leaves_nothing
    later: frozenset[str] = frozenset()
    makes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.crd.kind

    @property
    def summary(self) -> str:
        return self.crd.summary


AnyKind = Kind[Any, Any]

"""`Observed`: everything a decision about one resource may depend on, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic

from trimtab_trainer.contract import Progress

from trimtab_operator.api import AdapterRollout, FineTuneJob

from ..plan import Inquiry
from ..settings import Settings
from ..views import JobView, PodView
from .kind import J, Kind


@dataclass(frozen=True)
class NameTaken:
    """A child's name is held by an object of another owner.

    The runtime notes it when a creation meets such an object, looks at that object again before each later round,
    and forgets it when the name is free or ours.
    """

    name: str
    since: datetime


@dataclass(frozen=True)
class Observed(Generic[J]):
    """A snapshot.

    Attributes:
        kind: what is particular to its kind.
        job: the FineTuneJob or Evaluation as the API server has it.
        attempts: its Jobs, matched by the uid of their controller, in order of their number.
        pods: the pods of those Jobs.
        progress: newest answers of running pods, by Job uid.
        silent: uids of Jobs whose pods run, are asked for their progress and have never answered.
        answers: to inquiries of an earlier round: events as ((reason, message), ...), nodes as a word.
        taken: a name that is not free now.
        upstream: the FineTuneJob that is waited for, if it is there.
        rollout: the AdapterRollout that a baseline names, if it is there and needed still.
        confirmed: whether this snapshot was read from the API server just now, not from the cache.
    """

    kind: Kind[J, Any]
    job: J
    settings: Settings
    attempts: tuple[JobView, ...] = ()
    pods: tuple[PodView, ...] = ()
    progress: Mapping[str, Progress] = field(default_factory=dict)
    silent: frozenset[str] = frozenset()
    answers: Mapping[Inquiry, object] = field(default_factory=dict)
    taken: NameTaken | None = None
    upstream: FineTuneJob | None = None
    rollout: AdapterRollout | None = None
    confirmed: bool = False

"""`Observed`: everything a decision about one FineTuneJob may depend on, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from trimtab_trainer.contract import Progress

from trimtab_operator.api import FineTuneJob

from ..plan import Inquiry
from ..settings import Settings
from ..views import JobView, PodView


@dataclass(frozen=True)
class NameTaken:
    """A child's name is held by an object of another owner.

    The runtime notes it when a creation meets such an object, looks at that object again before each later round,
    and forgets it when the name is free or ours.
    """

    name: str
    since: datetime


@dataclass(frozen=True)
class Observed:
    """A snapshot.

    Attributes:
        job: the FineTuneJob as the API server has it.
        attempts: its Jobs, matched by the uid of their controller, in order of their number.
        pods: the pods of those Jobs.
        progress: newest answers of running pods, by Job uid.
        answers: to inquiries of an earlier round: events as ((reason, message), ...), nodes as a word.
        taken: a name that is not free now.
        confirmed: whether this snapshot was read from the API server just now, not from the cache.
    """

    job: FineTuneJob
    settings: Settings
    attempts: tuple[JobView, ...] = ()
    pods: tuple[PodView, ...] = ()
    progress: Mapping[str, Progress] = field(default_factory=dict)
    answers: Mapping[Inquiry, object] = field(default_factory=dict)
    taken: NameTaken | None = None
    confirmed: bool = False

"""`Observed`: everything a decision about work in stages may depend on, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic

from ..cluster import NameTaken, Refusal
from ..plan import Inquiry
from ..readers import Readers
from ..settings import Settings
from ..views import JobView, PodView
from .attempts.attempt import Attempt
from .particulars import NONE, Particulars, References
from .subject import J


@dataclass(frozen=True)
class Observed(Generic[J]):
    """A snapshot.

    Attributes:
        kind: what is particular to its kind.
        job: the FineTuneJob, Evaluation or AdapterExport as the API server has it.
        attempts: its attempts that are there, in order of their number.
        afterwards: what is done after its end, of which the status keeps no account.
        claiming: Jobs that say that they are attempts of it, and are not as far as it knows.
        left_behind: pods that say so, whose Job is gone.
        answers: to inquiries of this round: events as ((reason, message), ...), nodes as a word.
        taken: a name that is not free now.
        refused: what the API server did not let happen.
        references: the objects that it refers to.
        awaited: who has still to read it, if it has ended and has a TTL.
    """

    kind: Particulars[J, Any]
    job: J
    settings: Settings
    attempts: tuple[Attempt, ...] = ()
    afterwards: tuple[Attempt, ...] = ()
    claiming: tuple[JobView, ...] = ()
    left_behind: tuple[PodView, ...] = ()
    answers: Mapping[Inquiry, object] = field(default_factory=dict)
    taken: NameTaken | None = None
    refused: Refusal | None = None
    references: References = NONE
    awaited: Readers = ()

    @property
    def highest_number(self) -> int:
        """The highest number among the attempts that were seen; -1 without any."""
        return max((attempt.number for attempt in self.attempts), default=-1)

    @property
    def names_claimed(self) -> frozenset[str]:
        """Names that the next attempt cannot have: of Jobs that say they are attempts of it."""
        return frozenset(job.name for job in self.claiming)

    @property
    def beside(self) -> JobView | PodView | None:
        """What runs, or may, and would do the work of the next attempt beside it; to be left alone, as it may not be
        ours, or somebody wants it to stay."""
        jobs = (job for job in self.claiming if not job.finished and not job.deleting)
        pods = (pod for pod in self.left_behind if not pod.over and pod.deletion_time is None)
        return next(jobs, None) or next(pods, None)

    def attempt(self, uid: str) -> Attempt | None:
        return next((attempt for attempt in self.attempts if attempt.uid == uid), None)

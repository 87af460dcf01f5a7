"""`Observed`: everything a decision about work in stages may depend on, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic

from ..cluster import NameTaken, Refusal
from ..plan import Inquiry
from ..settings import Settings
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
        answers: to inquiries of this round: events as ((reason, message), ...), nodes as a word.
        taken: a name that is not free now.
        refused: what the API server did not let happen.
        references: the objects that it refers to.
    """

    kind: Particulars[J, Any]
    job: J
    settings: Settings
    attempts: tuple[Attempt, ...] = ()
    afterwards: tuple[Attempt, ...] = ()
    answers: Mapping[Inquiry, object] = field(default_factory=dict)
    taken: NameTaken | None = None
    refused: Refusal | None = None
    references: References = NONE

    @property
    def highest_number(self) -> int:
        """The highest number among the attempts that were seen; -1 without any."""
        return max((attempt.number for attempt in self.attempts), default=-1)

    def attempt(self, uid: str) -> Attempt | None:
        return next((attempt for attempt in self.attempts if attempt.uid == uid), None)

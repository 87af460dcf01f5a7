"""`Observed`: everything a decision about a sweep may depend on, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trimtab_trainer.contract import TerminationMessage

from trimtab_operator.api import Evaluation, FineTuneJob, FineTuneSweep

from ..cluster import NameTaken, Refusal
from ..plan import Inquiry
from ..readers import Readers
from ..settings import Settings
from ..views import JobView


@dataclass(frozen=True)
class Observed:
    """A snapshot.

    Attributes:
        sweep: as the API server has it.
        jobs: the FineTuneJobs that it made, by name.
        evaluations: the Evaluations that it made, by name.
        reports: the Jobs that write its page, or did, by name.
        last_words: of the pods of those, by the name of the Job.
        answers: to inquiries of this round: points as tuples of coordinates.
        taken: a name that is not free now.
        refused: what the API server did not let happen.
        awaited: who has still to read the FineTuneJobs and Evaluations, by the names of these, if it has ended.
    """

    sweep: FineTuneSweep
    settings: Settings
    jobs: Mapping[str, FineTuneJob] = field(default_factory=dict)
    reports: Mapping[str, JobView] = field(default_factory=dict)
    last_words: Mapping[str, TerminationMessage] = field(default_factory=dict)
    answers: Mapping[Inquiry, object] = field(default_factory=dict)
    taken: NameTaken | None = None
    refused: Refusal | None = None
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    awaited: Mapping[str, Readers] = field(default_factory=dict)

    @property
    def children(self) -> tuple[tuple[str, FineTuneJob | Evaluation], ...]:
        """All that it made, each with its kind, in the order of their names."""
        return (
            *(("FineTuneJob", job) for _, job in sorted(self.jobs.items())),
            *(("Evaluation", evaluation) for _, evaluation in sorted(self.evaluations.items())),
        )

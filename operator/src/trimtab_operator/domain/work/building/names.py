"""Names of children: deterministic, so that a repeated decision meets its own work."""

from __future__ import annotations

from collections.abc import Collection
from itertools import count

from trimtab_trainer.contract import Stage

from trimtab_operator.api import WorkStatus

from ..particulars import Staging
from ..subject import J, Work
from .inputs import config_inputs


def run_config_name(kind: Staging[J], job: J) -> str:
    """Return the name of the ConfigMap, which is immutable: another one for each configuration."""
    return f"{job.metadata.name}-{kind.config_part}-{config_inputs(kind, job)}"


def attempt_name(kind: Staging[J], job: J, stage: Stage, number: int) -> str:
    """Return the name of an attempt's Job; attempts are counted over all stages."""
    return f"{job.metadata.name}-{kind.parts[stage]}-{number}"


def next_number(kind: Staging[J], job: J, stage: Stage, seen: int = -1, others: Collection[str] = ()) -> int:
    """Return the number of the next attempt.

    Args:
        seen: the highest number among its Jobs that were seen.
        others: names of Jobs that say they are its attempts, and are not: an object of its name may have left them.
    """
    return next(n for n in count(_first_free(job, seen)) if attempt_name(kind, job, stage, n) not in others)


def _first_free(job: Work, seen: int) -> int:
    status: WorkStatus = job.status
    return max([seen, *(attempt.number for attempt in status.attempts)]) + 1


def job_names_to_confirm(kind: Staging[J], job: J, seen: int = -1, others: Collection[str] = ()) -> list[str]:
    """Return the names of the Jobs that a confirmed observation must look for, beside those that were seen.

    They are the attempts whose end was not recorded, and what an earlier round may have created without living to
    record it. Before the first attempt nothing is found, so nobody has begun with a later stage than the first.
    """
    open_attempts = [attempt.job_name for attempt in job.status.attempts if attempt.reason is None]
    stages = kind.stages_of(job)[: None if _first_free(job, seen) else 1]
    numbers = {stage: next_number(kind, job, stage, seen, others) for stage in stages}
    return [*open_attempts, *(attempt_name(kind, job, stage, number) for stage, number in numbers.items())]

"""What a Job is made from, in a few digits: whether it is still what the object asks for.

Secrets, the pod template and other fields that do not define the result may change at any time. A pod that runs is left
alone, and the next attempt takes the change. A Job whose pod never ran, or whose pod is gone because it is suspended,
gives way to that attempt at once: who corrects a wrong Secret or image does not want to wait for the end of patience.

Only what a person has set is in the digits: a newer operator, with other defaults, finds the same.
"""

from __future__ import annotations

import hashlib

from trimtab_trainer.contract import canonical_json

from ..attempts.attempt import Attempt
from ..particulars import Staging
from ..subject import J
from .queue import queue_annotations, queue_labels

DIGITS = 8

OF_NO_JOB = frozenset({"suspend", "retries", "active_deadline_seconds", "ttl_seconds_after_finished", "tracking"})
"""What is decided on without a Job, or after the end by one whose name says it."""


def config_inputs(kind: Staging[J], job: J) -> str:
    """Return the digits of what the run configuration is made from: it says of whom it is, too."""
    return _digits(_spec(job, OF_NO_JOB | {"template", "nodes"}), dict(kind.secrets(job)), job.metadata.uid)


def job_inputs(kind: Staging[J], job: J) -> str:
    """Return the digits of what a Job is made from."""
    queue = {**queue_labels(job.metadata), **queue_annotations(job.metadata)}
    return _digits(_spec(job, OF_NO_JOB), dict(kind.secrets(job)), queue)


def gives_way(kind: Staging[J], job: J, attempt: Attempt, *, ran: bool) -> bool:
    """Tell whether an attempt is made from what is no longer asked for, and nothing of it runs.

    Args:
        ran: whether a pod of this attempt has run, as far as is known.
    """
    if not attempt.inputs:
        return False
    begun = ran or any(pod.running or pod.over for pod in attempt.current)
    may = attempt.at_rest if attempt.suspended else not begun
    return may and attempt.inputs != job_inputs(kind, job)  # last: it is dear, and most rounds are about what runs


def _spec(job: J, without: frozenset[str]) -> object:
    return job.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=set(without))


def _digits(*inputs: object) -> str:
    return hashlib.sha256(canonical_json(inputs)).hexdigest()[:DIGITS]

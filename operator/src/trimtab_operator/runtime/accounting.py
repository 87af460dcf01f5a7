"""What a status write tells, as metrics: attempts that ended, accelerator time, the end and the verdict."""

from __future__ import annotations

from ..api import PASSED, SUCCEEDED, WorkStatus
from ..domain.views import parse_time
from . import metrics


def account(kind: str, before: WorkStatus, after: WorkStatus) -> None:
    """Count what differs between two statuses, the second of which was written."""
    ended = {attempt.number for attempt in before.attempts if attempt.reason is not None}
    for attempt in after.attempts:
        if attempt.reason is not None and attempt.number not in ended:
            metrics.ATTEMPTS.labels(attempt.stage, attempt.reason).inc()
    metrics.ACCELERATOR_SECONDS.inc(max(0, after.accelerator_seconds - before.accelerator_seconds))
    metrics.LOST_ACCELERATOR_SECONDS.inc(max(0, after.lost_accelerator_seconds - before.lost_accelerator_seconds))
    if after.completion_time and not before.completion_time:
        _account_end(kind, after)


def _account_end(kind: str, status: WorkStatus) -> None:
    evaluates = kind == "Evaluation"
    if evaluates:
        metrics.EVALUATIONS.labels(_reason(status, PASSED)).inc()
    start, end = parse_time(status.start_time), parse_time(status.completion_time)
    if start is not None and end is not None:
        histogram = metrics.EVALUATION_SECONDS if evaluates else metrics.JOB_SECONDS
        histogram.labels(_reason(status, SUCCEEDED)).observe(max(0.0, (end - start).total_seconds()))


def _reason(status: WorkStatus, condition: str) -> str:
    return next((c.reason for c in status.conditions if c.type == condition), "Unknown")

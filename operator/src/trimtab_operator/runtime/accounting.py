"""What a status write tells, as metrics: attempts that ended, accelerator time, the end and the verdict; and of a
rollout that a revision is served, was taken back or given up.
"""

from __future__ import annotations

from datetime import datetime

from ..api import PASSED, SUCCEEDED, AdapterRolloutStatus, WorkStatus
from ..api.adapterrollout import Phase
from ..domain.views import parse_time
from . import metrics
from .labels import reason_label, stage_label


def account(kind: str, before: WorkStatus, after: WorkStatus) -> None:
    """Count what differs between two statuses, the second of which was written."""
    ended = {attempt.number for attempt in before.attempts if attempt.reason is not None}
    for attempt in after.attempts:
        if attempt.reason is not None and attempt.number not in ended:
            metrics.ATTEMPTS.labels(stage_label(attempt.stage), reason_label(attempt.reason)).inc()
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
    return next((reason_label(c.reason) for c in status.conditions if c.type == condition), "Unknown")


def account_rollout(before: AdapterRolloutStatus, after: AdapterRolloutStatus, now: datetime) -> None:
    """Count what differs between two statuses of a rollout, the second of which was written at a time."""
    known = {(each.pod, each.reason) for each in before.pod_reasons}
    for said in after.pod_reasons:
        if (said.pod, said.reason) not in known:
            metrics.REVISION_FAILURES.labels(reason_label(said.reason)).inc()
    rejected = {each.digest for each in before.rejected}
    news = [each for each in after.rejected if each.digest not in rejected]
    for each in news:
        metrics.ROLLBACKS.labels(reason_label(each.reason)).inc()
    step = before.step
    if step is None or step.phase is Phase.DRAINING:
        return
    if after.step is not None and after.step.phase is not Phase.DRAINING and after.step.digest == step.digest:
        return
    served = after.served is not None and after.served.digest == step.digest
    outcome = "Served" if served else "RolledBack" if any(each.digest == step.digest for each in news) else "Superseded"
    began = parse_time(step.began)
    if began is not None:
        metrics.ROLLOUT_SECONDS.labels(outcome).observe(max(0.0, (now - began).total_seconds()))

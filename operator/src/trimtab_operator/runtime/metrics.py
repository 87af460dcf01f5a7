"""The operator's metrics. Labels are of few values: never a name, a namespace or a uid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import Counter, Gauge, Histogram, Info
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import REGISTRY, Collector

from ..domain.measures import Measure
from .labels import reason_label, word_label

RECONCILES = Counter("trimtab_reconcile_total", "Rounds by how they ended.", ["kind", "result"])
RECONCILE_SECONDS = Histogram(
    "trimtab_reconcile_duration_seconds",
    "Duration of a round, its API requests included.",
    ["kind"],
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
QUEUE_DEPTH = Gauge("trimtab_workqueue_depth", "Keys that wait for a worker.")
QUEUE_RETRIES = Counter("trimtab_workqueue_retries_total", "Rounds that were put off after an error.")
CACHE_OBJECTS = Gauge("trimtab_cache_objects", "Objects in the cache.", ["resource"])
GHOSTS = Counter("trimtab_cache_ghosts_removed_total", "Deletions that no watch reported.", ["resource"])
MISSED = Counter("trimtab_cache_missed_changes_total", "Changes that no watch reported in time.", ["resource"])
UNREADABLE = Counter("trimtab_cache_unreadable_total", "Objects that no view could be made of.", ["resource"])
LAST_EVENT = Gauge("trimtab_watch_last_event_timestamp_seconds", "Time of the last watch event.", ["resource"])
LAST_AUDIT = Gauge("trimtab_audit_last_success_timestamp_seconds", "Time of the last comparison.", ["resource"])
API_REQUESTS = Counter("trimtab_api_requests_total", "Requests to the API server.", ["verb", "resource", "code"])
EVENTS_FAILED = Counter("trimtab_events_failed_total", "Events that could not be posted.")
PROGRESS_POLLS = Counter("trimtab_progress_polls_total", "Questions for progress, by answer.", ["result"])
PROGRESS_STALLED = Gauge(
    "trimtab_progress_stalled_seconds", "Longest time since any running trainer made a step; 0 while none runs."
)
NOTIFICATIONS = Counter(
    "trimtab_notifications_total",
    "Notifications by the endpoint's name: delivered, given up, and requests that failed.",
    ["receiver", "result"],  # Prometheus has a label endpoint of its own
)
LEADER = Gauge("trimtab_leader", "1 while this replica leads.")
BUILD = Info("trimtab_build", "Version of the operator.")

JOB_SECONDS = Histogram(
    "trimtab_finetunejob_duration_seconds",
    "Time from a FineTuneJob's start to its end.",
    ["outcome"],
    buckets=(60, 300, 900, 1800, 3600, 7200, 14_400, 28_800, 86_400, 259_200),
)
ATTEMPTS = Counter("trimtab_attempts_total", "Attempts that ended.", ["stage", "reason"])
ACCELERATOR_SECONDS = Counter("trimtab_accelerator_seconds_total", "Accelerators times seconds, of ended attempts.")
LOST_ACCELERATOR_SECONDS = Counter(
    "trimtab_lost_accelerator_seconds_total", "Accelerators times seconds of work that had to be done again."
)


SWEEP_TRIALS = Counter("trimtab_sweep_trials_total", "Trials of FineTuneSweeps that are over, by outcome.", ["outcome"])
SWEEP_SAVED_SECONDS = Counter(
    "trimtab_sweep_saved_accelerator_seconds_total",
    "Accelerator seconds that pruning saved FineTuneSweeps that have ended, an estimate.",
)
SWEEP_SECONDS = Histogram(
    "trimtab_finetunesweep_duration_seconds",
    "Time from a FineTuneSweep's first trial to its end.",
    ["outcome"],
    buckets=(300, 900, 1800, 3600, 7200, 14_400, 28_800, 86_400, 259_200, 604_800),
)


EVALUATIONS = Counter("trimtab_evaluations_total", "Evaluations that ended, by verdict.", ["verdict"])
EVALUATION_SECONDS = Histogram(
    "trimtab_evaluation_duration_seconds",
    "Time from an Evaluation's first Job to its end.",
    ["outcome"],
    buckets=(60, 300, 900, 1800, 3600, 7200, 14_400, 28_800, 86_400, 259_200),
)


EXPORT_SECONDS = Histogram(
    "trimtab_adapterexport_duration_seconds",
    "Time from an AdapterExport's first Job to its end.",
    ["outcome"],
    buckets=(30, 60, 120, 300, 600, 1800, 3600, 7200, 14_400, 28_800),
)


ROLLBACKS = Counter("trimtab_rollbacks_total", "Revisions that were taken back, by reason.", ["reason"])
ROLLOUT_SECONDS = Histogram(
    "trimtab_adapterrollout_duration_seconds",
    "Time from a revision being wanted to its end as Served, RolledBack, Rejected or Superseded.",
    ["outcome"],
    buckets=(1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14_400, 86_400),
)
REVISION_FAILURES = Counter(
    "trimtab_revision_failures_total", "Reasons that pods gave for not being up to date.", ["reason"]
)
APPROVAL_SECONDS = Histogram(
    "trimtab_adapterrollout_approval_wait_seconds",
    "Time that a revision waited for nothing but approvals.",
    buckets=(60, 300, 900, 3600, 14_400, 28_800, 86_400, 259_200, 604_800),
)
AGENT_REQUESTS = Counter("trimtab_agent_requests_total", "Requests to agents of serving pods.", ["method", "code"])


_MEASURED: Mapping[str, Counter | Histogram] = {
    "attempts": ATTEMPTS,
    "accelerator_seconds": ACCELERATOR_SECONDS,
    "lost_accelerator_seconds": LOST_ACCELERATOR_SECONDS,
    "finetunejob_seconds": JOB_SECONDS,
    "sweep_trials": SWEEP_TRIALS,
    "finetunesweep_seconds": SWEEP_SECONDS,
    "sweep_saved_seconds": SWEEP_SAVED_SECONDS,
    "evaluations": EVALUATIONS,
    "evaluation_seconds": EVALUATION_SECONDS,
    "adapterexport_seconds": EXPORT_SECONDS,
    "revision_failures": REVISION_FAILURES,
    "rollbacks": ROLLBACKS,
    "adapterrollout_seconds": ROLLOUT_SECONDS,
    "approval_seconds": APPROVAL_SECONDS,
}


def count(measures: Iterable[Measure]) -> None:
    """Add what a status write told."""
    for measure in measures:
        metric = _MEASURED[measure.metric]
        metric = metric.labels(*map(word_label, measure.labels)) if measure.labels else metric
        if isinstance(metric, Histogram):
            metric.observe(measure.amount)
        else:
            metric.inc(measure.amount)


class States(Collector):
    """A gauge by state, counted when it is asked for."""

    def __init__(self, name: str, what: str, count: Callable[[], Mapping[str, int]]) -> None:
        self._name = name
        self._what = what
        self._count = count

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(self._name, f"{self._what} by state.", labels=["state"])
        counted: dict[str, int] = {}
        for state, number in self._count().items():
            label = reason_label(state)
            counted[label] = counted.get(label, 0) + number
        for state, number in sorted(counted.items()):
            family.add_metric([state], number)
        yield family

    def register(self) -> None:
        REGISTRY.register(self)

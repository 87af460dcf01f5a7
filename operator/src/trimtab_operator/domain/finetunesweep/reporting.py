"""The page of a search: a Job of the trainer's `report` stage writes it at the end, and when a label asks for it.

Nothing depends on it. It is tried twice, within a time in which what keeps it from being made is waited for, and what
became of it is the condition `Reported`; then the sweep goes on, or ends, as it would without. A label asks for it
after the end too, such as where it failed or is lost.

The names of the ConfigMap and of its Jobs follow from what asks for the page: whoever goes on after a crash meets
their own work. The ConfigMap holds the trials as they were known then, with the curves of FineTuneJobs that may be
deleted later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from trimtab_trainer.contract import Curve, Reason, RunIdentity, Stage, StoredOutput
from trimtab_trainer.contract.sweeps.record import RecordedObjective, RecordedTrial, SweepRecord
from trimtab_trainer.contract.sweeps.settings import SuggestionRequest, TrialState

from trimtab_operator.api import FineTuneJob, FineTuneSweepStatus, TrialStatus
from trimtab_operator.api.finetunesweep import REPORTED, ReportReason
from trimtab_operator.api.sweep_judging import FinalState

from ..conditions import ConditionStatus, condition, found
from ..plan import Action, Body, Create, Importance, Inquiry
from ..views import SWEEP_LABEL, JobView, parse_time
from ..work.building.job import build_job, build_run_config_map, credentials
from ..work.building.names import attempt_name
from ..work.conditions import is_over
from ..work.particulars import OUTPUT, Staging
from .observed import Observed
from .searching import Search, Trial
from .trials import known_of

REPORT_LABEL = "trimtab.dev/report"
"""Each new value of it asks for a page of what is known then."""
ATTEMPTS = 2
ATTEMPT_SECONDS = 300
"""How long a Job may run."""
LONGEST_SECONDS = 900
"""How long the end of a sweep waits for its page, whatever keeps its Jobs from starting."""
TAKEN_LOOKED_AT_SECONDS = 10.0
CHILDREN = ("Job", "ConfigMap")
DIGITS = 8
AT_THE_END = "end"
_STATES: Mapping[ReportReason, ConditionStatus] = {
    ReportReason.WRITING: "Unknown",
    ReportReason.WRITTEN: "True",
    ReportReason.FAILED: "False",
}


@dataclass(frozen=True)
class Writing:
    """What there is to do about the page now.

    Attributes:
        over: whether nothing is left to wait for.
        again: in how many seconds to look again, if nothing happens.
    """

    status: FineTuneSweepStatus
    inquiries: tuple[Inquiry, ...] = ()
    actions: tuple[Action, ...] = ()
    over: bool = True
    again: float | None = None


class Reporting(Staging[FineTuneJob]):
    """The pods of one page: those of a trial, as to account, keys and place, without accelerators."""

    name = "FineTuneSweep"
    label = SWEEP_LABEL
    stages = (Stage.REPORT,)

    def __init__(self, digits: str, record: SweepRecord) -> None:
        self._record = record
        self.config_part = f"report-{digits}"
        self.parts: Mapping[Stage, str] = {Stage.REPORT: self.config_part}

    def run_config(self, job: FineTuneJob) -> SweepRecord:
        return self._record

    def secrets(self, job: FineTuneJob) -> Mapping[str, str | None]:
        return {OUTPUT: job.spec.output.secret_name}

    def from_hub(self, job: FineTuneJob) -> frozenset[str]:
        return frozenset()


def writing(
    observed: Observed,
    search: Search,
    pairs: Sequence[tuple[Trial, TrialStatus]],
    status: FineTuneSweepStatus,
    *,
    ended: str,
    now: datetime,
) -> Writing:
    """Return what to do about the page of a search; `ended` says why there are no more trials, "" while there are.

    A search without any value has none: its message says all there is.
    """
    asked = observed.sweep.metadata.labels.get(REPORT_LABEL) or None
    ends = bool(ended) and not is_over(observed.sweep)
    if status.best is None or not (ends or (asked is not None and asked != status.report_request)):
        return Writing(unasked(status))
    # A search whose maxTrials are raised meanwhile goes on, and ends again with more trials.
    what = f"{AT_THE_END}/{len(pairs)}" if ends else f"label/{asked}"
    digits = hashlib.sha256(what.encode()).hexdigest()[:DIGITS]
    jobs = [observed.reports.get(name) for name in _names(observed, digits)]
    written = any(job is not None and job.complete for job in jobs)
    late, pause = _begun(observed, jobs, now) + timedelta(seconds=LONGEST_SECONDS), _pause(observed, now)
    trouble = "" if written else _failed(observed, jobs, late=now > late)
    number = jobs.index(None) if None in jobs else ATTEMPTS
    begins = number < ATTEMPTS and all(job is not None and job.failed for job in jobs[:number]) and not pause
    in_the_way = _in_the_way(observed)
    words = f"{in_the_way}; it is tried again" if in_the_way else "a Job writes the page of the search"
    waiting = _said(observed, status, ReportReason.WRITING, words, now)
    if not (written or trouble or begins):
        left = max(1.0, (late - now).total_seconds() + 1)
        return replace(waiting, over=False, again=min(left, pause or left))
    # It is in the page as in the status; whoever writes the one may die before the other, so each asks for it.
    inquiry = _importance(observed, search, pairs)
    if inquiry not in observed.answers:
        return Writing(status, inquiries=(inquiry,), over=False)
    importance = _named(observed.answers[inquiry], search)
    if not (written or trouble):
        record = _record(observed, pairs, status, ended, importance)
        made = tuple(Create(body) for body in _children(observed, Reporting(digits, record), number))
        return replace(waiting, actions=made, over=False)
    update: dict[str, object] = {"importance": importance}
    told = status.model_copy(update={**update, "report_request": asked} if asked is not None else update)
    return _written(observed, told, now) if written else _said(observed, told, ReportReason.FAILED, trouble, now)


def unasked(status: FineTuneSweepStatus) -> FineTuneSweepStatus:
    """Return the same where nothing is being written: the next page has a time of its own."""
    others = [each for each in status.conditions if (each.type, each.reason) != (REPORTED, ReportReason.WRITING)]
    return status.model_copy(update={"conditions": others})


def beside_the_page(observed: Observed) -> Observed:
    """Return the same without what stands in the way of the page alone: it holds up nothing else."""
    return replace(observed, taken=None, refused=None) if _in_the_way(observed) else observed


def _names(observed: Observed, digits: str) -> list[str]:
    kind = Reporting(digits, SweepRecord())
    return [attempt_name(kind, _as_trial(observed), Stage.REPORT, number) for number in range(ATTEMPTS)]


def _as_trial(observed: Observed) -> FineTuneJob:
    """Return the sweep as a FineTuneJob of its template: its pods are made alike, and belong to the sweep."""
    sweep, chosen = observed.sweep, observed.sweep.spec.template
    metadata = sweep.metadata.model_copy(
        update={"labels": chosen.metadata.labels, "annotations": chosen.metadata.annotations}
    )
    return FineTuneJob(metadata=metadata, spec=chosen.spec)


def _children(observed: Observed, kind: Reporting, number: int) -> tuple[Body, Body]:
    job = _as_trial(observed)
    made = build_job(kind, job, observed.settings, Stage.REPORT, number=number)
    made["spec"]["activeDeadlineSeconds"] = ATTEMPT_SECONDS
    return build_run_config_map(kind, job), made


def _in_the_way(observed: Observed) -> str:
    """Return what keeps the children of the page from being made, "" where nothing does."""
    if observed.taken is not None and observed.taken.name.split(" ")[0] in CHILDREN:
        return observed.taken.told()
    if observed.refused is not None and observed.refused.what in CHILDREN:
        return observed.refused.told()
    return ""


def _pause(observed: Observed, now: datetime) -> float:
    """Return in how many seconds it is worth another try to make them: what a trial is refused, they may be too."""
    if observed.taken is not None and _in_the_way(observed):
        return TAKEN_LOOKED_AT_SECONDS
    return observed.refused.pause(now) if observed.refused is not None else 0.0


def _begun(observed: Observed, jobs: Sequence[JobView | None], now: datetime) -> datetime:
    """Return since when it is waited for: since its first Job is there, or something keeps that from being made."""
    if jobs[0] is not None and jobs[0].created is not None:
        return jobs[0].created
    if not _in_the_way(observed):
        return now
    said = found(observed.sweep.status.conditions, REPORTED)
    waits = said is not None and said.status == _STATES[ReportReason.WRITING]
    begun = (parse_time(said.last_transition_time) if said is not None and waits else None) or now
    return max(begun, *(each.since for each in (observed.taken, observed.refused) if each is not None))


def _failed(observed: Observed, jobs: Sequence[JobView | None], *, late: bool) -> str:
    """Return why it is given up, "" as long as it is not."""
    last = jobs[-1]
    if last is not None and last.failed:
        words = observed.last_words.get(last.name)
        if words is not None and words.reason is not Reason.COMPLETED:
            return f"{words.reason.value}: {words.message}"
        return f"Job {last.name} failed: {last.failed_reason} {last.failed_message}".rstrip()
    if not late:
        return ""
    told = f"it was not written within {LONGEST_SECONDS} s"
    if in_the_way := _in_the_way(observed):
        return f"{told}: {in_the_way}"
    if all(job is None or job.failed for job in jobs):
        return told
    return f"{told}; if a Job of it begins later, it writes it all the same"


def _importance(observed: Observed, search: Search, pairs: Sequence[tuple[Trial, TrialStatus]]) -> Importance:
    spec = observed.sweep.spec
    known = tuple(known_of(status) for _, status in pairs)
    space = tuple(each.nameless for each in search.dimensions)
    return Importance(
        SuggestionRequest(space, spec.algorithm.type, spec.algorithm.seed, spec.objective.direction, known)
    )


def _named(shares: object, search: Search) -> dict[str, float]:
    known = shares if isinstance(shares, Mapping) else {}
    return {search.dimensions[position].name: share for position, share in known.items()}


def _record(
    observed: Observed,
    pairs: Sequence[tuple[Trial, TrialStatus]],
    status: FineTuneSweepStatus,
    ended: str,
    importance: dict[str, float],
) -> SweepRecord:
    sweep, spec = observed.sweep, observed.sweep.spec
    output = spec.template.spec.output
    record = SweepRecord(
        run=RunIdentity(name=sweep.metadata.name, namespace=sweep.metadata.namespace, uid=sweep.metadata.uid),
        output=StoredOutput(uri=output.uri, credentials=credentials(output.secret_name, OUTPUT)),
        parameters=spec.parameters,
        objective=RecordedObjective(metric=spec.objective.figure, direction=spec.objective.direction),
        algorithm=spec.algorithm.type.value,
        folds=spec.folds,
        ended=ended or None,
        winner=status.best.id if status.best is not None and _is_won(status) else None,
        importance=importance,
        trials=[_recorded(observed, trial, known) for trial, known in pairs],
    )
    return record.fitting()


def _is_won(status: FineTuneSweepStatus) -> bool:
    """Tell whether the best is so by the final."""
    states = [each.state for each in status.final]
    return FinalState.PASSED in states and FinalState.RUNNING not in states


def _recorded(observed: Observed, trial: Trial, known: TrialStatus) -> RecordedTrial:
    name = next(iter(trial.jobs))
    job = observed.jobs.get(name)
    curve = job.status.curve if job is not None else None
    rungs = known.rung_values if known.state is TrialState.PRUNED else None
    return RecordedTrial(
        id=known.id,
        name=name,
        parameters=dict(trial.parameters),
        state=known.state.value,
        value=rungs[-1] if rungs else known.value,
        standard_error=known.standard_error,
        reason=known.reason,
        accelerator_seconds=known.accelerator_seconds,
        curve=Curve.model_validate(curve.to_json()) if curve is not None else None,
    )


def _written(observed: Observed, status: FineTuneSweepStatus, now: datetime) -> Writing:
    metadata, output = observed.sweep.metadata, observed.sweep.spec.template.spec.output.uri.rstrip("/")
    uri = f"{output}/sweeps/{metadata.name}-{metadata.uid[:8]}/sweep.html"
    told = status.model_copy(update={"report_uri": uri})
    return _said(observed, told, ReportReason.WRITTEN, f"the page of the search is at {uri}", now)


def _said(
    observed: Observed,
    status: FineTuneSweepStatus,
    reason: ReportReason,
    message: str,
    now: datetime,
) -> Writing:
    state = _STATES[reason]
    generation = observed.sweep.metadata.generation
    before = observed.sweep.status.conditions
    made = condition(before, REPORTED, state, reason.value, message, generation=generation, now=now)
    others = [each for each in status.conditions if each.type != REPORTED]
    return Writing(status.model_copy(update={"conditions": [*others, made]}))

"""`plan`: the whole decision about a sweep, in the order in which a person would make it.

1. Judge the trials that run, by their FineTuneJobs.
2. End, if there is a reason to; else choose the next points, and write them down.
3. Make the FineTuneJobs of the trials that are written down, stop those of trials that are over, suspend or go on.

What keeps it right when the operator dies between any two writes: a point is in the status before a FineTuneJob is made
for it, and the names of those follow from the point; so whoever goes on makes what is missing, and nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from trimtab_trainer.contract.sweep import KnownTrial, Point, SuggestionRequest, TrialState

from trimtab_operator.api import (
    BestTrial,
    FineTuneJob,
    FineTuneSweepStatus,
    SweepArtifact,
    SweepState,
    TrialStatus,
)

from ..conditions import EVENT_MESSAGE_LENGTH, ConditionStatus, condition, cut, found, note_of
from ..ended import time_is_over
from ..plan import Action, Create, Delete, NextPoints, Note, Plan, Suspend
from ..views import format_time
from ..work.conditions import is_over
from .observed import Observed
from .reporting import Writing, beside_the_page, writing
from .searching import Search, SweepInvalid, Trial, job_of, rows_of, search_digest, search_of
from .trials import begun, best_of, judged, next_costs, shared_fault, without_improvement

TAKEN_LOOKED_AT_SECONDS = 10


@dataclass(frozen=True)
class _Ledger:
    """The trials as they are known now: what they are, and what became of them, in the order they were begun."""

    trials: tuple[Trial, ...]
    known: tuple[TrialStatus, ...]

    @property
    def pairs(self) -> tuple[tuple[Trial, TrialStatus], ...]:
        return tuple(zip(self.trials, self.known, strict=True))

    @property
    def running(self) -> tuple[Trial, ...]:
        return tuple(trial for trial, known in self.pairs if known.state is TrialState.RUNNING)


def plan(observed: Observed, now: datetime) -> Plan:
    """Decide what to do about a sweep now."""
    sweep = observed.sweep
    if sweep.metadata.deletion_timestamp is not None:
        return Plan()  # the garbage collector takes the trials, and SIGTERM makes their trainers write checkpoints
    if is_over(sweep):
        return _after_the_end(observed, now)
    digest, before = search_digest(sweep), sweep.status.search_digest
    if before not in (None, digest):
        message = (
            "parameters, algorithm, objective or folds were changed after the first trial was chosen by them; set them "
            "back, or create another FineTuneSweep: what was trained is found there"
        )
        return _say(observed, sweep.status, SweepState.SEARCH_CHANGED, message, now, trouble=True)
    try:
        search = search_of(sweep)
        if before is None:  # what was begun was checked, and is the same still
            search.check()
    except SweepInvalid as error:
        return _say(observed, sweep.status, SweepState.SPEC_INVALID, str(error), now, succeeded="False")
    ledger = _ledger(observed, search)
    status = _told(observed, ledger, digest)
    if fault := shared_fault(ledger.known):
        times, words = _times(ledger.known, fault), _words(observed, ledger, fault)
        message = f"{times} trials ended with {fault}, which is not of their settings: {words}"
        return _say(observed, status, SweepState.TRIALS_FAILED, message, now, succeeded="False")
    if sweep.spec.suspend:
        return _held(observed, status, ledger, now)
    why = _why_no_more(observed, ledger)
    asked = writing(observed, search, ledger.pairs, status, ended="", now=now)
    if asked.inquiries or asked.actions:
        return _page(observed, asked, now)
    status = asked.status
    if not why and (free := _free(observed, ledger)):
        return _chosen(observed, search, ledger, status, free=free, now=now)
    if why and not ledger.running:
        return _end(observed, search, ledger, status, why, now)
    return _go_on(observed, status, ledger, why, now)


def _ledger(observed: Observed, search: Search) -> _Ledger:
    listed = observed.sweep.status.trials
    trials = tuple(search.at(tuple(each.point)) for each in listed)
    known = tuple(judged(each, trial, observed.jobs) for each, trial in zip(listed, trials, strict=True))
    return _Ledger(trials, known)


def _told(observed: Observed, ledger: _Ledger, digest: str) -> FineTuneSweepStatus:
    """Return the status with what is known of the trials."""
    sweep, best = observed.sweep, best_of(ledger.known, observed.sweep.spec.objective.direction)
    update: dict[str, object] = {
        "trials": list(ledger.known),
        "max_trials": sweep.spec.max_trials,
        "search_digest": digest,
        "accelerator_seconds": sum(each.accelerator_seconds or 0 for each in ledger.known),
        "best": _best(observed, ledger, best) if best is not None else None,
    }
    return sweep.status.model_copy(update=update)


def _best(observed: Observed, ledger: _Ledger, best: TrialStatus) -> BestTrial:
    before = observed.sweep.status.best
    if before is not None and before.id == best.id:
        return before
    trial = ledger.trials[ledger.known.index(best)]
    name = next(iter(trial.jobs))
    job = observed.jobs.get(name)
    artifact = job.status.artifact if job is not None and len(trial.jobs) == 1 else None
    return BestTrial(
        id=best.id,
        fine_tune_job_name=name,
        parameters=dict(trial.parameters),
        value=best.value if best.value is not None else 0.0,
        standard_error=best.standard_error,
        artifact=SweepArtifact(uri=artifact.uri, digest=artifact.digest) if artifact is not None else None,
    )


def _why_no_more(observed: Observed, ledger: _Ledger) -> str:
    """Return why no other trial is begun, "" if one may be."""
    spec, known = observed.sweep.spec, ledger.known
    if len(known) >= spec.max_trials:
        return f"maxTrials = {spec.max_trials} were begun"
    if observed.sweep.status.exhausted:
        return f"all {len(known)} points of the search space were tried"
    patience = spec.stop_after_trials_without_improvement
    if patience is not None and without_improvement(known, spec.objective.direction) >= patience:
        return f"{patience} trials in a row were no better"
    budget = spec.budget.accelerator_seconds if spec.budget is not None else None
    if budget is not None:
        spent = sum(each.accelerator_seconds or 0 for each in known if each.state is not TrialState.RUNNING)
        under_way = [each for each in known if each.state is TrialState.RUNNING]
        each_costs = next_costs(known)
        held = sum(max(each.accelerator_seconds or 0, each_costs) for each in under_way)
        if spent + held + each_costs > budget or spent + held >= budget:
            return (
                f"another trial would exceed budget.acceleratorSeconds = {budget}: {spent + round(held)} are spent or "
                f"under way, and one takes {each_costs:.0f}"
            )
    return ""


def _free(observed: Observed, ledger: _Ledger) -> int:
    spec = observed.sweep.spec
    return min(spec.parallel_trials - len(ledger.running), spec.max_trials - len(ledger.known))


def _chosen(
    observed: Observed,
    search: Search,
    ledger: _Ledger,
    status: FineTuneSweepStatus,
    *,
    free: int,
    now: datetime,
) -> Plan:
    """Ask for the next points, or write them down; their FineTuneJobs are made in the round after that."""
    spec = observed.sweep.spec
    budgeted = spec.budget is not None and spec.budget.accelerator_seconds is not None
    request = SuggestionRequest(
        space=tuple(each.nameless for each in search.dimensions),
        algorithm=spec.algorithm.type,
        seed=spec.algorithm.seed,
        direction=spec.objective.direction,
        trials=tuple(KnownTrial(tuple(each.point), each.state, each.value) for each in ledger.known),
        count=1 if budgeted else free,  # one after the other, each with what the last is thought to cost
    )
    inquiry = NextPoints(request)
    answer = observed.answers.get(inquiry)
    if answer is None:
        return Plan(inquiries=(inquiry,))
    points: Sequence[Point] = answer if isinstance(answer, tuple) else ()
    there = {each.id for each in ledger.known}
    made = []
    for point in points:
        trial = search.at(tuple(point))
        if trial.id not in there:
            there.add(trial.id)
            made.append(begun(trial))
    update: dict[str, object] = {"trials": [*status.trials, *made]}
    if len(made) < request.count:
        update["exhausted"] = True
    return _say(observed, status.model_copy(update=update), SweepState.SEARCHING, _progress(status, len(made)), now)


def _go_on(observed: Observed, status: FineTuneSweepStatus, ledger: _Ledger, why: str, now: datetime) -> Plan:
    """Make what is missing of the trials that run, stop what is left of those that are over."""
    resumed = _suspensions(observed, ledger, suspend=False)
    actions = (*_leftovers(observed, ledger), *resumed, *_missing(observed, ledger))
    message = _progress(status)
    if why:
        message += f"; no other is begun: {why}"
    return _act(observed, status, actions, message, now)


def _missing(observed: Observed, ledger: _Ledger) -> tuple[Action, ...]:
    """Return the creation of FineTuneJobs that are not there.

    One whose rows are the same as another's waits until that has prepared them: all others find them then.
    """
    preparing: set[bytes] = set()
    prepared: set[bytes] = set()
    for trial in ledger.trials:
        for name, spec in trial.jobs.items():
            job = observed.jobs.get(name)
            if job is not None and job.status.dataset is not None:
                prepared.add(rows_of(spec))
            elif job is not None and not is_over(job):
                preparing.add(rows_of(spec))
    actions: list[Action] = []
    for trial in ledger.running:
        for name, spec in trial.jobs.items():
            if name in observed.jobs:
                continue
            rows = rows_of(spec)
            if rows not in preparing or rows in prepared:
                actions.append(Create(job_of(observed.sweep, trial, name)))
                preparing.add(rows)
    return tuple(actions)


def _leftovers(observed: Observed, ledger: _Ledger) -> tuple[Action, ...]:
    """Return the deletion of FineTuneJobs that still run though their trial is over: another of its folds failed."""
    running = {name for trial in ledger.running for name in trial.jobs}
    return _deletions(observed, lambda name, job: name not in running and not is_over(job))


def _deletions(observed: Observed, goes: Callable[[str, FineTuneJob], bool]) -> tuple[Action, ...]:
    return tuple(
        Delete("FineTuneJob", job.metadata.namespace, name, job.metadata.uid)
        for name, job in sorted(observed.jobs.items())
        if job.metadata.deletion_timestamp is None and goes(name, job)
    )


def _suspensions(observed: Observed, ledger: _Ledger, *, suspend: bool) -> tuple[Action, ...]:
    """Return what makes the FineTuneJobs of trials that run stop after a checkpoint, or go on."""
    jobs = [observed.jobs[name] for trial in ledger.running for name in trial.jobs if name in observed.jobs]
    return tuple(
        Suspend(job.metadata.namespace, job.metadata.name, job.metadata.uid, suspend, kind="FineTuneJob")
        for job in jobs
        if job.spec.suspend is not suspend and not is_over(job)
    )


def _held(observed: Observed, status: FineTuneSweepStatus, ledger: _Ledger, now: datetime) -> Plan:
    """Suspend the trials that run, and begin none."""
    actions = _suspensions(observed, ledger, suspend=True)
    message = "spec.suspend is true; set it to false and the trials go on from their checkpoints"
    return _act(observed, status, actions, message, now, state=SweepState.SUSPENDED)


def _act(
    observed: Observed,
    status: FineTuneSweepStatus,
    actions: tuple[Action, ...],
    message: str,
    now: datetime,
    *,
    state: SweepState = SweepState.SEARCHING,
    again: float | None = None,
) -> Plan:
    """Carry out actions and say what goes on, or say what stands in their way."""
    observed = beside_the_page(observed)
    if observed.taken is not None:
        words = (
            f"{observed.taken.name} belongs to something else; delete or rename that, and the sweep goes on by itself"
        )
        return _say(observed, status, SweepState.NAME_TAKEN, words, now, trouble=True, again=TAKEN_LOOKED_AT_SECONDS)
    if observed.refused is not None and (pause := observed.refused.pause(now)) > 0:
        words = f"the namespace refuses the {observed.refused.what} of a trial: {observed.refused.words}"
        return _say(observed, status, SweepState.TRIAL_REFUSED, words, now, trouble=True, again=pause)
    return _say(observed, status, state, message, now, actions=actions, again=again)


def _page(observed: Observed, page: Writing, now: datetime) -> Plan:
    """Ask what the page of the search needs, or let it be written."""
    if page.inquiries:
        return Plan(inquiries=page.inquiries)
    message = f"{_progress(page.status)}; the page of the search is being written"
    return _act(observed, page.status, page.actions, message, now, again=page.again)


def _end(  # noqa: PLR0917 what a decision is made from, in its order
    observed: Observed, search: Search, ledger: _Ledger, status: FineTuneSweepStatus, why: str, now: datetime
) -> Plan:
    page = writing(observed, search, ledger.pairs, status, ended=why, now=now)
    if not page.over:
        return _page(observed, page, now)
    status, best = page.status, page.status.best
    if best is None:
        reasons = sorted({each.reason for each in status.trials if each.reason is not None})
        message = f"{why}, and none has a value: {', '.join(reasons)}"
        return _say(observed, status, SweepState.TRIALS_FAILED, message, now, succeeded="False")
    message = f"{why}; the best is {best.fine_tune_job_name} with {_shown(best)}"
    return _say(observed, status, SweepState.COMPLETED, message, now, succeeded="True")


def _say(
    observed: Observed,
    status: FineTuneSweepStatus,
    state: SweepState,
    message: str,
    now: datetime,
    *,
    succeeded: ConditionStatus = "Unknown",
    actions: tuple[Action, ...] = (),
    trouble: bool = False,
    again: float | None = None,
) -> Plan:
    sweep = observed.sweep
    generation, before = sweep.metadata.generation, found(sweep.status.conditions, "Succeeded")
    made = condition(
        sweep.status.conditions, "Succeeded", succeeded, state.value, message, generation=generation, now=now
    )
    update: dict[str, object] = {
        "observed_generation": generation,
        "conditions": [made, *(each for each in status.conditions if each.type != made.type)],
    }
    if status.trials and status.start_time is None:
        update["start_time"] = format_time(now)
    if succeeded != "Unknown":
        update["completion_time"] = format_time(now)
    told = status.model_copy(update=update)
    notes = note_of(before, made, trouble=trouble or succeeded == "False")
    return Plan(
        actions=actions,
        status=told.to_json(),
        notes=(*notes, *_news(sweep.status, told)),
        look_again_seconds=again,
        confirm=bool(actions) or len(told.trials) > len(sweep.status.trials) or succeeded != "Unknown",
    )


def _news(before: FineTuneSweepStatus, after: FineTuneSweepStatus) -> tuple[Note, ...]:
    """Return the event of a trial that is better than all before it."""
    if after.best is None or (before.best is not None and before.best.id == after.best.id):
        return ()
    settings = ", ".join(f"{name} = {value}" for name, value in after.best.parameters.items())
    message = f"{after.best.fine_tune_job_name} has {_shown(after.best)}: {settings}"
    return (Note("Normal", "BetterTrial", cut(message, EVENT_MESSAGE_LENGTH)),)


def _after_the_end(observed: Observed, now: datetime) -> Plan:
    """Terminal is terminal. What is left is to delete trials that are not kept, and the sweep when its time is over."""
    sweep, status = observed.sweep, observed.sweep.status
    if observed.refused is not None and (pause := observed.refused.pause(now)) > 0:
        return Plan(look_again_seconds=pause)
    goes, look_again = time_is_over(
        "FineTuneSweep",
        sweep.metadata,
        ttl=sweep.spec.ttl_seconds_after_finished,
        completed=status.completion_time,
        settings=observed.settings,
        now=now,
    )
    if goes is not None:
        return Plan(actions=(goes,), confirm=True)
    losers = _deletions(observed, lambda name, job: not (_is_kept(observed, name) and is_over(job)))
    said = status.model_copy(update={"observed_generation": sweep.metadata.generation})
    return Plan(actions=losers, status=said.to_json(), look_again_seconds=look_again, confirm=bool(losers))


def _is_kept(observed: Observed, name: str) -> bool:
    sweep, best = observed.sweep, observed.sweep.status.best
    if sweep.spec.retain_trials == "All":
        return True
    return best is not None and name.startswith(f"{sweep.metadata.name}-{best.id}")


def _progress(status: FineTuneSweepStatus, more: int = 0) -> str:
    running = sum(each.state is TrialState.RUNNING for each in status.trials) + more
    done = len(status.trials) + more - running
    words = f"{done} of at most {status.max_trials} trials are done, {running} run"
    if status.best is None:
        return words
    return f"{words}; the best so far is {status.best.fine_tune_job_name} with {_shown(status.best)}"


def _shown(best: BestTrial) -> str:
    error = f" (standard error {best.standard_error:.2g})" if best.standard_error is not None else ""
    return f"validationLoss {best.value:.4g}{error}"


def _times(known: Sequence[TrialStatus], reason: str) -> int:
    return sum(each.reason == reason for each in known)


def _words(observed: Observed, ledger: _Ledger, reason: str) -> str:
    """Return the message with which the first of the trials of a reason ended, as far as it is still there."""
    by_name: Mapping[str, TrialStatus] = {
        name: known for trial, known in zip(ledger.trials, ledger.known, strict=True) for name in trial.jobs
    }
    for name, job in sorted(observed.jobs.items()):
        said = found(job.status.conditions, "Succeeded")
        if name in by_name and by_name[name].reason == reason and said is not None and said.reason == reason:
            return said.message
    return "look at their FineTuneJobs"

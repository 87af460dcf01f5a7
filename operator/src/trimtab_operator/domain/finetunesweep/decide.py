"""`plan`: the whole decision about a sweep, in the order in which a person would make it.

1. Judge the trials that run, by their FineTuneJobs and Evaluations; those that are worse than others wait.
2. End, if there is a reason to, after what follows a search; else let the best of those that wait go on, or choose the
   next points: written down.
3. Make the FineTuneJobs of the trials that are written down, stop those of trials that are over, suspend or go on.

What keeps it right when the operator dies between any two writes: a point is in the status before a FineTuneJob is made
for it, and the names of those follow from the point; so whoever goes on makes what is missing, and nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from trimtab_trainer.contract.sweeps.settings import (
    KnownTrial,
    Point,
    SuggestionRequest,
    TrialState,
    Unsearchable,
)

from trimtab_operator.api import (
    BestTrial,
    FineTuneSweepStatus,
    SweepState,
    TrialStatus,
)

from ..conditions import EVENT_MESSAGE_LENGTH, ConditionStatus, condition, cut, found, note_of
from ..plan import Action, NextPoints, Note, Plan
from ..views import format_time
from ..work.conditions import is_over
from .afterwards import after_the_end, leaving
from .checks import check_sweep
from .children import all_held, leftovers, missing, suspensions
from .final import closing, reserved
from .judging import missing_evaluations
from .ledger import Ledger, ledger_of
from .limits import Costs, budget_of, costs_of, seconds_left, why_no_more
from .observed import Observed
from .pruning import halving_of, saved_seconds, shared_seconds
from .reporting import TAKEN_LOOKED_AT_SECONDS, Writing, beside_the_page, unasked, writing
from .searching import Search, Trial, search_digest, search_of
from .trials import begun, best_of, known_of, shared_fault, stopped, told_as_best


def plan(observed: Observed, now: datetime) -> Plan:
    """Decide what to do about a sweep now."""
    sweep = observed.sweep
    if sweep.metadata.deletion_timestamp is not None:
        return leaving(observed, now)
    if is_over(sweep):
        return after_the_end(observed, now)
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
            check_sweep(sweep.spec, search)
    except Unsearchable as error:
        return _say(observed, sweep.status, SweepState.SPEC_INVALID, str(error), now, succeeded="False")
    ledger = ledger_of(observed, search)
    status = _told(observed, ledger, digest)
    if fault := shared_fault(ledger.known, search.dimensions):
        times, words = _times(ledger.known, fault), _words(observed, ledger, fault)
        message = f"{times} trials ended with {fault}, which is not of their settings: {words}"
        ended = [stopped(each, SweepState.TRIALS_FAILED.value, TrialState.BAD) for each in status.trials]
        status = status.model_copy(update={"trials": ended})
        return _say(observed, status, SweepState.TRIALS_FAILED, message, now, succeeded="False")
    left = seconds_left(sweep, now)
    if left is not None and left <= 0 and not (status.final and closing(observed, search, status).over):
        why = f"activeDeadlineSeconds = {sweep.spec.active_deadline_seconds} are over"
        return _end(observed, search, ledger, status, why, now, failed=SweepState.DEADLINE_EXCEEDED)
    if sweep.spec.suspend:
        return _held(observed, status, now)
    asked = writing(observed, search, ledger.pairs, status, ended="", now=now)
    if asked.inquiries or asked.actions:
        return _page(observed, asked, now)
    status = asked.status
    costs = costs_of(ledger.known, ledger.trials, observed.jobs)
    costs = replace(costs, kept=reserved(observed, costs.whole))
    why = why_no_more(sweep, search, ledger.known, costs)
    busy, waiting = ledger.busy(observed), _going_on(observed, ledger, costs, why)
    free = sweep.spec.parallel_trials - busy
    if waiting and free > 0:
        return _let_go_on(observed, status, waiting[:free], now)
    room = min(free, sweep.spec.max_trials - len(ledger.known))
    if (budget := budget_of(sweep)) is not None:
        room = costs.admitted(budget, room)
    if not why and not waiting and room > 0:
        return _chosen(observed, search, ledger, status, room=room, now=now)
    if why and not busy and not waiting and (status.final or not leftovers(observed, ledger)):
        return _closed(observed, search, ledger, status, why, now)
    return _go_on(observed, status, ledger, why, now, again=asked.again)


def _going_on(observed: Observed, ledger: Ledger, costs: Costs, why: str) -> tuple[str, ...]:
    """Return the paused trials that may go on, by id, the first ones first.

    Once no other is begun and none runs, nobody comes who could be better: the best of each rung goes on, however few
    have reached it. One trial is trained to its end whatever that costs, or all was in vain.
    """
    rule, budget = halving_of(observed.sweep), budget_of(observed.sweep)
    if rule is None:
        return ()
    last = bool(why) and not ledger.running
    found = rule.promoted(ledger.known, len(ledger.known), least=1 if last else 0)
    if budget is None:
        return found
    if last and not any(each.value is not None for each in ledger.known):
        return found[:1]
    paused = {each.id: each for each in ledger.known}
    return tuple(each for each in found if costs.admits_going_on(budget, paused[each], rule.factor))[:1]


def _let_go_on(observed: Observed, status: FineTuneSweepStatus, ids: Sequence[str], now: datetime) -> Plan:
    """Write down that paused trials go on; their FineTuneJobs are let go on in the round after that."""
    trials = [
        each.model_copy(update={"state": TrialState.RUNNING}) if each.id in ids else each for each in status.trials
    ]
    status = status.model_copy(update={"trials": trials})
    return _say(observed, status, SweepState.SEARCHING, _progress(status), now, confirm=True)


def _told(observed: Observed, ledger: Ledger, digest: str) -> FineTuneSweepStatus:
    """Return the status with what is known of the trials."""
    sweep, best = observed.sweep, best_of(ledger.known, observed.sweep.spec.objective.direction)
    update: dict[str, object] = {
        "trials": list(ledger.known),
        "max_trials": sweep.spec.max_trials,
        "search_digest": digest,
        "metric": sweep.spec.objective.figure,
        "validation_digest": ledger.compared_by,
    }
    if sweep.spec.pruning is not None:
        update["saved_accelerator_seconds"] = saved_seconds(ledger.known)
    if shared := shared_seconds(ledger.known):
        update["shared_accelerator_seconds"] = shared
    if not sweep.status.final:  # what follows the search says the rest
        update["accelerator_seconds"] = sum(each.accelerator_seconds or 0 for each in ledger.known)
        update["best"] = _best(observed, ledger, best) if best is not None else None
    return sweep.status.model_copy(update=update)


def _best(observed: Observed, ledger: Ledger, best: TrialStatus) -> BestTrial:
    before = observed.sweep.status.best
    if before is not None and before.id == best.id:
        return before
    trial = ledger.trials[ledger.known.index(best)]
    name = next(iter(trial.jobs))
    return told_as_best(best, trial, name, observed.jobs.get(name) if len(trial.jobs) == 1 else None)


def _chosen(
    observed: Observed,
    search: Search,
    ledger: Ledger,
    status: FineTuneSweepStatus,
    *,
    room: int,
    now: datetime,
    namesakes: tuple[KnownTrial, ...] = (),
) -> Plan:
    """Ask for the next points, or write them down; their FineTuneJobs are made in the round after that.

    `namesakes`: points whose digits are those of another; others are asked for in their place.
    """
    spec = observed.sweep.spec
    request = SuggestionRequest(
        space=tuple(each.nameless for each in search.dimensions),
        algorithm=spec.algorithm.type,
        seed=spec.algorithm.seed,
        direction=spec.objective.direction,
        trials=(*(known_of(each) for each in ledger.known), *namesakes),
        count=room,
    )
    inquiry = NextPoints(request)
    answer = observed.answers.get(inquiry)
    if answer is None:
        return Plan(inquiries=(inquiry,))
    points: Sequence[Point] = answer if isinstance(answer, tuple) else ()
    chosen, there = [search.at(tuple(point)) for point in points], {each.id for each in ledger.known}
    same = [each for number, each in enumerate(chosen) if each.id in there | {one.id for one in chosen[:number]}]
    if same:
        more = (KnownTrial(each.point, TrialState.BAD) for each in same)
        return _chosen(observed, search, ledger, status, room=room, now=now, namesakes=(*namesakes, *more))
    made = [begun(trial) for trial in chosen]
    notes = [_bad(search.name, trial) for trial in chosen if trial.trouble]
    update: dict[str, object] = {"trials": [*status.trials, *made]}
    if len(made) < request.count:
        update["exhausted"] = True
    told = status.model_copy(update=update)
    planned = _say(observed, told, SweepState.SEARCHING, _progress(status, len(made)), now)
    return replace(planned, notes=(*planned.notes, *notes))


def _bad(sweep: str, trial: Trial) -> Note:
    """Return the event of a trial that cannot be: it has no FineTuneJob that would say why."""
    return Note(
        "Warning", "BadTrial", cut(f"{sweep}-{trial.id} with {trial.settings}: {trial.trouble}", EVENT_MESSAGE_LENGTH)
    )


def _go_on(
    observed: Observed,
    status: FineTuneSweepStatus,
    ledger: Ledger,
    why: str,
    now: datetime,
    *,
    again: float | None,
) -> Plan:
    """Make what is missing of the trials that run, stop what is left of those that are over."""
    paused = suspensions(observed, ledger.paused, suspend=True)
    resumed = suspensions(observed, ledger.running, suspend=False)
    judging = missing_evaluations(observed, ledger.running)
    actions = (*leftovers(observed, ledger), *paused, *resumed, *missing(observed, ledger), *judging)
    message = _progress(status)
    if why:
        message += f"; no other is begun: {why}"
    return _act(observed, status, actions, message, now, again=again)


def _held(observed: Observed, status: FineTuneSweepStatus, now: datetime) -> Plan:
    """Suspend the trials that run, and begin none."""
    actions = all_held(observed)
    message = "spec.suspend is true; set it to false and the trials go on from their checkpoints"
    return _act(_nameless(observed), unasked(status), actions, message, now, state=SweepState.SUSPENDED)


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
        words = f"{observed.taken.told()}, and the sweep goes on by itself"
        return _say(observed, status, SweepState.NAME_TAKEN, words, now, trouble=True, again=TAKEN_LOOKED_AT_SECONDS)
    if observed.refused is not None and (pause := observed.refused.pause(now)) > 0:
        words = observed.refused.told(" of a trial")
        return _say(observed, status, SweepState.TRIAL_REFUSED, words, now, trouble=True, again=pause)
    return _say(observed, status, state, message, now, actions=actions, again=again)


def _nameless(observed: Observed) -> Observed:
    """Return the same without a name that another holds: it is in the way of those alone who make what has it."""
    return replace(observed, taken=None)


def _closed(  # noqa: PLR0917 what a decision is made from, in its order
    observed: Observed, search: Search, ledger: Ledger, status: FineTuneSweepStatus, why: str, now: datetime
) -> Plan:
    """Do what follows a search, and end; trials that wait are stopped for good."""
    status = status.model_copy(update={"trials": [stopped(each, None) for each in status.trials]})
    made = closing(observed, search, status)
    if not made.over:
        return _act(observed, made.status, made.actions, f"{why}; {made.message}", now, state=made.state)
    failed = made.state if made.state is not SweepState.COMPLETED else None
    why = f"{why}; {made.message}" if made.message else why
    return _end(observed, search, ledger, made.status, why, now, failed=failed)


def _page(observed: Observed, page: Writing, now: datetime) -> Plan:
    """Ask what the page of the search needs, or let it be written."""
    if page.inquiries:
        return Plan(inquiries=page.inquiries)
    state = SweepState.SEARCHING
    if page.status.final:  # it does not go back to the search
        state = SweepState.JUDGING if observed.sweep.spec.final is not None else SweepState.REFITTING
    message = f"{_progress(page.status)}; the page of the search is being written"
    return _act(observed, page.status, page.actions, message, now, state=state, again=page.again)


def _end(  # noqa: PLR0917 what a decision is made from, in its order
    observed: Observed,
    search: Search,
    ledger: Ledger,
    status: FineTuneSweepStatus,
    why: str,
    now: datetime,
    *,
    failed: SweepState | None = None,
) -> Plan:
    """End the search, once its page is written; trials that are under way or wait are so for good.

    `failed` is what it ends as without what was asked for.
    """
    late = failed is SweepState.DEADLINE_EXCEEDED
    trials = [stopped(each, SweepState.DEADLINE_EXCEEDED.value if late else None) for each in status.trials]
    status = status.model_copy(update={"trials": trials})
    pairs = tuple(zip(ledger.trials, trials, strict=True))
    page = writing(observed, search, pairs, status, ended=why, now=now)
    if not page.over:
        held = all_held(observed) if late else ()
        return _page(_nameless(observed), replace(page, actions=(*held, *page.actions)), now)
    status, spec, best = page.status, observed.sweep.spec, page.status.best
    if failed is not None and not late:
        return _say(observed, status, failed, why, now, succeeded="False")
    if best is None:
        reasons = sorted({each.reason for each in status.trials if each.reason is not None})
        trouble = next((each.trouble for each in ledger.trials if each.trouble), "")
        message = f"{why}, and none has a value: {', '.join(reasons)}" + (f" ({trouble})" if trouble else "")
        return _say(observed, status, failed or SweepState.TRIALS_FAILED, message, now, succeeded="False")
    message = f"{why}; the best is {best.fine_tune_job_name} with {_shown(status, best)}"
    if failed is not None and (spec.final is not None or spec.folds is not None):
        # Its adapter of all rows is not there, or not judged, and neither will be.
        return _say(observed, status, failed, message, now, succeeded="False")
    if pruned := sum(each.state is TrialState.PRUNED for each in status.trials):
        message += f"; {pruned} trials were stopped before their end"
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
    confirm: bool = False,
) -> Plan:
    sweep = observed.sweep
    if succeeded == "Unknown" and (left := seconds_left(sweep, now)) is not None and left > 0:
        again = left if again is None else min(again, left)
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
        confirm=confirm or bool(actions) or len(told.trials) > len(sweep.status.trials) or succeeded != "Unknown",
    )


def _news(before: FineTuneSweepStatus, after: FineTuneSweepStatus) -> tuple[Note, ...]:
    """Return the event of a trial that is better than all before it."""
    if after.best is None or (before.best is not None and before.best.id == after.best.id):
        return ()
    settings = ", ".join(f"{name} = {value}" for name, value in after.best.parameters.items())
    message = f"{after.best.fine_tune_job_name} has {_shown(after, after.best)}: {settings}"
    return (Note("Normal", "BetterTrial", cut(message, EVENT_MESSAGE_LENGTH)),)


def _progress(status: FineTuneSweepStatus, more: int = 0) -> str:
    running = sum(each.state is TrialState.RUNNING for each in status.trials) + more
    done = sum(each.state.is_over for each in status.trials)
    words = f"{done} of at most {status.max_trials} trials are done, {running} run"
    if paused := len(status.trials) + more - running - done:
        words += f", {paused} wait at a rung"
    if status.best is None:
        return words
    return f"{words}; the best so far is {status.best.fine_tune_job_name} with {_shown(status, status.best)}"


def _shown(status: FineTuneSweepStatus, best: BestTrial) -> str:
    error = f" (standard error {best.standard_error:.2g})" if best.standard_error is not None else ""
    return f"{status.metric} {best.value:.4g}{error}"


def _times(known: Sequence[TrialStatus], reason: str) -> int:
    return sum(each.reason == reason for each in known)


def _words(observed: Observed, ledger: Ledger, reason: str) -> str:
    """Return the message with which the first of the trials of a reason ended, as far as it is still there."""
    by_name: Mapping[str, TrialStatus] = {
        name: known for trial, known in zip(ledger.trials, ledger.known, strict=True) for name in trial.jobs
    }
    for _, child in observed.children:
        name, said = child.metadata.name, found(child.status.conditions, "Succeeded")
        if name in by_name and by_name[name].reason == reason and said is not None and said.reason == reason:
            return said.message
    return "look at their FineTuneJobs and Evaluations"

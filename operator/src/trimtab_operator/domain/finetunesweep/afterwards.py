"""What is left to do of a sweep that has ended or is deleted: nothing of it is chosen or judged any more."""

from __future__ import annotations

from datetime import datetime

from trimtab_trainer.contract.sweeps.settings import NAME_DIGITS, TrialState

from ..conditions import found
from ..ended import time_is_over
from ..ownership import leaves_children
from ..plan import Plan
from ..readers import LOOKED_AT_SECONDS, waits_for
from ..work.conditions import is_over
from .children import deletions, suspended
from .observed import Observed
from .reporting import Writing, beside_the_page, writing
from .searching import search_digest, search_of


def leaving(observed: Observed, now: datetime) -> Plan:
    """End what runs for a sweep that is deleted: a finalizer of somebody's may hold it, and its trials, for ever."""
    if leaves_children(observed.sweep.metadata):
        return Plan()
    if observed.refused is not None and (pause := observed.refused.pause(now)) > 0:
        return Plan(look_again_seconds=pause)
    actions = deletions(observed, lambda name, child: not is_over(child))
    return Plan(actions=actions, confirm=bool(actions))


def after_the_end(observed: Observed, now: datetime) -> Plan:
    """Terminal is terminal. What is left is to delete trials that are not kept, and the sweep when its time is over.

    And to write its page where a label asks for that.
    """
    sweep, status = observed.sweep, observed.sweep.status
    page = _page_after_the_end(observed, now)
    observed = beside_the_page(observed)
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
    if goes is not None and not observed.awaited:
        return Plan(actions=(goes,), confirm=True)
    held = observed.awaited and (goes is not None or sweep.spec.retain_trials != "All")
    told = waits_for({each for readers in observed.awaited.values() for each in readers}) if goes is not None else None
    if page.inquiries:
        return Plan(inquiries=page.inquiries)
    pruned = {each.id for each in status.trials if each.state is TrialState.PRUNED}
    losers = deletions(observed, lambda name, child: not _is_kept(observed, name, pruned, over=is_over(child)))
    stay = [pair for pair in observed.children if _is_kept(observed, pair[1].metadata.name, pruned, over=False)]
    said = page.status.model_copy(update={"observed_generation": sweep.metadata.generation})
    # Curves are in the page while their FineTuneJobs are there.
    actions = (*page.actions, *(losers if page.over else ()), *suspended(stay))
    times = [each for each in (look_again, page.again, LOOKED_AT_SECONDS if held else None) if each is not None]
    return Plan(
        actions=actions,
        status=said.to_json(),
        standing=told,
        look_again_seconds=min(times, default=None),
        confirm=bool(actions) or not page.over,
    )


def _page_after_the_end(observed: Observed, now: datetime) -> Writing:
    """Return what to do about the page of a search that has ended."""
    sweep, status = observed.sweep, observed.sweep.status
    if not status.trials or status.search_digest != search_digest(sweep):
        return Writing(status)
    search = search_of(sweep)
    pairs = tuple((search.at(tuple(each.point)), each) for each in status.trials)
    said = found(status.conditions, "Succeeded")
    why = said.message.partition("; ")[0] if said is not None else ""
    return writing(observed, search, pairs, status, ended=why or "it has ended", now=now)


def _is_kept(observed: Observed, name: str, pruned: set[str], *, over: bool) -> bool:
    """Tell whether a FineTuneJob outlives the search: those that are over, and those that wait at their checkpoint.

    And those that somebody else has still to read.

    Those wait that were pruned, and those that a deadline kept from training on all rows.
    """
    sweep, best = observed.sweep, observed.sweep.status.best
    trial = name.removeprefix(f"{sweep.metadata.name}-")[:NAME_DIGITS]
    refits = {each.fine_tune_job_name for each in sweep.status.final} if sweep.spec.folds is not None else set()
    if (name in refits and not over) or name in observed.awaited:
        return True
    if sweep.spec.retain_trials == "All":
        return over or trial in pruned
    if best is None:  # there is no best to keep, and nothing but these says why
        return over
    return over and (name == sweep.metadata.name or trial == best.id)

"""From one phase to the next: begun, proven on canaries, spread, in traffic there, served everywhere, drained."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from trimtab_agent.documents import Revision

from trimtab_operator.api.adapterrollout import TOLD_LENGTH, AdapterRolloutStatus, Phase, RolloutStep, ServedRevision

from ..views import format_time
from ..work.conditions import cut
from .analysis import Comparison, zero
from .conflicts import name_taken
from .limits import does_not_fit
from .observed import Observed
from .revisions import begun, promoted, served, was_served, without_incoming
from .rollback import compared, fault, looked, taken_back
from .source import Held, passed_time, wanted
from .traffic import incoming
from .waves import canaries_prove, choose_canaries, seconds_in, settled


def advance(
    observed: Observed, status: AdapterRolloutStatus, now: datetime
) -> tuple[AdapterRolloutStatus, Revision | Held]:
    """Return the status as far as it can go now, and what is wanted, or why nothing new is."""
    coming, found = incoming(observed, status), None
    if coming is not None:
        found = compared(observed, status, coming, now)
        status = looked(status, found)
        if (why := fault(observed, status, coming, found)) is not None:
            status = taken_back(observed, status, coming, why)
    rollout = observed.rollout.model_copy(update={"status": status})
    observed = replace(observed, rollout=rollout)
    target = _remembered(observed, status, wanted(observed))
    status = _abandoned(observed, status, target)
    if isinstance(target, Held):
        return _drained(observed, status, now), target
    current = served(rollout, status)
    if current is not None and current.digest == target.digest:
        return _drained(observed, _named(observed, status, target), now), target
    if incoming(observed, status) is None:
        if (refused := name_taken(observed, target) or does_not_fit(observed, current, target)) is not None:
            return _drained(observed, status, now), refused
        if rollout.spec.paused:
            return _drained(observed, status, now), target
        status = _begin(observed, status, target, now)
    return _move_on(observed, status, target, now, found), target


def _remembered(observed: Observed, status: AdapterRolloutStatus, target: Revision | Held) -> Revision | Held:
    """An Evaluation that is deleted after it was taken changes nothing, as long as the spec says the same."""
    generation = observed.rollout.metadata.generation
    if isinstance(target, Revision) or target.final:
        return target
    coming = incoming(observed, status)
    if coming is not None and status.step is not None and status.step.generation == generation:
        return coming
    current = served(observed.rollout, status)
    if current is not None and status.served is not None and status.served.generation == generation:
        return current
    return target


def _abandoned(observed: Observed, status: AdapterRolloutStatus, target: Revision | Held) -> AdapterRolloutStatus:
    """Drop a revision on its way that is not wanted any more."""
    coming = incoming(observed, status)
    if coming is None or (isinstance(target, Revision) and target.digest == coming.digest):
        return status
    return status.model_copy(update={"step": None, "revisions": without_incoming(status.revisions)})


def _named(observed: Observed, status: AdapterRolloutStatus, target: Revision) -> AdapterRolloutStatus:
    """Remember in which generation, and by which Evaluation, what is served was named last."""
    if status.served is None:
        raise ValueError("nothing is served")
    named = status.served.model_copy(
        update={
            "uri": target.uri,
            "generation": observed.rollout.metadata.generation,
            "passed": _passed_last(observed, target, status.served.passed),
        }
    )
    revisions = [
        each.model_copy(update={"uri": target.uri}) if each.digest == target.digest else each
        for each in status.revisions
    ]
    return status.model_copy(update={"served": named, "revisions": revisions})


def _passed_last(observed: Observed, target: Revision, before: str | None) -> str | None:
    """Return when the newest Evaluation that names an adapter completed; None where none is followed."""
    if observed.rollout.spec.source.follow is None:
        return None
    return max(filter(None, (before, passed_time(observed, target.digest))), default=None)


def _begin(observed: Observed, status: AdapterRolloutStatus, target: Revision, now: datetime) -> AdapterRolloutStatus:
    step = RolloutStep(
        digest=target.digest,
        uri=target.uri,
        generation=observed.rollout.metadata.generation,
        phase=Phase.LOADING,
        since=format_time(now),
        began=format_time(now),
        passed=passed_time(observed, target.digest),
    )
    return status.model_copy(update={"step": step, "revisions": begun(observed.rollout, status, target)})


def _move_on(
    observed: Observed, status: AdapterRolloutStatus, target: Revision, now: datetime, found: Comparison | None
) -> AdapterRolloutStatus:
    """Return the status one phase further, if it may be; `found`: what the canary's requests tell."""
    step, spec = status.step, observed.rollout.spec
    if step is None:
        raise ValueError("nothing is on its way")
    in_traffic = step.phase is Phase.CANARY
    canaries = choose_canaries(observed, target, step.canaries, now, in_traffic=in_traffic)
    generation = observed.rollout.metadata.generation
    if in_traffic and canaries != step.canaries:
        # Other pods, another window: the new ones prove it first.
        step = step.model_copy(
            update={"phase": Phase.LOADING, "since": format_time(now), "marks": [], "look": None, "held": None}
        )
        in_traffic = False
    step = step.model_copy(update={"canaries": canaries, "generation": generation, "uri": target.uri})
    status = status.model_copy(update={"step": step})
    if spec.paused or not canaries_prove(observed, target, canaries):
        return status
    old = served(observed.rollout, status)
    if in_traffic:
        over = seconds_in(step, now) >= spec.strategy.canary_seconds
        held = found.held if found is not None and over else None
        if held is not None:
            # As it was at first: with the numbers of each second, each second would be a write.
            held = step.held or cut(held, TOLD_LENGTH)
        if not over or held is not None:
            return status.model_copy(update={"step": step.model_copy(update={"held": held})})
        return _promote(observed, status, target, now, canary=found.message if found is not None else None)
    if not settled(observed, step, target, now):
        return status
    if old is None or spec.strategy.canary_seconds == 0 or was_served(status, target.digest):
        # Nothing to compare with, no time to do it in, or nothing new: the proof suffices.
        return _promote(observed, status, target, now)
    marks = zero(observed, canaries, target, old)
    begun_now = {"phase": Phase.CANARY, "since": format_time(now), "marks": marks}
    return status.model_copy(update={"step": step.model_copy(update=begun_now)})


def _promote(
    observed: Observed, status: AdapterRolloutStatus, target: Revision, now: datetime, canary: str | None = None
) -> AdapterRolloutStatus:
    """Return the status with a revision served; `canary`: what its requests told, None where none was looked at."""
    generation = observed.rollout.metadata.generation
    draining = RolloutStep(
        digest=target.digest, uri=target.uri, generation=generation, phase=Phase.DRAINING, since=format_time(now)
    )
    return status.model_copy(
        update={
            "served": ServedRevision(
                digest=target.digest,
                uri=target.uri,
                generation=generation,
                since=format_time(now),
                passed=_passed_last(observed, target, status.step.passed if status.step is not None else None),
                canary=cut(canary, TOLD_LENGTH) if canary is not None else None,
            ),
            "revisions": promoted(observed.rollout, status, target),
            "step": draining,
        }
    )


def _drained(observed: Observed, status: AdapterRolloutStatus, now: datetime) -> AdapterRolloutStatus:
    step = status.step
    if step is None or step.phase is not Phase.DRAINING:
        return status
    over = seconds_in(step, now) >= observed.rollout.spec.strategy.drain_seconds
    return status.model_copy(update={"step": None}) if over else status

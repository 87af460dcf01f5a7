"""A revision's way through its phases, as a table: from which phase, when, and what the status is then.

    (nothing) --begun--> Loading --to the canary--> Canary --promoted--> Draining --drained--> (nothing)
                           |  ^-----other canaries-----'                   ^
                           '-----------promoted at once-------------------'

One round goes through `WAY` from top to bottom, each turn at most once. What takes a revision off its way, wherever it
is, comes before: a fault (`rollback`), another wish (`source`), or that it does not fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from trimtab_agent.contract import Revision

from trimtab_operator.api.adapterrollout import (
    TOLD_LENGTH,
    AdapterRolloutStatus,
    Phase,
    RolloutStep,
    ServedRevision,
)
from trimtab_operator.api.approvals import ApprovedBefore
from trimtab_operator.api.status.rollout_reasons import RolloutReason as Reason

from ..conditions import cut
from ..views import format_time
from .approvals import Standing, standing, waits
from .canary.analysis import Comparison, zero
from .conflicts import name_taken
from .delivery.traffic import incoming
from .delivery.waves import canaries_prove, choose_canaries, seconds_in, settled
from .limits import does_not_fit
from .observed import Observed
from .revisions import begun, promoted, served, was_served, without_incoming
from .rollback import compared, fault, looked, taken_back
from .source import Held, passed_time, wanted


@dataclass(frozen=True)
class At:
    """A rollout in the middle of a round.

    Attributes:
        target: the new revision that is wanted, None if none is.
        found: what the canary's requests tell, None where there is nothing to compare.
        standing: what people have decided about the target, None where nobody is asked.
    """

    observed: Observed
    status: AdapterRolloutStatus
    target: Revision | None
    now: datetime
    found: Comparison | None = None
    standing: Standing | None = None

    @property
    def phase(self) -> Phase | None:
        return self.status.step.phase if self.status.step is not None else None

    @property
    def paused(self) -> bool:
        return self.observed.rollout.spec.paused

    def step(self) -> RolloutStep:
        """Return the step, in a phase that has one.

        Raises:
            ValueError: nothing is under way.
        """
        if self.status.step is None:
            raise ValueError("nothing is under way")
        return self.status.step

    def coming(self) -> Revision:
        """Return the revision that is wanted, in a turn that needs one.

        Raises:
            ValueError: nothing new is wanted.
        """
        if self.target is None:
            raise ValueError("nothing new is wanted")
        return self.target

    def with_step(self, **changes: object) -> AdapterRolloutStatus:
        return self.status.model_copy(update={"step": self.step().model_copy(update=changes)})


# When


def wants_to_begin(at: At) -> bool:
    return at.target is not None and not at.paused


def is_wanted(at: At) -> bool:
    return at.target is not None


def proven(at: At) -> bool:
    """The canary pods have proven it, and nothing keeps it from going on."""
    return at.target is not None and not at.paused and canaries_prove(at.observed, at.target, at.step().canaries)


def proven_everywhere(at: At) -> bool:
    """And the other pods have too, or are not worth waiting for."""
    return proven(at) and settled(at.observed, at.step(), at.coming(), at.now)


def needs_no_canary(at: At) -> bool:
    """And the proof suffices: nothing is served yet, there is no time for a canary, or it was served before."""
    first = served(at.observed.rollout, at.status) is None
    untimed = at.observed.rollout.spec.strategy.canary_seconds == 0
    return proven_everywhere(at) and (first or untimed or was_served(at.status, at.coming().digest))


def approved(at: At) -> bool:
    """Those who are asked approve it, at this moment."""
    return at.standing is None or at.standing.approved


def nothing_to_compare(at: At) -> bool:
    return needs_no_canary(at) and approved(at)


def something_to_compare(at: At) -> bool:
    return proven_everywhere(at) and not needs_no_canary(at)


def time_is_over(at: At) -> bool:
    return proven(at) and seconds_in(at.step(), at.now) >= at.observed.rollout.spec.strategy.canary_seconds


def canary_was_good(at: At) -> bool:
    """Its time is over and nothing holds it; had it been worse, it would have been taken back before."""
    return time_is_over(at) and _holds(at) is None


def canary_is_over(at: At) -> bool:
    return canary_was_good(at) and approved(at)


def waits_for_approval(at: At) -> bool:
    """Nothing else keeps it from being served everywhere."""
    if at.target is None or approved(at):
        return False
    return canary_was_good(at) if at.phase is Phase.CANARY else at.phase is Phase.LOADING and needs_no_canary(at)


def _holds(at: At) -> str | None:
    return at.found.held if at.found is not None else None


def drained(at: At) -> bool:
    return seconds_in(at.step(), at.now) >= at.observed.rollout.spec.strategy.drain_seconds


# Then


def nothing(at: At) -> AdapterRolloutStatus:
    return at.status.model_copy(update={"step": None})


def begin(at: At) -> AdapterRolloutStatus:
    target, moment = at.coming(), format_time(at.now)
    step = RolloutStep(
        digest=target.digest,
        uri=target.uri,
        generation=at.observed.rollout.metadata.generation,
        phase=Phase.LOADING,
        since=moment,
        began=moment,
        passed=passed_time(at.observed, target.digest),
    )
    return at.status.model_copy(update={"step": step, "revisions": begun(at.observed.rollout, at.status, target)})


def follow_canaries(at: At) -> AdapterRolloutStatus:
    """Keep who the canary pods are; in traffic other pods are another window, and prove it first."""
    step, target = at.step(), at.coming()
    in_traffic = step.phase is Phase.CANARY
    canaries = choose_canaries(at.observed, target, step.canaries, at.now, in_traffic=in_traffic)
    known = {"canaries": canaries, "generation": at.observed.rollout.metadata.generation, "uri": target.uri}
    if in_traffic and canaries != step.canaries:
        return at.with_step(**known, phase=Phase.LOADING, since=format_time(at.now), marks=[], look=None, held=None)
    return at.with_step(**known)


def hold(at: At) -> AdapterRolloutStatus:
    """Say why the canary goes on, as it was at first: with the numbers of each second, each second would be a write."""
    why = _holds(at)
    return at.with_step(held=(at.step().held or cut(why, TOLD_LENGTH)) if why is not None else None)


def to_the_canary(at: At) -> AdapterRolloutStatus:
    old = served(at.observed.rollout, at.status)
    marks = zero(at.observed, at.step().canaries, at.coming(), old) if old is not None else []
    return at.with_step(phase=Phase.CANARY, since=format_time(at.now), marks=marks)


def promote(at: At) -> AdapterRolloutStatus:
    """Have it served everywhere, and let what was served before drain."""
    target, moment = at.coming(), format_time(at.now)
    generation = at.observed.rollout.metadata.generation
    return at.status.model_copy(
        update={
            "served": ServedRevision(
                digest=target.digest,
                uri=target.uri,
                generation=generation,
                since=moment,
                passed=_passed_last(at.observed, target, at.step().passed),
                canary=_told_by_the_canary(at),
            ),
            "revisions": promoted(at.observed.rollout, at.status, target, at.standing.told if at.standing else []),
            "step": RolloutStep(
                digest=target.digest, uri=target.uri, generation=generation, phase=Phase.DRAINING, since=moment
            ),
        }
    )


def _told_by_the_canary(at: At) -> str | None:
    """Return what its requests told, None where none was looked at."""
    if at.phase is not Phase.CANARY or at.found is None:
        return None
    return cut(at.found.message, TOLD_LENGTH)


@dataclass(frozen=True)
class Turn:
    """A row of the table: from which phases, when, and what the status is then."""

    phases: tuple[Phase | None, ...]
    when: Callable[[At], bool]
    then: Callable[[At], AdapterRolloutStatus]


WAY: tuple[Turn, ...] = (
    Turn((Phase.DRAINING,), drained, nothing),
    Turn((None, Phase.DRAINING), wants_to_begin, begin),
    Turn((Phase.LOADING, Phase.CANARY), is_wanted, follow_canaries),
    Turn((Phase.CANARY,), time_is_over, hold),
    Turn((Phase.CANARY,), canary_is_over, promote),
    Turn((Phase.LOADING,), nothing_to_compare, promote),
    Turn((Phase.LOADING,), something_to_compare, to_the_canary),
)


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
    observed = replace(observed, rollout=observed.rollout.model_copy(update={"status": status}))
    wish = _remembered(observed, status, wanted(observed))
    asked = None
    if isinstance(wish, Revision) and not _is_served(status, wish):
        asked = standing(observed, wish)
        wish = _rejected(wish, asked) or wish
    status = _abandoned(observed, status, wish)
    coming = wish if isinstance(wish, Revision) else None
    if coming is not None and incoming(observed, status) is None:
        wish = _refused(observed, status, coming) or _unapproved(observed, coming, asked) or coming
    at = At(observed, status, wish if isinstance(wish, Revision) else None, now, found, asked)
    if at.target is not None and _is_served(status, at.target):
        at = replace(at, status=_named(observed, status, at.target), target=None)
    for turn in WAY:
        if at.phase in turn.phases and turn.when(at):
            at = replace(at, status=turn.then(at))
    waiting = waits_for_approval(at) or _is_held_for(wish)
    return with_approval(at.status, coming, asked, now if waiting else None), wish


def with_approval(
    status: AdapterRolloutStatus, coming: Revision | None, asked: Standing | None, waiting: datetime | None
) -> AdapterRolloutStatus:
    """Return the status with what is approved of the revision that comes; `waiting`: now, if nothing else is waited
    for."""
    if coming is None or asked is None or _is_served(status, coming):
        return status.model_copy(update={"approval": None})
    told, before = asked.status(coming.digest), status.approval
    if waiting is not None:
        same = before is not None and before.digest == coming.digest
        since = before.since if before is not None and same and before.since is not None else format_time(waiting)
        told = told.model_copy(update={"since": since})
    return status.model_copy(update={"approval": told})


def _is_held_for(wish: Revision | Held) -> bool:
    return isinstance(wish, Held) and wish.reason in (Reason.AWAITING_APPROVAL, Reason.AUTHORS_NOT_BOUND)


def _rejected(target: Revision, asked: Standing | None) -> Held | None:
    """Return why a revision must not be served, wherever it is on its way."""
    if asked is None or asked.rejected is None:
        return None
    return Held(Reason.REJECTED, f"{target.name}: {asked.rejected}", final=True)


def _unapproved(observed: Observed, target: Revision, asked: Standing | None) -> Held | None:
    """Return why a revision does not begin its way: it is to be approved before anything is loaded."""
    if asked is None or asked.before is not ApprovedBefore.CANARY or asked.approved:
        return None
    return Held(*waits(observed, target, asked))


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


def _refused(observed: Observed, status: AdapterRolloutStatus, target: Revision) -> Held | None:
    """Return why a revision that has not begun its way does not begin it; no engine was touched."""
    if _is_served(status, target):
        return None
    return name_taken(observed, target) or does_not_fit(observed, served(observed.rollout, status), target)


def _is_served(status: AdapterRolloutStatus, target: Revision) -> bool:
    return status.served is not None and status.served.digest == target.digest


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

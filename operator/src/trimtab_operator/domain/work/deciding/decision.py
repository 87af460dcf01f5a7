"""`Decision`: what follows from the books, and the ends that an attempt under way and one to start have in common."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic

from trimtab_operator.api import State

from ...plan import Action, Create, Inquiry
from ..attempts import accounts
from ..attempts.ending import Ending, Verdict
from ..attempts.waiting import Waiting
from ..conditions import ConditionStatus
from ..observed import Observed
from ..particulars import Particulars
from ..subject import J, S


@dataclass(frozen=True)
class Decision(Generic[S]):
    """What follows: a state, and how to get on from it."""

    reason: str
    message: str
    status: S
    succeeded: ConditionStatus = "Unknown"
    actions: tuple[Action, ...] = ()
    look_again_seconds: float | None = None
    inquiries: tuple[Inquiry, ...] = ()
    confirm: bool = False
    aside: tuple[Create, ...] = ()


def end(status: S, reason: str, message: str) -> Decision[S]:
    """Fail for good; a later round deletes what still runs."""
    reason = reason.value if isinstance(reason, State) else reason
    return Decision(reason, message, status, succeeded="False")


def cut_short(
    kind: Particulars[J, S], observed: Observed[J], status: S, reason: State, message: str, *, now: datetime
) -> S:
    """Return the status with the attempt that is under way closed."""
    attempt = accounts.open_attempt(status)
    seen = observed.attempt(attempt.job_uid) if attempt is not None else None
    return accounts.close(kind, observed.job, status, Ending(Verdict.FINAL, reason.value, message, now), seen)


def gave_up(waiting: Waiting, observed: Observed[Any], now: datetime) -> str:
    """Return the last word about what was waited for long enough, or never comes, else ""."""
    if waiting.hopeless:
        return waiting.message
    seconds = observed.settings.pod_start_seconds
    if waiting.since is None or now - waiting.since < timedelta(seconds=seconds):
        return ""
    return f"given up after {seconds:g} s: {waiting.message}"

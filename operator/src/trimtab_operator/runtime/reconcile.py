"""One round about one FineTuneJob or Evaluation: observe, plan, act.

The plan is a pure function of what was observed. Where it says that more must be known first, that is read and it is
asked again, twice at most: once with answers to its inquiries, once with everything that matters read anew from the
API server, because the cache may lag and the next Job costs accelerators.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import ValidationError
from trimtab_trainer.contract import Progress

from ..api import PASSED, PassedReason, State, parse, parse_adapterrollout
from ..api.adapterrollout import PROGRESSING
from ..api.conditions import MESSAGE_LENGTH
from ..domain.kinds import KINDS
from ..domain.plan import Create, Plan
from ..domain.settings import Settings
from ..domain.views import JobView, PodView, controller_of, format_time
from ..domain.work import NameTaken, Observed
from ..domain.work.kind import Work
from ..domain.work.names import job_names_to_confirm
from . import metrics
from .act import Actor, NameIsTaken
from .cache import Cache, Key, Store, Stored
from .events import Events
from .follow import SUMMARY_CONDITIONS
from .inquiries import Reader, answer, read_anew
from .kube import ADAPTERROLLOUTS, EVALUATIONS, ApiError, Body, NotFound, Resource, Unreachable
from .logs import keys
from .workqueue import Retry

log = logging.getLogger(__name__)
T = TypeVar("T")

UPSTREAM_SECONDS = 30.0
FALSE_TOO: Mapping[str, tuple[str, str | None]] = {
    EVALUATIONS.kind: (PASSED, PassedReason.EVALUATION_FAILED.value),
    ADAPTERROLLOUTS.kind: (PROGRESSING, None),
}
"""What else is not true where a kind's summary condition is said to be false: type, and reason if it is another."""
REFUSALS = (400, 403, 422)
"""Codes with which the API server says that an object is not acceptable as it is."""


@dataclass(frozen=True)
class Taken:
    """A child's name that something else has, since when it stands in the way."""

    resource: Resource
    name: str
    since: datetime


def utc_now() -> datetime:
    """Return the time; the one clock that plans are given."""
    return datetime.now(UTC)


class Reconciler:
    """`plan` is `domain.work.plan`.

    `progress` returns the newest answer of a Job's pod, `silent` whether it was asked and never gave one.
    """

    def __init__(
        self,
        *,
        reader: Reader,
        actor: Actor,
        events: Events,
        cache: Cache,
        settings: Settings,
        plan: Callable[[Observed[Any], datetime], Plan],
        progress: Callable[[str], Progress | None] = lambda uid: None,
        silent: Callable[[str], bool] = lambda uid: False,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._reader = reader
        self._actor = actor
        self._events = events
        self._cache = cache
        self._settings = settings
        self._plan = plan
        self._progress = progress
        self._silent = silent
        self._now = now or utc_now
        self._taken: dict[Key, Taken] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Do one round; return the seconds until the next look, or None where only a change calls for one."""
        return await measured(key, self._round)

    async def _round(self, key: Key) -> float | None:
        body = self._body(key)
        if body is None:
            self._taken.pop(key, None)
            return None
        about = about_of(body)
        kind = KINDS[key.kind]
        try:
            job = kind.parse(body)
        except ValidationError as error:
            await self._actor.write_status(body, invalid_status(body, error, self._now()))
            return None

        await self._forget_taken_if_free(key, job)
        observed = self._observe(key, job)
        plan = await self._decide(observed)
        if plan.confirm and not observed.confirmed:
            creates = any(isinstance(action, Create) for action in plan.actions)
            names = job_names(observed) if creates else []
            if not await read_anew(self._reader, self._cache, observed, names):
                return 0.0  # it is gone, or another object has its name
            body = self._body(key)
            if body is None:
                return None
            job = kind.parse(body)
            plan = await self._decide(replace(self._observe(key, job), confirmed=True))

        try:
            acted = await self._act(key, plan, about)
        except ApiError as error:
            if error.status in REFUSALS:  # a quota, an admission policy: not for the log alone
                await self._actor.write_status(body, refused_status(body, error, self._now()))
            raise
        if key in self._taken:
            plan = await self._decide(self._observe(key, job))  # for what to say of it; nothing else is done
        wrote = plan.status is not None and await self._actor.write_status(body, plan.status)
        if wrote and plan.notes:
            await self._events.post(body, plan.notes)
        return 0.0 if acted or wrote else plan.look_again_seconds  # at once: look at what came of it

    async def _act(self, key: Key, plan: Plan, about: dict[str, Any]) -> bool:
        """Carry out the actions, and tell whether there were any. That a name is taken is remembered for the plan."""
        try:
            for action in plan.actions:
                await self._actor.act(action, about)
        except NameIsTaken as taken:
            self._taken[key] = Taken(taken.resource, taken.name, self._now())
            log.warning("name taken", extra=keys(**about, child=str(taken)))
            return False
        return bool(plan.actions)

    async def _forget_taken_if_free(self, key: Key, job: Work) -> None:
        taken = self._taken.get(key)
        if taken is None:
            return
        try:
            found = await self._reader.get(taken.resource, key.namespace, taken.name)
        except NotFound:
            found = None
        controller = controller_of(found) if found is not None else None
        if found is None or (controller is not None and controller[2] == job.metadata.uid):
            del self._taken[key]

    async def _decide(self, observed: Observed[Any]) -> Plan:
        """Ask for a plan, and once more with answers if it has questions."""
        plan = self._plan(observed, self._now())
        if any(inquiry not in observed.answers for inquiry in plan.inquiries):
            answers = {inquiry: await answer(self._reader, inquiry) for inquiry in plan.inquiries}
            plan = self._plan(replace(observed, answers=answers), self._now())
        return plan

    def _observe(self, key: Key, job: Work) -> Observed[Any]:
        attempts: list[JobView] = sorted(
            self._cache.jobs.of_parent(job.metadata.uid), key=lambda view: (view.attempt, view.stage)
        )
        uids = [view.uid for view in attempts]
        # A Job that was deleted may still have a pod that is ending.
        uids += [attempt.job_uid for attempt in job.status.attempts if attempt.job_uid not in uids]
        pods: list[PodView] = [pod for uid in uids for pod in self._cache.pods.of_parent(uid)]
        taken = self._taken.get(key)
        progress = {uid: found for uid in uids if (found := self._progress(uid)) is not None}
        kind = KINDS[key.kind]
        return Observed(
            kind=kind,
            job=job,
            settings=self._settings,
            attempts=tuple(attempts),
            pods=tuple(sorted(pods, key=lambda pod: pod.name)),
            progress=progress,
            silent=frozenset(uid for uid in uids if self._silent(uid)),
            taken=NameTaken(f"{taken.resource.kind} {taken.name}", taken.since) if taken is not None else None,
            upstream=self._named(self._cache.finetunejobs, key, kind.waits_for(job), parse),
            rollout=self._named(self._cache.rollouts, key, kind.follows_rollout(job), parse_adapterrollout),
        )

    def _named(self, store: Store[Stored], key: Key, name: str | None, parse: Callable[[Body], T]) -> T | None:
        """Return the object that is waited for, if there is one.

        Raises:
            Retry: it was stored under another schema; its own rounds say so in its status.
        """
        found = store.view(key.namespace, name) if name is not None else None
        if found is None:
            return None
        try:
            return parse(found.body)
        except ValidationError:
            raise Retry(UPSTREAM_SECONDS, f"{store.resource.kind} {name} cannot be understood") from None

    def _body(self, key: Key) -> Body | None:
        found = self._cache.owners[key.kind].view(key.namespace, key.name)
        return found.body if found is not None else None


async def measured(key: Key, work: Callable[[Key], Awaitable[float | None]]) -> float | None:
    """Do a round and count it by how it ended."""
    began = time.monotonic()
    result = "failed"
    try:
        again = await work(key)
        result = "done"
        return again
    except Retry:
        result = "again"
        raise
    finally:
        metrics.RECONCILES.labels(key.kind, result).inc()
        metrics.RECONCILE_SECONDS.labels(key.kind).observe(time.monotonic() - began)


def failed(key: Key, error: Exception) -> float | None:
    """Log why a round failed; return the shortest delay that the API server asked for."""
    about: dict[str, Any] = {**key._asdict(), "err": str(error)}
    if isinstance(error, ApiError | Unreachable):
        log.warning("request failed", extra=keys(**about))
        return error.retry_after if isinstance(error, ApiError) else None
    log.error("round failed", extra=keys(**about), exc_info=error)
    return None


def job_names(observed: Observed[Any]) -> list[str]:
    return job_names_to_confirm(
        observed.kind, observed.job, max((view.attempt for view in observed.attempts), default=-1)
    )


def about_of(body: Body) -> dict[str, Any]:
    """Return the keys that say in a log line what it is about."""
    metadata = body["metadata"]
    return {
        "kind": body["kind"],
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "generation": metadata.get("generation"),
    }


def invalid_status(body: Body, error: ValidationError, now: datetime) -> Body:
    """Return the status of an object that was stored under an older schema and cannot be understood."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    message = f"{field}: {first['msg']}; it was stored under another version of the schema: create it again"
    kept = {} if first["loc"][:1] == ("status",) else body.get("status", {})
    return status_saying(body, kept, ("False", State.SPEC_INVALID, message), now)


def refused_status(body: Body, error: ApiError, now: datetime) -> Body:
    """Return the status of an object whose Job the API server refuses; a later round overwrites it."""
    message = f"the API server refuses the next step, it is tried again: {error.message}"
    return status_saying(body, body.get("status", {}), ("Unknown", State.PENDING, message), now)


def status_saying(body: Body, kept: Body, said: tuple[str, str, str], now: datetime) -> Body:
    """Return a status with another summary condition (status, reason, message), written without the plan."""
    word, reason, message = said
    kind, known = body["kind"], body.get("status", {}).get("conditions", [])
    generation = body["metadata"].get("generation", 1)
    reasons = {SUMMARY_CONDITIONS[kind]: str(reason)}
    if word == "False" and kind in FALSE_TOO:
        other, why = FALSE_TOO[kind]
        reasons[other] = why or str(reason)

    def condition(of: str, why: str) -> Body:
        before = next((c for c in known if c.get("type") == of and c.get("status") == word), None)
        return {
            "type": of,
            "status": word,
            "reason": why,
            "message": message[:MESSAGE_LENGTH],
            "observedGeneration": generation,
            "lastTransitionTime": before["lastTransitionTime"] if before else format_time(now),
        }

    written = [condition(of, why) for of, why in reasons.items()]
    others = [c for c in known if c.get("type") not in reasons]
    return {**kept, "observedGeneration": generation, "conditions": [*written, *others]}

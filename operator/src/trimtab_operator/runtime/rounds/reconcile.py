"""One round about one object of any of our kinds: gate, observe, plan, act.

The plan is a pure function of what was observed. Where it says that more must be known first, that is asked and it is
planned again; where it wants something costly or irreversible, everything it depends on is read anew from the API
server, because the cache may lag and the next Job costs accelerators, and it is planned once more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from ...domain.cluster import Cluster, Key, NotUnderstood
from ...domain.kind import AnyKind
from ...domain.kinds import KINDS
from ...domain.plan import OF_THEMSELVES, Adopt, Inquiry, Note, Plan, Suspend
from .. import metrics
from ..cluster.cache import Cache, Stored, typed
from ..kube import ApiError, Body, Denied, NotFound, Unreachable
from ..logs import keys
from ..pods.delivery import Delivery
from .act import Actor, NameIsTaken
from .events import Events
from .gate import not_understood
from .inquiries import Inquiries
from .known import Troubles
from .workqueue import Retry

log = logging.getLogger(__name__)

UPSTREAM_SECONDS = 30.0
REFUSALS = (400, 403, 422)
"""Codes with which the API server says that something is not acceptable as it is."""
QUESTIONS_AT_MOST = 8
"""A plan that asks longer than this goes round in circles."""


def is_refusal(error: ApiError) -> bool:
    """Tell whether what was asked for is not acceptable as it is, rather than that something is out of order."""
    return error.status in REFUSALS or isinstance(error, Denied)


def utc_now() -> datetime:
    """Return the time; the one clock that plans are given."""
    return datetime.now(UTC)


class Reconciler:
    """Does the rounds; `cluster` is what plans are made from, `troubles` what stood in the way of earlier ones."""

    def __init__(
        self,
        *,
        cache: Cache,
        cluster: Cluster,
        troubles: Troubles,
        inquiries: Inquiries,
        actor: Actor,
        delivery: Delivery,
        events: Events,
        now: Callable[[], datetime] = utc_now,
        kinds: Mapping[str, AnyKind] = KINDS,
    ) -> None:
        self._cache = cache
        self._cluster = cluster
        self._troubles = troubles
        self._inquiries = inquiries
        self._actor = actor
        self._delivery = delivery
        self._events = events
        self._now = now
        self._kinds = kinds

    async def reconcile(self, key: Key) -> float | None:
        """Do one round; return the seconds until the next look, or None where only a change calls for one."""
        return await measured(key, self._round)

    async def _round(self, key: Key) -> float | None:
        kind, stored = self._kinds[key.kind], self._cache.stored(key)
        if stored is None:
            self._troubles.forget(key)
            return await self._retire(kind, key)
        if self._cache.at_rest(key):
            return None
        try:
            typed(stored)
        except ValidationError as error:
            body = stored.body
            await self._write(kind, body, not_understood(kind, body, error, self._now()))
            return None
        try:
            made = await self._planned(kind, stored)
        except NotUnderstood as other:  # its own rounds say so in its status
            raise Retry(UPSTREAM_SECONDS, str(other)) from None
        return await self._act(kind, key, made) if made is not None else 0.0

    async def _planned(self, kind: AnyKind, stored: Stored) -> Plan | None:
        """Return what to do about an object, or None if it turns out to be gone or another."""
        subject, key = typed(stored), stored.key
        uid = subject.metadata.uid
        await self._look_at_what_is_taken(key, uid)
        observed, made = await self._decide(kind, subject)
        if not made.confirm or not (needs := kind.needs(observed, made)):
            return made
        if not await self._inquiries.read_anew(key, uid, needs):
            return None
        fresh = self._cache.stored(key)
        if fresh is None:
            return None
        if fresh is stored and not observed.answers and kind.observe(self._cluster, subject) == observed:
            return made  # nothing is otherwise
        try:
            subject = typed(fresh)
        except ValidationError:
            return None  # the next round says so
        kept: dict[Inquiry, object] = {
            each: answer for each, answer in observed.answers.items() if isinstance(each, OF_THEMSELVES)
        }
        return (await self._decide(kind, subject, kept))[1]

    async def _decide(
        self, kind: AnyKind, subject: Any, answers: Mapping[Inquiry, object] = MappingProxyType({})
    ) -> tuple[Any, Plan]:
        """Plan until there is nothing left to ask; answers add up to those that are there."""
        for _ in range(QUESTIONS_AT_MOST):
            observed = replace(kind.observe(self._cluster, subject), answers=answers)
            made = kind.plan(observed, self._now())
            if not made.inquiries:
                return observed, made
            answers = {**answers, **{each: await self._inquiries.answer(each) for each in made.inquiries}}
        raise RuntimeError(f"the plan asks without end: {made.inquiries}")

    async def _act(self, kind: AnyKind, key: Key, made: Plan) -> float | None:
        stored = self._cache.stored(key)
        if stored is None:
            return 0.0
        if made == Plan(look_again_seconds=made.look_again_seconds):
            self._troubles.outlived(key)
            return made.look_again_seconds
        body = stored.body
        acted, hindered = await self._do(key, made, body)
        if hindered:  # what to say of it; nothing else is done
            _, made = await self._decide(kind, typed(stored))
            made = replace(made, actions=(), documents=(), mounted=None)
            await self._tell_of_refusal(key, made, body)
        elif not acted:
            self._troubles.outlived(key)
        wrote = made.status is not None and await self._write(kind, body, made.status)
        await self._delivery.deliver(key, made)
        if made.notes and wrote:
            await self._events.post(body, made.notes)
        if made.standing is not None and self._troubles.is_news(key, made.standing):
            await self._events.post(body, (made.standing,))
        await self._do_beside(key, made, body)
        return 0.0 if acted or (wrote and made.follows_up) else made.look_again_seconds

    async def _write(self, kind: AnyKind, body: Body, status: Body) -> bool:
        """Write a status; where that is refused, an event says so, as the status itself cannot."""
        try:
            return await self._actor.write_status(kind, body, status)
        except ApiError as error:
            if is_refusal(error):
                words = f"the API server refuses its status, it is tried again: {error.message or error.reason}"
                await self._events.post(body, (Note("Warning", "StatusRefused", words),))
            raise

    async def _do(self, key: Key, made: Plan, body: Body) -> tuple[bool, bool]:
        """Carry out the actions; tell whether all were done, and whether something stood in the way.

        What stands in the way is remembered for the next plan, which says so, and when to try again. Who may not be
        suspended, or go on, stands in the way of nothing else.
        """
        about, hindered = about_of(body), False
        for action in made.actions:
            try:
                await self._tell(body, await self._actor.act(action, about))
            except NameIsTaken as taken:
                self._troubles.name_taken(key, taken.resource, taken.name, nobodys=taken.nobodys)
                log.warning("name taken", extra=keys(**about, child=str(taken)))
                return False, True
            except (ApiError, Unreachable) as error:  # one request may have no answer: a webhook is slower than we wait
                refused = isinstance(error, ApiError) and is_refusal(error)
                if isinstance(error, ApiError) and refused and not hindered:
                    self._troubles.was_refused(key, action, error)
                elif not refused and not self._troubles.failed(key, action, error):
                    raise
                log.warning("refused", extra=keys(**about, err=str(error)))
                hindered = True
                if not (refused and isinstance(action, Suspend)):
                    return False, True
        if hindered:
            return False, True
        if made.actions:
            self._troubles.succeeded(key)
        return bool(made.actions), False

    async def _do_beside(self, key: Key, made: Plan, body: Body) -> None:
        """Create or adopt what is beside the work; whatever comes of one, the others and the round are as without."""
        if not made.aside or self._troubles.rests_beside(key):
            return
        about = about_of(body)
        for action in made.aside:
            if isinstance(action, Adopt):  # whoever takes away what it gives back may do so again at once
                self._troubles.stood_beside(key)
            try:
                await self._tell(body, await self._actor.act(action, about))
            except (NameIsTaken, ApiError, Unreachable) as error:
                self._troubles.stood_beside(key)
                log.warning("not made beside", extra=keys(**about, err=str(error)))

    async def _tell(self, body: Body, note: Note | None) -> None:
        if note is not None:
            await self._events.post(body, (note,))

    async def _tell_of_refusal(self, key: Key, made: Plan, body: Body) -> None:
        """Post an event of what is refused for the first time and no status can tell of, such as a TTL's deletion."""
        found = self._troubles.refused.get(key)
        if made.status is None and found is not None and found.since == found.tried:
            words = f"the API server refuses the next step, it is tried again: {found.words}"
            await self._events.post(body, (Note("Warning", "Refused", words),))

    async def _retire(self, kind: AnyKind, key: Key) -> float | None:
        """Do what is left to be done about an object that is gone."""
        made = await self._leaving(kind, key)
        if made.confirm:
            await self._inquiries.read_named(key)
            if self._cache.stored(key) is not None:
                return 0.0
            made = await self._leaving(kind, key)
        await self._delivery.deliver(key, made)
        return made.look_again_seconds

    async def _leaving(self, kind: AnyKind, key: Key) -> Plan:
        answers: dict[Inquiry, object] = {}
        while (made := kind.retire(self._cluster, key, answers, self._now())).inquiries:
            answers |= {each: await self._inquiries.answer(each) for each in made.inquiries}
        return made

    async def _look_at_what_is_taken(self, key: Key, uid: str) -> None:
        """Forget that a name is taken once it is free, or ours."""
        found = self._troubles.taken.get(key)
        if found is None:
            return
        resource, name, _ = found
        try:
            ours = self._actor.is_child(resource, await self._inquiries.read(resource, key.namespace, name), uid)
        except NotFound:
            ours = True
        if ours:
            del self._troubles.taken[key]


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

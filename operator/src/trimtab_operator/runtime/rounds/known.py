"""`Known`: the `Cluster` that decisions look things up in, answered from the cache and from what pods said last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError
from trimtab_trainer.contract import Progress

from ...domain.adapterrollout import ServingPod
from ...domain.cluster import Key, NameTaken, NotUnderstood, Refusal
from ...domain.plan import Action, Create, Note
from ...domain.settings import Settings
from ...domain.views import JobView, PodView
from ...domain.work.attempts.waiting import has_an_end
from ..cluster.cache import Cache, Stored, matches, typed
from ..kube import ApiError, Body, Resource, Unreachable
from ..pods.agentpoller import AgentPoller
from ..pods.progress import ProgressPoller
from ..pods.signing import SigningKeys
from ..pods.terms import Terms

FAULT_SECONDS = 30.0
"""For so long an error of the API server's is tried again without a word in the state: most pass."""
FORGOTTEN = timedelta(hours=1)
"""After this time nobody has asked about the pods of a Job any more, so it is gone or has them."""
TOLD_AGAIN, OTHERWISE_TOLD = timedelta(hours=1), timedelta(minutes=10)
"""For so long the API server keeps an event; and until other words are posted about what lasts."""
BESIDE_SECONDS = 60.0
"""Until what is made beside an object's work is tried again."""


class Troubles:
    """What stood in the way of what was planned for each object, as long as it does."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self.taken: dict[Key, tuple[Resource, str, NameTaken]] = {}
        self.refused: dict[Key, Refusal] = {}
        self._faults: dict[Key, datetime] = {}
        self._beside: dict[Key, datetime] = {}
        self._standing: dict[Key, tuple[Note, datetime]] = {}
        self._pods_refused: dict[str, Refusal] = {}
        """By the Jobs' uids, those told of last behind those before."""

    def stood_beside(self, key: Key) -> None:
        """Note that what is made beside an object's work could not be."""
        self._beside[key] = self._now()

    def rests_beside(self, key: Key) -> bool:
        """Tell whether that was lately."""
        tried = self._beside.get(key)
        return tried is not None and (self._now() - tried).total_seconds() < BESIDE_SECONDS

    def is_news(self, key: Key, note: Note) -> bool:
        """Tell whether an event of what lasts is to be posted, and note that it is."""
        now, before = self._now(), self._standing.get(key)
        if before is not None and now - before[1] < (TOLD_AGAIN if before[0] == note else OTHERWISE_TOLD):
            return False
        self._standing[key] = note, now
        return True

    def name_taken(self, key: Key, resource: Resource, name: str, *, nobodys: bool = False) -> None:
        """Note that something else has the name of a child, or something that is nobody's."""
        found = NameTaken(f"{resource.kind} {name}", self._now(), nobodys)
        self.taken.setdefault(key, (resource, name, found))

    def was_refused(self, key: Key, action: Action, error: ApiError) -> None:
        """Note that the API server does not accept what was planned.

        Patience that has an end does not begin with what is waited for without one, such as an error or a quota, nor
        with what was to be done before and was something else.
        """
        self._faults.pop(key, None)
        now = self._now()
        found = Refusal(_kind_of(action), error.message or error.reason, now, now, action=type(action))
        self.refused[key] = _since_before(self.refused.get(key), found)

    def pods_were_refused(self, job: str, words: str) -> Refusal:
        """Note that a Job, by its uid, gets no pods, and return since when it is so.

        Its events do not tell: those alike are one after a while, quota or policy.
        """
        now = self._now()
        found = _since_before(self._pods_refused.pop(job, None), Refusal("pod", words, now, now))
        self._pods_refused[job] = found
        while found.tried - (oldest := next(iter(self._pods_refused.items())))[1].tried > FORGOTTEN:
            del self._pods_refused[oldest[0]]
        return found

    def pods_not_refused(self, job: str) -> None:
        """Note that nothing keeps a Job, by its uid, from getting pods."""
        self._pods_refused.pop(job, None)

    def failed(self, key: Key, action: Action, error: ApiError | Unreachable) -> bool:
        """Note an error of the API server's, or no answer; tell whether it lasts so long that the state says so."""
        before, now = self.refused.get(key), self._now()
        lasts = (now - self._faults.setdefault(key, now)).total_seconds() >= FAULT_SECONDS
        if lasts:
            since = before.since if before is not None and before.fault else now
            self.refused[key] = Refusal(_kind_of(action), str(error), since, now, fault=True, action=type(action))
        return lasts

    def succeeded(self, key: Key) -> None:
        self.refused.pop(key, None)
        self._faults.pop(key, None)

    def outlived(self, key: Key) -> None:
        """Forget what became of what is not wanted any more: it was time to try it again, and it was not planned."""
        found = self.refused.get(key)
        if found is None or found.pause(self._now()) <= 0:
            self.succeeded(key)

    def forget(self, key: Key) -> None:
        self.taken.pop(key, None)
        self.refused.pop(key, None)
        self._faults.pop(key, None)
        self._beside.pop(key, None)
        self._standing.pop(key, None)


def _kind_of(action: Action) -> str:
    return str(action.body["kind"]) if isinstance(action, Create) else action.kind


def _since_before(before: Refusal | None, found: Refusal) -> Refusal:
    """Return what was refused now as what was refused before and is still, where it is the same."""
    if before is None or before.action is not found.action or _has_an_end(before) != _has_an_end(found):
        return found
    return replace(found, since=before.since)


def _has_an_end(refusal: Refusal) -> bool:
    return not refusal.fault and has_an_end(refusal.what, refusal.words)


class Known:
    """One moment after the other: every answer is of now."""

    def __init__(
        self,
        *,
        cache: Cache,
        troubles: Troubles,
        settings: Settings,
        progress: ProgressPoller,
        agents: AgentPoller,
        signing: SigningKeys,
        terms: Terms,
    ) -> None:
        self._cache = cache
        self._troubles = troubles
        self._settings = settings
        self._progress = progress
        self._agents = agents
        self._signing = signing
        self._terms = terms

    @property
    def settings(self) -> Settings:
        return self._settings

    def term(self, namespace: str) -> int:
        return self._terms.of(namespace)

    @property
    def can_sign(self) -> bool:
        return bool(self._signing.all())

    def named(self, kind: str, namespace: str, name: str) -> Any | None:
        key = Key(kind, namespace, name)
        found = self._cache.stored(key)
        if found is None:
            return None
        try:
            return typed(found)
        except ValidationError:
            raise NotUnderstood(key) from None

    def called(self, kind: str, namespace: str, name: str) -> tuple[Any, ...]:
        found = self._cache.stored(Key(kind, namespace, name))
        return _understood([found] if found is not None else [])

    def indexed(
        self, kind: str, index: str, *, labels: Mapping[str, str] | None = None, newest: int | None = None
    ) -> tuple[Any, ...]:
        found = self._cache.owners[kind].of_parent(index)
        if labels is not None:
            found = [stored for stored in found if matches(labels, stored.labels)]
        if newest is not None:
            found = sorted(found, key=lambda stored: (stored.completed, stored.key.name), reverse=True)[:newest]
        return _understood(found)

    def bodies(self, kind: str, index: str) -> tuple[Body, ...]:
        return tuple(stored.body for stored in self._cache.owners[kind].of_parent(index))

    def serving_pods(
        self, namespace: str, rollout: str, labels: Mapping[str, str] | None = None
    ) -> tuple[tuple[ServingPod, ...], tuple[ServingPod, ...]]:
        selected = self._cache.pods_of(namespace, labels) if labels is not None else []
        mine = {view.uid for view in selected}
        others = [
            view
            for view in self._agents.holders(namespace, rollout)
            if view.uid not in mine and not self._agents.may_hear(view, rollout)
        ]
        return tuple(self._agents.pod(view, rollout) for view in selected), tuple(
            self._agents.pod(view, rollout) for view in others
        )

    def told_again_in(self, namespace: str, rollout: str) -> float | None:
        holding = [
            view
            for view in self._agents.holders(namespace, rollout)
            if (share := self._agents.pod(view, rollout).share(rollout)) is not None and share.ours
        ]
        return min((self._agents.may_hear(view, rollout) for view in holding), default=None)

    def jobs_of(self, key: Key) -> list[JobView]:
        return self._cache.jobs_of(key)

    def departed(self, key: Key) -> tuple[JobView, ...]:
        return self._cache.departed.jobs_of(key)

    def pods_saying(self, key: Key) -> list[PodView]:
        return self._cache.pods_saying(key)

    def pods_of(self, job_uid: str) -> list[PodView]:
        there = self._cache.pods.of_parent(job_uid)
        job = self._cache.jobs.of_uid(job_uid)
        lives = job is not None and job.view is not None and not job.view.finished
        return there if lives else [*there, *self._cache.departed.pods_of(job_uid, there)]

    def progress(self, job_uid: str) -> Progress | None:
        return self._progress.newest(job_uid)

    def silent(self, job_uid: str) -> bool:
        return self._progress.silent(job_uid)

    def taken(self, key: Key) -> NameTaken | None:
        found = self._troubles.taken.get(key)
        return found[2] if found is not None else None

    def refused(self, key: Key) -> Refusal | None:
        return self._troubles.refused.get(key)


def _understood(found: list[Stored]) -> tuple[Any, ...]:
    """Return the typed form of objects; one of a version that is not known gives no verdict."""
    known = []
    for stored in found:
        try:
            known.append(typed(stored))
        except ValidationError:
            continue
    return tuple(known)

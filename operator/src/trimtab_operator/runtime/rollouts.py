"""One round about one AdapterRollout: observe, plan, act.

The status is written first, then the documents go out, all at once, then the one for new pods: whoever goes on after a
crash finds in the status what was decided, and in the pods' truth what is missing. Where requests are about to move,
object, source and agents are asked anew and it is decided again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TypeVar

from pydantic import ValidationError

from ..api import (
    PASSED,
    AdapterRollout,
    Evaluation,
    PassedReason,
    RolloutReason,
    parse_adapterrollout,
    parse_evaluation,
)
from ..api.adapterrollout import REJECTED_KEPT, Follow, Phase
from ..domain.adapterrollout import Document, Observed, RolloutPlan, plan, retired
from ..domain.adapterrollout.sequence import Sequence, milliseconds
from ..domain.views import ServingPodView
from .act import Actor
from .agentpoller import NAMESPACE, AgentPoller
from .cache import Cache, Key, Stored, matches
from .desired import Desired
from .events import Events
from .follow import of_adapter_name, of_artifact, passed_in
from .inquiries import Reader, read_named
from .kube import ADAPTERROLLOUTS, Body
from .reconcile import invalid_status, measured, status_saying
from .signing import SigningKeys

T = TypeVar("T")

WITHOUT_KEY_SECONDS = 30.0
RETIRE_AGAIN_SECONDS = 2.0
PASSED_LOOKED_AT = REJECTED_KEPT + 2
"""Of the Evaluations that a rollout follows, newest first: those that were taken back, the next, and the one served."""


class Terms:
    """The first part of every document's sequence, by namespace: the Lease's transitions, or what had to be begun above
    them because pods hold documents of a later term (`domain.adapterrollout.sequence`).

    By namespace, because what a pod tells concerns those beside it and nobody else.
    """

    def __init__(self, lease_transitions: Callable[[], int]) -> None:
        self._lease_transitions = lease_transitions
        self._begun: dict[str, int] = {}

    def of(self, namespace: str) -> int:
        return max(self._lease_transitions(), self._begun.get(namespace, 0))

    def note(self, namespace: str, sequence: Sequence) -> None:
        """Go on in the term of a sequence that was decided on."""
        if sequence[0] > self._lease_transitions():
            self._begun[namespace] = max(sequence[0], self._begun.get(namespace, 0))


class RolloutReconciler:
    """`lease_transitions` returns that of the leader's Lease, the least first part of every document's sequence."""

    def __init__(
        self,
        *,
        reader: Reader,
        actor: Actor,
        events: Events,
        cache: Cache,
        poller: AgentPoller,
        desired: Desired,
        signing: SigningKeys,
        lease_transitions: Callable[[], int],
        now: Callable[[], datetime],
    ) -> None:
        self._reader = reader
        self._actor = actor
        self._events = events
        self._cache = cache
        self._poller = poller
        self._desired = desired
        self._signing = signing
        self._terms = Terms(lease_transitions)
        self._now = now

    async def reconcile(self, key: Key) -> float | None:
        """Do one round; return the seconds until the next look, or None where only a change calls for one."""
        return await measured(key, self._round)

    async def _round(self, key: Key) -> float | None:
        if key.kind == NAMESPACE:
            await self._desired.publish_keys(key.namespace)
            return None
        body = self._body(key)
        if body is None:
            return await self._retire(key)
        try:
            rollout = parse_adapterrollout(body)
        except ValidationError as error:
            await self._actor.write_status(body, invalid_status(body, error, self._now()))
            return None
        if not self._signing.all():
            message = "the operator has no key to sign documents with; set agentKey in the values of its chart"
            said = ("False", RolloutReason.AGENT_KEY_MISSING, message)
            await self._actor.write_status(body, status_saying(body, body.get("status", {}), said, self._now()))
            return WITHOUT_KEY_SECONDS
        await self._desired.publish_keys(key.namespace)

        observed, made = await self._decide(key, rollout, ask=self._marked(rollout))
        if made.confirm:
            await self._read_anew(key, rollout)
            body = self._body(key)
            if body is None:
                return 0.0
            rollout = parse_adapterrollout(body)
            observed, made = await self._decide(key, rollout, ask=self._pods(rollout))
        wrote = await self._actor.write_status(body, made.status)
        if made.sequence is not None:
            self._terms.note(key.namespace, made.sequence)
        await self._send(observed, made)
        if wrote and made.notes:
            await self._events.post(body, made.notes)
        return made.look_again_seconds

    async def _decide(
        self, key: Key, rollout: AdapterRollout, *, ask: Iterable[ServingPodView]
    ) -> tuple[Observed, RolloutPlan]:
        await self._poller.refresh(ask)
        observed = await self._observe(key, rollout)
        return observed, plan(observed, self._now())

    async def _send(self, observed: Observed, made: RolloutPlan) -> None:
        rollout = observed.rollout
        namespace, name = rollout.metadata.namespace, rollout.metadata.name
        selected = {pod.uid for pod in observed.pods}
        strays = [view for view in self._poller.holders(namespace, name) if view.uid not in selected]
        await self._poller.send((*made.documents, *self._leaving(namespace, name, strays)))
        key = self._signing.for_agents(*self._poller.keys_known(namespace))
        if made.mounted is not None and key is not None:
            await self._desired.put(made.mounted, key, self._now().timestamp())

    async def _retire(self, key: Key) -> float | None:
        """Take a rollout that is gone out of every pod, and out of what new pods start from.

        A pod may tell of anything, so nothing is read or sent for one that was told of it lately.
        """
        if not self._signing.all():
            return None
        views = self._poller.holders(key.namespace, key.name)
        leaving = self._leaving(key.namespace, key.name, views)
        if leaving or key.name in await self._desired.rollouts(key.namespace):
            await read_named(self._reader, self._cache.rollouts, key.namespace, key.name)
            if self._body(key) is not None:
                return 0.0
            await self._poller.send(self._leaving(key.namespace, key.name, views))
            await self._desired.remove(key.namespace, key.name)
            return RETIRE_AGAIN_SECONDS
        holding = [view for view in views if (share := self._poller.pod(view, key.name).share(key.name)) and share.ours]
        waits = [max(RETIRE_AGAIN_SECONDS, self._poller.may_hear(view, key.name)) for view in holding]
        return min(waits, default=None)

    # Observing

    async def _observe(self, key: Key, rollout: AdapterRollout) -> Observed:
        views = self._pods(rollout)
        self._poller.listen_on(views, rollout.spec.serving.port)
        evaluations = self._evaluations(key, rollout)
        return Observed(
            rollout=rollout,
            evaluations=evaluations,
            others=self._others(key, rollout),
            pods=tuple(self._poller.pod(view, key.name) for view in views),
            lease_transitions=self._terms.of(key.namespace),
            mounted=await self._desired.held(key.namespace, key.name),
            ranks=self._ranks(key, rollout, evaluations),
        )

    def _pods(self, rollout: AdapterRollout) -> list[ServingPodView]:
        return self._cache.pods_of(rollout.metadata.namespace, rollout.spec.serving.selector.match_labels)

    def _marked(self, rollout: AdapterRollout) -> list[ServingPodView]:
        """Return the pods whose counts decide about a canary; agents do not tell of a count by themselves."""
        step = rollout.status.step
        if step is None or step.phase is not Phase.CANARY:
            return []
        uids = {mark.pod for mark in step.marks}
        return [view for view in self._pods(rollout) if view.uid in uids]

    def _evaluations(self, key: Key, rollout: AdapterRollout) -> tuple[Evaluation, ...]:
        source = rollout.spec.source
        if source.evaluation_name is not None:
            found = self._cache.evaluations.view(key.namespace, source.evaluation_name)
            return _understood([found] if found is not None else [], parse_evaluation)
        if source.follow is None:
            return ()
        wanted = source.follow.selector.match_labels
        passed = [(stored, stored.body) for stored in self._cache.evaluations.of_parent(passed_in(key.namespace))]
        # Those that are not followed are left out before the newest are taken: they could be many, and made on purpose.
        mine = [
            each
            for each in passed
            if matches(wanted, each[1]["metadata"].get("labels") or {}) and _counts_as_passed(each[1], source.follow)
        ]
        mine.sort(key=lambda each: (each[1]["status"].get("completionTime", ""), each[0].key.name), reverse=True)
        return _understood([stored for stored, _ in mine[:PASSED_LOOKED_AT]], parse_evaluation)

    def _others(self, key: Key, rollout: AdapterRollout) -> tuple[AdapterRollout, ...]:
        """Return those that claim the same name."""
        claiming = self._cache.rollouts.of_parent(of_adapter_name(key.namespace, rollout.spec.adapter_name))
        return _understood([stored for stored in claiming if stored.key != key], parse_adapterrollout)

    def _ranks(self, key: Key, rollout: AdapterRollout, evaluations: tuple[Evaluation, ...]) -> dict[str, int]:
        targets = [evaluation.status.target for evaluation in evaluations]
        digests = {target.digest for target in targets if target is not None and target.digest is not None}
        if rollout.spec.source.artifact is not None:
            digests.add(rollout.spec.source.artifact.digest)
        ranks = {}
        for digest in digests:
            for job in self._cache.finetunejobs.of_parent(of_artifact(key.namespace, digest)):
                rank = job.body["status"]["artifact"].get("rank")
                if rank is not None:
                    ranks[digest] = int(rank)
        return ranks

    async def _read_anew(self, key: Key, rollout: AdapterRollout) -> None:
        names = [(self._cache.rollouts, key.name)]
        if rollout.spec.source.evaluation_name is not None:
            names.append((self._cache.evaluations, rollout.spec.source.evaluation_name))
        await asyncio.gather(*(read_named(self._reader, store, key.namespace, name) for store, name in names))

    def _body(self, key: Key) -> Body | None:
        found = self._cache.rollouts.view(key.namespace, key.name)
        return found.body if found is not None else None

    def _leaving(self, namespace: str, name: str, views: Iterable[ServingPodView]) -> tuple[Document, ...]:
        """Return what tells pods that nothing of a rollout is wanted there any more, where they hold something."""
        sequence = (self._terms.of(namespace), milliseconds(self._now()))
        hearing = [self._poller.pod(view, name) for view in views if not self._poller.may_hear(view, name)]
        return retired(name, namespace, tuple(hearing), sequence)


def _counts_as_passed(body: Body, follow: Follow) -> bool:
    found = (c for c in body["status"].get("conditions") or () if c.get("type") == PASSED)
    return any(c.get("reason") == PassedReason.PASSED or not follow.require_thresholds for c in found)


def _understood(found: Iterable[Stored], parse: Callable[[Body], T]) -> tuple[T, ...]:
    """Return the typed form of objects; one stored under another schema gives no verdict and claims no name."""
    typed = []
    for stored in found:
        try:
            typed.append(parse(stored.body))
        except ValidationError:
            continue
    return tuple(typed)


async def orphans(cache: Cache, desired: Desired) -> set[Key]:
    """Return the rollouts that have a document for new pods and do not exist: they were deleted while nobody looked."""
    stores = (cache.rollouts, cache.serving)
    namespaces = {entry.namespace for store in stores for entry in store if entry.view is not None}
    found = set()
    for namespace in sorted(namespaces):
        for name in await desired.rollouts(namespace):
            if cache.rollouts.named(namespace, name) is None:
                found.add(Key(ADAPTERROLLOUTS.kind, namespace, name))
    return found

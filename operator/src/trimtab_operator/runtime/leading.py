"""What runs while this process leads: the first list, the watches, the workers, the audits, and the questions to
running trainers and to the agents of serving pods.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Hashable, Mapping
from functools import partial

import aiohttp
import kopf

from ..domain.cluster import Key
from ..domain.kinds import KINDS
from ..domain.views import STAGE_LABEL
from . import metrics
from .cluster.audit import Audit
from .cluster.cache import MANAGED_BY_US, Cache
from .cluster.handlers import NoMemories, registry_of, settings_of
from .cluster.watch import Inbox, Watch
from .kube import JOBS, PODS, ApiError, Kube, Resource, Unreachable
from .logs import keys
from .lull import Lull
from .notifying.notifier import Notifier, Pace
from .notifying.record import Records
from .notifying.secrets import Secrets
from .notifying.sender import Sender
from .objectmetrics import ObjectMetrics
from .pods.agentpoller import NAMESPACE, AgentPoller
from .pods.agents import Agents
from .pods.delivery import Delivery
from .pods.desired import Desired, orphans
from .pods.progress import ProgressPoller
from .pods.signing import SigningKeys
from .pods.terms import Terms
from .rounds.act import Actor
from .rounds.events import Events
from .rounds.inquiries import Inquiries
from .rounds.known import Known, Troubles
from .rounds.policies import Policies
from .rounds.reconcile import Reconciler, failed, utc_now
from .rounds.workqueue import WorkQueue
from .settings import Settings

log = logging.getLogger(__name__)

FIRST_ROUNDS_SECONDS = 2.0
ORPHANS_AGAIN_SECONDS = 10.0
ENDED_AT_ONCE, ENDED_PAUSE_SECONDS = 8, 0.01
"""Of what had ended before this term: how many wait beside everything else, and until there is room for more."""
KOPF_LULL_SECONDS = 5.0
"""Without an object of kopf's own first list it has ended."""
SETTLED_ROUNDS = 2
"""Of a request and an audit: after them what was written is known, though its answer and its watch event were lost."""
STALLED_SECONDS = 120.0
"""Longer than any request or round may take: a queue that waits and finishes nothing for so long is stuck."""


class Leading:
    """One term of office: it begins with an empty cache and ends with the process."""

    def __init__(self, kube: Kube, settings: Settings, lease_transitions: Callable[[], int]) -> None:
        """Prepare it within a running event loop; `lease_transitions` returns that of the Lease it holds."""
        self._kube = kube
        self._settings = settings
        self._queue: WorkQueue[Key] = WorkQueue(group=self._served_by)
        add = self._queue.add
        pods_changed = asyncio.Event()
        self._outside = aiohttp.ClientSession(trust_env=True, cookie_jar=aiohttp.DummyCookieJar())
        """For what is outside of the cluster: a proxy may lead there."""
        self._notifier = self._notifying()
        seen = self._notifier.seen if self._notifier is not None else None
        self._cache = Cache(add, pods_changed.set, seen, tracking=settings.gitops_labels)
        self._audit = Audit(kube, self._cache, add, namespaces=settings.watch_namespaces, every=settings.audit_seconds)
        self._progress = ProgressPoller(self._cache, add, settings.progress_seconds)
        signing = SigningKeys(settings.agent_keys)
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        self._poller = AgentPoller(
            Agents(signing, self._session, kube.may_write),
            self._cache,
            pods_changed,
            add,
            utc_now,
            busy=self._queue.waits,
        )
        self._desired = Desired(kube, signing, busy=self._queue.waits, changed=add)
        troubles, terms = Troubles(utc_now), Terms(lease_transitions)
        self._reconciler = Reconciler(
            cache=self._cache,
            cluster=Known(
                cache=self._cache,
                troubles=troubles,
                settings=settings.domain,
                progress=self._progress,
                agents=self._poller,
                signing=signing,
                terms=terms,
            ),
            troubles=troubles,
            inquiries=Inquiries(
                reader=kube,
                cache=self._cache,
                troubles=troubles,
                agents=self._poller,
                desired=self._desired,
                policies=Policies(kube, settings.admission_policies),
            ),
            actor=Actor(kube, self._cache),
            delivery=Delivery(self._poller, self._desired, signing, terms, utc_now),
            events=Events(kube, utc_now, settings.identity),
        )
        self._kopf_lists = Lull(KOPF_LULL_SECONDS)
        self._seen_rounds, self._seen_at = 0, 0.0
        for kind in KINDS.values():
            metrics.States(kind.gauge, f"{kind.name}s", partial(self._cache.states, kind.name)).register()
        metrics.States("trimtab_serving_pods", "Pods of all AdapterRollouts", self._pods_by_state).register()
        if settings.object_metrics:
            ObjectMetrics(self._cache).register()
        if self._notifier is not None:
            self._notifier.register()

    def _notifying(self) -> Notifier | None:
        """Return who tells endpoints outside of the cluster, None where there are none."""
        settings = self._settings
        if not settings.notifications:
            return None
        pace = Pace(settled=SETTLED_ROUNDS * (settings.request_seconds + settings.audit_seconds))
        sender = Sender(self._outside, Secrets(settings.notification_secrets), seconds=pace.request)
        records = Records(self._kube, settings.namespace, f"{settings.lease_name}-notifications")
        return Notifier(settings.notifications, sender, records, now=utc_now, pace=pace)

    async def close(self) -> None:
        """Close the connections of one that never ran; those of one that did end with the process."""
        await self._session.close()
        await self._outside.close()

    async def run(self, started: Callable[[], None]) -> None:
        """Run until cancelled; any part that ends takes the rest with it. `started` is called when kopf runs."""
        began = time.monotonic()
        version = await self._fill()
        log.info("cache filled", extra=keys(count=len(self._queue), seconds=round(time.monotonic() - began, 3)))
        async with asyncio.TaskGroup() as group:
            for number in range(self._settings.workers):
                group.create_task(self._work(), name=f"worker-{number}")
            group.create_task(self._audit.run(), name="audit")
            group.create_task(self._progress.run(), name="progress")
            group.create_task(self._poller.run(), name="agents")
            group.create_task(self._look_for_orphans(), name="orphans")
            if self._notifier is not None:
                group.create_task(self._notifier.run(), name="notifications")
            group.create_task(self._look_at_what_has_ended(), name="ended")
            self._watch_children(group)
            group.create_task(self._watch_while_kopf_lists(), name="watch until kopf does")
            group.create_task(self._watch(version, started), name="kopf")

    async def _fill(self) -> tuple[int, int]:
        """Read the cluster. Lists are many small objects without cycles, which the collector would search in vain."""
        version = await self._kube.version()
        if self._notifier is not None:
            await self._notifier.load()
        gc.disable()
        try:
            await self._audit.fill()
        finally:
            gc.enable()
        if self._notifier is not None:
            self._notifier.filled(self._cache, self._audit.moments)
        gc.collect()
        gc.freeze()  # modules and the first list stay
        return version

    def _served_by(self, key: Key) -> Hashable:
        """Return which pods a rollout is served by: those of one selector are asked, and sent to, for all of them."""
        stored = self._cache.stored(key) if key.kind in KINDS else None
        return repr(stored.serving.labels) if stored is not None else None

    async def _work(self) -> None:
        await self._queue.work(self._reconcile, failed)

    async def _reconcile(self, key: Key) -> float | None:
        if key.kind == NAMESPACE:
            if not self._poller.serves(key.namespace):
                self._desired.forget(key.namespace)
                return None
            return await self._desired.publish_keys(key.namespace)
        return await self._reconciler.reconcile(key)

    async def _look_at_what_has_ended(self) -> None:
        """Once, a few at a time: its TTL may be over, or a Job of it live. Whatever comes meanwhile goes first."""
        await asyncio.sleep(FIRST_ROUNDS_SECONDS)
        await self._audit.complete.wait()
        while self._audit.ended:
            if self._queue.busy < ENDED_AT_ONCE:
                self._queue.add(self._audit.ended.pop())
            else:
                await asyncio.sleep(ENDED_PAUSE_SECONDS)

    async def _look_for_orphans(self) -> None:
        """Once: rollouts that were deleted while there was no leader are known by what they left only."""
        while True:
            try:
                for key in await orphans(self._cache, self._desired):
                    self._queue.add(key)
                return
            except (ApiError, Unreachable) as error:
                log.warning("orphans not looked for", extra=keys(err=str(error)))
                await asyncio.sleep(ORPHANS_AGAIN_SECONDS)

    def _pods_by_state(self) -> Mapping[str, int]:
        """Return how many pods of all rollouts answer with what is wanted, do not yet, or do not answer at all."""
        ready, desired = self._cache.pods_served()
        return {"ready": ready, "behind": desired - ready, "unreachable": self._poller.unreachable()}

    def _watch_children(self, group: asyncio.TaskGroup) -> None:
        # Work pods and serving pods have the label of their stage; one watch brings both.
        for resource, selector in ((JOBS, MANAGED_BY_US), (PODS, STAGE_LABEL)):
            inbox = Inbox([store for store in self._cache.stores if store.resource == resource], self._queue.add)
            self._watches_of(group, resource, selector, inbox)

    def _watches_of(
        self, group: asyncio.TaskGroup, resource: Resource, selector: str, inbox: Inbox
    ) -> list[asyncio.Task[None]]:
        """Begin to watch a resource in every namespace, from where its first list ended."""
        tasks = []
        for namespace in self._settings.watch_namespaces or (None,):
            relisted, since = self._audit.soon, self._audit.moments[resource.plural, namespace]
            watch = Watch(self._kube, resource, namespace, selector=selector, inbox=inbox, relisted=relisted)
            tasks.append(group.create_task(watch.run(since), name=f"watch {resource.plural} {namespace or ''}"))
        return tasks

    async def _watch_while_kopf_lists(self) -> None:
        """kopf tells of nothing new before it has told of all that is old, and of 10,000 objects that is seconds."""
        async with asyncio.TaskGroup() as group:
            watches = []
            for store in self._cache.owners.values():
                inbox = Inbox([store], self._queue.add)
                watches += self._watches_of(group, store.resource, "", inbox)
            await self._kopf_lists.wait()
            for watch in watches:
                watch.cancel()

    async def _watch(self, version: tuple[int, int], started: Callable[[], None]) -> None:
        await self._first_rounds()
        namespaces = self._settings.watch_namespaces
        ready = asyncio.Event()
        notice = asyncio.create_task(_after(ready, started, self._kopf_lists.put_off), name="kopf started")
        await kopf.operator(
            registry=registry_of(self._kube, self._cache, self._queue.add, self._kopf_listed),
            settings=settings_of(version),
            memories=NoMemories(),
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
            ready_flag=ready,
        )
        notice.cancel()
        raise RuntimeError("kopf has ended")

    def _kopf_listed(self) -> None:
        """Note that kopf tells of an object that was there: at its start, or after a gap of which it tells no more."""
        self._kopf_lists.put_off()
        self._audit.soon()

    async def _first_rounds(self) -> None:
        """Let what waited for an operator go first: kopf is about to list everything again."""
        for _ in range(40):
            if self._queue.busy == 0:
                return
            await asyncio.sleep(FIRST_ROUNDS_SECONDS / 40)

    @property
    def synced(self) -> bool:
        return self._audit.filled

    def findings(self) -> Mapping[str, bool]:
        """Return whether data flows: what is in the cluster was compared lately, and the workers get on."""
        now = asyncio.get_running_loop().time()
        if self._queue.rounds != self._seen_rounds or self._queue.busy == 0:
            self._seen_rounds, self._seen_at = self._queue.rounds, now
        return {
            "audit": now - self._audit.last_success < 5 * self._audit.pace + STALLED_SECONDS,
            "workers": now - self._seen_at < STALLED_SECONDS,
        }


async def _after(event: asyncio.Event, *calls: Callable[[], None]) -> None:
    await event.wait()
    for call in calls:
        call()

"""Compare the cache with the cluster: at the start, every so often, and soon after a watch had to begin anew.

A watch that lists again after a gap tells what is there, but not what has gone meanwhile, and it never repeats an event
that was lost. An audit lists the metadata of every object and mends what differs. A list is of one moment
and the watches go on, so nothing is believed from the list alone: an object that seems to be gone, or to be another, is
read on its own first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from ...domain.cluster import Key
from .. import metrics
from ..kube import METADATA_ONLY, Body, Gone, NotFound, Resource, items_of
from ..logs import keys
from ..lull import Lull
from .cache import Cache, Store, version_of
from .firstlist import AT_ONCE, PAGE, FirstList, Lister, within

log = logging.getLogger(__name__)

SETTLE_SECONDS = 1.0
"""What a watch is given to deliver what a list has shown, and after a gap to finish its own list."""
REST_AGAIN_SECONDS = 5.0
SHARE = 0.1
"""Of the time, that lists may take: a cluster of many objects is compared the more seldom."""


class WentBack(Exception):
    """The API server knows less than it did: its etcd was restored from a backup.

    Nothing that is known can be compared with what is there then, because what is newer has lower numbers. Whoever
    runs the audit ends the process, and the next one begins with an empty cache.
    """


class Audit:
    """`changed` is told whom a mended difference concerns."""

    def __init__(
        self,
        kube: Lister,
        cache: Cache,
        changed: Callable[[Key], None],
        *,
        namespaces: tuple[str, ...] = (),
        every: float = 20,
        settle: float = SETTLE_SECONDS,
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._first = FirstList(kube, cache, self._namespaces)
        self._owners = tuple(cache.owners.values())
        self._stores = cache.stores
        self._changed = changed
        self._every = every
        self._settle = settle
        self._asked = Lull(settle)
        self._listing = 0.0
        self.pace = every
        """Seconds between two audits now."""
        self.filled = False
        """Whether all is known that may have to be acted on."""
        self.complete = asyncio.Event()
        """Set when all the rest is known too."""
        self.ended: list[Key] = []
        """What had ended when the cache was filled and is to be looked at all the same: there may be much of it, and it
        is in no hurry."""
        self.moments: dict[tuple[str, str | None], int] = {}
        """By plural and namespace, of which resourceVersion the first list was: a watch goes on from there."""
        self.last_success = float("-inf")
        """Time of the loop's clock when all resources were compared last."""

    async def fill(self) -> None:
        """Fill an empty cache with what may have to be acted on, and tell of every object of our kinds that has not
        ended."""
        await self._first.read()
        self.moments = self._first.moments
        for entry in (entry for store in self._owners for entry in store):
            if entry.view is None or not entry.view.over:
                self._tell(entry.key)
            elif not self._cache.at_rest(entry.view.key):
                self.ended.append(entry.view.key)
        self.filled = True
        self.last_success = asyncio.get_running_loop().time()

    def soon(self) -> None:
        """Ask for an audit when nobody has asked for a moment, because a watch began anew, and lists."""
        self._asked.put_off()

    async def run(self) -> None:
        """Read what the first list has left out, and audit for ever."""
        while not self.complete.is_set():
            try:
                await self._first.rest()
                self.complete.set()
            except Exception as error:  # logged, tried again; liveness sees it too
                log.warning("first list not finished", extra=keys(err=str(error)))
                await asyncio.sleep(REST_AGAIN_SECONDS)
        while True:
            with contextlib.suppress(TimeoutError):  # nobody asked for it: it is due
                async with asyncio.timeout(self.pace):
                    await self._asked.wait()
            self._asked.clear()
            self._listing = 0.0
            try:
                for store in self._stores:
                    await self.compare(store)
                self.last_success = asyncio.get_running_loop().time()
                self.pace = max(self._every, self._listing / SHARE)
            except WentBack:
                raise
            except Exception as error:  # logged; the next one tries again, and liveness sees how long none succeeded
                log.warning("audit failed", extra=keys(err=str(error)))

    async def compare(self, store: Store[Any]) -> None:
        """Mend what differs between a store and the cluster.

        Raises:
            WentBack: the cluster was restored.
        """
        for namespace in self._namespaces:
            began = asyncio.get_running_loop().time()
            newest = max((entry.version for entry in store), default=0)
            listed, moment = await self._list(store, namespace)
            if 0 < moment < newest:  # 0: it does not say
                raise WentBack(f"a list of {store.name} is of {moment}, and {newest} was known before it")
            self._listing += asyncio.get_running_loop().time() - began
            here = [entry for entry in store if namespace is None or entry.namespace == namespace]
            gone = [e for e in here if e.uid not in listed and e.version <= moment]
            news = [m for uid, m in listed.items() if self._behind(store, uid, m)]
            if not gone and not news:
                continue
            await asyncio.sleep(self._settle)  # most of it is on its way through the watch
            slots = asyncio.Semaphore(AT_ONCE)
            await asyncio.gather(
                *(within(slots, self._check_gone(store, e.namespace, e.name, e.uid)) for e in gone),
                *(within(slots, self._check_new(store, m)) for m in news),
            )
        metrics.LAST_AUDIT.labels(store.name).set(time.time())

    async def _list(self, store: Store[Any], namespace: str | None) -> tuple[dict[str, Body], int]:
        """Return the metadata of all objects by uid, and the resourceVersion of the list."""
        for _ in range(3):
            listed: dict[str, Body] = {}
            moment = 0
            try:
                async for page in self._kube.pages(
                    store.resource, namespace, PAGE, accept=METADATA_ONLY, query=store.query
                ):
                    moment = version_of(page)
                    for item in filter(store.wants, items_of(page)):
                        kept = ("uid", "namespace", "name", "resourceVersion")
                        listed[item["metadata"]["uid"]] = {"metadata": {k: item["metadata"].get(k) for k in kept}}
            except Gone:  # the continue token was too old: begin again
                continue
            return listed, moment
        raise RuntimeError(f"{store.name} could not be listed to the end three times")

    @staticmethod
    def _behind(store: Store[Any], uid: str, listed: Body) -> bool:
        if store.left(uid, version_of(listed)):
            return False
        entry = store.of_uid(uid)
        return entry is None or entry.version < version_of(listed)

    async def _check_gone(self, store: Store[Any], namespace: str, name: str, uid: str) -> None:
        if store.of_uid(uid) is None:
            return
        found = await self._read(store.resource, namespace, name)
        if found is not None and found["metadata"]["uid"] == uid:
            self._tell(store.put(found))
            return
        if store.of_uid(uid) is not None:
            metrics.GHOSTS.labels(store.name).inc()
            log.info(
                "found a deletion that no watch had reported",
                extra=keys(kind=store.resource.kind, namespace=namespace, name=name, uid=uid),
            )
            self._tell(store.remove(uid))
        if found is not None:
            self._tell(store.put(found))

    async def _check_new(self, store: Store[Any], listed: Body) -> None:
        metadata = listed["metadata"]
        if not self._behind(store, metadata["uid"], listed):
            return
        found = await self._read(store.resource, metadata["namespace"], metadata["name"])
        if found is None:
            return
        key = store.put(found)
        if key is not None:
            metrics.MISSED.labels(store.name).inc()
            log.info(
                "found a change that no watch had reported",
                extra=keys(kind=store.resource.kind, namespace=metadata["namespace"], name=metadata["name"]),
            )
            self._tell(key)

    async def _read(self, resource: Resource, namespace: str, name: str) -> Body | None:
        try:
            return await self._kube.get(resource, namespace, name)
        except NotFound:
            return None

    def _tell(self, key: Key | None) -> None:
        if key is not None:
            self._changed(key)

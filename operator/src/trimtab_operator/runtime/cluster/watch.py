"""Watches that go on where the first list ended: of Jobs and pods, and of our own kinds until kopf (`handlers`) has
listed them.

kopf begins with a list of its own and gives every object a task, a queue and a timer: 0.4 ms of a processor for each.
Children are four in five of all objects, and most of their events repeat what is known from an answer or matter to
nobody. An event here is a line of JSON and a look at the version that is known.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

from ...domain.cluster import Key
from ..kube import ApiError, Body, Gone, Resource, Unreachable, items_of
from ..logs import keys
from .cache import Store, typed_item, version_of
from .firstlist import WHOLE_PAGE

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 10.0
"""Between the end of a watch and the next one; it doubles with every one that has told nothing."""


class Watcher(Protocol):
    """The part of the client that a watch needs."""

    def watch(
        self, resource: Resource, namespace: str | None, since: int, query: dict[str, str]
    ) -> AsyncIterator[Body]: ...
    def pages(
        self, resource: Resource, namespace: str | None, limit: int, *, query: dict[str, str] | None = None
    ) -> AsyncIterator[Body]: ...


class Inbox:
    """Where the events of one resource go: to its stores, and from there to whom they concern."""

    def __init__(self, stores: Sequence[Store[Any]], changed: Callable[[Key], None]) -> None:
        self._stores = stores
        self._changed = changed

    def take(self, body: Body, *, deleted: bool = False) -> bool:
        """Take in an object as it is now, or as it was when it left; tell whether it is, or was, one of ours."""
        uid, ours = body["metadata"]["uid"], False
        for store in self._stores:
            wanted = store.wants(body)
            if not wanted and store.of_uid(uid) is None:
                continue
            ours = True
            store.heard.set(time.time())
            # What loses its label is reported as deleted, and may get it again.
            key = store.remove(uid, version_of(body)) if deleted or not wanted else store.put(body)
            if key is not None:
                self._changed(key)
        return ours


class Watch:
    """Of one resource, in one namespace or in all of them."""

    def __init__(
        self,
        kube: Watcher,
        resource: Resource,
        namespace: str | None,
        *,
        selector: str,
        inbox: Inbox,
        relisted: Callable[[], None],
    ) -> None:
        """Prepare it; `relisted` is told when it had to list anew, after a gap whose deletions nobody has told."""
        self._kube = kube
        self._resource = resource
        self._namespace = namespace
        self._query = {"labelSelector": selector} if selector else {}
        self._inbox = inbox
        self._relisted = relisted
        self._since: int | None = None

    async def run(self, since: int) -> None:
        """Bring what happens after a resourceVersion, for ever."""
        self._since, pause = since, FIRST_PAUSE_SECONDS
        while True:
            before = self._since
            try:
                await self._follow()
            except Gone:
                self._since = None
            except (ApiError, Unreachable) as error:
                about = {"kind": self._resource.kind, "namespace": self._namespace or ""}
                log.warning("watch ended", extra=keys(**about, err=str(error)))
            pause = FIRST_PAUSE_SECONDS if self._since != before else min(2 * pause, LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(pause)

    async def _follow(self) -> None:
        if self._since is None:
            self._since = await self._list()
            self._relisted()
        async for event in self._kube.watch(self._resource, self._namespace, self._since, self._query):
            body = event["object"]
            if event["type"] != "BOOKMARK":
                self._inbox.take(body, deleted=event["type"] == "DELETED")
            self._since = version_of(body)

    async def _list(self) -> int:
        """Take in what is there; return of which resourceVersion that is."""
        moment = 0
        async for page in self._kube.pages(self._resource, self._namespace, WHOLE_PAGE, query=self._query):
            moment = version_of(page)
            for item in items_of(page):
                self._inbox.take(typed_item(item, self._resource))
        return moment

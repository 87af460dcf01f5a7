"""The first list: everything into an empty cache, but of what belongs to what has ended only that it is there, and that
later.

Jobs and pods are four in five of all objects, 9 kB of JSON each, and nearly all of them are bygone: nobody asks for
more of one whose owner has ended, unless it lives on and has to be ended too. Their metadata is a seventh of that, and
nobody waits for it: whose owner lives is found by its owner's label, and the rest is read beside the first work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Collection, Iterator, Sequence
from typing import Any, Protocol

from ...domain.views import OWNER_LABELS, controller_of
from ..kube import JSON, METADATA_ONLY, Body, NotFound, Resource, items_of
from .cache import Cache, Place, Store, typed_item, version_of

PAGE = 500
WHOLE_PAGE = 100
"""Whole objects take ten times the memory of their metadata."""
MANY = 100
"""Objects that have ended, from which on it is worth while to list twice."""
READ_COSTS = 4
"""Reading an object on its own, in those of a list."""
AT_ONCE = 8
NOT_SUCCESSFUL = {"fieldSelector": "status.successful=0"}
"""Of Jobs: those that may live, few where most have ended."""
OWNERS_ASKED = 50
"""Names in one selector: an address of 4 kB passes every proxy."""


class Lister(Protocol):
    """The part of the client that lists need."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Body: ...
    def pages(
        self,
        resource: Resource,
        namespace: str | None,
        limit: int,
        *,
        query: dict[str, str] | None = None,
        accept: str = JSON,
    ) -> AsyncIterator[Body]: ...


class FirstList:
    """Of all stores of a cache, in some namespaces; None is all of them."""

    def __init__(self, kube: Lister, cache: Cache, namespaces: tuple[str | None, ...], many: int = MANY) -> None:
        self._kube = kube
        self._cache = cache
        self._namespaces = namespaces
        self._many = many
        self.moments: dict[tuple[str, str | None], int] = {}
        """By plural and namespace, of which resourceVersion the first list was: a watch goes on from there."""
        self._ended: set[str] = set()

    async def read(self) -> None:
        """Fill the cache with all that may have to be acted on."""
        owners, children = tuple(self._cache.owners.values()), (self._cache.jobs, self._cache.pods)
        await self._list_all(*owners, self._cache.serving)
        self._ended = {entry.uid for store in owners for entry in store if entry.view is not None and entry.view.over}
        if len(self._ended) < self._many:
            await self._list_all(*children)
            return
        for namespace in self._namespaces:
            await self._list(self._cache.jobs, namespace, NOT_SUCCESSFUL)
        living = {
            label: sorted({entry.name for entry in self._cache.owners[kind] if entry.uid not in self._ended})
            for kind, label in OWNER_LABELS.items()
        }
        if sum(map(len, living.values())) > len(self._ended):
            await self._list_all(*children)
            return
        for store in children:
            for label, names in living.items():
                for some in batched(names, OWNERS_ASKED):
                    chosen = f"{store.query['labelSelector']},{label} in ({','.join(some)})"
                    for namespace in self._namespaces:
                        await self._list(store, namespace, {"labelSelector": chosen})

    async def rest(self) -> None:
        """Know of what else there is: what belongs to what had ended, and what has lost the label of its owner."""
        if len(self._ended) < self._many:
            return
        for namespace in self._namespaces:
            bygone = await self._list_living(self._cache.jobs, namespace, self._ended)
            await self._list_living(self._cache.pods, namespace, bygone)

    async def _list_all(self, *stores: Store[Any]) -> None:
        await asyncio.gather(*(self._list(store, namespace) for store in stores for namespace in self._namespaces))

    async def _list(self, store: Store[Any], namespace: str | None, query: dict[str, str] | None = None) -> None:
        wanted = {**store.query, **(query or {})}
        async for page in self._kube.pages(store.resource, namespace, WHOLE_PAGE, query=wanted):
            self._began(store, namespace, page)
            for item in filter(store.wants, items_of(page)):
                store.put(typed_item(item, store.resource))

    async def _list_living(self, store: Store[Any], namespace: str | None, ended: Collection[str]) -> set[str]:
        """List metadata, read what does not belong to an object that has ended, and return the uids of what does."""
        bygone, living = set[str](), list[Place]()
        async for page in self._kube.pages(store.resource, namespace, PAGE, query=store.query, accept=METADATA_ONLY):
            self._began(store, namespace, page)
            for item in filter(store.wants, items_of(page)):
                metadata, controller = item["metadata"], controller_of(item)
                if controller is not None and controller[2] in ended:
                    bygone.add(metadata["uid"])
                    store.note(item)
                elif store.of_uid(metadata["uid"]) is None:
                    living.append((metadata["namespace"], metadata["name"]))
        if len(living) * READ_COSTS > len(bygone):
            await self._list(store, namespace)
        else:
            slots = asyncio.Semaphore(AT_ONCE)
            await asyncio.gather(*(within(slots, self._read(store, place)) for place in living))
        return bygone

    async def _read(self, store: Store[Any], place: Place) -> None:
        try:
            store.put(await self._kube.get(store.resource, *place))
        except NotFound:  # it went meanwhile: the watch tells so too
            return

    def _began(self, store: Store[Any], namespace: str | None, page: Body) -> None:
        """Keep the earliest moment: a resource may have several lists."""
        place, moment = (store.resource.plural, namespace), version_of(page)
        self.moments[place] = min(moment, self.moments.get(place, moment))


async def within(slots: asyncio.Semaphore, work: Awaitable[None]) -> None:
    """Do something when there is a slot for it."""
    async with slots:
        await work


def batched(names: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    """Yield names in order, at most so many at once."""
    return (names[first : first + most] for first in range(0, len(names), most))

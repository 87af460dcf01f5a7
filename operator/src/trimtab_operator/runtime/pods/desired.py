"""Two ConfigMaps of each namespace that serves: the public keys that agents verify with, and the signed documents that
a new pod starts from while nobody can call it.

Each rollout has one key in `trimtab-desired`; a merge patch of that key needs no read before it and meets no other's.
What is there is read once and then now and then, because somebody may have changed it. While rounds of the namespace
wait, documents wait for theirs: each patch costs what the whole ConfigMap does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from re import fullmatch
from typing import Any, Protocol

from trimtab_agent.contract import Share
from trimtab_agent.documents import MountedDocument, Refused, Verifier, namespace_audience, read_share, sign_mounted

from ...domain.adapterrollout.observed import OBJECT_NAME
from ...domain.cluster import Key
from ...domain.views import MANAGED_BY_LABEL
from ...domain.work.attempts.waiting import BEING_DELETED
from ..cluster.cache import Cache
from ..kube import CONFIGMAPS, MERGE_PATCH, AlreadyExists, ApiError, Body, NotFound, Resource
from ..logs import keys
from .signing import SigningKey, SigningKeys

log = logging.getLogger(__name__)

AGENT_KEYS, DESIRED = "trimtab-agent-keys", "trimtab-desired"
READ_AGAIN_SECONDS = 120.0
LOOKS, LOOK_SECONDS = 20, 0.1
"""How often it is looked whether other documents are about to come, at most, and how long those wait between."""
SUFFIX = ".json"


class Client(Protocol):
    """The part of the client that this needs."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Body: ...
    async def create(self, resource: Resource, namespace: str, body: Body) -> Body: ...
    async def patch(self, resource: Resource, namespace: str, name: str, content_type: str, patch: object) -> Body: ...


@dataclass
class Copy:
    """What a ConfigMap held when it was read or written last; None: it is not there."""

    data: dict[str, str] | None = None
    taken: dict[str, tuple[str, frozenset[str], Share]] = field(default_factory=dict)
    """By rollout: the text that an agent would take, by which keys, and its document. Such a token does not expire."""
    waiting: dict[str, str] = field(default_factory=dict)
    """What is still to be written, by key."""
    writing: asyncio.Task[None] | None = None
    read_at: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Desired:
    """The two ConfigMaps, of every namespace.

    `busy` tells whether rounds of one wait, `changed` is told of rollouts whose documents waited and were not written.
    """

    def __init__(
        self,
        kube: Client,
        signing: SigningKeys,
        *,
        busy: Callable[[str], bool] = lambda _: False,
        changed: Callable[[Key], None] = lambda _: None,
    ) -> None:
        self._busy = busy
        self._changed = changed
        self._kube = kube
        self._signing = signing
        self._copies: dict[tuple[str, str], Copy] = {}

    async def publish_keys(self, namespace: str) -> float:
        """Have exactly the public halves of the keys in the namespace; return when to look again, in seconds."""
        wanted = dict(self._signing.public_pems())
        copy = await self._read(namespace, AGENT_KEYS)
        if wanted and copy.data != wanted:
            gone: dict[str, str | None] = dict.fromkeys(set(copy.data or {}) - set(wanted))
            try:
                await self._write(namespace, AGENT_KEYS, {**gone, **wanted})
            except ApiError as error:
                if not isinstance(error, NotFound) and BEING_DELETED not in error.message:
                    raise
                log.info("no keys for a namespace that leaves", extra=keys(namespace=namespace, err=str(error)))
        return READ_AGAIN_SECONDS

    def forget(self, namespace: str) -> None:
        """Read a namespace anew when it is asked for again: nothing serves there, and it may be made anew meanwhile."""
        for name in (AGENT_KEYS, DESIRED):
            self._copies.pop((namespace, name), None)

    async def rollouts(self, namespace: str) -> set[str]:
        """Return the names of the rollouts that have a document there; others may write there, and what they like."""
        copy = await self._read(namespace, DESIRED)
        data = {**(copy.data or {}), **copy.waiting}
        names = {name.removesuffix(SUFFIX) for name in data if name.endswith(SUFFIX)}
        return {name for name in names if fullmatch(OBJECT_NAME, name)}

    async def held(self, namespace: str, rollout: str) -> Share | None:
        """Return the document of a rollout; None if there is none, or none that an agent would take."""
        copy = await self._read(namespace, DESIRED)
        file = rollout + SUFFIX
        text, keys = (
            copy.waiting.get(file) or (copy.data or {}).get(file),
            frozenset(key.id for key in self._signing.all()),
        )
        before = copy.taken.pop(rollout, None)
        if text is None:
            return None
        if before is None or before[:2] != (text, keys):
            try:
                document = MountedDocument.read(text.encode())
                Verifier(self._signing, (namespace_audience(namespace),)).mounted(document)
                before = (text, keys, read_share(document.body))
            except Refused:
                return None
        copy.taken[rollout] = before
        return before[2]

    async def put(self, share: Share, key: SigningKey, now: float) -> None:
        """Sign a document, and write it, in a busy namespace a moment later with others."""
        body = share.to_bytes()
        token = sign_mounted(key.private, namespace_audience(share.namespace), body, now)
        text = MountedDocument(body, token).to_bytes().decode()
        copy = self._copies.setdefault((share.namespace, DESIRED), Copy())
        copy.waiting[share.rollout + SUFFIX] = text
        if not self._busy(share.namespace):
            await self._write_waiting(share.namespace, copy)
        elif copy.writing is None or copy.writing.done():
            copy.writing = asyncio.create_task(self._write_later(share.namespace, copy), name="documents of new pods")

    async def _write_waiting(self, namespace: str, copy: Copy) -> None:
        changes, copy.waiting = copy.waiting, {}
        if changes:
            await self._write(namespace, DESIRED, changes)

    async def _write_later(self, namespace: str, copy: Copy) -> None:
        for _ in range(LOOKS):
            if not self._busy(namespace):
                break
            await asyncio.sleep(LOOK_SECONDS)
        names = [file.removesuffix(SUFFIX) for file in copy.waiting]
        try:
            await self._write_waiting(namespace, copy)
        except Exception as error:  # their rounds do it again, and say what is wrong when nobody else waits
            log.warning("documents of new pods not written", extra=keys(namespace=namespace, err=str(error)))
            for name in names:
                self._changed(Key("AdapterRollout", namespace, name))

    async def remove(self, namespace: str, rollout: str) -> None:
        """Remove the document of a rollout that is gone."""
        if rollout in await self.rollouts(namespace):
            self._copies[namespace, DESIRED].waiting.pop(rollout + SUFFIX, None)
            await self._write(namespace, DESIRED, {rollout + SUFFIX: None})

    async def _read(self, namespace: str, name: str) -> Copy:
        copy = self._copies.setdefault((namespace, name), Copy())
        async with copy.lock:
            now = asyncio.get_running_loop().time()
            if now - copy.read_at >= READ_AGAIN_SECONDS:
                try:
                    copy.data = dict((await self._kube.get(CONFIGMAPS, namespace, name)).get("data") or {})
                except NotFound:
                    copy.data = None
                copy.read_at = now
        return copy

    async def _write(self, namespace: str, name: str, changes: Mapping[str, str | None]) -> None:
        copy = self._copies.setdefault((namespace, name), Copy())
        async with copy.lock:
            try:
                written = await self._kube.patch(CONFIGMAPS, namespace, name, MERGE_PATCH, {"data": dict(changes)})
            except NotFound:
                # To take something away from what is gone, perhaps with its namespace, is done.
                nothing = not any(text is not None for text in changes.values())
                written = {} if nothing else await self._create(namespace, name, changes)
            copy.data = dict(written.get("data") or {})
            copy.read_at = asyncio.get_running_loop().time()

    async def _create(self, namespace: str, name: str, changes: Mapping[str, str | None]) -> Body:
        labels = {MANAGED_BY_LABEL: "trimtab"}
        data = {key: text for key, text in changes.items() if text is not None}
        body: dict[str, Any] = {
            "apiVersion": CONFIGMAPS.api_version,
            "kind": CONFIGMAPS.kind,
            "metadata": {"namespace": namespace, "name": name, "labels": labels},
            "data": data,
        }
        try:
            return await self._kube.create(CONFIGMAPS, namespace, body)
        except AlreadyExists:
            return await self._kube.patch(CONFIGMAPS, namespace, name, MERGE_PATCH, {"data": dict(changes)})


async def orphans(cache: Cache, desired: Desired) -> set[Key]:
    """Return the rollouts that have a document for new pods and do not exist: they were deleted while nobody looked."""
    stores = (cache.owners["AdapterRollout"], cache.serving)
    namespaces = {entry.namespace for store in stores for entry in store if entry.view is not None}
    found = set()
    for namespace in sorted(namespaces):
        for name in await desired.rollouts(namespace):
            key = Key("AdapterRollout", namespace, name)
            if cache.stored(key) is None:
                found.add(key)
    return found

"""Two ConfigMaps of each namespace that serves: the public keys that agents verify with, and the signed documents that
a new pod starts from while nobody can call it.

Each rollout has one key in `trimtab-desired`; a merge patch of that key needs no read before it and meets no other's.
What is there is read once and then now and then, because somebody may have changed it. While rounds of the namespace
wait, documents wait for theirs: each patch costs what the whole ConfigMap does. What could not be written waits on, and
what was refused is refused to its own rollout: none loses another's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
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
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""After a patch that failed, twice as long each time."""
NO_REFUSALS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)
"""Answers of 4xx that say nothing of what was to be written."""
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
    waiting: dict[str, str | None] = field(default_factory=dict)
    """What is still to be written, by key; None: to be taken away."""
    writing: asyncio.Task[None] | None = None
    read_at: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Desired:
    """The two ConfigMaps, of every namespace.

    `busy` tells whether rounds of one wait, `changed` is told of rollouts whose documents waited and do not any more,
    though they were not written.
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
            if (copy := self._copies.pop((namespace, name), None)) is not None:
                lost, copy.waiting = copy.waiting, {}  # or they would be written beside those of the next copy
                self._tell(namespace, lost)

    async def rollouts(self, namespace: str) -> set[str]:
        """Return the names of the rollouts that have a document there; others may write there, and what they like."""
        copy = await self._read(namespace, DESIRED)
        data = {**(copy.data or {}), **copy.waiting}
        names = {name.removesuffix(SUFFIX) for name, text in data.items() if text is not None and name.endswith(SUFFIX)}
        return {name for name in names if fullmatch(OBJECT_NAME, name)}

    async def held(self, namespace: str, rollout: str) -> Share | None:
        """Return the document of a rollout; None if there is none, or none that an agent would take."""
        copy = await self._read(namespace, DESIRED)
        file = rollout + SUFFIX
        text = copy.waiting[file] if file in copy.waiting else (copy.data or {}).get(file)
        keys = frozenset(key.id for key in self._signing.all())
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
        copy, file = self._copies.setdefault((share.namespace, DESIRED), Copy()), share.rollout + SUFFIX
        copy.waiting[file] = text
        if self._busy(share.namespace):
            self._have_written(share.namespace, copy)
        else:
            await self._write_mine(share.namespace, copy, file)

    async def remove(self, namespace: str, rollout: str) -> None:
        """Remove the document of a rollout that is gone."""
        if rollout in await self.rollouts(namespace):
            copy, file = self._copies.setdefault((namespace, DESIRED), Copy()), rollout + SUFFIX
            copy.waiting[file] = None  # in place of a document that waits, and of one that is being written
            await self._write_mine(namespace, copy, file)

    async def _write_mine(self, namespace: str, copy: Copy, file: str) -> None:
        """Write what waits, of which one is the caller's, who hears what is wrong with it; others wait on."""
        text = copy.waiting[file]
        failed = await self._write_waiting(namespace, copy)
        mine = failed.pop(file, None)
        if mine is not None and file in copy.waiting and copy.waiting[file] == text:
            del copy.waiting[file]
        self._refused(namespace, copy, failed)
        if copy.waiting:
            self._have_written(namespace, copy)
        if mine is not None:
            raise mine

    def _have_written(self, namespace: str, copy: Copy) -> None:
        if copy.writing is None or copy.writing.done():
            copy.writing = asyncio.create_task(self._write_later(namespace, copy), name="documents of new pods")

    async def _write_later(self, namespace: str, copy: Copy) -> None:
        pause = FIRST_PAUSE
        while copy.waiting:
            for _ in range(LOOKS):
                if not self._busy(namespace):
                    break
                await asyncio.sleep(LOOK_SECONDS)
            failed = await self._write_waiting(namespace, copy)
            if not failed:
                pause = FIRST_PAUSE
                continue
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)
            self._refused(namespace, copy, failed)

    def _refused(self, namespace: str, copy: Copy, failed: Mapping[str, Exception]) -> None:
        """Tell those whose documents were refused and do not wait on: their rounds say what is wrong with them."""
        self._tell(namespace, [file for file in failed if file not in copy.waiting])

    def _tell(self, namespace: str, files: Iterable[str]) -> None:
        for file in files:
            self._changed(Key("AdapterRollout", namespace, file.removesuffix(SUFFIX)))

    async def _write_waiting(self, namespace: str, copy: Copy) -> dict[str, Exception]:
        """Write what waits once it is its turn; return what was not written, and why. It waits on unless refused."""
        async with copy.lock:
            changes, copy.waiting = copy.waiting, {}
            if not changes:
                return {}
            failed = await self._tried(namespace, copy, changes)
            if len(changes) > 1 and any(map(_is_refusal, failed.values())):
                failed = {}
                for file, text in changes.items():  # one bad document spoils no other
                    failed |= await self._tried(namespace, copy, {file: text})
            kept = {file: changes[file] for file, error in failed.items() if not _is_refusal(error)}
            if self._copies.get((namespace, DESIRED)) is copy:  # else the namespace was forgotten meanwhile
                copy.waiting = {**kept, **copy.waiting}
        for error in {str(error): error for error in failed.values()}.values():
            log.warning("documents of new pods not written", extra=keys(namespace=namespace, err=str(error)))
        return failed

    async def _tried(self, namespace: str, copy: Copy, changes: Mapping[str, str | None]) -> dict[str, Exception]:
        try:
            await self._patch(namespace, DESIRED, copy, changes)
        except Exception as error:  # raised in the round that it is of, or tried again
            return dict.fromkeys(changes, error)
        return {}

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
            await self._patch(namespace, name, copy, changes)

    async def _patch(self, namespace: str, name: str, copy: Copy, changes: Mapping[str, str | None]) -> None:
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


def _is_refusal(error: Exception) -> bool:
    """Tell whether an error says something of what was to be written: the same again would be no better."""
    return isinstance(error, ApiError) and error.status // 100 == 4 and error.status not in NO_REFUSALS


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

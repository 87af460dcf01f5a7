"""What kopf is used for: the process's life, and watches of our own kinds whose events update the cache and call for a
look. Jobs and pods have watches of their own (`watch`).

Only `on.event` handlers: they have no state, so kopf writes no annotations, finalizers or statuses of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kopf
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory

from ...domain.cluster import Key
from ..kube import Kube, Resource
from .cache import Cache
from .watch import Inbox

WATCH_LIST_SINCE = (1, 34)
"""API servers from this version on can stream the initial list."""


def registry_of(
    kube: Kube, cache: Cache, changed: Callable[[Key], None], relisted: Callable[[], None]
) -> kopf.OperatorRegistry:
    """Return the handlers.

    Args:
        kube: whose way to reach the cluster kopf shares.
        cache: to update.
        changed: told whom a change concerns.
        relisted: told of every object that was listed instead of watched.
    """
    registry = kopf.OperatorRegistry()
    for store in cache.owners.values():
        _watch(registry, store.resource, Inbox([store], changed), relisted)

    async def login(**_: Any) -> kopf.ConnectionInfo:
        """Called at the start, and again when a token has expired."""
        configuration = kube.configuration
        header = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization") or ""
        scheme, _space, token = header.rpartition(" ")
        return kopf.ConnectionInfo(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            insecure=not configuration.verify_ssl,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
            scheme=scheme or None,
            token=token or None,
        )

    kopf.on.login(registry=registry, id="login")(login)
    return registry


def _watch(registry: kopf.OperatorRegistry, resource: Resource, inbox: Inbox, relisted: Callable[[], None]) -> None:
    async def seen(event: kopf.RawEvent, **_: Any) -> None:
        body: Any = event["object"]
        ours = inbox.take(body, deleted=event["type"] == "DELETED")
        if ours and event["type"] is None:  # whatever else the gap has swallowed is not told
            relisted()

    kopf.on.event(resource.group, resource.version, resource.plural, id=f"seen-{resource.plural}", registry=registry)(
        seen
    )


class NoDiffs(kopf.DiffBaseStorage):
    """kopf copies every object for a comparison that only its other kinds of handlers use; this makes none."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        return None


class NoMemories(ResourceMemories):
    """kopf keeps a kB for every object for as long as it is there, for handlers that have a state; these have none."""

    async def recall(self, raw_body: kopf.RawBody, **options: Any) -> ResourceMemory:
        return await super().recall(raw_body, **{**options, "ephemeral": True})


class NoProgress(kopf.ProgressStorage):
    """Nothing is kept of a handler's progress: there are none that have any."""

    def fetch(self, *, key: Any, body: kopf.Body) -> None:
        return None

    def store(self, *, key: Any, record: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        return None

    def purge(self, *, key: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        return None

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: str | None) -> None:
        return None

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


def settings_of(version: tuple[int, int]) -> kopf.OperatorSettings:
    """Return kopf's settings: nothing is scanned, posted or persisted."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.posting.loggers = False
    settings.queueing.idle_timeout = 0.2  # a worker keeps the last event of its object in memory for so long
    settings.persistence.diffbase_storage = NoDiffs()
    settings.persistence.progress_storage = NoProgress()
    settings.watching.initial_streaming = version >= WATCH_LIST_SINCE
    settings.watching.chunk_size = 100
    settings.watching.reconnect_backoff = 0.1
    settings.networking.request_timeout = 30
    settings.process.ultimate_exiting_timeout = 10
    return settings

"""Kubernetes events: what happened, for `kubectl describe`. They never decide anything and never fail a round."""

from __future__ import annotations

import hashlib
import logging
import socket
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from ...api import API_VERSION
from ...domain.plan import Note
from .. import metrics
from ..kube import EVENTS, MERGE_PATCH, AlreadyExists, Body, Resource
from ..logs import keys

log = logging.getLogger(__name__)

CONTROLLER = "trimtab.dev/operator"
NOTE_LENGTH = 1024


class Poster(Protocol):
    """The part of the client that posting needs."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Body: ...
    async def create(self, resource: Resource, namespace: str, body: Body) -> Body: ...
    async def patch(self, resource: Resource, namespace: str, name: str, content_type: str, patch: object) -> Body: ...


class Events:
    """Posts notes about our own objects.

    An event's name follows from its object, reason and text, so that the same one is never there twice: a repetition
    is counted in its series.
    """

    def __init__(self, kube: Poster, now: Callable[[], datetime], instance: str | None = None) -> None:
        self._kube = kube
        self._now = now
        self._instance = instance or socket.gethostname()

    async def post(self, stored: Body, notes: tuple[Note, ...]) -> None:
        for note in notes:
            try:
                await self._post(stored["kind"], stored["metadata"], note)
            except Exception as error:  # counted and logged; nothing that is done depends on an event
                metrics.EVENTS_FAILED.inc()
                log.warning("event not posted", extra=keys(reason=note.reason, err=str(error)))

    async def _post(self, kind: str, metadata: Body, note: Note) -> None:
        namespace = metadata["namespace"]
        time = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        identity = "\n".join((metadata["uid"], note.type, note.reason, note.message))
        name = f"{metadata['name']}.{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
        event = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"namespace": namespace, "name": name},
            "eventTime": time,
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance[:128],
            "type": note.type,
            "reason": note.reason[:128],
            "action": "Reconcile",
            "note": note.message[:NOTE_LENGTH],
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": kind,
                "namespace": namespace,
                "name": metadata["name"],
                "uid": metadata["uid"],
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
        }
        try:
            await self._kube.create(EVENTS, namespace, event)
        except AlreadyExists:
            before = await self._kube.get(EVENTS, namespace, name)
            count = (before.get("series") or {}).get("count", 1) + 1
            patch = {"series": {"count": count, "lastObservedTime": time}}
            await self._kube.patch(EVENTS, namespace, name, MERGE_PATCH, patch)

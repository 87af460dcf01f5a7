"""The ConfigMap of what every endpoint has heard, in the operator's own namespace: all that notifying writes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Protocol

from ...domain.views import MANAGED_BY_LABEL
from ..kube import CONFIGMAPS, MERGE_PATCH, ApiError, Body, NotFound, Resource
from ..logs import keys
from .outbox import Record

log = logging.getLogger(__name__)


class Client(Protocol):
    """The part of the client that this needs."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Body: ...
    async def create(self, resource: Resource, namespace: str, body: Body) -> Body: ...
    async def patch(self, resource: Resource, namespace: str, name: str, content_type: str, patch: object) -> Body: ...


class Records:
    """A key for each endpoint. One patch writes those that changed."""

    def __init__(self, kube: Client, namespace: str, name: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._there: frozenset[str] = frozenset()

    async def read(self) -> Mapping[str, Record]:
        """Return what the leader before wrote, by endpoint; nothing where that cannot be used.

        Raises:
            Unreachable: there was no answer.
            ApiError: the answer was none; a refusal to read is taken as nothing, and logged.
        """
        try:
            data = (await self._kube.get(CONFIGMAPS, self._namespace, self._name)).get("data") or {}
        except NotFound:
            return {}
        except ApiError as error:
            if error.status != 403:
                raise
            log.error("record of notifications may not be read", extra=keys(name=self._name, err=error.message))
            return {}
        self._there = frozenset(data)
        found = {name: record for name, text in data.items() if (record := Record.read(text)) is not None}
        for name in data.keys() - found.keys():
            log.error("record of notifications not understood", extra=keys(name=self._name, endpoint=name))
        return found

    async def write(self, records: Mapping[str, Record], kept: Iterable[str]) -> None:
        """Write the records of some endpoints, and take away those of endpoints that are not among `kept`.

        Raises:
            ApiError, Unreachable: it may have been written or not.
        """
        gone: dict[str, str | None] = dict.fromkeys(self._there - set(kept))
        data = {**gone, **{name: record.to_text() for name, record in records.items()}}
        try:
            written = await self._kube.patch(CONFIGMAPS, self._namespace, self._name, MERGE_PATCH, {"data": data})
        except NotFound:
            body = {
                "apiVersion": CONFIGMAPS.api_version,
                "kind": CONFIGMAPS.kind,
                "metadata": {
                    "namespace": self._namespace,
                    "name": self._name,
                    "labels": {MANAGED_BY_LABEL: "trimtab"},
                },
                "data": {name: text for name, text in data.items() if text is not None},
            }
            written = await self._kube.create(CONFIGMAPS, self._namespace, body)
        self._there = frozenset(written.get("data") or {})

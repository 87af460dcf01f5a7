"""An API server in memory: the few verbs, resourceVersions, preconditions and refusals that the runtime relies on."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

from pydantic_core import from_json, to_json
from trimtab_operator.runtime.kube import (
    JSON,
    JSON_PATCH,
    METADATA_ONLY,
    AlreadyExists,
    Body,
    Conflict,
    Invalid,
    NotFound,
    Resource,
)

Place = tuple[str, str | None, str]


class FakeApi:
    """`calls` notes every request; `before` may raise instead of it; `dropped` are fields of a status that the served
    definitions do not have."""

    def __init__(self) -> None:
        self.objects: dict[Place, Body] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.before: Callable[[str, str, str], None] = lambda verb, plural, name: None
        self.dropped: frozenset[str] = frozenset()
        self._versions = itertools.count(100)
        self._uids = itertools.count(1)

    def writes(self) -> list[tuple[str, str, str]]:
        return [call for call in self.calls if call[0] not in ("get", "list")]

    def put(self, resource: Resource, body: Body) -> Body:
        """Have it there, as if someone else had written it."""
        body = copied(body)
        metadata = body["metadata"]
        metadata.setdefault("uid", f"uid-{next(self._uids)}")
        metadata["resourceVersion"] = str(next(self._versions))
        self.objects[resource.plural, metadata["namespace"], metadata["name"]] = body
        return copied(body)

    def restored(self, version: int) -> None:
        """Go on from an earlier resourceVersion, as after a restore of its storage from a backup."""
        self._versions = itertools.count(version)

    def drop(self, resource: Resource, namespace: str, name: str) -> None:
        del self.objects[resource.plural, namespace, name]

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Body:
        self._call("get", resource, name)
        return copied(self._find(resource, namespace, name))

    async def create(self, resource: Resource, namespace: str, body: Body) -> Body:
        name = body["metadata"]["name"]
        self._call("create", resource, name)
        if (resource.plural, namespace, name) in self.objects:
            raise AlreadyExists(409, "AlreadyExists", name)
        return self.put(resource, body)

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        content_type: str,
        patch: Any,
        *,
        subresource: str | None = None,
    ) -> Body:
        self._call("patch", resource, name)
        body = copied(self._find(resource, namespace, name))
        if content_type == JSON_PATCH:
            for step in patch:
                *path, last = step["path"].strip("/").split("/")
                place = body
                for part in path:
                    place = place[part]
                if step["op"] == "test" and place.get(last) != step["value"]:
                    raise Invalid(422, "Invalid", "test failed")
                if step["op"] == "add":
                    place[last] = step["value"]
        else:
            metadata = patch.get("metadata", {})
            if (
                metadata.get("resourceVersion", body["metadata"]["resourceVersion"])
                != body["metadata"]["resourceVersion"]
            ):
                raise Conflict(409, "Conflict", "resourceVersion")
            body = merged(body, patch)
        return self.put(resource, body)

    async def patch_status(self, resource: Resource, metadata: Body, changes: Body) -> Body:
        self._call("patch", resource, metadata["name"])
        stored = self._find(resource, metadata["namespace"], metadata["name"])
        for field in ("uid", "resourceVersion"):
            if metadata[field] != stored["metadata"][field]:
                raise Conflict(409, "Conflict", field)
        status = merged(stored.get("status", {}), changes)
        status = {key: value for key, value in status.items() if key not in self.dropped}
        if status == stored.get("status", {}):
            return copied(stored)  # what changes nothing makes no version
        return self.put(resource, {**stored, "status": status})

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> Body:
        self._call("delete", resource, name)
        if self._find(resource, namespace, name)["metadata"]["uid"] != uid:
            raise Conflict(409, "Conflict", "uid")
        self.drop(resource, namespace, name)
        return {"kind": "Status", "status": "Success"}

    async def pages(
        self,
        resource: Resource,
        namespace: str | None,
        limit: int = 500,
        *,
        query: dict[str, str] | None = None,
        accept: str = JSON,
    ) -> AsyncIterator[Body]:
        self._call("list", resource, "")
        moment = str(next(self._versions))
        items = [copied(body) for place, body in self.objects.items() if place[0] == resource.plural]
        if (query or {}).get("fieldSelector") == "status.successful=0":
            items = [body for body in items if not body.get("status", {}).get("succeeded")]
        for label, names in re.findall(r"([^,]+) in \(([^)]*)\)", (query or {}).get("labelSelector", "")):
            items = [body for body in items if body["metadata"].get("labels", {}).get(label) in names.split(",")]
        if accept == METADATA_ONLY:
            items = [{"metadata": body["metadata"]} for body in items]
        for start in range(0, max(len(items), 1), limit):
            page = items[start : start + limit] or None  # as the API server lists the metadata of nothing
            yield {"metadata": {"resourceVersion": moment}, "items": page}

    async def items(self, resource: Resource, namespace: str | None, query: dict[str, str]) -> list[Body]:
        found = [item async for page in self.pages(resource, namespace, query=query) for item in page["items"] or []]
        label, _, value = query.get("labelSelector", "").partition("=")
        return [each for each in found if not label or each["metadata"].get("labels", {}).get(label) == value]

    def _call(self, verb: str, resource: Resource, name: str) -> None:
        self.calls.append((verb, resource.plural, name))
        self.before(verb, resource.plural, name)

    def _find(self, resource: Resource, namespace: str | None, name: str) -> Body:
        found = self.objects.get((resource.plural, namespace, name))
        if found is None:
            raise NotFound(404, "NotFound", name)
        return found


def copied(body: Body) -> Body:
    """Return a copy, as it would come out of a server: JSON is all there is."""
    found: Body = from_json(to_json(body))
    return found


def merged(body: Body, patch: Body) -> Body:
    """Return what a JSON merge patch (RFC 7386) makes of an object."""
    result = dict(body)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = merged(result.get(key) or {}, value)
        else:
            result[key] = value
    return result


def failing(verb: str, plural: str, error: Exception) -> Callable[[str, str, str], None]:
    """Return a `before` that raises at one kind of request."""

    def before(called: str, resource: str, name: str) -> None:
        if (called, resource) == (verb, plural):
            raise error

    return before

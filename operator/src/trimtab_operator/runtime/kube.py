"""One thin client of the API server: JSON in, JSON out, a timeout on every call, few calls at once.

It uses the configuration, authentication and TLS of `kubernetes.aio`, but not its models, which cost four times the
processor time and keep every field in memory, nor its requests, which cost a third of aiohttp's own on top of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import orjson
from kubernetes.aio import client, config
from kubernetes.aio.client.rest import RESTClientObject
from yarl import URL

from ..api import GROUP, VERSION
from ..domain.kinds import KINDS
from . import metrics
from .retry_after import pause_of

Body = dict[str, Any]

JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
USER_AGENT = "trimtab-operator"
"""The API server notes it in `managedFields` of what is written."""
UNPACKED = "identity"
"""Accept-Encoding of lists: to pack one and unpack it again takes longer than to send it across a cluster's network."""
PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")
FIRST_PAGE = 4
PAGE_BYTES = 1_048_576
"""Of a chunk of a list: a hundredth of a second to read."""
READ_BYTES = 2**21
"""Of an answer that may wait to be read: a list's chunk."""
WATCH_SECONDS = (240, 300)
"""How long a watch lasts before it is begun again: of many, not all at once."""
WATCH_GRACE_SECONDS = 30.0
"""And how long after that it is given up: the API server that should have ended it is not there any more."""
WRITES = ("create", "patch", "delete")


@dataclass(frozen=True)
class Resource:
    """A kind of object, as URLs name it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @lru_cache(maxsize=4096)  # noqa: B019  a handful of resources that live as long as the process
    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/" + "/".join(quote(part, safe="") for part in parts)


JOBS = Resource("batch", "v1", "jobs", "Job")
PODS = Resource("", "v1", "pods", "Pod")
CONFIGMAPS = Resource("", "v1", "configmaps", "ConfigMap")
SERVICES = Resource("", "v1", "services", "Service")
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
EVENTS = Resource("events.k8s.io", "v1", "events", "Event")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
POLICIES = Resource(
    "admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False
)
POLICY_BINDINGS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicybindings",
    "ValidatingAdmissionPolicyBinding",
    namespaced=False,
)
OWN = {kind.name: Resource(GROUP, VERSION, kind.crd.plural, kind.name) for kind in KINDS.values()}
"""The resources of our kinds, by kind."""
BY_KIND = {**OWN, **{each.kind: each for each in (JOBS, CONFIGMAPS, SERVICES, NETWORK_POLICIES)}}


class ApiError(Exception):
    """The API server said no. `retry_after` is in seconds, where it said when to come back."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class NotFound(ApiError):
    """404: no such object, or no such kind."""


class AlreadyExists(ApiError):
    """409 of a create."""


class Conflict(ApiError):
    """409 of anything else: a precondition on uid or resourceVersion does not hold."""


class Gone(ApiError):
    """410: a list cannot be continued, or a watch not begun from where it was to."""


class Invalid(ApiError):
    """422: refused by the schema, or by the test of a JSON patch."""


class Denied(ApiError):
    """A webhook or a policy did not let it in, or the webhook could not be asked.

    They choose the code, and it means nothing: a webhook's 404 of a deletion is no object that is gone.
    """


class Unreachable(Exception):
    """No answer; the request may have been carried out all the same."""


class NotLeading(Exception):
    """A write was about to be sent by a process that cannot be sure to be the leader any more."""


_ADMISSION = re.compile(r"denied (the )?request|failed calling webhook")
"""Words of the API server about webhooks, and about policies."""


def refusal_of(status: int, raw: bytes, headers: Any) -> ApiError:
    """Return what an answer says that is no success."""
    try:
        answer = json.loads(raw)
        reason, message = str(answer.get("reason") or ""), str(answer.get("message") or "")
    except (ValueError, AttributeError):
        reason, message = "", raw[:200].decode(errors="replace")
    return _error(status, reason, message, headers.get("Retry-After", ""))


def _error(status: int, reason: str, message: str, after: str = "") -> ApiError:
    if _ADMISSION.search(message):
        return Denied(status, reason, message, pause_of(after, time.time()))
    kinds: dict[int, type[ApiError]] = {404: NotFound, 409: Conflict, 410: Gone, 422: Invalid}
    kind = AlreadyExists if reason == "AlreadyExists" else kinds.get(status, ApiError)
    return kind(status, reason, message, pause_of(after, time.time()))


async def load_configuration() -> client.Configuration:
    """Return how to reach the cluster: from within a pod, or by KUBECONFIG."""
    configuration = client.Configuration()
    try:
        config.load_incluster_config(configuration)
    except config.ConfigException:
        await config.load_kube_config(client_configuration=configuration)
    return configuration


class Kube:
    """The client. `may_write` is asked before every write; leadership fences through it."""

    def __init__(
        self,
        configuration: client.Configuration,
        timeout: float = 15,
        at_once: int = 32,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        self.configuration = configuration
        self.may_write = may_write
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._slots = asyncio.Semaphore(at_once)

    @cached_property
    def _session(self) -> aiohttp.ClientSession:
        """Connections: `at_once` limits requests, and every watch holds one."""
        connector = aiohttp.TCPConnector(limit=0, ssl=RESTClientObject(self.configuration).ssl_context)
        # aiohttp looks for proxies and ~/.netrc in a thread of its own, twice for every request
        behind_proxy = any(os.environ.get(name) for name in PROXY_VARIABLES)
        return aiohttp.ClientSession(
            connector=connector, trust_env=behind_proxy, read_bufsize=READ_BYTES, cookie_jar=aiohttp.DummyCookieJar()
        )

    @cached_property
    def _route(self) -> dict[str, Any]:
        """What a kubeconfig may say of the way to the cluster."""
        known = self.configuration
        said = {"server_hostname": known.tls_server_name, "proxy": known.proxy, "proxy_headers": known.proxy_headers}
        return {name: value for name, value in said.items() if value}

    async def close(self) -> None:
        await self._session.close()

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Body:
        return await self._call("get", resource, "GET", resource.path(namespace, name))

    async def create(self, resource: Resource, namespace: str, body: Body) -> Body:
        return await self._call("create", resource, "POST", resource.path(namespace), body=body)

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        content_type: str,
        patch: object,
        *,
        subresource: str | None = None,
    ) -> Body:
        path = resource.path(namespace, name, subresource)
        return await self._call("patch", resource, "PATCH", path, body=patch, content_type=content_type)

    async def patch_status(self, resource: Resource, metadata: Body, changes: Body) -> Body:
        """Merge changes into the status; uid and resourceVersion of `metadata` are preconditions.

        A merge patch and no apply: fields that the served definition does not have are left out by the API server where
        an apply is refused as a whole, and those that only a later version knows stay as they are.
        """
        precondition = {field: metadata[field] for field in ("uid", "resourceVersion")}
        patch = {"metadata": precondition, "status": changes}
        return await self.patch(
            resource, metadata["namespace"], metadata["name"], MERGE_PATCH, patch, subresource="status"
        )

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> Body:
        options = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        return await self._call("delete", resource, "DELETE", resource.path(namespace, name), body=options)

    async def pages(
        self,
        resource: Resource,
        namespace: str | None,
        limit: int = 500,
        *,
        query: dict[str, str] | None = None,
        accept: str = JSON,
    ) -> AsyncIterator[Body]:
        """Yield a list chunk by chunk; every chunk is of the same moment and has its resourceVersion.

        Each has at most `limit` objects, and as few as it takes that reading it does not hold up everything else:
        annotations alone may be a quarter of a MiB an object.
        """
        following: dict[str, str] = {}
        size = min(limit, FIRST_PAGE)
        while True:
            wanted, path = {**(query or {}), "limit": str(size), **following}, resource.path(namespace)
            raw = await self._send("list", resource, "GET", path, query=wanted, accept=accept, encoding=UNPACKED)
            page: Body = orjson.loads(raw)
            yield page
            token = page["metadata"].get("continue")
            if not token:
                return
            following = {"continue": token}
            size = max(1, min(limit, size * PAGE_BYTES // len(raw)))

    async def watch(
        self, resource: Resource, namespace: str | None, since: int, query: dict[str, str]
    ) -> AsyncIterator[Body]:
        """Yield the events since a resourceVersion, bookmarks included, until the API server ends the watch.

        Raises:
            Gone: that is too long ago; only a list tells what is there now.
            ApiError: it was refused, or ended with an error.
            Unreachable: the connection broke, or nobody ended it when its time was over.
        """
        seconds = random.randint(*WATCH_SECONDS)
        asked = {"watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
        path, wanted = resource.path(namespace), {**query, **asked, "resourceVersion": str(since)}
        patience = aiohttp.ClientTimeout(total=seconds + WATCH_GRACE_SECONDS, sock_connect=self._timeout.total)
        async with self._ask("watch", resource, "GET", path, query=wanted, patience=patience) as response:
            begun = b""
            async for chunk in response.content.iter_any():
                *lines, begun = (begun + chunk).split(b"\n")
                for event in map(orjson.loads, filter(None, lines)):
                    if event["type"] == "ERROR":
                        said = event["object"]
                        raise _error(said.get("code", 0), said.get("reason", ""), said.get("message", ""))
                    yield event

    async def items(self, resource: Resource, namespace: str | None, query: dict[str, str]) -> list[Body]:
        return [item async for page in self.pages(resource, namespace, query=query) for item in items_of(page)]

    async def version(self) -> tuple[int, int]:
        """Return the API server's (major, minor)."""
        answer = await self._call("get", Resource("", "", "version", "Version"), "GET", "/version")
        return int(answer["major"]), int("".join(c for c in answer["minor"] if c.isdigit()))

    async def _call(self, verb: str, resource: Resource, method: str, path: str, **request: Any) -> Body:
        answer: Body = orjson.loads(await self._send(verb, resource, method, path, **request))
        return answer

    async def _send(self, verb: str, resource: Resource, method: str, path: str, **request: Any) -> bytes:
        async with self._slots, self._ask(verb, resource, method, path, patience=self._timeout, **request) as response:
            return await response.read()

    @contextlib.asynccontextmanager
    async def _ask(
        self,
        verb: str,
        resource: Resource,
        method: str,
        path: str,
        *,
        patience: aiohttp.ClientTimeout,
        query: dict[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
        accept: str = JSON,
        encoding: str = "",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and yield the answer, whose content is read within the context."""
        if verb in WRITES and not self.may_write():
            raise NotLeading(f"{verb} {path}")
        headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": USER_AGENT}
        token = await self.configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if encoding:
            headers["Accept-Encoding"] = encoding
        if token:
            headers["Authorization"] = token
        url = URL(self.configuration.host + path + (f"?{urlencode(query)}" if query else ""), encoded=True)
        code = "none"
        try:
            data = json_of(body) if body is not None else None
            async with self._session.request(
                method, url, headers=headers, data=data, timeout=patience, **self._route
            ) as response:
                code = str(response.status)
                if response.status >= 400:
                    raise refusal_of(response.status, await response.read(), response.headers)
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"{verb} {path}: {type(error).__name__} {error}") from error
        finally:
            metrics.API_REQUESTS.labels(verb, resource.plural, code).inc()


def json_of(body: object) -> bytes:
    """Return a body as JSON text; a set is a list, and what is a key is text.

    Raises:
        TypeError: JSON has no form for something in it.
        ValueError: a number in it is infinite, or none: orjson writes null, which says something else.
    """
    data = orjson.dumps(body, default=_as_list, option=orjson.OPT_NON_STR_KEYS)
    if b"null" in data:
        json.dumps(body, default=_as_list, allow_nan=False)
    return data


def _as_list(value: object) -> list[Any]:
    if isinstance(value, set | frozenset):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def items_of(page: Body) -> list[Body]:
    """Return a list's items; a list of metadata without any has null in their place."""
    items: list[Body] | None = page.get("items")
    return items or []

"""A proxy between operator and API server that counts, delays, drops and refuses, and knows what was written."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web
from kubernetes.aio import client, config
from yarl import URL

Body = dict[str, Any]
HOP_BY_HOP = {"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "content-encoding"}
WRITES = {"POST", "PUT", "PATCH", "DELETE"}


@dataclass(frozen=True)
class Write:
    """A write that the API server carried out."""

    method: str
    resource: str
    """Plural, with the subresource: `jobs`, `finetunejobs/status`."""
    name: str

    @property
    def kind(self) -> tuple[str, str]:
        """What is written, and how."""
        return self.method, self.resource

    def __str__(self) -> str:
        return f"{self.method} {self.resource} {self.name}"


def target_of(path: str) -> tuple[str, str]:
    """Return (resource with subresource, name) of a namespaced path; the name is empty for a collection."""
    parts = path.strip("/").split("/")
    rest = parts[parts.index("namespaces") + 2 :] if "namespaces" in parts[:-2] else parts[3:]
    plural, name, subresource = [*rest, "", "", ""][:3]
    return (f"{plural}/{subresource}" if subresource else plural), name


class Proxy:
    """One proxy for one operator. Whatever it does beyond forwarding is set through its attributes."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self._watches: dict[asyncio.Task[Any], tuple[str, web.Request]] = {}
        self._runner: web.AppRunner | None = None
        self.writes: list[Write] = []
        """Successful writes in order, the Lease's left out."""
        self.lists: list[str] = []
        """Resources of the lists that were asked for."""
        self.after_write: Callable[[int, Write], Awaitable[None]] | None = None
        """Told of the number and the write, when the API server has done it and the operator does not know it yet."""
        self.drop: Callable[[str, Body], bool] = lambda resource, event: False
        """Whether a watch event is lost."""
        self.refuse: Callable[[web.Request], web.Response | None] = lambda request: None
        """An answer instead of the API server's."""
        self.gone: set[str] = set()
        """Resources whose next watch is told that its resourceVersion is too old."""
        self.cut: set[str] = set()
        """Resources that cannot be watched for now: the connection ends at once."""

    async def __aenter__(self) -> Proxy:
        configuration = client.Configuration()
        await config.load_kube_config(str(self._kubeconfig), client_configuration=configuration)
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
        self._upstream = configuration.host
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=2**22,
        )
        application = web.Application(client_max_size=2**26)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        watches = list(self._watches)
        for task in watches:
            task.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        await self._session.close()

    def kubeconfig(self, folder: Path) -> Path:
        """Write the kubeconfig of the proxy and return its path."""
        name = "proxy"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": name, "user": {}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }
        file = folder / f"proxy-{self.port}.kubeconfig"
        file.write_text(yaml.safe_dump(document))
        return file

    def break_watches(self, resource: str | None = None) -> None:
        """End the watches that are open now."""
        for watched, request in list(self._watches.values()):
            if resource in (None, watched) and request.transport is not None:
                request.transport.abort()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        resource, name = target_of(request.path)
        refused = self.refuse(request)
        if refused is not None:
            return refused
        if request.query.get("watch"):
            return await self._watch(request, resource)
        if request.method == "GET" and not name:
            self.lists.append(resource)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in HOP_BY_HOP}
        body = await request.read()
        url = URL(self._upstream + request.raw_path, encoded=True)
        async with self._session.request(request.method, url, data=body or None, headers=headers) as answer:
            content = await answer.read()
        if request.method in WRITES and answer.status < 300 and resource != "leases":
            await self._note(request.method, resource, name, content)
        kept = {key: value for key, value in answer.headers.items() if key.lower() not in HOP_BY_HOP}
        return web.Response(status=answer.status, body=content, headers=kept)

    async def _note(self, method: str, resource: str, name: str, content: bytes) -> None:
        write = Write(method, resource, name or json.loads(content)["metadata"]["name"])
        self.writes.append(write)
        if self.after_write is not None:
            await self.after_write(len(self.writes), write)

    async def _watch(self, request: web.Request, resource: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if resource in self.cut:
            return response
        if resource in self.gone and "resourceVersion" in request.query:
            self.gone.discard(resource)
            status = {"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410, "message": "too old"}
            await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
            return response
        task = asyncio.current_task()
        assert task is not None
        self._watches[task] = (resource, request)
        url = URL(self._upstream + request.raw_path, encoded=True)
        try:
            async with self._session.get(url, headers={"Accept": "application/json"}) as answer:
                while line := await answer.content.readline():
                    if not self.drop(resource, json.loads(line)):
                        await response.write(line)
        except (ConnectionError, aiohttp.ClientError):
            pass  # either side went, as a connection may: the operator watches again
        finally:
            self._watches.pop(task, None)
        return response

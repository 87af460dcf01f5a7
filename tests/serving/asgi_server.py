"""Serve an ASGI application over real HTTP with aiohttp: enough of the protocol for an engine and its middleware.

`call` asks the same application without any HTTP, for fleets so large that sockets would be all the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import unquote

from aiohttp import web

Application = Callable[..., Awaitable[None]]
Message = MutableMapping[str, Any]


class AsgiServer:
    """One application on a free port of a loopback address, or on the one it had before."""

    def __init__(self, application: Application, host: str = "127.0.0.1", port: int = 0) -> None:
        self.application = application
        self.host = host
        self.port = port
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def start(self) -> None:
        """Listen; a second start after `stop` takes the same port."""

        async def handle(request: web.Request) -> web.StreamResponse:
            return await bridge(self.application, request)

        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{path:.*}", handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Drop every connection, as a killed process does."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


async def call(
    application: Application,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    told: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    """Ask an application in this process; return status and body, and put the answer's headers into `told`.

    Raises:
        ConnectionResetError: it ended without an answer, as a process that died does.
    """
    status, parts, asked, ended = 0, [], False, asyncio.Event()

    async def receive() -> Message:
        nonlocal asked
        if asked:
            await ended.wait()
            return {"type": "http.disconnect"}
        asked = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            if told is not None:
                told.update((name.decode().lower(), value.decode()) for name, value in message.get("headers", []))
        elif message["type"] == "http.response.body":
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                ended.set()

    given = {"content-length": str(len(body)), **(headers or {})}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 1),
    }
    await application(scope, receive, send)
    if not ended.is_set():
        raise ConnectionResetError("the application ended without an answer")
    return status, b"".join(parts)


async def bridge(application: Application, request: web.Request) -> web.StreamResponse:
    """Hand one request to the application, and its answer back as it comes."""
    response: web.StreamResponse | None = None
    ended = asyncio.Event()

    async def receive() -> Message:
        data, _ = await request.content.readchunk() if not request.content.at_eof() else (b"", True)
        if not data and request.content.at_eof():
            if getattr(receive, "whole", False):
                await ended.wait()
                return {"type": "http.disconnect"}
            receive.whole = True  # type: ignore[attr-defined]
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.request", "body": data, "more_body": True}

    async def send(message: Message) -> None:
        nonlocal response
        if message["type"] == "http.response.start":
            response = web.StreamResponse(status=message["status"])
            for name, value in message.get("headers", []):
                if name.lower() != b"transfer-encoding":
                    response.headers.add(name.decode(), value.decode())
            await response.prepare(request)
        elif message["type"] == "http.response.body":
            assert response is not None
            await response.write(message.get("body", b""))
            if not message.get("more_body", False):
                await response.write_eof()
                ended.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": unquote(request.raw_path.partition("?")[0]),
        "raw_path": request.raw_path.partition("?")[0].encode(),
        "query_string": request.query_string.encode(),
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.raw_headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 1),
    }
    await application(scope, receive, send)
    if response is None:
        raise RuntimeError("the application answered nothing")
    return response

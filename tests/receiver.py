"""A receiver of notifications: a real HTTP server that verifies as receivers do, and answers as it is told."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from aiohttp import web
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from standardwebhooks.webhooks import Webhook

KEY = "whsec_" + base64.b64encode(bytes(range(32))).decode()
Answer = Callable[[web.Request, int], Awaitable[web.StreamResponse]]


async def accept(request: web.Request, number: int) -> web.StreamResponse:
    """Answer as a receiver that has taken it."""
    return web.Response(status=202)


@dataclass
class Receiver:
    """`answer` is given each request and its number, from 0; what it answers with 2xx counts as received."""

    key: str = KEY
    answer: Answer = accept
    received: list[BaseCloudEvent] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    """Of Slack's form."""
    requests: int = 0
    elsewhere: int = 0
    """Requests to another path than the one that it gives as its address."""

    async def __aenter__(self) -> Receiver:
        application = web.Application()
        application.router.add_post("/hook/secret-part", self._handle)
        application.router.add_route("*", "/{path:.*}", self._elsewhere)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port: int = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook/secret-part"

    @property
    def told(self) -> list[tuple[str, str, str]]:
        """Kind, name and reason of each event that it has taken, in order."""
        return [story_of(event) for event in self.received]

    async def _elsewhere(self, request: web.Request) -> web.Response:
        self.elsewhere += 1
        return web.Response()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        number, self.requests = self.requests, self.requests + 1
        body = await request.read()
        answer = await self.answer(request, number)
        if not 200 <= answer.status < 300:
            return answer
        if request.content_type == "application/json":
            self.texts.append((await request.json())["text"])
            return answer
        Webhook(self.key).verify(body, dict(request.headers))
        event = from_http_event(HTTPMessage(dict(request.headers), body))
        assert event.get_id() == request.headers["webhook-id"]
        self.received.append(event)
        return answer


def data_of(event: BaseCloudEvent) -> dict[str, Any]:
    """Return the data of an event of ours."""
    data = event.get_data()
    assert isinstance(data, dict)
    return data


def story_of(event: BaseCloudEvent) -> tuple[str, str, str]:
    """Return kind, name and reason."""
    data = data_of(event)
    return data["kind"], data["name"], data["condition"]["reason"]


def secret(folder: Path, endpoint: str, **files: str) -> Path:
    """Write the files of an endpoint's Secret, and return the folder of them all."""
    (folder / endpoint).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / endpoint / name).write_text(text)
    return folder

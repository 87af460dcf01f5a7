"""The shapes of ASGI, answers that are not the engine's, and requests that do not reach it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class NotPassedOn(Exception):
    """A request that reaches no engine: the HTTP status, a reason in one word, and a sentence for its sender."""

    def __init__(self, status: int, reason: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.reason, self.message, self.retry_after = status, reason, message, retry_after


async def refuse(
    send: Send, status: int, kind: str, message: str, *, retry_after: int | None = None, close: bool = False
) -> None:
    """Answer with an error in the shape of the engine's own."""
    extra: Headers = [(b"retry-after", str(retry_after).encode())] if retry_after is not None else []
    if close:  # the rest of the body is not read
        extra.append((b"connection", b"close"))
    error = {"message": message, "type": kind, "param": None, "code": status}
    await answer(send, status, {"error": error}, extra)


async def answer(send: Send, status: int, document: object, extra: Headers | None = None) -> None:
    body = json.dumps(document).encode()
    headers: Headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *(extra or [])]})
    await send({"type": "http.response.body", "body": body})


def with_length(headers: Iterable[tuple[bytes, bytes]], length: int | None) -> Headers:
    """Return headers with the length of a body; without one where it is not known beforehand."""
    changed = [(key, value) for key, value in headers if key.lower() not in (b"content-length", b"transfer-encoding")]
    return changed if length is None else [*changed, (b"content-length", str(length).encode())]

"""Reading the bodies of requests, within bounds of each and of all together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .asgi import NotPassedOn, Receive, Scope

MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_HELD_BYTES = 256 * 1024 * 1024
"""Of the bodies of all requests that run; small ones are let in beside them: large ones do not close the door."""
SMALL_BODY_BYTES = 64 * 1024
BODY_SECONDS = 60.0
"""Within which a body must have come, from its first part on."""


class Room:
    """What of requests' bodies may be held at a time, in bytes."""

    def __init__(self, most: int) -> None:
        self.most, self.used = most, 0


class Held:
    """What one request holds of it. The engine keeps the body for as long as the request runs, so it counts as long."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.size = 0
        self.reading = True

    def take(self, size: int) -> bool:
        """Take so much more; False if there is no room for it now."""
        if self.size + size > SMALL_BODY_BYTES and self._room.used + size > self._room.most:
            return False
        self.size += size
        self._room.used += size
        return True

    def release(self) -> None:
        self._room.used -= self.size
        self.size = 0


async def read_body(
    scope: Scope, receive: Receive, held: Held, *, most: int, clock: Callable[[], float]
) -> bytes | None:
    """Return the whole body, of at most so many bytes; None if the client left within it.

    Raises:
        NotPassedOn: it is too large, there is no room for it now, or it does not come.
    """
    too_large = NotPassedOn(413, "RequestTooLarge", f"the body is larger than {most} bytes")
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    if announced.isdigit() and (len(announced) > 18 or int(announced) > most):
        raise too_large
    parts: list[bytes] = []
    until: float | None = None
    while True:
        try:
            message = await (receive() if until is None else asyncio.wait_for(receive(), until - clock()))
        except TimeoutError:
            raise NotPassedOn(408, "RequestTimeout", f"the body did not come within {BODY_SECONDS:g} s") from None
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        if held.size + len(part) > most:
            raise too_large
        if not held.take(len(part)):
            raise NotPassedOn(503, "ServiceUnavailable", "too many large requests at once", retry_after=1)
        parts.append(part)
        if not message.get("more_body", False):
            held.reading = False
            return parts[0] if len(parts) == 1 else b"".join(parts)
        until = until or clock() + BODY_SECONDS

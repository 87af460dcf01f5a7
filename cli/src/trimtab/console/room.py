"""A bound on what is in memory at the same time for answers that may be large: of all users, and of one.

Who comes later waits for a while, in the order of coming, and holds up no thread; a browser that does not read gives
its place back when the time of its answer is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .feeds import TooMany

PART_BYTES = 65_536
WAIT_SECONDS = 20.0
"""For a place."""
SEND_SECONDS = 60.0
"""Of a whole answer, to a browser that reads slowly."""


class Room:
    """Places for answers.

    Args:
        places, places_of_one: of all users, and of one; each is held until its answer is sent.
    """

    def __init__(self, places: int, places_of_one: int, wait_seconds: float = WAIT_SECONDS) -> None:
        self._places, self._places_of_one, self._wait_seconds = places, places_of_one, wait_seconds
        self._taken: list[str] = []
        self._freed = asyncio.Condition()

    @asynccontextmanager
    async def place(self, key: str) -> AsyncIterator[None]:
        """Hold a place for a user.

        Raises:
            TooMany: none became free in time.
        """
        try:
            async with asyncio.timeout(self._wait_seconds), self._freed:
                await self._freed.wait_for(lambda: self._has_place(key))
                self._taken.append(key)
        except TimeoutError as error:
            raise TooMany("too many reports are being opened", "load this again in a moment") from error
        try:
            yield
        finally:
            self._taken.remove(key)
            async with self._freed:
                self._freed.notify_all()

    def _has_place(self, key: str) -> bool:
        return len(self._taken) < self._places and self._taken.count(key) < self._places_of_one


async def send_in_parts(
    response: Response, scope: Scope, receive: Receive, send: Send, seconds: float = SEND_SECONDS
) -> None:
    """Send an answer part by part, so that what is not read yet waits here once and not in the server's buffer too."""
    headers = {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
    body = memoryview(bytes(response.body))
    try:
        async with asyncio.timeout(seconds):
            await send(headers)
            for begun in range(0, len(body), PART_BYTES):
                part = body[begun : begun + PART_BYTES]
                await send({"type": "http.response.body", "body": bytes(part), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
    except (TimeoutError, OSError):
        return  # the browser reads no more; the server closes a connection whose answer is not whole

"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): that something changed, and no
more. The page then asks for itself again, so that a live page and one that was loaded are the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import Receive, Scope, Send

PING_SECONDS = 15.0
SEND_SECONDS = 10.0
"""Of a browser that does not read, before it is given up."""
PAUSE_SECONDS = 1.0
"""Between two events of a page: changes within it are one."""


class Changes:
    """An answer that says `change` whenever it is told to, until the browser goes or `over` is set."""

    def __init__(self, changed: asyncio.Event, over: asyncio.Event, left: Callable[[], None]) -> None:
        self._changed, self._over, self._left = changed, over, left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no")]
        tasks = [asyncio.ensure_future(each) for each in (self._gone(receive), self._over.wait())]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            tasks.append(asyncio.ensure_future(self._tell(send)))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done() and not task.cancelled() and (error := task.exception()):
                    if isinstance(error, TimeoutError | OSError):
                        return  # the browser reads no more
                    raise error
        finally:
            self._left()
            for task in tasks:
                task.cancel()

    async def _tell(self, send: Send) -> None:
        await self._send(send, b"retry: 2000\n\n")
        while True:
            try:
                await asyncio.wait_for(self._changed.wait(), PING_SECONDS)
            except TimeoutError:
                await self._send(send, b": ping\n\n")
                continue
            self._changed.clear()
            await self._send(send, b"event: change\ndata:\n\n")
            await asyncio.sleep(PAUSE_SECONDS)

    @staticmethod
    async def _send(send: Send, data: bytes) -> None:
        await asyncio.wait_for(send({"type": "http.response.body", "body": data, "more_body": True}), SEND_SECONDS)

    @staticmethod
    async def _gone(receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

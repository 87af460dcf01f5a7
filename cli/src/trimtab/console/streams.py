"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): that something changed, and no
more, so that the page asks for itself again; or the words of models as they come.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from starlette.types import Receive, Scope, Send

from ..asking import Ends, Heard
from ..errors import Problem
from ..replies import Reply

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
        try:
            await _serve(self._tell, self._over, receive, send)
        finally:
            self._left()

    async def _tell(self, send: Send) -> None:
        await _sent(send, b"retry: 2000\n\n")
        while True:
            try:
                await asyncio.wait_for(self._changed.wait(), PING_SECONDS)
            except TimeoutError:
                await _sent(send, b": ping\n\n")
                continue
            self._changed.clear()
            await _sent(send, b"event: change\ndata:\n\n")
            await asyncio.sleep(PAUSE_SECONDS)


class Words:
    """An answer with what models say, word by word, until all have ended, the browser goes or `over` is set.

    Events are JSON: {place, word} of each part; at the end of all, {place, revision, seconds, problem} of each model,
    and the event `end`.

    Args:
        ask: asks in a thread of its own, tells what it hears, and can be ended.
        left: is called when the thread has ended.
    """

    def __init__(self, ask: Callable[[Heard, Ends], object], over: asyncio.Event, left: Callable[[], None]) -> None:
        self._ask, self._over, self._left = ask, over, left
        self._heard: Sequence[Reply] = ()
        self._is_whole = False
        self._more = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ends, loop = Ends(), asyncio.get_running_loop()

        def tell(what: Callable[[], None]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the page with it
                loop.call_soon_threadsafe(what)

        def heard(replies: Sequence[Reply]) -> None:
            self._heard = replies
            tell(self._more.set)

        def ask() -> None:
            try:
                with contextlib.suppress(Problem):  # nobody answered: each has told why
                    self._ask(heard, ends)
            finally:
                tell(self._end)

        threading.Thread(target=ask, name="playground", daemon=True).start()
        try:
            await _serve(self._tell, self._over, receive, send)
        finally:
            ends.end()

    def _end(self) -> None:
        self._is_whole = True
        self._more.set()
        self._left()

    async def _tell(self, send: Send) -> None:
        told: dict[int, int] = {}
        while True:
            try:
                await asyncio.wait_for(self._more.wait(), PING_SECONDS)
            except TimeoutError:
                await _sent(send, b": ping\n\n")
                continue
            self._more.clear()
            whole, replies = self._is_whole, self._heard
            for place, reply in enumerate(replies):
                begun = told.get(place, 0)
                if len(reply.text) > begun:
                    await _sent(send, _event({"place": place, "word": reply.text[begun:]}))
                    told[place] = len(reply.text)
            if whole:
                for place, reply in enumerate(replies):
                    more = {"revision": reply.revision, "seconds": round(reply.seconds, 2), "problem": reply.problem}
                    await _sent(send, _event({"place": place, **more}))
                await _sent(send, b"event: end\ndata:\n\n", more=False)
                return


def _event(told: dict[str, Any]) -> bytes:
    """Return an event; JSON has no line ends, and lone halves of characters are written out."""
    return b"data: " + json.dumps(told).encode() + b"\n\n"


async def _serve(
    tell: Callable[[Send], Coroutine[Any, Any, None]], over: asyncio.Event, receive: Receive, send: Send
) -> None:
    """Tell until there is no more, the browser goes or reads no more, or `over` is set."""
    headers = [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no")]
    tasks = [asyncio.ensure_future(each) for each in (_gone(receive), over.wait())]
    try:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        tasks.append(asyncio.ensure_future(tell(send)))
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done() and not task.cancelled() and (error := task.exception()):
                if isinstance(error, TimeoutError | OSError):
                    return  # the browser reads no more
                raise error
    finally:
        for task in tasks:
            task.cancel()


async def _sent(send: Send, data: bytes, *, more: bool = True) -> None:
    await asyncio.wait_for(send({"type": "http.response.body", "body": data, "more_body": more}), SEND_SECONDS)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

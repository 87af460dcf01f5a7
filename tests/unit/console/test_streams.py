"""A page's stream: says that something changed; ends with the browser, with the console, or with who does not read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from trimtab.console import streams
from trimtab.console.streams import Changes

Message = dict[str, Any]


class Browser:
    """The other end of a stream: `told` is what it got, `gone` closes it, `reads` lets it take what is sent."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.gone = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()
        self.left = 0

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.reads.wait()
        self.told.append(message.get("body", b"").decode())

    def leave(self) -> None:
        self.left += 1

    def opened(self, changed: asyncio.Event, over: asyncio.Event) -> asyncio.Task[None]:
        stream = Changes(changed, over, self.leave)
        return asyncio.create_task(stream({"type": "http"}, self.receive, self.send))

    async def heard(self, count: int) -> None:
        async with asyncio.timeout(60):
            while sum("event: change" in each for each in self.told) < count:
                await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PAUSE_SECONDS", 0.01)


async def test_changes_are_told_until_the_browser_goes() -> None:
    browser, changed = Browser(), asyncio.Event()
    task = browser.opened(changed, asyncio.Event())
    changed.set()
    await browser.heard(1)
    changed.set()
    await browser.heard(2)
    browser.gone.set()
    await asyncio.wait_for(task, 60)
    assert browser.left == 1


async def test_a_console_that_ends_ends_its_streams() -> None:
    browser, over = Browser(), asyncio.Event()
    task = browser.opened(asyncio.Event(), over)
    over.set()
    await asyncio.wait_for(task, 60)
    assert browser.left == 1


async def test_a_browser_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "SEND_SECONDS", 0.01)
    browser, changed = Browser(), asyncio.Event()
    task = browser.opened(changed, asyncio.Event())
    changed.set()
    await browser.heard(1)
    browser.reads.clear()
    changed.set()
    await asyncio.wait_for(task, 60)
    assert browser.left == 1


async def test_at_rest_it_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PING_SECONDS", 0.01)
    browser, over = Browser(), asyncio.Event()
    task = browser.opened(asyncio.Event(), over)
    async with asyncio.timeout(60):
        while ": ping\n\n" not in browser.told:
            await asyncio.sleep(0.001)
    over.set()
    await task

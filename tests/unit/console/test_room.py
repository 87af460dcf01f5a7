"""What is large is in memory for a few at a time: who comes later waits, and who does not read is given up."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from starlette.responses import Response
from trimtab.console.feeds import TooMany
from trimtab.console.room import PART_BYTES, Room, send_in_parts


async def nothing() -> dict[str, Any]:
    raise AssertionError("nothing is read of a browser")


async def test_no_more_than_all_and_no_more_than_one_may_have() -> None:
    room = Room(places=3, places_of_one=2, wait_seconds=0.01)
    async with AsyncExitStack() as held:
        for key in ("jane", "jane", "rita"):
            await held.enter_async_context(room.place(key))
        for key in ("jane", "eve"):
            with pytest.raises(TooMany, match="too many reports"):
                async with room.place(key):
                    pass
    async with room.place("eve"):
        pass


async def test_one_user_leaves_room_for_others() -> None:
    room = Room(places=3, places_of_one=2, wait_seconds=0.01)
    async with room.place("jane"), room.place("jane"):
        with pytest.raises(TooMany):
            async with room.place("jane"):
                pass
        async with room.place("rita"):
            pass


async def test_who_waits_has_the_next_place_also_after_an_error() -> None:
    room, order = Room(places=1, places_of_one=1, wait_seconds=20), []

    async def visit(key: str) -> None:
        async with room.place(key):
            order.append(key)
            await asyncio.sleep(0)
            raise ValueError(key)

    told = await asyncio.gather(*map(visit, "abc"), return_exceptions=True)
    assert list(map(str, told)) == order == ["a", "b", "c"]


async def test_an_answer_is_sent_in_parts_and_is_whole() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    body = bytes(range(256)) * 1000
    await send_in_parts(Response(body, 201, {"X-A": "b"}), {"type": "http"}, nothing, send)
    assert (sent[0]["status"], dict(sent[0]["headers"])[b"x-a"]) == (201, b"b")
    assert b"".join(each["body"] for each in sent[1:]) == body
    assert max(len(each["body"]) for each in sent[1:]) == PART_BYTES
    assert [each["more_body"] for each in sent[1:]] == [True] * (len(sent) - 2) + [False]


async def test_a_browser_that_does_not_read_gives_its_place_back() -> None:
    room = Room(places=1, places_of_one=1, wait_seconds=20)

    async def stuck(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async with room.place("jane"):
        await send_in_parts(Response(b"a" * 999_999), {"type": "http"}, nothing, stuck, seconds=0.01)
    async with room.place("rita"):
        pass

"""A lull comes when nobody has put it off for a while."""

from __future__ import annotations

import asyncio

import pytest
from trimtab_operator.runtime.lull import Lull

from tests.unit.runtime.virtual_time import run


def test_it_comes_some_seconds_after_it_was_put_off_last() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        lull, began = Lull(5), loop.time()
        for after in (0, 3, 7, 11):
            loop.call_later(after, lull.put_off)
        await lull.wait()
        assert loop.time() - began == 16

    run(story())


def test_it_does_not_come_before_it_was_put_off_and_comes_again_only_after_that() -> None:
    async def story() -> None:
        lull = Lull(5)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lull.wait(), 100)
        lull.put_off()
        await asyncio.wait_for(lull.wait(), 6)
        await asyncio.wait_for(lull.wait(), 1)  # it goes on
        lull.clear()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lull.wait(), 100)

    run(story())

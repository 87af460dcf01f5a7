"""`Lull`: wait until something that comes in bursts is over."""

from __future__ import annotations

import asyncio


class Lull:
    """Comes some seconds after it was put off last, and never before it was put off at all."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._come = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def put_off(self) -> None:
        """Note that it goes on."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._come.set)

    async def wait(self) -> None:
        await self._come.wait()

    def clear(self) -> None:
        """Have the next wait be for the next one."""
        self._come.clear()

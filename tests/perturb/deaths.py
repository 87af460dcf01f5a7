"""How an operator dies in a test, once, and another one takes its place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.component.operator.process import OperatorProcess
from tests.tasks import cancelled


@asynccontextmanager
async def starts_again(operator: OperatorProcess, killed: asyncio.Event) -> AsyncIterator[None]:
    """Start an operator anew once it was killed; in the end there is none."""

    async def again() -> None:
        await killed.wait()
        await operator.process.wait()
        await operator.start()

    waiting = asyncio.create_task(again())
    try:
        yield
    finally:
        try:
            await cancelled(waiting)
        finally:
            await operator.kill()

"""How an operator dies in a test, and another one takes its place."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.component.operator.process import OperatorProcess
from tests.tasks import cancelled

LEASE_LOST = "lease not renewed in time"
STARTING = '"msg": "starting"'


@asynccontextmanager
async def kept_running(operator: OperatorProcess) -> AsyncIterator[None]:
    """Start an operator, and start it again when it has ended, as the kubelet does; in the end there is none.

    It ends when a test kills it, and on a machine that is too busy to let it keep its Lease, but by nothing else.
    """

    async def again() -> None:
        while True:
            code = await operator.process.wait()
            life = operator.log_file.read_text().rpartition(STARTING)[2]
            assert code == -signal.SIGKILL or LEASE_LOST in life, operator.tail()
            await operator.start()

    await operator.start()
    waiting = asyncio.create_task(again())
    try:
        yield
    finally:
        try:
            await cancelled(waiting)
        finally:
            await operator.kill()

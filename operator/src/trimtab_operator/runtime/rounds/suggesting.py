"""The next points of a search, from a process of its own: what chooses them takes 80 MB and a second of a processor."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from trimtab_trainer.contract.sweep import Point, SuggestionRequest

from .workqueue import Retry

SECONDS = 60.0
AT_ONCE = 2
RETRY_SECONDS = 5.0

_slots = asyncio.Semaphore(AT_ONCE)


async def suggested(request: SuggestionRequest) -> tuple[Point, ...]:
    """Return the points.

    Raises:
        Retry: the process did not answer.
    """
    async with _slots:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "trimtab_trainer.sweep.suggest"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", ""), "HOME": "/tmp", "OMP_NUM_THREADS": "1"},
        )
        try:
            async with asyncio.timeout(SECONDS):
                answer, errors = await process.communicate(json.dumps(request.to_json()).encode())
        except TimeoutError:
            raise Retry(RETRY_SECONDS, f"no next points within {SECONDS:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode != 0:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        raise Retry(RETRY_SECONDS, f"no next points: {last}")
    return tuple(tuple(float(each) for each in point) for point in json.loads(answer)["points"])

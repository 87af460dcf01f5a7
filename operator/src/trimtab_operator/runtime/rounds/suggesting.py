"""What comes next in a search and what matters in it, from processes of their own: that takes 80 MB and a second."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from trimtab_trainer.contract.sweeps.settings import Point, SuggestionRequest

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
    answer = await _answer("trimtab_trainer.sweep.suggest", request, "no next points")
    return tuple(tuple(float(each) for each in point) for point in answer["points"])


async def important(request: SuggestionRequest) -> dict[int, float]:
    """Return the share of each parameter in what sets good trials apart, by its position.

    Raises:
        Retry: the process did not answer.
    """
    answer = await _answer("trimtab_trainer.sweep.importance", request, "no importance of parameters")
    return {int(position): float(share) for position, share in answer["importance"].items()}


async def _answer(module: str, request: SuggestionRequest, missing: str) -> dict[str, Any]:
    async with _slots:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", ""), "HOME": "/tmp", "OMP_NUM_THREADS": "1"},
        )
        try:
            async with asyncio.timeout(SECONDS):
                answer, errors = await process.communicate(json.dumps(request.to_json()).encode())
        except TimeoutError:
            raise Retry(RETRY_SECONDS, f"{missing} within {SECONDS:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode != 0:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        raise Retry(RETRY_SECONDS, f"{missing}: {last}")
    found: dict[str, Any] = json.loads(answer)
    return found

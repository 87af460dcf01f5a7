"""What comes next in searches and what matters in them, from processes of their own: Optuna takes 80 MB.

Most of what an answer costs is the start of the process. So it answers all that ask while it is there, one after the
other, and ends with the last of them: a search asks for all its free places at once, and searches that wait at the same
time share a process.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio import StreamReader
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from trimtab_trainer.contract.sweeps.settings import KnownTrial, Point, SuggestionRequest, TrialState

from .workqueue import Retry

SECONDS = 60.0
"""For one answer, with the start of the process."""
RETRY_SECONDS = 5.0
POINTS_AT_ONCE = 5
"""Of 16 parameters after 200 trials they take 1.4 s of processor time, and as many of two parameters 0.03 s."""
LAST_WORDS = 4096
"""Bytes that are kept of what a process says of warnings and errors."""


class Suggesting:
    """Asks what needs Optuna."""

    def __init__(self) -> None:
        self._points = _Answering("trimtab_trainer.sweep.suggest", "no next points")
        self._importance = _Answering("trimtab_trainer.sweep.importance", "no importance of parameters")

    async def points(self, request: SuggestionRequest) -> tuple[Point, ...]:
        """Return the next points, asked for a few at a time, so that no search holds up all others.

        Raises:
            Retry: the process did not answer.
        """
        found: list[Point] = []
        async with self._points.asking() as ask:
            while (count := min(request.count - len(found), POINTS_AT_ONCE)) > 0:
                running = (KnownTrial(point, TrialState.RUNNING) for point in found)
                answer = await ask(replace(request, trials=(*request.trials, *running), count=count))
                found += [tuple(float(each) for each in point) for point in answer["points"]]
                if len(answer["points"]) < count:
                    break  # there are no more
        return tuple(found)

    async def importance(self, request: SuggestionRequest) -> dict[int, float]:
        """Return the share of each parameter in what sets good trials apart, by its position.

        Raises:
            Retry: the process did not answer.
        """
        async with self._importance.asking() as ask:
            answer = await ask(request)
        return {int(position): float(share) for position, share in answer["importance"].items()}


@dataclass(frozen=True)
class _Running:
    """A process, and the last of what it says of warnings and errors, once it has ended.

    That is read all the while: a pipe that is full stops whoever writes to it.
    """

    process: Process
    last_words: asyncio.Task[str]

    async def answer(self, asked: bytes) -> bytes:
        """Return the line that the process answers with, or nothing where it ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(asked)
        return await self.process.stdout.readline()

    async def end(self) -> None:
        """End the process; its pipes are read to their ends, because asyncio waits for these too."""
        assert self.process.stdout is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.stdout.read()
        await self.last_words
        await self.process.wait()


class _Answering:
    """A process that answers lines with lines while anybody asks; a request that it fails at fails alone."""

    def __init__(self, module: str, missing: str) -> None:
        self._module = module
        self._missing = missing
        self._asking = 0
        self._turn = asyncio.Lock()
        self._running: _Running | None = None

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[Callable[[SuggestionRequest], Awaitable[dict[str, Any]]]]:
        """Have the process stay until all that was to be asked is answered; whoever asks waits for its turn."""
        self._asking += 1
        try:
            yield self._ask
        finally:
            self._asking -= 1
            if not self._asking:
                await self._end()

    async def _ask(self, request: SuggestionRequest) -> dict[str, Any]:
        async with self._turn:
            try:
                return await self._answer(json.dumps(request.to_json()).encode() + b"\n")
            except BaseException:  # what it says next is no answer to what is asked next
                await self._end()
                raise

    async def _answer(self, asked: bytes) -> dict[str, Any]:
        try:
            async with asyncio.timeout(SECONDS):
                if self._running is None:
                    self._running = await self._start()
                said = await self._running.answer(asked)
                if not said:
                    last = (await asyncio.shield(self._running.last_words)).strip().rpartition("\n")[2]
                    raise Retry(RETRY_SECONDS, f"{self._missing}: {last}")
        except TimeoutError:
            raise Retry(RETRY_SECONDS, f"{self._missing} within {SECONDS:g} s") from None
        answer: dict[str, Any] = json.loads(said)
        return answer

    async def _start(self) -> _Running:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self._module),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env={"PATH": os.environ.get("PATH", ""), "HOME": "/tmp", "OMP_NUM_THREADS": "1"},
        )
        assert process.stderr is not None
        return _Running(process, asyncio.create_task(_last_of(process.stderr)))

    async def _end(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            await running.end()


async def _last_of(stream: StreamReader) -> str:
    kept = b""
    while said := await stream.read(LAST_WORDS):
        kept = (kept + said)[-LAST_WORDS:]
    return kept.decode(errors="replace")

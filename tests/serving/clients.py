"""Clients that ask an alias all the time, and judge every answer: failed, right, or of a revision it did not mean."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from tests.serving.adapters import Published
from tests.serving.fleet import Pod
from tests.tasks import cancelled

EXAMPLES = 5


@dataclass
class Verdicts:
    """What came of all requests. `excused`: the engine was killed, or the pod deleted, while one was under way."""

    answers: Counter[str] = field(default_factory=Counter)
    """By revision."""
    failed: int = 0
    wrong: int = 0
    excused: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def requests(self) -> int:
        return self.answers.total() + self.failed + self.excused

    def note(self, what: str) -> None:
        if len(self.examples) < EXAMPLES:
            self.examples.append(what)

    def check(self) -> None:
        """Raise unless every request was answered, and rightly."""
        assert (self.failed, self.wrong) == (0, 0), self.examples
        assert self.answers.total() > 0, "no request was made"


class Clients:
    """Ask pods that are ready, as a Service would choose them."""

    def __init__(
        self, pods: Callable[[], Sequence[Pod]], alias: str, adapters: Collection[Published], pause: float = 0.01
    ) -> None:
        self._pods = pods
        self._alias = alias
        self._markers = {adapter.name(alias): adapter.marker for adapter in adapters}
        self._pause = pause
        self._dice = random.Random(7)
        self.verdicts = Verdicts()

    async def run(self) -> None:
        """Ask one request after the other, for ever."""
        while True:
            ready = [pod for pod in self._pods() if pod.ready]
            if ready:
                await self.ask(self._dice.choice(ready))
            await asyncio.sleep(self._pause)

    async def ask(self, pod: Pod) -> None:
        starts, began = pod.engine_starts, time.monotonic()
        try:
            status, model, text = await pod.ask(self._alias)
        except (OSError, aiohttp.ClientError) as error:
            status, model, text = 0, "", str(error or type(error).__name__)
        ended = time.monotonic()
        verdicts = self.verdicts
        if status != 200:
            # A readiness probe tells of a dead engine only afterwards; no controller could have kept the request.
            if pod.deleted or pod.engine_starts != starts or not pod.engine_up:
                verdicts.excused += 1
            else:
                verdicts.failed += 1
                verdicts.note(f"{pod.name} answered {status} {text}")
            return
        verdicts.answers[model] += 1
        meant = pod.may_answer(self._alias, began, ended)
        if model not in meant or self._markers.get(model) != text:
            verdicts.wrong += 1
            verdicts.note(f"{pod.name}: {model} answered {text!r}, meant were {sorted(meant)}")


@asynccontextmanager
async def asking(
    pods: Callable[[], Sequence[Pod]], alias: str, *adapters: Published, number: int = 4, pause: float = 0.01
) -> AsyncIterator[Verdicts]:
    """Let clients ask meanwhile."""
    clients = Clients(pods, alias, adapters, pause)
    tasks = [asyncio.create_task(clients.run()) for _ in range(number)]
    try:
        yield clients.verdicts
    finally:
        await cancelled(*tasks)

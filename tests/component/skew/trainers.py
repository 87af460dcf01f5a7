"""Trainers of this version and of a later one: pods that run until they are told to end, and say how far they are."""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from trimtab_operator.domain.views import ATTEMPT_LABEL, EVALUATION_LABEL, JOB_LABEL, STAGE_LABEL
from trimtab_operator.runtime.kube import Body
from trimtab_operator.runtime.pods.progress import PORT
from trimtab_trainer.contract import Stage

from tests.component.operator.executor import Act, Executor

LATER_CONTRACT = "trimtab.dev/run/v1.1"
FACT: Body = {"laterFact": "told by a later version", "laterSection": {"known": [1, 2]}}
STEPS = 100
ADDRESSES = 16


@dataclass
class Trainers(Executor):
    """Plays the pods of a namespace; the second stage of each run ends when `ends` of its name is set.

    Attributes:
        later: whether trainers that speak now are of the later version.
        step: how far every trainer is.
        addresses: that no pod has yet; progress is told on each.
    """

    later: bool = False
    step: int = 0
    ends: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    addresses: list[str] = field(default_factory=list)
    at: dict[str, Body] = field(default_factory=dict)

    def act_of(self, pod: Body, stage: Stage, attempt: int) -> Act | None:
        return Act() if stage is Stage.PREPARE else Act(until=self.ends[name_of(pod)])

    def address_of(self, pod: Body) -> str:
        address = self.addresses.pop()
        self.at[address] = pod
        return address

    def says(self, words: str) -> str:
        return json.dumps(later_words(json.loads(words))) if self.later else words

    async def tell(self, request: web.Request) -> web.Response:
        """Answer `GET /progress` for the pod whose address was asked."""
        assert request.transport is not None
        pod = self.at[request.transport.get_extra_info("sockname")[0]]
        labels = pod["metadata"]["labels"]
        progress = {
            "runUid": await self.run_uid(pod),
            "attempt": int(labels[ATTEMPT_LABEL]),
            "stage": labels[STAGE_LABEL],
            "activity": "Training",
            "step": self.step,
            "totalSteps": STEPS,
        }
        return web.json_response({**progress, **FACT} if self.later else progress)


def name_of(pod: Body) -> str:
    """Return the name of the FineTuneJob or Evaluation whose pod it is."""
    labels = pod["metadata"]["labels"]
    return str(labels.get(JOB_LABEL) or labels[EVALUATION_LABEL])


def later_words(words: Body) -> Body:
    """Return a termination message as a later trainer writes it: under its own version, with more in every section."""
    told: Body = {key: {**value, **FACT} if isinstance(value, dict) else value for key, value in words.items()}
    if "packedOutcome" in told:
        told["packedOutcome"] = later_outcome(told["packedOutcome"])
    return {**told, **FACT, "version": LATER_CONTRACT}


def later_outcome(text: str) -> str:
    """Return the outcome of an evaluation with one more column of results and of checks."""
    document: dict[str, Any] = json.loads(zlib.decompress(base64.b85decode(text)))
    for columns in (document["results"], document["checks"]):
        columns.append([0] * len(columns[0]))
    return base64.b85encode(zlib.compress(json.dumps({**document, **FACT}).encode())).decode()


@asynccontextmanager
async def telling(trainers: Trainers) -> AsyncIterator[None]:
    """Play the pods, each on an address of its own that tells its progress."""
    application = web.Application()
    application.router.add_get("/progress", trainers.tell)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    network = await _claim(runner)
    trainers.addresses = [f"{network}.{number}" for number in range(1, ADDRESSES)]
    for address in trainers.addresses[1:]:
        await web.TCPSite(runner, address, PORT).start()
    playing = asyncio.create_task(trainers.run())
    try:
        yield
    finally:
        playing.cancel()
        (result,) = await asyncio.gather(playing, return_exceptions=True)
        await runner.cleanup()
        if not isinstance(result, asyncio.CancelledError):
            raise RuntimeError("pods were not played to the end") from result


async def _claim(runner: web.AppRunner) -> str:
    """Take the first network whose first address is free: other tests of the machine may play trainers too."""
    for number in range(250):
        network = f"127.240.{number}"
        try:
            await web.TCPSite(runner, f"{network}.1", PORT).start()
            return network
        except OSError:  # another test plays there
            continue
    raise RuntimeError("too many tests play trainers on this machine")

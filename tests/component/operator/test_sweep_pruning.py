"""Trials that are paused and go on, with the operator as a process, a real API server and the real Job controller.

Trainers are played: each tells its progress at an address of its own and makes steps until its pod is gone;
the one after it goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from trimtab_operator.domain.views import ATTEMPT_LABEL, JOB_LABEL, STAGE_LABEL
from trimtab_operator.runtime.kube import PODS, Body, Kube, NotFound
from trimtab_operator.runtime.pods.progress import PORT
from trimtab_trainer.contract import Stage

from tests.component.operator.conftest import Start
from tests.component.operator.executor import Act, Executor, ended, last_words, now, running
from tests.component.operator.finetunejobs import until_state
from tests.component.operator.test_sweep import sweep, trials_of
from tests.resources import FINETUNEJOBS, FINETUNESWEEPS
from tests.tasks import cancelled

RATES = [1e-4, 3e-4, 9e-4, 2.7e-3]
BEST = RATES[1]
STATIONS, SECONDS_A_STATION = (10, 30, 90, 100), 3
"""The rungs and the end: steps after which a trainer is seen."""


@dataclass
class Trainers(Executor):
    """Makes steps; the loss is the lower the nearer the learning rate is to the best one, at every step."""

    steps: dict[str, int] = field(default_factory=dict)
    """Of each FineTuneJob: what a checkpoint would have."""
    most_together: int = 0
    """Trials with a pod that was not told to end."""
    _addresses: Any = field(default_factory=lambda: itertools.count(2))

    async def play(self, pod: Body) -> None:
        if pod["metadata"]["labels"][STAGE_LABEL] != Stage.TRAIN:
            await super().play(pod)
            return
        name, started = pod["metadata"]["labels"][JOB_LABEL], now()
        address, uid = f"127.0.9.{next(self._addresses)}", await self.run_uid(pod)
        job = await self.kube.get(FINETUNEJOBS, self.namespace, name)
        loss = 1 + abs(math.log(job["spec"]["training"]["learningRate"] / BEST))
        attempt = int(pod["metadata"]["labels"][ATTEMPT_LABEL])

        async def tell(request: web.Request) -> web.Response:
            step = self.steps.get(name, 0)
            there = [station for station in STATIONS if station <= step]
            told = {"runUid": uid, "attempt": attempt, "stage": "train", "activity": "Training", "step": step}
            curve = {"steps": [], "loss": [], "validationSteps": there, "validationLoss": [loss] * len(there)}
            return web.json_response({**told, "totalSteps": STATIONS[-1], "validationLoss": loss, "curve": curve})

        app = web.Application()
        app.router.add_get("/progress", tell)
        runner = web.AppRunner(app)
        await runner.setup()
        pods = await self.kube.items(PODS, self.namespace, {"labelSelector": f"{STAGE_LABEL}={Stage.TRAIN.value}"})
        live = {each["metadata"]["labels"][JOB_LABEL] for each in pods if _is_live(each)}
        self.most_together = max(self.most_together, len(live))
        try:
            await web.TCPSite(runner, address, PORT).start()
            with contextlib.suppress(NotFound):  # suspended meanwhile
                await self.write(pod, running(pod, started, address))
                for station in [each for each in STATIONS if each > self.steps.get(name, 0)]:
                    await asyncio.sleep(SECONDS_A_STATION)
                    await self.kube.get(PODS, self.namespace, pod["metadata"]["name"])
                    self.steps[name] = station
                await asyncio.sleep(SECONDS_A_STATION)
                words = last_words(Stage.TRAIN, attempt, uid, Act(), validation_loss=loss)
                await self.write(pod, ended(pod, started, address, 0, words))
        finally:
            await runner.cleanup()


def _is_live(pod: Body) -> bool:
    over = pod["status"].get("phase") in ("Succeeded", "Failed")
    return not over and "deletionTimestamp" not in pod["metadata"]


async def test_trials_that_are_worse_wait_and_the_best_is_trained_to_its_end_though_the_operator_is_killed(
    kube: Kube, namespace: str, start: Start
) -> None:
    operator = await start()
    trainers = Trainers(kube, namespace)
    playing = asyncio.create_task(trainers.run())
    body = sweep(
        namespace,
        parameters=[{"name": "training.learningRate", "values": RATES}],
        algorithm={"type": "Grid"},
        maxTrials=4,
        pruning={"reductionFactor": 3, "minimumSteps": STATIONS[0]},
    )
    body["spec"]["template"]["spec"]["training"] = {"maxSteps": STATIONS[-1], "evaluateEverySteps": STATIONS[0]}
    try:
        await kube.create(FINETUNESWEEPS, namespace, body)
        while not [job for job in await trials_of(kube, namespace) if job["spec"].get("suspend")]:
            await asyncio.sleep(0.1)
        await operator.kill()
        await operator.start()
        await operator.ready()
        found = (await until_state(kube, namespace, "guide", "Completed", resource=FINETUNESWEEPS))["status"]
        jobs = {job["metadata"]["name"]: job for job in await trials_of(kube, namespace)}
    finally:
        await cancelled(playing)
    assert found["best"]["parameters"] == {"training.learningRate": BEST}
    assert len(jobs) == len(found["trials"]) == 4
    pruned = [trial for trial in found["trials"] if trial["state"] == "Pruned"]
    assert pruned
    assert all(trial["rungValues"] and "value" not in trial for trial in pruned)
    assert all(jobs[f"guide-{trial['id']}"]["spec"]["suspend"] for trial in pruned)
    assert all(trainers.steps[f"guide-{trial['id']}"] < STATIONS[-1] for trial in pruned)
    assert found["savedAcceleratorSeconds"] > 0
    assert trainers.most_together <= 2
    assert not [line for line in operator.log_lines() if line["level"] == "error"]

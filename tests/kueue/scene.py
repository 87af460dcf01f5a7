"""A FineTuneJob in a queue: made, watched for a second Job beside its own, and its books read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from trimtab_operator.domain.views import JOB_LABEL, parse_time
from trimtab_operator.runtime.kube import JOBS, Body, Kube, NotFound

from tests.component.operator.finetunejobs import finetunejob, jobs_of, state_of, until
from tests.component.patience import Patience
from tests.kueue.queues import PRIORITY, QUEUE, TEMPLATE
from tests.resources import FINETUNEJOBS


@dataclass
class Scene:
    """One namespace."""

    kube: Kube
    namespace: str
    together: set[frozenset[str]] = field(default_factory=set)
    """Names of Jobs of one FineTuneJob that were seen at once and had not ended."""

    async def queued(self, name: str = "demo", *, queue: str = "gpus", priority: str | None = None) -> None:
        labels = {QUEUE: queue} if priority is None else {QUEUE: queue, PRIORITY: priority}
        body = finetunejob(name, self.namespace, labels, template=TEMPLATE)
        await self.kube.create(FINETUNEJOBS, self.namespace, body)

    async def until_waiting(self, job: str, name: str = "demo") -> Body:
        """Return the object when it says that it waits for the queue to admit a Job."""

        def waits(body: Body) -> bool:
            return state_of(body) == "Queued" and job in message_of(body)

        return await until(self.kube, self.namespace, name, waits, what=f"Queued for {job}")

    async def until_trains(self, name: str = "demo") -> Body:
        """Return the object when its trainer runs and its clock too."""

        def trains(body: Body) -> bool:
            return state_of(body) == "Training" and "startTime" in body["status"]["attempts"][-1]

        return await until(self.kube, self.namespace, name, trains, what="Training")

    async def until_admitted(self, job: str) -> None:
        patience = Patience(f"{job} admitted")
        while (body := await self.kube.get(JOBS, self.namespace, job))["spec"].get("suspend"):
            patience.spend(body)
            await asyncio.sleep(0.1)

    async def delete_job(self, job: str) -> None:
        body = await self.kube.get(JOBS, self.namespace, job)
        await self.kube.delete(JOBS, self.namespace, job, body["metadata"]["uid"])
        patience = Patience(f"{job} gone")
        try:
            while True:
                patience.spend(await self.kube.get(JOBS, self.namespace, job))
                await asyncio.sleep(0.1)
        except NotFound:
            return

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Note meanwhile which Jobs of one object live at once."""
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            (result,) = await asyncio.gather(watching, return_exceptions=True)
            if not isinstance(result, asyncio.CancelledError):
                raise RuntimeError("Jobs were not watched to the end") from result

    async def _watch(self) -> None:
        while True:
            living: dict[str, set[str]] = {}
            for name, job in (await jobs_of(self.kube, self.namespace)).items():
                if _lives(job) and (of := job["metadata"]["labels"].get(JOB_LABEL)):
                    living.setdefault(of, set()).add(name)
            self.together |= {frozenset(names) for names in living.values()}
            await asyncio.sleep(0.1)


def _lives(job: Body) -> bool:
    conditions = job.get("status", {}).get("conditions", ())
    over = any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)
    return not over and "deletionTimestamp" not in job["metadata"]


def message_of(body: Body) -> str:
    conditions = body.get("status", {}).get("conditions", ())
    return next((str(c["message"]) for c in conditions if c["type"] == "Succeeded"), "")


def charged(body: Body) -> tuple[int, int, list[str]]:
    """Return what the budgets have paid: failures, disruptions, and the attempts that say that they were charged."""
    status = body["status"]
    attempts = [f"{a['number']}: {a['reason']}" for a in status["attempts"] if "chargedTo" in a]
    return status.get("failures", 0), status.get("disruptions", 0), attempts


NOTHING: tuple[int, int, list[str]] = (0, 0, [])


def seconds_between(start: str, end: str) -> float:
    began, ended = parse_time(start), parse_time(end)
    assert began is not None
    assert ended is not None
    return (ended - began).total_seconds()


def seconds_of(body: Body, stage: str) -> int:
    """Return for how long pods of a stage have run, over the attempts that are told of."""
    return sum(a.get("activeSeconds", 0) for a in body["status"]["attempts"] if a["stage"] == stage)

"""The operator is killed right after each of its successful writes, one life of a FineTuneJob and its Evaluation each.

The process ends after the API server has carried the write out and before it knows that. Another one goes on from what
is in the cluster; the end must be that of an undisturbed life, with the same Jobs, each created once.

The first and the last write of each kind are part of `make test`, all of them of `make test-long`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from trimtab_operator.runtime.kube import Kube

from tests.component.api_server import ApiServer
from tests.component.operator.conftest import playing
from tests.component.operator.finetunejobs import evaluation, finetunejob, over, until
from tests.component.operator.process import OperatorProcess
from tests.long import SOME_OR_EVERY, first_and_last
from tests.perturb.deaths import kept_running
from tests.perturb.proxy import Proxy, Write
from tests.resources import EVALUATIONS, FINETUNEJOBS

AT_ONCE = 3
MASKED = {"lastTransitionTime", "startTime", "endTime", "completionTime", "jobUID", "time", "activeSeconds"}
"""What differs between any two lives."""


@dataclass(frozen=True)
class Life:
    """What came of one life."""

    statuses: dict[str, dict[str, Any]]
    writes: list[Write]
    killed: bool

    @property
    def jobs_created(self) -> Counter[str]:
        return Counter(w.name for w in self.writes if w.method == "POST" and w.resource == "jobs")


def masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: masked(item) for key, item in value.items() if key not in MASKED}
    return [masked(item) for item in value] if isinstance(value, list) else value


async def live(kube: Kube, kubeconfig: Path, namespace: str, folder: Path, kill_after: int = 0) -> Life:
    """Run one FineTuneJob and its Evaluation to their ends; kill the operator after a write, and start another one."""
    killed = asyncio.Event()
    async with Proxy(kubeconfig) as proxy, playing(kube, namespace):
        operator = OperatorProcess(proxy.kubeconfig(folder), namespace, folder)

        async def after_write(number: int, write: Write) -> None:
            if number == kill_after and not killed.is_set():
                killed.set()
                await operator.kill()

        proxy.after_write = after_write
        async with kept_running(operator):
            await operator.ready()
            await kube.create(EVALUATIONS, namespace, evaluation("demo", namespace))
            await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
            await until(kube, namespace, "demo", over, what="the end", resource=EVALUATIONS)
            await asyncio.sleep(1.5)  # what else it would do
            bodies = [await kube.get(resource, namespace, "demo") for resource in (FINETUNEJOBS, EVALUATIONS)]
    return Life({body["kind"]: masked(body["status"]) for body in bodies}, proxy.writes, killed.is_set())


@pytest.mark.parametrize("every", SOME_OR_EVERY)
async def test_killed_after_each_write(
    kube: Kube, kubeconfig: Path, server: ApiServer, tmp_path: Path, every: bool
) -> None:
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(kill_after: int) -> Life:
        async with slots:
            name = server.create("/api/v1/namespaces", {"metadata": {"generateName": "killed-"}}).body["metadata"][
                "name"
            ]
            folder = tmp_path / str(kill_after)
            folder.mkdir()
            try:
                return await live(kube, kubeconfig, name, folder, kill_after)
            finally:
                server.delete(f"/api/v1/namespaces/{name}")

    reference = await one(0)
    names = ("demo-prepare-0", "demo-train-1", "demo-eval-prepare-0", "demo-eval-1")
    assert reference.jobs_created == dict.fromkeys(names, 1)
    count = len(reference.writes)
    numbers = [*range(1, count + 1)] if every else first_and_last([write.kind for write in reference.writes])
    lives = await asyncio.gather(*map(one, numbers))
    for number, life in zip(numbers, lives, strict=True):
        story = f"killed after write {number} ({reference.writes[number - 1]}): {[str(w) for w in life.writes]}"
        assert life.killed or len(life.writes) < number, story  # a life may tell of less on its way
        assert life.jobs_created == reference.jobs_created, story
        assert life.statuses == reference.statuses, story
    print(f"\nkilled after writes {numbers} of {count}: " + ", ".join(str(write) for write in reference.writes))

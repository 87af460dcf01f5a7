"""A FineTuneJob whose tracker is told, by the real operator and the real Job controller, also by one that is killed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from trimtab_operator.runtime.kube import JOBS, PODS, Body, Kube
from trimtab_trainer.contract import Reason, Stage

from tests.component.operator.conftest import Start, playing
from tests.component.operator.executor import Act
from tests.component.operator.finetunejobs import finetunejob, jobs_of, over, until
from tests.component.operator.process import OperatorProcess
from tests.perturb.proxy import Proxy, Write
from tests.resources import FINETUNEJOBS

TRACKING = {"mlflow": {"uri": "https://mlflow.example", "experiment": "demo", "secretName": "tracker"}}
AFTER = 3
"""Writes of what comes after the end: the Job, and two of the status."""


def tracked_of(body: Body) -> tuple[str, str]:
    conditions = body.get("status", {}).get("conditions", ())
    return next(((str(c["status"]), str(c["reason"])) for c in conditions if c["type"] == "Tracked"), ("", ""))


def told(body: Body) -> bool:
    return tracked_of(body)[0] in ("True", "False")


def refused(stage: Stage, attempt: int) -> Act:
    refusal = Act(exit_code=10, reason=Reason.ACCESS_DENIED, message="https://mlflow.example answered 401")
    return refusal if stage is Stage.TRACK else Act()


async def test_a_tracker_that_refuses_fails_nothing(kube: Kube, namespace: str, start: Start) -> None:
    await start()
    async with playing(kube, namespace, refused):
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace, tracking=TRACKING))
        ended = await until(kube, namespace, "demo", over, what="the end")
        body = await until(kube, namespace, "demo", told, what="what became of the tracker")
    assert tracked_of(body) == ("False", "TrackingFailed")
    (tracked,) = [each for each in body["status"]["conditions"] if each["type"] == "Tracked"]
    assert "AccessDenied: https://mlflow.example answered 401" in tracked["message"]
    (summary,) = [each for each in body["status"]["conditions"] if each["type"] == "Succeeded"]
    assert (summary["status"], summary["reason"]) == ("True", "Completed")
    for field in ("completionTime", "artifact", "attempts"):
        assert body["status"][field] == ended["status"][field]
    jobs = [job for name, job in (await jobs_of(kube, namespace)).items() if "-track-" in name]
    pods = await kube.items(PODS, namespace, {"labelSelector": "trimtab.dev/stage=track"})
    assert (len(jobs), len(pods)) == (1, 1), "what cannot work is not tried again"
    assert jobs[0]["status"]["conditions"][-1]["type"] == "Failed"


async def test_killed_after_each_write_behind_the_end_it_is_told_by_one_job(
    kube: Kube, kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    """Each FineTuneJob is another life: the operator dies after the first, the second ... write behind its end."""
    async with Proxy(kubeconfig) as proxy, playing(kube, namespace):
        operator = OperatorProcess(proxy.kubeconfig(tmp_path), namespace, tmp_path)
        killed = asyncio.Event()
        behind: list[Write] = []
        kill_after = 0

        async def after_write(number: int, write: Write) -> None:
            if "-track-" in write.name or (behind and write.resource == "finetunejobs/status"):
                behind.append(write)
                if len(behind) == kill_after:
                    killed.set()
                    await operator.kill()

        proxy.after_write = after_write
        try:
            await operator.start()
            for kill_after in range(AFTER + 1):
                behind.clear()
                killed.clear()
                name = f"life-{kill_after}"
                await kube.create(FINETUNEJOBS, namespace, finetunejob(name, namespace, tracking=TRACKING))
                if kill_after:
                    await killed.wait()
                    await operator.process.wait()
                    await operator.start()
                body = await until(kube, namespace, name, told, what="the tracker to be told")
                assert tracked_of(body) == ("True", "Tracked"), kill_after
                if not kill_after:
                    assert len(behind) == AFTER, list(map(str, behind))
        finally:
            await operator.kill()
    created = [write.name for write in proxy.writes if write.method == "POST" and write.resource == "jobs"]
    tellers = [name for name in created if "-track-" in name]
    assert len(tellers) == len(set(tellers)) == AFTER + 1
    assert len([name for name in await jobs_of(kube, namespace) if "-track-" in name]) == AFTER + 1
    assert len(await kube.items(JOBS, namespace, {})) == 3 * (AFTER + 1)

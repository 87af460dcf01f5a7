"""What the watches do not tell: dropped events, and deletions during a gap after which everything is listed anew."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import web
from trimtab_operator.runtime.kube import JOBS, Kube
from trimtab_trainer.contract import Stage

from tests.component.operator.conftest import Start, playing
from tests.component.operator.executor import Act
from tests.component.operator.finetunejobs import finetunejob, jobs_of, until, until_state
from tests.perturb.proxy import Body, Proxy
from tests.resources import FINETUNEJOBS


async def test_a_job_deleted_in_a_gap_is_found_missing(
    kube: Kube, kubeconfig: Path, namespace: str, start: Start, tmp_path: Path
) -> None:
    """No watch reports it: the audit after the re-list does, and the next attempt starts."""

    def script(stage: Stage, attempt: int) -> Act | None:
        return None if (stage, attempt) == (Stage.TRAIN, 1) else Act()

    async with Proxy(kubeconfig) as proxy, playing(kube, namespace, script):
        operator = await start(kubeconfig=proxy.kubeconfig(tmp_path), TRIMTAB_AUDIT_SECONDS="600")
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        await until_state(kube, namespace, "demo", "Training")
        await asyncio.sleep(1)
        proxy.cut |= {"jobs", "pods"}
        proxy.break_watches()
        job = await kube.get(JOBS, namespace, "demo-train-1")
        await kube.delete(JOBS, namespace, "demo-train-1", job["metadata"]["uid"])
        while "demo-train-1" in await jobs_of(kube, namespace):
            await asyncio.sleep(0.05)
        proxy.gone |= {"jobs", "pods"}
        proxy.cut.clear()
        body = await until_state(kube, namespace, "demo", "Completed")
        metrics = await operator.metrics()
    assert metrics['trimtab_cache_ghosts_removed_total{resource="jobs"}'] == 1
    assert body["status"]["disruptions"] == 1
    assert body["status"].get("failures", 0) == 0
    assert set(await jobs_of(kube, namespace)) == {"demo-prepare-0", "demo-train-2"}


async def test_nothing_depends_on_a_watch_event(
    kube: Kube, kubeconfig: Path, namespace: str, start: Start, tmp_path: Path
) -> None:
    """Every event of Jobs and pods is lost, and all but the first of FineTuneJobs: slower, and the same end."""

    def lost(resource: str, event: Body) -> bool:
        return event["type"] in ("ADDED", "MODIFIED", "DELETED") and resource in ("jobs", "pods")

    async with Proxy(kubeconfig) as proxy, playing(kube, namespace):
        proxy.drop = lost
        await start(kubeconfig=proxy.kubeconfig(tmp_path), TRIMTAB_AUDIT_SECONDS="1")
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        await until_state(kube, namespace, "demo", "Completed")
    assert set(await jobs_of(kube, namespace)) == {"demo-prepare-0", "demo-train-1"}


async def test_it_was_deleted_and_made_again_in_a_gap(
    kube: Kube, kubeconfig: Path, namespace: str, start: Start, tmp_path: Path
) -> None:
    """The second FineTuneJob of the name is another one: it neither takes over the Jobs of the first nor ends them."""
    async with Proxy(kubeconfig) as proxy:
        await start(kubeconfig=proxy.kubeconfig(tmp_path))
        first = await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        await until(kube, namespace, "demo", lambda body: bool(body.get("status", {}).get("attempts")), what="attempt")
        proxy.cut |= {"jobs", "pods", "finetunejobs"}
        proxy.break_watches()
        await kube.delete(FINETUNEJOBS, namespace, "demo", first["metadata"]["uid"])
        second = await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        proxy.gone |= {"jobs", "pods", "finetunejobs"}
        proxy.cut.clear()
        async with playing(kube, namespace):
            await until_state(kube, namespace, "demo", "Completed")
        owners = {job["metadata"]["ownerReferences"][0]["uid"] for job in (await jobs_of(kube, namespace)).values()}
    assert owners == {second["metadata"]["uid"]}


async def test_a_server_that_refuses_now_and_then_is_asked_again(
    kube: Kube, kubeconfig: Path, namespace: str, start: Start, tmp_path: Path
) -> None:
    """429 with Retry-After, 500 and 503, for every third request that is no Lease's and no watch."""
    asked = 0

    def refuse(request: web.Request) -> web.Response | None:
        nonlocal asked
        if "leases" in request.path or request.query.get("watch") or "finetunejobs" not in request.path:
            return None
        asked += 1
        codes = {0: 429, 3: 500, 6: 503}
        code = codes.get(asked % 9)
        headers = {"Retry-After": "1"} if code == 429 else {}
        return web.json_response({"kind": "Status", "code": code}, status=code, headers=headers) if code else None

    async with Proxy(kubeconfig) as proxy, playing(kube, namespace):
        operator = await start(kubeconfig=proxy.kubeconfig(tmp_path))
        proxy.refuse = refuse
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        await until_state(kube, namespace, "demo", "Completed")
        assert operator.running
    assert set(await jobs_of(kube, namespace)) == {"demo-prepare-0", "demo-train-1"}

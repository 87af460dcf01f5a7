"""Many trials of many sweeps at once, against a real API server: what the operator adds to training, and its memory.

Pods end as soon as they are seen (see operator/executor.py), so the rate is that of the operator, of choosing points
and of the API server on one machine; real trials take hours.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from pathlib import Path

from trimtab_local import Cluster
from trimtab_operator.runtime.kube import Body

from tests.bench.control_plane import control_plane
from tests.bench.operator.bench_operator import WRITE_VERBS, Bench, say
from tests.bench.operator.executor import RawClient, executing
from tests.component.api_server import ApiServer
from tests.component.operator.finetunejobs import over, state_of
from tests.component.operator.process import FAST, OperatorProcess
from tests.component.operator.test_sweep import sweep
from tests.resources import FINETUNESWEEPS

PARALLEL = 10
SECONDS = 900
SETTINGS = {**dict.fromkeys(FAST, ""), "TRIMTAB_LEASE_SECONDS": "120"}
"""The defaults, but a busy machine does not take the Lease from the operator: nobody here would start it again."""


def figures(instance: int, sweeps: int, trials: int) -> dict[str, float]:
    """Return trials a second through to their end, writes a trial, and the operator's memory."""
    with control_plane(instance) as (cluster, server), tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measured(cluster, server, sweeps, trials, Path(folder)))


async def _measured(cluster: Cluster, server: ApiServer, sweeps: int, trials: int, folder: Path) -> dict[str, float]:
    namespace = server.create("/api/v1/namespaces", {"metadata": {"generateName": "sweeps-"}}).body["metadata"]["name"]
    cluster.signal("kube-controller-manager", "CONT")  # an earlier run may have been killed
    while not server.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/default").accepted:
        await asyncio.sleep(0.1)
    cluster.signal("kube-controller-manager", "STOP")  # the executor does its work, without its limit of requests
    client = await RawClient.of(cluster.kubeconfig)
    operator = OperatorProcess(cluster.kubeconfig, namespace, folder, **SETTINGS)
    try:
        async with executing(client, namespace) as executor:
            executor.validation_loss = lambda job: 1 + random.Random(job).random()
            bench = Bench(cluster, client, executor, operator, namespace)
            await operator.start()
            await operator.ready()
            return await _searched(bench, sweeps, trials)
    finally:
        await operator.kill()
        await client.close()
        cluster.signal("kube-controller-manager", "CONT")
        ApiServer(cluster.kubeconfig).delete(f"/api/v1/namespaces/{namespace}")


async def _searched(bench: Bench, sweeps: int, trials: int) -> dict[str, float]:
    began, idle = time.perf_counter(), bench.operator.rss_mib()
    for number in range(sweeps):
        body = sweep(bench.namespace, maxTrials=trials, parallelTrials=PARALLEL, algorithm={"seed": number})
        body["metadata"]["name"] = f"guide-{number}"
        await bench.client.send("POST", FINETUNESWEEPS.path(bench.namespace), body)
    found, most = await _ended(bench, began), bench.operator.rss_mib()
    took = time.perf_counter() - began
    wrong = [state_of(body) for body in found if over(body) and state_of(body) != "Completed"]
    done = sum(each["state"] == "Complete" for body in found for each in body["status"].get("trials", ()))
    left = sweeps * trials - done
    if wrong or bench.executor.errors or not done or (left and all(over(body) for body in found)):
        raise RuntimeError(f"{done} trials; not completed: {wrong[:5]} {bench.executor.errors[:3]}")
    writes, events = await bench.writes()
    own = await _writes_of_sweeps(bench)
    say(
        f"{sweeps} sweeps of {trials} trials, {PARALLEL} together: {took:.0f} s; writes a trial {writes / done:.2f}, "
        f"{own / done:.2f} of them by the sweep, beside {events / done:.2f} events; operator {idle:.0f} MiB before, "
        f"{most:.0f} after" + (f"; {left} trials were not over by then" if left else "")
    )
    return {
        "trials_per_second": round(done / took, 2),
        "writes_per_trial": round(writes / done, 2),
        "sweep_writes_per_trial": round(own / done, 2),
        "sweeps_rss_mib": round(most, 1),
        "trials_left": left,
    }


async def _ended(bench: Bench, began: float) -> list[Body]:
    """Return the sweeps as they are in the end, or when the time is over: a rate is one without the end too."""
    while True:
        found: list[Body] = (await bench.client.send("GET", FINETUNESWEEPS.path(bench.namespace)))["items"]
        if all(over(body) for body in found) or time.perf_counter() - began > SECONDS:
            return found
        if not bench.operator.running:
            raise RuntimeError(f"the operator ended: {bench.operator.tail(5)}")
        await asyncio.sleep(1)


async def _writes_of_sweeps(bench: Bench) -> float:
    """Return the writes of FineTuneSweeps, and the FineTuneJobs that were created: nobody else creates any here."""
    return sum(
        value
        for key, value in (await bench.operator.metrics()).items()
        if key.startswith("trimtab_api_requests_total")
        and any(verb in key for verb in WRITE_VERBS)
        and ('resource="finetunesweeps"' in key or ('resource="finetunejobs"' in key and 'verb="create"' in key))
    )

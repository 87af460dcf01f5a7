"""Measure the operator against a real API server: `make bench-operator`. The last line of output is JSON.

The operator runs as a process of its own with its default settings, on the machine that also runs etcd, the API server
and this program. Other programs on the machine make every figure worse.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from trimtab_local import Cluster
from trimtab_operator.runtime.kube import JOBS, Body

from tests.bench.control_plane import control_plane
from tests.bench.operator import finished
from tests.bench.operator.executor import Executor, RawClient, executing
from tests.component.api_server import ApiServer
from tests.component.operator.finetunejobs import finetunejob, over, state_of
from tests.component.operator.process import FAST, OperatorProcess
from tests.resources import FINETUNEJOBS

WRITE_VERBS = ('verb="create"', 'verb="patch"', 'verb="delete"')
CHILDREN = {"finetunejobs": 1, "jobs": 2, "pods": 2}
"""What there is of a finished FineTuneJob, by the operator's name of the resource."""


def say(text: str) -> None:
    print(text, flush=True)


class Bench:
    """One operator, one namespace, many FineTuneJobs."""

    def __init__(
        self, cluster: Cluster, client: RawClient, executor: Executor, operator: OperatorProcess, namespace: str
    ) -> None:
        self.cluster = cluster
        self.kubeconfig = cluster.kubeconfig
        self.client = client
        self.executor = executor
        self.operator = operator
        self.namespace = namespace
        self.figures: dict[str, float] = {}

    async def apply(self, name: str) -> float:
        """Create a FineTuneJob and return when that was asked for."""
        asked = time.perf_counter()
        await self.client.send("POST", FINETUNEJOBS.path(self.namespace), finetunejob(name, self.namespace))
        return asked

    async def seen(self, job: str, seconds: float = 60) -> float:
        """Return when a Job was seen."""
        deadline = time.perf_counter() + seconds
        while job not in self.executor.created:
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{job}: {self.operator.tail(5)}; {self.executor.errors[:3]}")
            await asyncio.sleep(0.001)
        return self.executor.created[job]

    async def over(self, count: int, seconds: float) -> None:
        """Wait until so many FineTuneJobs are over, and check that all of them completed."""
        deadline = time.perf_counter() + seconds
        last, pause = 0.0, 0.25
        done: list[Body] = []
        while len(done) < count:
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{len(done)} of {count}: {self.operator.tail(5)}; {self.executor.errors[:3]}")
            await asyncio.sleep(pause)
            if (completed := await self.completed()) < count:
                pause = 2.0 if count - completed > 50 else 0.25  # asking costs the operator processor time, too
                if time.perf_counter() - last > 5:
                    last = time.perf_counter()
                    say(f"  {completed:.0f} of {count} completed")
                continue
            items = (await self.client.send("GET", FINETUNEJOBS.path(self.namespace)))["items"]
            done = [body for body in items if over(body)]
        wrong = [state_of(body) for body in done if state_of(body) != "Completed"]
        if wrong or self.executor.errors:
            raise RuntimeError(f"not completed: {wrong[:5]} {self.executor.errors[:3]}")

    async def completed(self) -> float:
        return (await self.operator.metrics()).get('trimtab_finetunejobs{state="Completed"}', 0)

    async def knows(self, count: int, seconds: float = 300) -> None:
        """Wait until the operator has so many finished FineTuneJobs in its cache, and nothing left to look at."""
        deadline = time.perf_counter() + seconds
        while True:
            found = await self.operator.metrics()
            there = {name: found.get(f'trimtab_cache_objects{{resource="{name}"}}', 0) for name in CHILDREN}
            behind = any(there[name] < count * each for name, each in CHILDREN.items())
            if not behind and found["trimtab_workqueue_depth"] == 0:
                return
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{there}; {self.operator.tail(5)}")
            await asyncio.sleep(0.5)

    async def settled(self) -> float:
        """Return the most memory in MiB until the operator rests: its watches begin with lists of their own."""
        most, busy = 0.0, self.operator.processor_seconds()
        while True:
            for _ in range(10):
                most = max(most, self.operator.rss_mib())
                await asyncio.sleep(0.5)
            before, busy = busy, self.operator.processor_seconds()
            if busy - before < 1:
                return most

    async def writes(self) -> tuple[float, float]:
        """Return the operator's writes so far, without Lease and events, and of events."""
        found = {
            key: value
            for key, value in (await self.operator.metrics()).items()
            if key.startswith("trimtab_api_requests_total")
            and any(verb in key for verb in WRITE_VERBS)
            and 'resource="leases"' not in key
        }
        events = sum(value for key, value in found.items() if 'resource="events"' in key)
        return sum(found.values()) - events, events

    async def latency(self, prefix: str, count: int) -> list[float]:
        """Return milliseconds from applying a FineTuneJob to its Job, one after the other."""
        taken = []
        for number in range(count):
            name = f"{prefix}-{number}"
            asked = await self.apply(name)
            taken.append(1000 * (await self.seen(f"{name}-prepare-0") - asked))
            await asyncio.sleep(0.05)
        return taken

    async def bare_latency(self, count: int) -> list[float]:
        """Return the same of a bare batch/v1 Job: from asking for it to seeing it."""
        taken = []
        container = {"name": "c", "image": "i"}
        for number in range(count):
            name = f"bare-{number}"
            body = {
                "metadata": {"name": name},
                "spec": {"suspend": True, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
            }
            asked = time.perf_counter()
            await self.client.send("POST", JOBS.path(self.namespace), body)
            taken.append(1000 * (await self.seen(name) - asked))
            await asyncio.sleep(0.05)
        return taken

    def processor_seconds(self) -> tuple[float, float, float]:
        """Return the processor time so far of the operator, of the API server and of everything that works for it.

        That is the operator, the cluster's own processes (API server and etcd) and this program, which finishes the
        Jobs: what else runs on the machine is left out.
        """
        text = ApiServer(self.kubeconfig).get("/metrics").message
        (api_server,) = (line.split()[1] for line in text.splitlines() if line.startswith("process_cpu_seconds_total "))
        operator, me = self.operator.processor_seconds(), sum(os.times()[:2])
        return operator, float(api_server), operator + me + self.cluster_seconds()

    def cluster_seconds(self) -> float:
        """Return the processor time so far of the processes in the cluster's namespace."""
        namespace, ticks = Path(f"/proc/{self.cluster.pid()}/ns/pid").readlink(), 0
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended meanwhile
                if (process / "ns/pid").readlink() == namespace:
                    fields = (process / "stat").read_text().rpartition(")")[2].split()
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    async def burst(self, prefix: str, count: int) -> float:
        """Return jobs a second, from the first of many applied at once to the last one completed."""
        before, played = int(await self.completed()), self.executor.finished
        began = time.perf_counter()
        slots = asyncio.Semaphore(32)

        async def one(number: int) -> None:
            async with slots:
                await self.apply(f"{prefix}-{number}")

        await asyncio.gather(*(one(number) for number in range(count)))
        applied = time.perf_counter() - began
        # Its metrics cost the operator 2 ms each time, which are no job's: they are not asked for before the last Job.
        while self.executor.finished < played + CHILDREN["jobs"] * count and not self.executor.errors:
            if time.perf_counter() - began > 600:
                raise TimeoutError(f"{self.executor.finished - played} Jobs of {count}: {self.operator.tail(5)}")
            await asyncio.sleep(0.05)
        await self.over(before + count, 600)
        took = time.perf_counter() - began
        say(f"  {count} applied in {applied:.1f} s, completed in {took:.1f} s")
        return count / took


def quantiles(taken: list[float]) -> tuple[float, float]:
    return statistics.median(taken), sorted(taken)[min(len(taken) - 1, int(len(taken) * 0.99))]


async def measure(cluster: Cluster, server: ApiServer, arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    namespace = server.create("/api/v1/namespaces", {"metadata": {"generateName": "bench-"}}).body["metadata"]["name"]
    cluster.signal("kube-controller-manager", "CONT")  # an earlier run may have been killed
    account = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
    while not server.get(account).accepted:
        await asyncio.sleep(0.1)
    cluster.signal("kube-controller-manager", "STOP")  # the executor does its work, without its limit of requests
    client = await RawClient.of(cluster.kubeconfig)
    operator = OperatorProcess(cluster.kubeconfig, namespace, folder, **dict.fromkeys(FAST, ""))  # the defaults
    try:
        async with executing(client, namespace) as executor:
            bench = Bench(cluster, client, executor, operator, namespace)
            await run(bench, arguments.jobs, arguments.idle)
            if arguments.finished:
                await behind(bench, arguments.finished)
            return bench.figures
    finally:
        await operator.kill()
        await client.close()
        cluster.signal("kube-controller-manager", "CONT")
        ApiServer(cluster.kubeconfig).delete(f"/api/v1/namespaces/{namespace}")  # the first connection has timed out


async def run(bench: Bench, jobs: int, idle: float) -> None:
    figures = bench.figures
    operator = bench.operator

    bare, bare_p99 = quantiles(await bench.bare_latency(100))
    figures["created_p50_ms_bare_job"] = round(bare, 1)
    say(f"a bare Job, applied to there: p50 {bare:.1f} ms, p99 {bare_p99:.1f} ms")

    await operator.start()
    await operator.ready()
    await bench.apply("bygone")
    await bench.over(1, 30)
    bench.executor.hold_seconds = 2  # pods that are seen running, as real ones are
    before = await bench.writes()
    p50, p99 = quantiles(await bench.latency("alone", 100))
    say(f"FineTuneJob applied to Job created, 1 other: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    await bench.over(101, 60)
    after = await bench.writes()
    figures["writes_per_job"] = round((after[0] - before[0]) / 100, 2)
    figures["event_writes_per_job"] = round((after[1] - before[1]) / 100, 2)
    say(f"writes per job: {figures['writes_per_job']}, beside {figures['event_writes_per_job']} events")
    bench.executor.hold_seconds = 0
    figures |= {"created_p50_ms_1_other": round(p50, 1), "created_p99_ms_1_other": round(p99, 1)}

    before_burst = bench.processor_seconds()
    rate = await bench.burst("burst", jobs // 2)
    spent = [
        1000 * (now - then) / (jobs // 2) for now, then in zip(bench.processor_seconds(), before_burst, strict=True)
    ]
    figures["jobs_per_second"] = round(rate, 1)
    say(f"{jobs // 2} at once: {rate:.1f} jobs/s through to Completed")
    figures["processor_ms_per_job"], server, machine = (round(each, 1) for each in spent)
    figures["operator_share"] = round(spent[0] / spent[2], 3)
    figures["jobs_per_second_of_processors"] = round(1000 * (os.cpu_count() or 1) / machine, 1)
    say(
        f"processor time per job: operator {figures['processor_ms_per_job']} ms, API server {server} ms, all that "
        f"works for it {machine} ms, of which {os.cpu_count()} processors have "
        f"{figures['jobs_per_second_of_processors']} jobs/s"
    )

    await bench.burst("more", jobs - jobs // 2)
    p50, p99 = quantiles(await bench.latency("many", 100))
    say(f"FineTuneJob applied to Job created, {jobs} others: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    figures |= {"created_p50_ms": round(p50, 1), "created_p99_ms": round(p99, 1)}
    await bench.over(201 + jobs, 60)

    await asyncio.sleep(3)
    before = await bench.writes()
    say(f"idle for {idle:.0f} s")
    await asyncio.sleep(idle)
    after = await bench.writes()
    figures["idle_writes"] = sum(after) - sum(before)
    assert operator.running, operator.tail(5)
    figures["rss_mib"] = round(operator.rss_mib(), 1)
    say(
        f"writes while idle, Lease aside: {figures['idle_writes']:.0f}; memory with {jobs} finished jobs: "
        f"{figures['rss_mib']} MiB"
    )

    await operator.kill()
    await bench.apply("after-restart")
    began = time.perf_counter()
    await operator.start()
    figures["restart_seconds"] = round(await bench.seen("after-restart-prepare-0") - began, 2)
    await operator.ready()
    say(f"restart to first action with {jobs} jobs: {figures['restart_seconds']} s")
    figures["rss_after_restart_mib"] = round(operator.rss_mib(), 1)


async def behind(bench: Bench, count: int) -> None:
    """Measure beside so many finished FineTuneJobs more, which were written while no operator ran."""
    figures, operator = bench.figures, bench.operator
    await operator.kill()
    before, began = len(bench.executor.created), time.perf_counter()
    await finished.write(bench.cluster, bench.client, bench.namespace, "bygone", count)
    deadline = time.perf_counter() + 900
    while len(bench.executor.created) < before + 2 * count:
        if time.perf_counter() > deadline:
            raise TimeoutError(f"the API server tells of {len(bench.executor.created) - before} new Jobs only")
        await asyncio.sleep(0.5)
    say(f"{count} finished FineTuneJobs written in {time.perf_counter() - began:.0f} s")

    await bench.apply("last")
    began = time.perf_counter()
    await operator.start()
    figures[f"restart_{count}_seconds"] = round(await bench.seen("last-prepare-0", 300) - began, 2)
    spent = operator.processor_seconds()
    say(
        f"restart to first action with {count} finished: {figures[f'restart_{count}_seconds']} s, which took the "
        f"operator {spent:.1f} s of a processor"
    )
    await operator.ready()
    await bench.knows(count)
    figures[f"rss_{count}_mib"] = round(await bench.settled(), 1)
    say(f"memory with {count} finished: {figures[f'rss_{count}_mib']} MiB")
    p50, p99 = quantiles(await bench.latency("behind", 100))
    say(f"FineTuneJob applied to Job created, {count} finished: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    figures |= {f"new_behind_{count}_ms": round(p50, 1), f"new_behind_{count}_p99_ms": round(p99, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000, help="finished jobs beside the measured ones")
    parser.add_argument(
        "--finished", type=int, default=10_000, help="FineTuneJobs that ended long ago; 0: leave it out"
    )
    parser.add_argument("--idle", type=float, default=60, help="seconds to watch for writes when nothing happens")
    parser.add_argument("--instance", type=int, default=int(os.environ.get("TRIMTAB_BENCH_INSTANCE", "9")))
    arguments = parser.parse_args()
    with control_plane(arguments.instance) as (cluster, server), tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(measure(cluster, server, arguments, Path(folder)))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

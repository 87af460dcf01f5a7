"""Measure AdapterRollouts against fleets of serving pods: `make bench-rollout`. The last line of output is JSON.

Operator and fleet are processes of their own, on the machine that also runs etcd, the API server and this program. A
pod is a fake engine behind the real guard, and the real agent with its default settings; object storage is a folder in
memory. Other programs on the machine make every figure worse.

`seconds_<n>`: from the verdict of an Evaluation to the moment when the last of n pods has the adapter loaded and probed
under its versioned name, canary pod first; the median of some runs. `alias_move_ms`: from a change of the source back
to the former adapter to the last pod's table, for the largest fleet. Both while clients ask: `failed_requests`,
`wrong_answers`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from trimtab_operator.runtime.kube import MERGE_PATCH, Kube

from tests.bench.control_plane import control_plane
from tests.component.api_server import ApiServer
from tests.component.operator.conftest import kube_of
from tests.component.operator.process import FAST, OperatorProcess
from tests.component.rollout.objects import artifact, evaluation, rollout, serves, verdict
from tests.component.rollout.scene import new_key
from tests.resources import ADAPTERROLLOUTS, EVALUATIONS
from tests.serving.fleet import AGENT_PORT
from tests.serving.fleet_process import FleetProcess

SIZES = (3, 20, 100)
NAME = "guide"
CLIENTS = 4
NAMESPACES, GROUPS, PODS_OF_A_GROUP = 10, 5, 4
"""Of the state at rest: 200 pods, and as many rollouts for each group of four as it takes."""
ADAPTERS_AT_REST = 20
CREATED_AT_ONCE = 16
WRITE_VERBS = ('verb="create"', 'verb="patch"', 'verb="apply"', 'verb="delete"')


def say(text: str) -> None:
    print(text, flush=True)


@dataclass(frozen=True)
class Adapter:
    """An adapter that the fleet has published."""

    number: int
    uri: str
    digest: str

    @property
    def revision(self) -> str:
        return f"{NAME}@{self.digest[7:15]}"


@dataclass
class Bench:
    """What all measurements share."""

    kube: Kube
    kubeconfig: Path
    fleet: FleetProcess
    operator: OperatorProcess
    figures: dict[str, float] = field(default_factory=dict)
    namespaces: list[str] = field(default_factory=list)

    def namespace(self) -> str:
        server = ApiServer(self.kubeconfig)  # a connection that is kept between measurements times out
        made = server.create("/api/v1/namespaces", {"metadata": {"generateName": "bench-"}})
        name: str = made.body["metadata"]["name"]
        self.namespaces.append(name)
        return name

    def delete(self, namespace: str) -> None:
        ApiServer(self.kubeconfig).delete(f"/api/v1/namespaces/{namespace}")
        self.namespaces.remove(namespace)

    async def publish(self) -> Adapter:
        return Adapter(**await self.fleet.do("publish"))

    async def until(self, namespace: str, name: str, digest: str, seconds: float = 120) -> None:
        """Wait until an AdapterRollout says that every pod answers with an adapter."""
        deadline = time.monotonic() + seconds
        while True:
            body = await self.kube.get(ADAPTERROLLOUTS, namespace, name)
            if serves(body, digest):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name}: {body.get('status')}; {self.operator.tail(5)}")
            await asyncio.sleep(0.05)

    async def processor(self) -> tuple[float, float]:
        """Return processor seconds so far of operator and fleet."""
        return self.operator.processor_seconds(), (await self.fleet.do("usage"))["processor"]

    async def writes(self) -> Counter[str]:
        """Return the operator's writes so far by what they were, those of its Lease left out."""
        prefix = "trimtab_api_requests_total"
        found = await self.operator.metrics()
        return Counter(
            {
                key.removeprefix(prefix): value
                for key, value in found.items()
                if key.startswith(prefix)
                and any(verb in key for verb in WRITE_VERBS)
                and 'resource="leases"' not in key
            }
        )

    async def states(self) -> dict[str, float]:
        found = await self.operator.metrics()
        prefix = 'trimtab_adapterrollouts{state="'
        return {key[len(prefix) : -2]: value for key, value in found.items() if key.startswith(prefix) and value}


class Rollout:
    """One AdapterRollout over one fleet, with clients that ask all the while."""

    def __init__(self, bench: Bench, namespace: str, pods: list[str], runs: int) -> None:
        self._bench = bench
        self._namespace = namespace
        self._pods = pods
        self._runs = runs
        self._adapters: list[Adapter] = []

    async def passed(self, adapter: Adapter) -> float:
        """Let the source be an Evaluation that has no verdict, then give it one; return when that was asked for."""
        bench, namespace, name = self._bench, self._namespace, f"v{adapter.number}"
        await bench.kube.create(EVALUATIONS, namespace, evaluation(namespace, name, adapter, None, {}))
        await self.want({"evaluationName": name})
        await asyncio.sleep(0.5)
        status = verdict(adapter, None, datetime.now(UTC))
        asked = time.monotonic()
        await bench.kube.patch(EVALUATIONS, namespace, name, MERGE_PATCH, {"status": status}, subresource="status")
        return asked

    async def want(self, source: dict[str, object]) -> float:
        """Change the source; return when that was asked for."""
        asked = time.monotonic()
        spec = {"source": {"evaluationName": None, "artifact": None, **source}}
        await self._bench.kube.patch(ADAPTERROLLOUTS, self._namespace, NAME, MERGE_PATCH, {"spec": spec})
        return asked

    async def proven(self, adapter: Adapter, asked: float, *without: str) -> tuple[float, list[float]]:
        """Return seconds until the last pod had proven an adapter, and the seconds of each pod's fetch."""
        arguments = {"namespace": self._namespace, "revision": adapter.revision, "without": without, "seconds": 120}
        told = await self._bench.fleet.do("proven", **arguments)
        return told["at"] - asked, told["fetch"]

    async def moved(self, adapter: Adapter, asked: float) -> float:
        """Return milliseconds until the last alias had come to an adapter."""
        arguments = {"namespace": self._namespace, "alias": NAME, "revision": adapter.revision, "without": []}
        told = await self._bench.fleet.do("moved", **arguments, seconds=120)
        return 1000 * float(told["last"] - asked)

    async def run(self) -> None:
        """Serve a first adapter, then measure some more, each followed by a step back and forth again."""
        bench, namespace, size = self._bench, self._namespace, len(self._pods)
        old = await bench.publish()
        body = rollout(namespace, NAME, artifact(old), port=AGENT_PORT)
        await bench.kube.create(ADAPTERROLLOUTS, namespace, body)
        await bench.until(namespace, NAME, old.digest)
        self._adapters = [old, *[await bench.publish() for _ in range(self._runs + 1)]]
        numbers = [adapter.number for adapter in self._adapters]
        clients = await bench.fleet.do("ask", namespace=namespace, alias=NAME, adapters=numbers, number=CLIENTS)
        seconds, fetches, moves = list[float](), list[float](), list[float]()
        before = await bench.processor()
        for old, adapter in zip(self._adapters, self._adapters[1:-1], strict=False):
            took, fetch = await self.proven(adapter, await self.passed(adapter))
            seconds.append(took)
            fetches += fetch
            await bench.until(namespace, NAME, adapter.digest)
            for back in (old, adapter):
                moves.append(await self.moved(back, await self.want(artifact(back))))
                await bench.until(namespace, NAME, back.digest)
        after = await bench.processor()
        bench.figures[f"seconds_{size}"] = round(statistics.median(seconds), 2)
        bench.figures["alias_move_ms"] = round(statistics.median(moves), 0)
        operator, fleet = ((b - a) / self._runs for a, b in zip(before, after, strict=True))
        say(
            f"{size} pods: verdict to proven everywhere p50 {statistics.median(seconds):.2f} s (each "
            f"{[round(each, 2) for each in seconds]}), of which fetching p50 "
            f"{1000 * statistics.median(fetches):.0f} ms, longest {1000 * max(fetches):.0f} ms; back and forth again "
            f"p50 {statistics.median(moves):.0f} ms; processor a run: operator {operator:.2f} s, fleet {fleet:.2f} s"
        )
        if size == SIZES[1]:
            await self._beside_a_hanging_pod(self._adapters[-1])
        await self._judge(await bench.fleet.do("verdicts", **clients))

    async def _beside_a_hanging_pod(self, adapter: Adapter) -> None:
        """Measure the pods beside one whose agent does not answer, and one whose engine does not load."""
        silent, hangs = self._pods[-2:]
        fault = self._bench.fleet.do
        await fault("fault", namespace=self._namespace, pod=silent, agent_hangs=30, load_hangs=0)
        await fault("fault", namespace=self._namespace, pod=hangs, agent_hangs=0, load_hangs=30)
        took, _ = await self.proven(adapter, await self.passed(adapter), silent, hangs)
        for pod in (silent, hangs):
            await fault("fault", namespace=self._namespace, pod=pod, agent_hangs=0, load_hangs=0)
        name = f"seconds_{len(self._pods)}_beside_two_that_hang"
        self._bench.figures[name] = round(took, 2)
        say(f"{len(self._pods) - 2} pods beside a silent agent and an engine that hangs: proven in {took:.2f} s")
        await self._bench.until(self._namespace, NAME, adapter.digest)

    async def _judge(self, verdicts: dict[str, object]) -> None:
        figures = self._bench.figures
        for figure, name in (("failed_requests", "failed"), ("wrong_answers", "wrong")):
            figures[figure] = figures.get(figure, 0) + int(str(verdicts[name]))
        say(f"  {verdicts['requests']} requests, {verdicts['failed']} failed, {verdicts['wrong']} answered wrongly")
        if verdicts["examples"]:
            say(f"  {verdicts['examples']}")


async def at_rest(bench: Bench, rollouts: int, idle: float) -> None:
    """Have many AdapterRollouts served by 200 pods, and measure what goes on when nothing happens."""
    adapters = [await bench.publish() for _ in range(ADAPTERS_AT_REST)]
    namespaces = [bench.namespace() for _ in range(NAMESPACES)]
    for namespace in namespaces:
        for group in range(GROUPS):
            labels = {"group": f"g{group}"}
            await bench.fleet.do("start", namespace=namespace, count=PODS_OF_A_GROUP, labels=labels)
    pods = (await bench.fleet.do("usage"))["pods"]
    slots = asyncio.Semaphore(CREATED_AT_ONCE)

    async def create(number: int) -> None:
        namespace, group = namespaces[number % NAMESPACES], number // NAMESPACES % GROUPS
        source = artifact(adapters[number // (NAMESPACES * GROUPS) % ADAPTERS_AT_REST])
        serving = {"selector": {"matchLabels": {"group": f"g{group}"}}, "port": AGENT_PORT}
        body = rollout(namespace, f"r{number}", source, port=AGENT_PORT, serving=serving)
        async with slots:
            await bench.kube.create(ADAPTERROLLOUTS, namespace, body)

    began, before = time.monotonic(), await bench.processor()
    await asyncio.gather(*(create(number) for number in range(rollouts)))
    while (states := await bench.states()).get("Serving", 0) < rollouts:
        if time.monotonic() - began > 600:
            raise TimeoutError(f"{states}; {bench.operator.tail(5)}")
        await asyncio.sleep(0.5)
    after = await bench.processor()
    say(
        f"{rollouts} AdapterRollouts over {pods} pods, created to Serving: {time.monotonic() - began:.1f} s; "
        f"processor: operator {after[0] - before[0]:.1f} s, fleet {after[1] - before[1]:.1f} s"
    )
    await asyncio.sleep(30)  # what is still to be written, and the questions that were open
    writes, usage, before = await bench.writes(), await bench.fleet.do("usage"), await bench.processor()
    say(f"at rest for {idle:.0f} s")
    await asyncio.sleep(idle)
    figures, now, after = bench.figures, await bench.fleet.do("usage"), await bench.processor()
    written = await bench.writes() - writes
    figures["idle_writes"] = written.total()
    figures["requests_per_pod_10s"] = round((now["calls"] - usage["calls"]) / pods / idle * 10, 2)
    figures["rss_mib"] = round(bench.operator.rss_mib(), 1)
    operator, fleet = (100 * (b - a) / idle for a, b in zip(before, after, strict=True))
    say(
        f"writes, Lease aside: {figures['idle_writes']:.0f} {dict(+written) or ''}; requests a pod in 10 s: "
        f"{figures['requests_per_pod_10s']}; memory of the operator: {figures['rss_mib']} MiB; processor: operator "
        f"{operator:.1f} %, fleet {fleet:.1f} %"
    )


async def measure(kubeconfig: Path, arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    kube = await kube_of(kubeconfig)
    new_key(folder / "keys")
    (folder / "fleet").mkdir()
    async with FleetProcess(kubeconfig, folder / "fleet") as fleet:
        defaults = dict.fromkeys((*FAST, "TRIMTAB_WATCH_NAMESPACES"), "")
        keys = {"TRIMTAB_AGENT_KEYS": str(folder / "keys")}
        operator = OperatorProcess(kubeconfig, "", folder, **defaults, **keys)
        bench = Bench(kube, kubeconfig, fleet, operator)
        operator.settings["TRIMTAB_NAMESPACE"] = bench.namespace()
        try:
            await operator.start()
            await operator.ready()
            for size in SIZES:
                namespace = bench.namespace()
                started = await fleet.do("start", namespace=namespace, count=size, labels={})
                await Rollout(bench, namespace, started["pods"], arguments.runs).run()
                await fleet.do("delete", namespace=namespace)
                bench.delete(namespace)
            await at_rest(bench, arguments.rollouts, arguments.idle)
        finally:
            await operator.kill()
            for namespace in list(bench.namespaces):
                bench.delete(namespace)
            await kube.close()
    return bench.figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="adapters to bring to each fleet")
    parser.add_argument(
        "--rollouts", type=int, default=1000, help="AdapterRollouts over 200 pods, for the state at rest"
    )
    parser.add_argument("--idle", type=float, default=60, help="seconds to watch the state at rest")
    parser.add_argument("--instance", type=int, default=int(os.environ.get("TRIMTAB_BENCH_INSTANCE", "9")))
    arguments = parser.parse_args()
    memory = Path("/dev/shm")
    with (
        control_plane(arguments.instance) as (cluster, _),
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder,
    ):
        figures = asyncio.run(measure(cluster.kubeconfig, arguments, Path(folder)))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

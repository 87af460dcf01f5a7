"""A fleet in a process of its own, so that its processor time is told apart from the operator's.

    python -m tests.serving.fleet_process <kubeconfig> <folder>

It takes one command a line on its standard input, `{"do": NAME, ...}`, and answers each with one line of JSON, in
order. Times are of the monotonic clock, which is one for all processes of a machine. `FleetProcess` is the other end.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from trimtab_agent.engine.vllm import Timeouts
from trimtab_agent.rounds.agent import Pace

from tests.component.operator.conftest import kube_of
from tests.serving.adapters import Published
from tests.serving.clients import Verdicts, asking
from tests.serving.fleet import Fleet, Pod, serving

OPTIONS: dict[str, Any] = {
    "http": False,
    "pace": Pace(),
    "timeouts": Timeouts(),
    "mount_seconds": 60.0,
    "probe_seconds": 1.0,
    "max_loras": 8,
    "max_cpu_loras": 64,
}
"""Agents as they run by default; the kubelet brings ConfigMaps and probes as often as a real one."""
FETCH_THREADS = 64
Document = dict[str, Any]


class Commands:
    """What can be asked of the fleet: one method a command."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._adapters: list[Published] = []
        self._numbers = itertools.count()
        self._asking: dict[int, tuple[AsyncExitStack, Verdicts]] = {}

    def _pods(self, namespace: str, without: list[str]) -> list[Pod]:
        return [pod for pod in self._fleet.of(namespace) if pod.name not in without]

    async def start(self, namespace: str, count: int, labels: dict[str, str]) -> Document:
        """Start pods and wait until they are ready."""
        pods = await self._fleet.scale_up(namespace, count, labels)
        return {"pods": [pod.name for pod in pods]}

    async def publish(self) -> Document:
        adapter = self._fleet.publish()
        self._adapters.append(adapter)
        return {"number": len(self._adapters) - 1, "uri": adapter.uri, "digest": adapter.digest}

    async def proven(self, namespace: str, revision: str, without: list[str], seconds: float) -> Document:
        """Return when the last pod had a revision loaded and probed, and how long each fetch took."""

        async def one(pod: Pod) -> tuple[float, float]:
            while not pod.proves(revision):
                await pod.agent.wait_for_change(pod.agent.version, 1)
            found = pod.revision(revision)
            return time.monotonic(), found["seconds"].get("fetch", 0.0) if found is not None else 0.0

        async with asyncio.timeout(seconds):
            told = await asyncio.gather(*(one(pod) for pod in self._pods(namespace, without)))
        return {"at": max(at for at, _ in told), "fetch": [round(fetch, 4) for _, fetch in told]}

    async def moved(self, namespace: str, alias: str, revision: str, without: list[str], seconds: float) -> Document:
        """Return when the first and the last alias had come to a revision alone, each where it is now."""
        pods = self._pods(namespace, without)
        async with asyncio.timeout(seconds):
            while not all(pod.alias(alias) == {revision: 100} for pod in pods):
                await asyncio.sleep(0.002)
        came = [next(at for at, table in reversed(pod.tables) if _comes(pod, at, alias, revision)) for pod in pods]
        return {"first": min(came), "last": max(came)}

    async def ask(self, namespace: str, alias: str, adapters: list[int], number: int) -> Document:
        """Let clients ask until `verdicts` is asked for."""
        chosen = [self._adapters[each] for each in adapters]
        stack = AsyncExitStack()
        clients = asking(lambda: self._fleet.of(namespace), alias, *chosen, number=number)
        verdicts = await stack.enter_async_context(clients)
        handle = next(self._numbers)
        self._asking[handle] = (stack, verdicts)
        return {"clients": handle}

    async def verdicts(self, clients: int) -> Document:
        stack, verdicts = self._asking.pop(clients)
        await stack.aclose()
        return {
            "requests": verdicts.requests,
            "failed": verdicts.failed,
            "wrong": verdicts.wrong,
            "examples": verdicts.examples,
        }

    async def fault(self, namespace: str, pod: str, agent_hangs: float, load_hangs: float) -> Document:
        (found,) = (each for each in self._fleet.of(namespace) if each.name == pod)
        found.faults.hangs_seconds = agent_hangs
        found.engine.faults.load_hangs_seconds = load_hangs
        return {}

    async def usage(self) -> Document:
        """Return processor seconds so far, calls that agents were asked so far, and memory."""
        calls = sum(len(pod.calls) for pod in self._fleet.pods)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"processor": time.process_time(), "calls": calls, "pods": len(self._fleet.pods), "peak_mib": peak}

    async def delete(self, namespace: str) -> Document:
        for pod in self._fleet.of(namespace):
            await pod.delete()
        return {}


def _comes(pod: Pod, at: float, alias: str, revision: str) -> bool:
    """Tell whether an alias came to a revision with the table of a moment."""
    before = [table for earlier, table in pod.tables if earlier < at][-1:]
    former = before[0].aliases[alias].targets if before and alias in before[0].aliases else set()
    return former != {revision} and pod.may_answer(alias, at, at) == {revision}


async def serve(kubeconfig: Path, folder: Path) -> None:
    """Carry out commands until there are no more."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(FETCH_THREADS))  # each agent has its own, in a pod
    reader = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    kube = await kube_of(kubeconfig)
    try:
        async with serving(kube, folder, **OPTIONS) as fleet:
            commands = Commands(fleet)
            while line := await reader.readline():
                asked = json.loads(line)
                do: Callable[..., Awaitable[Document]] = getattr(commands, asked.pop("do"))
                try:
                    answer = await do(**asked)
                except Exception as error:  # for the one who asked
                    answer = {"error": f"{type(error).__name__}: {error}"}
                print(json.dumps(answer), flush=True)
    finally:
        await kube.close()


class FleetProcess:
    """The process, as a benchmark uses it."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self._arguments = (str(kubeconfig), str(folder))
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> FleetProcess:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.serving.fleet_process",
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**24,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def do(self, command: str, **arguments: Any) -> Document:
        """Have one command carried out.

        Raises:
            RuntimeError: it failed, or the process has ended.
        """
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise RuntimeError("the fleet does not run")
        async with self._lock:
            process.stdin.write(json.dumps({"do": command, **arguments}).encode() + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
        answer: Document = json.loads(line) if line else {"error": "the fleet has ended"}
        if "error" in answer:
            raise RuntimeError(f"{command} {arguments}: {answer['error']}")
        return answer


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2])))

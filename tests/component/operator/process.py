"""The operator as a process of its own, the way a pod runs it, against any API server that a kubeconfig names."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from tests.component.patience import QUIET_SECONDS, Patience
from tests.ports import free_port

FAST = {
    "TRIMTAB_RETRY_SECONDS": "0.2",
    "TRIMTAB_NAME_TAKEN_SECONDS": "3",
    "TRIMTAB_PROGRESS_SECONDS": "1",
    "TRIMTAB_AUDIT_SECONDS": "3",
}
"""Settings with which minutes pass in seconds."""


class OperatorProcess:
    """One replica. Its output goes to a file, its Lease is in the namespace it watches."""

    def __init__(
        self,
        kubeconfig: Path,
        namespace: str,
        folder: Path,
        name: str = "one",
        program: Sequence[str] = ("trimtab_operator",),
        **settings: str,
    ) -> None:
        """Make one that is not started; `program` is the module that runs, with its arguments."""
        self.name = name
        self.program = program
        self.log_file = folder / f"operator-{name}.log"
        self.health_port, self.metrics_port = free_port(), free_port()
        self.settings = {
            **FAST,
            "KUBECONFIG": str(kubeconfig),
            "TRIMTAB_PREPARE_IMAGE": "trimtab/prepare:test",
            "TRIMTAB_TRAINER_IMAGE": "trimtab/trainer:test",
            "TRIMTAB_NAMESPACE": namespace,
            "TRIMTAB_WATCH_NAMESPACES": namespace,
            "TRIMTAB_IDENTITY": name,
            "TRIMTAB_HEALTH_PORT": str(self.health_port),
            "TRIMTAB_METRICS_PORT": str(self.metrics_port),
            **settings,
        }
        self._process: asyncio.subprocess.Process | None = None

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "not started"
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("TRIMTAB_", "KUBE"))}
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *self.program, env={**kept, **self.settings}, stdout=log, stderr=log
            )

    async def ready(self) -> None:
        """Wait until it is ready: as a follower, or as a leader that has read everything."""
        patience = Patience(f"operator {self.name} ready")
        while await self.probe("readyz") != 200:
            assert self.running, f"the operator ended:\n{self.tail()}"
            patience.spend(self.tail)
            await asyncio.sleep(0.05)

    async def probe(self, path: str) -> int:
        try:
            url = f"http://127.0.0.1:{self.health_port}/{path}"
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                return answer.status
        except aiohttp.ClientError:
            return 0

    async def metrics(self) -> dict[str, float]:
        """Return every sample by its name and labels, as Prometheus reads them."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            lines = (await answer.text()).splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}

    async def leading(self) -> bool:
        return self.running and (await self.metrics()).get("trimtab_leader") == 1

    async def kill(self) -> None:
        """SIGKILL: nothing is cleaned up or given back."""
        if self.running:
            self.process.kill()
            await self.process.wait()

    async def terminate(self) -> int:
        """SIGTERM, as the kubelet stops a pod; return the exit code."""
        if self.running:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), QUIET_SECONDS)

    def rss_mib(self) -> float:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) / 1024

    def processor_seconds(self) -> float:
        """Return user and system time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log_file.read_text().splitlines()[-lines:])

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_file.read_text().splitlines() if line.startswith("{")]

"""The process as its container runs it: its settings, and whether it is started again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import ClientSession
from trimtab_agent.settings import SettingsInvalid, read
from trimtab_agent.supervisor import supervise

from tests.ports import free_port
from tests.unit.agent.pod import running


def test_settings_name_what_is_missing() -> None:
    with pytest.raises(SettingsInvalid, match="POD_NAMESPACE"):
        read({})
    with pytest.raises(SettingsInvalid, match="TRIMTAB_PORT"):
        read({"POD_NAMESPACE": "n", "POD_UID": "u", "TRIMTAB_PORT": "x"})


def test_the_supervisor_gives_up_only_for_settings() -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        assert supervise([sys.executable, "-c", "raise SystemExit(2)"]) == 2
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), handlers, strict=True):
            signal.signal(number, handler)


async def test_the_process_comes_back_when_its_worker_is_killed_and_drains_when_told(tmp_path: Path) -> None:
    async with running(tmp_path) as pod:
        port = free_port()
        environment = {
            **os.environ,
            "POD_NAMESPACE": "team",
            "POD_UID": "u",
            "TRIMTAB_SHARED": str(tmp_path / "shared2"),
            "TRIMTAB_STATE": str(tmp_path / "state2"),
            "TRIMTAB_KEYS": str(tmp_path / "none"),
            "TRIMTAB_DESIRED": str(tmp_path / "none"),
            "TRIMTAB_ENGINE_URL": pod.server.url,
            "TRIMTAB_PORT": str(port),
        }
        process = subprocess.Popen([sys.executable, "-m", "trimtab_agent"], env=environment)
        try:
            await answers(port)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            worker = children.read_text().split()[0]
            os.kill(int(worker), signal.SIGKILL)
            await pod.until(lambda: worker not in children.read_text().split())
            await answers(port)
            assert process.poll() is None
            process.terminate()
            assert await asyncio.to_thread(process.wait, 60) == 0
        finally:
            if process.poll() is None:
                process.kill()


async def answers(port: int) -> None:
    async with ClientSession() as session:
        for _ in range(1200):
            try:
                async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
                    if response.status == 200:
                        return
            except OSError:
                pass  # it does not listen yet
            await asyncio.sleep(0.05)
    raise AssertionError("the agent does not answer")

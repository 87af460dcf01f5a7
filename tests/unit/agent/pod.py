"""One pod for tests: a fake engine behind the real guard over real HTTP, a volume, a store and an agent."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from trimtab_agent.contract import Share
from trimtab_agent.documents import read_share
from trimtab_agent.engine.table import SharedVolume
from trimtab_agent.engine.vllm import VLLM, Timeouts
from trimtab_agent.guard import Guard
from trimtab_agent.rounds.agent import Agent, Pace
from trimtab_agent.rounds.shares import Shares
from trimtab_agent.weights.store import AdapterStore

from tests.serving.adapters import BASE_DIGEST, Published, publish
from tests.serving.asgi_server import AsgiServer
from tests.serving.fake_engine import FakeEngine, with_app
from tests.tasks import cancelled

PATIENCE_SECONDS = 60
"""How long a pod is waited for: only what never comes takes so long."""
RESTORE_SECONDS = 300
"""When an alias is given up, by the pod's clock, which a test puts forward: no machine is so slow by itself."""
PACE = Pace(round=0.02, restore=RESTORE_SECONDS, unload=0.05, unload_busy=0.1, remove=0.2)


class CountedAgent(Agent):
    """An agent of which a test can tell how often it has looked: how long a round takes depends on the machine."""

    rounds = 0

    async def round(self) -> None:
        await super().round()
        self.rounds += 1


class Pod:
    """Engine and agent can be killed and started apart from each other, as containers are."""

    def __init__(self, folder: Path, **limits: int) -> None:
        self.folder = folder
        self.limits = limits
        self.volume_folder = folder / "shared"
        SharedVolume(self.volume_folder).prepare()
        self.engine = FakeEngine(**limits)  # type: ignore[arg-type]
        self.server = AsgiServer(self.engine)
        self.sequence = 0
        self.options: dict[str, Any] = {}
        self.seeds = iter(range(1000))
        self.timeouts = Timeouts(state=30, load=30, probe=30)
        self.clock: Callable[[], float] = time.monotonic

    async def start_engine(self) -> None:
        faults = self.engine.faults
        self.engine = FakeEngine(**self.limits)  # type: ignore[arg-type]
        self.engine.faults = faults
        guard = Guard(self.engine, str(self.volume_folder))
        self.server.application = with_app(self.engine, guard)
        await self.server.start()

    async def start_agent(self) -> None:
        self.volume = SharedVolume(self.volume_folder)
        token = self.volume.prepare()
        self.store = AdapterStore(self.volume.adapters)
        self.store.prepare()
        shares = Shares(self.folder / "state", "team")
        shares.load()
        self.session = aiohttp.ClientSession()
        usual = {"pace": PACE, "base_model_digest": BASE_DIGEST, "clock": lambda: self.clock(), "counts_seconds": 30}
        options = {**usual, **self.options}
        engine = VLLM(self.session, self.server.url, token, timeouts=self.timeouts)
        self.agent = CountedAgent(volume=self.volume, store=self.store, engine=engine, shares=shares, **options)
        self.task = asyncio.create_task(self.agent.run())

    async def kill_agent(self) -> None:
        await cancelled(self.task)
        await self.agent.close()
        await self.session.close()

    def pass_time(self, seconds: float) -> None:
        """Put the agent's clock forward."""
        clock = self.clock
        self.clock = lambda: clock() + seconds

    def stop_clock(self) -> None:
        """Let the agent's clock stand still, until it is put forward."""
        now = self.clock()
        self.clock = lambda: now

    def publish(self, **changes: Any) -> Published:
        return publish(self.folder / "s3", next(self.seeds), **changes)

    def share(self, *adapters: Published, alias: Any = None, rollout: str = "guide", **changes: Any) -> Share:
        """Return a share of the next sequence: `alias` is an adapter, or {revision: weight}."""
        self.sequence += 1
        if isinstance(alias, Published):
            alias = {alias.name(rollout): 100}
        document = {
            "namespace": "team",
            "rollout": rollout,
            "uid": "u1",
            "sequence": [1, self.sequence],
            "adapterName": rollout,
            "revisions": [{"name": a.name(rollout), "uri": a.uri, "digest": a.digest} for a in adapters],
            "aliases": {rollout: alias} if alias else {},
            **changes,
        }
        return read_share(json.dumps(document).encode())

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until something holds; the failure says what was true instead."""
        end = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while not condition():
            if asyncio.get_running_loop().time() > end:
                raise AssertionError(json.dumps(self.agent.truth().to_json(), indent=1))
            await asyncio.sleep(0.01)

    async def looks(self, times: int) -> None:
        """Wait until the agent has begun and ended so many rounds more."""
        end = self.agent.rounds + 1 + times  # one may be under way that has looked before
        await self.until(lambda: self.agent.rounds >= end)

    async def at_rest(self) -> int:
        """Wait until the engine has answered and some rounds have found nothing new; return the truth's version."""
        await self.until(lambda: self.agent.truth().engine.answers)
        version = -1
        while version != self.agent.version:
            version = self.agent.version
            await self.looks(3)
        return version

    def revision(self, adapter: Published, rollout: str = "guide") -> dict[str, Any]:
        for truth in self.agent.truth().to_json()["rollouts"]:
            for revision in truth["revisions"]:
                if revision["name"] == adapter.name(rollout):
                    return dict(revision)
        return {"loaded": False, "probed": False, "failed": None, "verified": False}

    def proven(self, adapter: Published, rollout: str = "guide") -> bool:
        found = self.revision(adapter, rollout)
        return bool(found["loaded"] and found["probed"])

    def failed(self, adapter: Published) -> str | None:
        failure = self.revision(adapter)["failed"]
        return failure["reason"] if failure else None

    def table(self) -> dict[str, Any]:
        return dict(json.loads((self.volume_folder / "aliases.json").read_bytes())["aliases"])

    async def serve(self, adapter: Published, *also: Published, rollout: str = "guide") -> None:
        """Bring a revision in and move the alias to it, as the controller does."""
        self.agent.accept(self.share(adapter, *also, rollout=rollout, alias=self.table().get(rollout, {}).get("to")))
        await self.until(lambda: self.proven(adapter, rollout))
        self.agent.accept(self.share(adapter, *also, alias=adapter, rollout=rollout))

    async def ask(self, model: str = "guide", path: str = "/v1/completions") -> tuple[int, str]:
        """Return status and the model that answered."""
        async with self.session.post(self.server.url + path, json={"model": model, "prompt": "x"}) as response:
            await response.read()
            return response.status, response.headers.get("x-trimtab-revision", model if response.ok else "")

    async def ready(self) -> bool:
        try:
            async with self.session.get(self.server.url + "/-/trimtab/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def until_ready(self, want: bool = True) -> None:
        end = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while await self.ready() != want:
            if asyncio.get_running_loop().time() > end:
                raise AssertionError(json.dumps(self.agent.truth().to_json(), indent=1))
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(folder: Path, **limits: int) -> AsyncIterator[Pod]:
    """Run a pod; everything ends with the block."""
    pod = Pod(folder, **limits)
    await pod.start_engine()
    await pod.start_agent()
    try:
        yield pod
    finally:
        await pod.kill_agent()
        await pod.server.stop()

"""Serving pods for tests of the controller: fake engines behind the real guard, real agents, and what a kubelet does.

All pods of a fleet live in one process. Each has an address of its own in 127.0.0.0/8, so that all agents listen on one
port, as pods do, and a Pod object in the API server whose status is written as a kubelet writes it. What the operator
puts into its two ConfigMaps is brought to the agents as mounted volumes are: late, and all files at once.

A small fleet has real HTTP between clients, engines and agents; a large one asks its engines in the process, through
the same guard, because two hundred agents that look at their engines each second would be all the machine does.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from trimtab_agent.documents import PublicKeys, Verifier, namespace_audience, pod_audience
from trimtab_agent.engine.table import AliasTable, SharedVolume
from trimtab_agent.engine.vllm import TOKEN_HEADER, VLLM, EngineUnreachable, Timeouts
from trimtab_agent.guard import Guard
from trimtab_agent.receiving.mounted import MountedDocuments
from trimtab_agent.receiving.server import Server
from trimtab_agent.rounds.agent import Agent, Pace
from trimtab_agent.rounds.shares import Shares
from trimtab_agent.weights.store import AdapterStore
from trimtab_operator.runtime.kube import CONFIGMAPS, MERGE_PATCH, PODS, ApiError, Body, Kube, NotFound

from tests.serving.adapters import BASE_DIGEST, Published, publish
from tests.serving.asgi_server import AsgiServer, call
from tests.serving.fake_engine import FakeEngine, with_app
from tests.tasks import cancelled

FAST = Pace(round=0.2, restore=60.0, unload=0.2, unload_busy=0.5, remove=1.0)
"""No alias is given up only because the machine is slow: the pod would be ready, and answer 503."""
HELD_SECONDS = 600
"""How long object storage may be held up: a thread that waits for ever would outlive its test."""
FAST_TIMEOUTS = Timeouts(load=5, probe=10)
MOUNTED = {"trimtab-agent-keys": "keys", "trimtab-desired": "desired"}
"""ConfigMaps, and the folders of the agents that they are mounted at."""
STAGE = "trimtab.dev/stage"
AGENT_PORT, ENGINE_PORT = 8081, 8000
ROLLOUTS = "/v1/rollouts"
NETWORKS = range(100, 220)
STATUS_AT_ONCE = 16


@dataclass
class AgentFaults:
    """What goes wrong between the operator and an agent."""

    hangs_seconds: float = 0.0
    status: int = 0
    answers: Callable[[Any], Any] | None = None
    """What an agent of another version says instead of an answer."""
    earlier: bool = False
    """Whether it is of the version before this one, which takes one document in a request, and knows of no more."""
    held_fetches: dict[str, threading.Event] = field(default_factory=dict)
    """By digest, what object storage waits for."""


@dataclass(frozen=True)
class Call:
    """A call that an agent answered; `at` in seconds of the monotonic clock."""

    at: float
    method: str
    path: str
    status: int


class Volume(SharedVolume):
    """Remembers every table that was in force: what an alias may mean at a moment."""

    def __init__(self, root: Path, history: list[tuple[float, AliasTable]]) -> None:
        super().__init__(root)
        self._history = history

    def write(self, table: AliasTable) -> None:
        super().write(table)
        self._history.append((time.monotonic(), table))


class Store(AdapterStore):
    """Object storage that may be slow."""

    def __init__(self, root: Path, faults: AgentFaults) -> None:
        super().__init__(root)
        self._faults = faults

    def fetch(self, uri: str, digest: str) -> Path:
        if digest in self._faults.held_fetches:
            assert self._faults.held_fetches[digest].wait(HELD_SECONDS)
        return super().fetch(uri, digest)


class InProcess(VLLM):
    """The engine without sockets, for large fleets: the same questions to the same guard."""

    def __init__(self, pod: Pod, token: str, timeouts: Timeouts) -> None:
        self._pod = pod
        self._headers = {TOKEN_HEADER: token}
        self._timeouts = timeouts

    async def _call(
        self, method: str, path: str, seconds: float, body: Mapping[str, Any] | None = None
    ) -> tuple[int, bytes]:
        try:
            async with asyncio.timeout(seconds):
                content = json.dumps(body).encode() if body is not None else b""
                return await self._pod.call_engine(method, path, content, self._headers)
        except (TimeoutError, OSError) as error:
            raise EngineUnreachable(f"{method} {path}: {error or type(error).__name__}") from None


class Pod:
    """One serving pod. Engine and agent can be killed and started apart from each other, as containers are."""

    def __init__(self, fleet: Fleet, namespace: str, name: str, address: str, labels: Mapping[str, str]) -> None:
        self.fleet = fleet
        self.namespace = namespace
        self.name = name
        self.address = address
        self.labels = dict(labels)
        self.uid = ""
        self.folder = fleet.folder / "pods" / namespace / name
        self.faults = AgentFaults()
        self.tables: list[tuple[float, AliasTable]] = []
        self.calls: list[Call] = []
        self.ready: bool | None = None
        self.deleted = False
        self.engine = FakeEngine(**fleet.limits)
        self.engine_starts = 0
        self._guarded: Any = None
        self._server = AsgiServer(None, address, fleet.engine_port)  # type: ignore[arg-type]
        self._runner: web.AppRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._agent: Agent | None = None
        self.volume = Volume(self.folder / "shared", self.tables)

    # Containers

    @property
    def agent(self) -> Agent:
        assert self._agent is not None, f"the agent of {self.name} does not run"
        return self._agent

    @property
    def engine_up(self) -> bool:
        return self._guarded is not None

    async def start_engine(self) -> None:
        faults = self.engine.faults
        self.engine = FakeEngine(**self.fleet.limits)
        self.engine.faults = faults
        self.engine_starts += 1
        guarded = with_app(self.engine, Guard(self.engine, str(self.volume.root)))
        self._server.application = guarded
        if self.fleet.http:
            await self._server.start()
        self._guarded = guarded

    async def kill_engine(self) -> None:
        """A kubelet sees at once that a container has ended, and the next one is not ready before its probe says so."""
        self._guarded = None
        if self.fleet.http:
            await self._server.stop()
        if self.ready and not self.deleted:
            self.ready = False
            await self.write_status()

    async def restart_engine(self) -> None:
        await self.kill_engine()
        await self.start_engine()

    async def start_agent(self) -> None:
        fleet = self.fleet
        mounts = fleet.mounts(self.namespace)
        self.volume = Volume(self.folder / "shared", self.tables)
        token = self.volume.prepare()
        store = Store(self.volume.adapters, self.faults)
        store.prepare()
        shares = Shares(self.folder / "state", self.namespace)
        shares.load()
        timeouts = fleet.timeouts
        engine = VLLM(fleet.session, self._server.url, token, timeouts=timeouts)
        self._agent = Agent(
            volume=self.volume,
            store=store,
            engine=engine if fleet.http else InProcess(self, token, timeouts),
            shares=shares,
            base_model_digest=BASE_DIGEST,
            pace=fleet.pace,
        )
        audiences = (namespace_audience(self.namespace), pod_audience(self.uid))
        verifier = Verifier(PublicKeys(mounts / "keys"), audiences)
        labels = self.folder / "labels"
        labels.write_text("".join(f"{key}={json.dumps(value)}\n" for key, value in self.labels.items()))
        mounted = MountedDocuments(mounts / "desired", labels, verifier, self._agent, every=fleet.mount_seconds)
        mounted.read()
        application = Server(self._agent, verifier, self.volume, self.uid).application()
        application.middlewares.append(self._middleware)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.address, fleet.port, reuse_address=True).start()
        self._tasks = [asyncio.create_task(self._agent.run()), asyncio.create_task(mounted.run())]

    async def kill_agent(self) -> None:
        """Drop everything, as a killed process does; table, token, shares and adapters stay."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await cancelled(*self._tasks)
        self._tasks = []
        if self._agent is not None:
            await self._agent.close()
            self._agent = None

    async def restart_agent(self) -> None:
        await self.kill_agent()
        await self.start_agent()

    @web.middleware
    async def _middleware(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self.faults.hangs_seconds:
            await asyncio.sleep(self.faults.hangs_seconds)
        if self.faults.status:
            return web.json_response({"reason": "Injected", "message": "injected"}, status=self.faults.status)
        status = 500
        try:
            if self.faults.earlier and (request.method, request.path) == ("PUT", ROLLOUTS):
                raise web.HTTPMethodNotAllowed(request.method, ["GET"])
            response = await handler(request)
            status = response.status
            if self.faults.earlier and request.path == ROLLOUTS and isinstance(response, web.Response):
                told = json.loads(response.text or "{}")
                response.text = json.dumps({key: value for key, value in told.items() if key != "documents"})
            if self.faults.answers is not None and isinstance(response, web.Response) and response.text:
                response.text = json.dumps(self.faults.answers(json.loads(response.text)))
        except Exception as error:  # its status is noted, and it is raised again
            status = getattr(error, "status", 500)
            raise
        finally:
            done = Call(time.monotonic(), request.method, request.path, status)
            self.calls.append(done)
        if self.fleet.after_call is not None:
            await self.fleet.after_call(self, done)
        return response

    # Requests

    async def call_engine(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        told: dict[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Ask guard and engine in this process.

        Raises:
            OSError: the engine is down, or dies meanwhile.
        """
        if self._guarded is None:
            raise ConnectionRefusedError("connection refused")
        return await call(self._guarded, method, path, body, headers, told=told)

    async def ask(self, model: str) -> tuple[int, str, str]:
        """Ask as a client does; return status, the revision that answered as the guard says, and its text or error.

        Raises:
            OSError, aiohttp.ClientError: there was no answer.
        """
        body, told = {"model": model, "prompt": "x", "max_tokens": 4}, dict[str, str]()
        if self.fleet.http:
            url = f"{self._server.url}/v1/completions"
            async with self.fleet.session.post(url, json=body) as response:
                status, document = response.status, await response.json()
                told = {name.lower(): value for name, value in response.headers.items()}
        else:
            content = json.dumps(body).encode()
            status, content = await self.call_engine("POST", "/v1/completions", content, told=told)
            document = json.loads(content)
        revision = told.get("x-trimtab-revision") or str(document.get("model", ""))
        if status != 200:
            return status, revision, str(document.get("error", document))
        choices = document.get("choices") or [{}]
        return status, revision, str(choices[0].get("text", "")).strip()

    def loads(self) -> int:
        """Return how often this start of the engine was asked to load anything."""
        return self.engine.calls.count(("POST", "/v1/load_lora_adapter"))

    def alias(self, name: str) -> dict[str, int]:
        """Return where an alias points now; empty while it answers nothing."""
        entry = self.volume.table.aliases.get(name)
        return {target: weight for target, weight in entry.to.items() if weight > 0} if entry is not None else {}

    def may_answer(self, alias: str, began: float, ended: float) -> set[str]:
        """Return the revisions that an alias meant at some moment of a request."""
        before = [table for at, table in self.tables if at <= began][-1:]
        meant = before + [table for at, table in self.tables if began < at <= ended]
        return {name for table in meant if alias in table.aliases for name in table.aliases[alias].targets}

    def ever_meant(self, alias: str) -> set[str]:
        """Return every revision that an alias pointed at since the pod started."""
        return self.may_answer(alias, 0.0, time.monotonic())

    def revision(self, name: str) -> dict[str, Any] | None:
        """Return what the agent tells of a revision."""
        if self._agent is None:
            return None
        told = [each for share in self._agent.truth().to_json()["rollouts"] for each in share["revisions"]]
        return next((each for each in told if each["name"] == name), None)

    def proves(self, name: str) -> bool:
        """Tell whether a revision is loaded and probed under its own name."""
        found = self.revision(name)
        return found is not None and found["loaded"] and found["probed"]

    def failure(self, name: str) -> str | None:
        """Return why a revision does not serve here, in one word."""
        found = self.revision(name)
        return found["failed"]["reason"] if found is not None and found["failed"] else None

    # The Pod object

    async def create(self) -> None:
        body = {
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": self.labels},
            "spec": {
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "engine", "image": "vllm"}],
            },
        }
        made = await _while_refused(lambda: self.fleet.kube.create(PODS, self.namespace, body))
        self.uid = made["metadata"]["uid"]

    async def look(self) -> None:
        """Probe as the kubelet does: liveness restarts the engine, readiness is written when it changes."""
        starts = self.engine_starts
        live, ready = await self._probe("live"), await self._probe("ready")
        if live is False:
            await self.restart_engine()
        elif bool(ready) != self.ready and starts == self.engine_starts and (self.engine_up or not ready):
            self.ready = bool(ready)
            await self.write_status()

    async def _probe(self, what: str) -> bool | None:
        """Return the answer; None if there is none."""
        try:
            status, _ = await self.call_engine("GET", f"/-/trimtab/{what}")
        except OSError:
            return None
        return status == 200

    async def write_status(self) -> None:
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = "True" if self.ready else "False"
        states = {"PodScheduled": "True", "Initialized": "True", "ContainersReady": ready, "Ready": ready}
        running = {"running": {"startedAt": moment}}
        status = {
            "phase": "Running",
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "startTime": moment,
            "conditions": [{"type": kind, "status": is_so} for kind, is_so in states.items()],
            "containerStatuses": [
                {
                    "name": "engine",
                    "image": "vllm",
                    "imageID": "",
                    "ready": bool(self.ready),
                    "restartCount": self.engine_starts - 1,
                    "state": running,
                }
            ],
        }
        with contextlib.suppress(NotFound):  # deleted meanwhile
            await self.fleet.kube.patch(
                PODS, self.namespace, self.name, MERGE_PATCH, {"status": status}, subresource="status"
            )

    async def stop(self) -> None:
        """End both containers; the Pod object is left as it is."""
        self.ready = False
        await self.kill_agent()
        await self.kill_engine()

    async def delete(self) -> None:
        """Delete the Pod, and end its containers."""
        self.deleted = True
        self.fleet.pods.remove(self)
        with contextlib.suppress(NotFound):
            await self.fleet.kube.delete(PODS, self.namespace, self.name, self.uid)
        await self.stop()


class Fleet:
    """All pods, and the kubelet's work for them."""

    def __init__(
        self,
        kube: Kube,
        folder: Path,
        *,
        http: bool = True,
        pace: Pace = FAST,
        timeouts: Timeouts = FAST_TIMEOUTS,
        mount_seconds: float = 1.0,
        probe_seconds: float = 0.2,
        **limits: int,
    ) -> None:
        self.kube = kube
        self.folder = folder
        self.http = http
        self.pace = pace
        self.timeouts = timeouts
        self.mount_seconds = mount_seconds
        self.probe_seconds = probe_seconds
        self.limits: dict[str, Any] = limits
        self.port, self.engine_port = AGENT_PORT, ENGINE_PORT
        self.pods: list[Pod] = []
        self.after_call: Callable[[Pod, Call], Awaitable[None]] | None = None
        """Told of each call when the agent has carried it out and the operator does not know it yet."""
        self.session: aiohttp.ClientSession
        self._started = itertools.count(1)
        self._network, self._claim = _network()
        self._seeds = itertools.count(1)
        self._slots = asyncio.Semaphore(STATUS_AT_ONCE)

    def close(self) -> None:
        """Give the addresses back."""
        self._claim.close()

    # Adapters

    def publish(self, **changes: Any) -> Published:
        """Put an adapter into object storage, another one each time."""
        return publish(self.folder / "s3", next(self._seeds), **changes)

    # Pods

    def of(self, namespace: str) -> list[Pod]:
        return [pod for pod in self.pods if pod.namespace == namespace]

    async def scale_up(
        self, namespace: str, count: int = 1, labels: Mapping[str, str] | None = None, *, ready: bool = True
    ) -> list[Pod]:
        """Start pods, each from the ConfigMaps as they are now, and wait until they are ready."""
        made = []
        for _ in range(count):
            number = next(self._started)
            address = f"127.{self._network}.{number // 250}.{number % 250 + 1}"
            given = {"app": "vllm", STAGE: "serve", **(labels or {})}
            made.append(Pod(self, namespace, f"vllm-{number}", address, given))
        await self.sync(namespace)
        await asyncio.gather(*(self._start(pod) for pod in made))
        self.pods += made
        while ready and not all(pod.ready for pod in made):
            await asyncio.sleep(0.02)
        return made

    async def _start(self, pod: Pod) -> None:
        async with self._slots:
            await pod.create()
            pod.folder.mkdir(parents=True)
            await pod.start_agent()
            await pod.start_engine()
            pod.ready = False
            await pod.write_status()

    # The kubelet

    def mounts(self, namespace: str) -> Path:
        return self.folder / "mounts" / namespace

    async def sync(self, namespace: str | None = None) -> None:
        """Bring the ConfigMaps of one namespace, or of all, to the pods that mount them."""
        namespaces = [namespace] if namespace is not None else sorted({pod.namespace for pod in self.pods})
        for name, folder in MOUNTED.items():
            query = {"fieldSelector": f"metadata.name={name}"}
            found = {
                body["metadata"]["namespace"]: body.get("data") or {}
                for body in await self.kube.items(CONFIGMAPS, namespace, query)
            }
            for each in namespaces:
                _mount(self.mounts(each) / folder, found.get(each, {}))

    async def run(self) -> None:
        """Mount and probe, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._every(self.mount_seconds, self.sync))
            group.create_task(self._every(self.probe_seconds, self._look))

    async def _look(self) -> None:
        async def look(pod: Pod) -> None:
            async with self._slots:
                await pod.look()

        await asyncio.gather(*(look(pod) for pod in list(self.pods)))

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await work()
            await asyncio.sleep(seconds)


def _network() -> tuple[int, socket.socket]:
    """Return the second number of the addresses, and what keeps other fleets of the machine from taking it too."""
    for number in NETWORKS:
        claim = socket.socket()
        try:
            claim.bind((f"127.{number}.255.254", AGENT_PORT))
            return number, claim
        except OSError:
            claim.close()
    raise RuntimeError("too many fleets run on this machine")


def _mount(folder: Path, data: Mapping[str, str]) -> None:
    """Make a folder hold exactly these files, each replaced at once."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        if file.name not in data:
            file.unlink()
    for name, text in data.items():
        file = folder / name
        if not file.is_file() or file.read_text() != text:
            part = folder / f".{name}.part"
            part.write_text(text)
            part.replace(file)


async def _while_refused(create: Callable[[], Awaitable[Body]]) -> Body:
    """Create a pod; a namespace that is new has no service account yet, and is refused with 403."""
    for _ in range(200):
        try:
            return await create()
        except ApiError as error:
            if error.status != 403:
                raise
        await asyncio.sleep(0.1)
    return await create()


@asynccontextmanager
async def serving(kube: Kube, folder: Path, **options: Any) -> AsyncIterator[Fleet]:
    """Run a fleet; everything but the Pod objects ends with the block."""
    fleet = Fleet(kube, folder, **options)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        fleet.session = session
        kubelet = asyncio.create_task(fleet.run())
        try:
            yield fleet
        finally:
            try:
                await cancelled(kubelet)
            finally:
                await asyncio.gather(*(pod.stop() for pod in fleet.pods))
                fleet.close()

"""What the agent relies on in an engine, asked of the fake, or of a real one: both must answer the same.

A real vLLM is started by hand as docs/serving.md says, with TRIMTAB_TEST_ENGINE=<url> and TRIMTAB_TEST_SHARED=<folder>.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from trimtab_agent.contract import Probe, ProbeKind
from trimtab_agent.documents import read_share
from trimtab_agent.engine.probing import prove
from trimtab_agent.engine.table import AliasEntry, AliasTable, SharedVolume
from trimtab_agent.engine.vllm import VLLM, Unhealthy
from trimtab_agent.failures import FailureReason, RevisionFailed
from trimtab_agent.guard import Guard
from trimtab_agent.rounds.agent import Agent, Pace
from trimtab_agent.rounds.shares import Shares
from trimtab_agent.weights.store import AdapterStore

from tests.serving.adapters import Published, publish
from tests.serving.asgi_server import AsgiServer
from tests.serving.fake_engine import FakeEngine, with_app
from tests.tasks import cancelled

URL = os.environ.get("TRIMTAB_TEST_ENGINE")
SHARED = os.environ.get("TRIMTAB_TEST_SHARED")
LAYERS = tuple(f"model.layers.{layer}.self_attn.q_proj" for layer in range(30))
COMPLETION = Probe(prompt="The capital of France is", max_tokens=4)


@dataclass
class Setup:
    session: aiohttp.ClientSession
    url: str
    volume: SharedVolume
    engine: VLLM
    folder: Path
    base: str

    def publish(self, seed: int, **changes: Any) -> Published:
        """Return an adapter of SmolLM2-135M's shapes, where the engine sees it."""
        given = {"hidden": (576, 576), "modules": LAYERS, "scale": 0.1, **changes}
        return publish(self.folder, seed, **given)

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        async with self.session.post(self.url + path, json=body) as response:
            text = await response.read()
            document = json.loads(text) if "json" in response.headers.get("Content-Type", "") else text
            return response.status, document, dict(response.headers)


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    root = Path(SHARED) if SHARED else tmp_path / "shared"
    volume = SharedVolume(root)
    token = volume.prepare()
    volume.write(AliasTable())
    server = None
    if URL is None:
        fake = FakeEngine()
        server = AsgiServer(with_app(fake, Guard(fake, str(root))))
        await server.start()
    url = URL or (server.url if server else "")
    async with aiohttp.ClientSession() as session:
        engine = VLLM(session, url, token)
        models = await engine.models()
        base = next(model.name for model in models if model.parent is None)
        yield Setup(session, url, volume, engine, root / "tests" / tmp_path.name, base)
        for model in await engine.models():
            if model.parent is not None:
                await engine.unload(model.name)
    if server is not None:
        await server.stop()


async def test_limits_are_those_it_was_started_with(setup: Setup) -> None:
    limits = await setup.engine.limits()
    found = (limits.max_loras, limits.max_lora_rank, limits.max_cpu_loras, limits.lora_enabled)
    assert found == (2, 16, 4, True)
    assert (await setup.engine.limits()).instance == limits.instance


async def test_an_adapter_is_listed_with_its_folder_until_it_is_unloaded(setup: Setup) -> None:
    adapter = setup.publish(1)
    await setup.engine.load("guide@aaaaaaaa", str(adapter.folder))
    await setup.engine.load("guide@aaaaaaaa", str(adapter.folder))  # the answer of the first call was lost
    found = {model.name: model for model in await setup.engine.models()}
    assert found["guide@aaaaaaaa"].root == str(adapter.folder)
    assert found["guide@aaaaaaaa"].parent == setup.base
    await setup.engine.unload("guide@aaaaaaaa")
    await setup.engine.unload("guide@aaaaaaaa")
    assert [model.name for model in await setup.engine.models()] == [setup.base]


async def test_a_name_is_never_taken_over(setup: Setup) -> None:
    one, two = setup.publish(1), setup.publish(2)
    await setup.engine.load("guide@aaaaaaaa", str(one.folder))
    with pytest.raises(RevisionFailed) as caught:
        await setup.engine.load("guide@aaaaaaaa", str(two.folder))
    assert caught.value.reason is FailureReason.NAME_TAKEN
    with pytest.raises(RevisionFailed) as caught:
        await setup.engine.load(setup.base, str(two.folder))
    assert (caught.value.reason, caught.value.permanent) == (FailureReason.NAME_TAKEN, True)


async def refusal(setup: Setup, folder: Path) -> tuple[FailureReason, bool]:
    with pytest.raises(RevisionFailed) as caught:
        await setup.engine.load("bad@aaaaaaaa", str(folder))
    assert [model.name for model in await setup.engine.models()] == [setup.base]
    return caught.value.reason, caught.value.permanent


async def test_what_never_loads_is_known_for_good(setup: Setup) -> None:
    assert await refusal(setup, setup.folder / "none") == (FailureReason.VOLUME_NOT_SHARED, True)
    assert await refusal(setup, setup.publish(1, rank=64).folder) == (FailureReason.RANK_TOO_HIGH, True)
    dora = setup.publish(2, settings={"use_dora": True})
    assert await refusal(setup, dora.folder) == (FailureReason.NOT_SUPPORTED, True)
    cut = setup.publish(3)
    weights = cut.folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert await refusal(setup, cut.folder) == (FailureReason.ARTIFACT_DAMAGED, True)
    weights.unlink()
    assert await refusal(setup, cut.folder) == (FailureReason.ARTIFACT_DAMAGED, True)


@pytest.mark.parametrize("kind", list(ProbeKind))
async def test_answers_carry_probabilities_and_tell_adapters_apart(setup: Setup, kind: ProbeKind) -> None:
    adapter = setup.publish(1)
    await setup.engine.load("guide@aaaaaaaa", str(adapter.folder))
    probe = Probe(kind=kind, prompt="The capital of France is", max_tokens=4)
    base = await setup.engine.ask(setup.base, probe)
    assert base.logprobs
    assert not base.differs(await setup.engine.ask(setup.base, probe))
    assert base.differs(await setup.engine.ask("guide@aaaaaaaa", probe))
    with pytest.raises(Unhealthy, match="404"):
        await setup.engine.ask("guide@bbbbbbbb", probe)


async def test_a_good_revision_is_proven_and_a_wrong_answer_is_not(setup: Setup) -> None:
    one, two = setup.publish(1), setup.publish(2)
    await setup.engine.load("guide@aaaaaaaa", str(one.folder))
    await setup.engine.load("guide@bbbbbbbb", str(two.folder))
    await prove(setup.engine, "guide@aaaaaaaa", COMPLETION, setup.base, "guide@bbbbbbbb")
    probe = COMPLETION.model_copy(update={"contains": "a word that nobody says"})
    with pytest.raises(RevisionFailed) as caught:
        await prove(setup.engine, "guide@aaaaaaaa", probe, setup.base, None)
    assert (caught.value.reason, caught.value.harmed) == (FailureReason.PROBE_FAILED, False)


async def test_clients_reach_no_admin_path(setup: Setup) -> None:
    for path in ("/adapters", "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/invocations", "/pause"):
        status, _, _ = await setup.post(path, {"name": "x", "src": "/x", "lora_name": "x", "lora_path": "/x"})
        assert (path, status) == (path, 403)
    status, _, _ = await setup.post("/v1/completions", {"model": "../tests", "prompt": "x"})
    assert status == 404


async def test_an_alias_answers_on_every_path_and_streams(setup: Setup) -> None:
    adapter = setup.publish(1)
    name = "guide@aaaaaaaa"
    await setup.engine.load(name, str(adapter.folder))
    setup.volume.write(AliasTable({"guide": AliasEntry(to={name: 1})}))
    messages = [{"role": "user", "content": "Hello"}]
    short = {"model": "guide", "max_tokens": 2}
    for path, body in (
        ("/v1/completions", {**short, "prompt": "x"}),
        ("/v1/chat/completions", {**short, "messages": messages}),
        ("/tokenize", {"model": "guide", "prompt": "x"}),
    ):
        status, document, headers = await setup.post(path, body)
        assert (path, status) == (path, 200), document
        assert headers["x-trimtab-revision"] == name
    status, document, _ = await setup.post("/v1/completions", {**short, "prompt": "x", "stream": True})
    assert status == 200
    assert '"model":"guide"' in document.decode().replace(" ", "")
    assert name not in document.decode()
    assert document.decode().rstrip().endswith("[DONE]")
    async with setup.session.get(setup.url + "/v1/models") as response:
        listed = {item["id"]: item["root"] for item in (await response.json())["data"]}
    assert listed["guide"] == name
    async with setup.session.get(setup.url + "/-/trimtab/ready") as response:
        assert response.status == 200
    await setup.engine.unload(name)
    async with setup.session.get(setup.url + "/-/trimtab/ready") as response:
        assert response.status == 503
    counts: Any = await setup.engine.counts()
    assert counts["revisions"][name]["requests"] >= 4
    assert counts["revisions"][name]["errors"] == 0


async def test_the_agent_brings_moves_and_takes_back_under_load(setup: Setup, tmp_path: Path) -> None:
    one, two = setup.publish(1), setup.publish(2)
    store = AdapterStore(setup.volume.adapters)
    store.prepare()
    shares = Shares(tmp_path / "state", "team")
    shares.load()
    pace = Pace(round=0.1, unload=0.2, remove=0.2)
    agent = Agent(volume=setup.volume, store=store, engine=setup.engine, shares=shares, pace=pace)
    work = asyncio.create_task(agent.run())
    sequence = iter(range(100))
    name = {adapter.digest: adapter.name("guide") for adapter in (one, two)}

    def take(alias: Published | None, *adapters: Published) -> None:
        document = {
            "namespace": "team",
            "rollout": "guide",
            "uid": "u",
            "sequence": [0, next(sequence)],
            "adapterName": "guide",
            "revisions": [{"name": name[a.digest], "uri": a.uri, "digest": a.digest} for a in adapters],
            "aliases": {"guide": {name[alias.digest]: 1}} if alias else {},
            "retired": not adapters,
        }
        agent.accept(read_share(json.dumps(document).encode()))

    async def until(*wanted: Published) -> float:
        start = time.monotonic()
        while True:
            truth = [item for rollout in agent.truth().to_json()["rollouts"] for item in rollout["revisions"]]
            ready = {item["name"] for item in truth if item["loaded"] and item["probed"]}
            if {name[adapter.digest] for adapter in wanted} <= ready:
                return time.monotonic() - start
            refused = [item["failed"] for item in truth if item["failed"] and item["failed"]["permanent"]]
            assert refused == []
            assert time.monotonic() - start < 60, truth
            await asyncio.sleep(0.01)

    answers: list[tuple[float, float, int, str]] = []
    stop = asyncio.Event()

    async def client() -> None:
        while not stop.is_set():
            start = time.monotonic()
            status, _, headers = await setup.post(
                "/v1/completions", {"model": "guide", "prompt": "One, two,", "max_tokens": 4}
            )
            answers.append((start, time.monotonic(), status, headers.get("x-trimtab-revision", "")))

    moves: list[tuple[float, str]] = []
    try:
        take(None, one)
        first = await until(one)
        take(one, one)
        clients = [asyncio.create_task(client()) for _ in range(4)]
        take(one, one, two)
        second = await until(two)
        for alias in (two, one, two, one):
            take(alias, one, two)
            moves.append((time.monotonic(), name[alias.digest]))
            enough = len(answers) + (40 if URL else 8)
            while len(answers) < enough:
                assert time.monotonic() - moves[-1][0] < 60
                await asyncio.sleep(0.01)
        stop.set()
        await asyncio.gather(*clients)
        take(None)
        start = time.monotonic()
        while len(await setup.engine.models()) > 1 or store.digests():
            assert time.monotonic() - start < 60
            await asyncio.sleep(0.05)
    finally:
        stop.set()
        await cancelled(work)
        await agent.close()
    moves.append((float("inf"), ""))
    wrong = [
        answer
        for (moved, wanted), (until_then, _) in pairwise(moves)
        for answer in answers
        if moved < answer[0] and answer[1] < until_then and answer[3] != wanted
    ]
    assert {status for _, _, status, _ in answers} == {200}
    assert wrong == []
    assert {model for *_, model in answers} == set(name.values())
    print(f"requests {len(answers)}, first proven {first:.2f} s, second under load {second:.2f} s")

"""Pods that say anything: what it costs the operator, and that it costs the other namespaces nothing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from trimtab_agent.contract import PodAnswer, Share
from trimtab_agent.documents import read_share
from trimtab_operator.domain.adapterrollout import AgentTruth
from trimtab_operator.domain.adapterrollout.observed import Refusal, ShareTruth
from trimtab_operator.domain.cluster import Key
from trimtab_operator.runtime.kube import Body
from trimtab_operator.runtime.pods import agentpoller
from trimtab_operator.runtime.pods.agents import ANSWER_BYTES, LARGE_BYTES, Address, Agents, AgentUnreachable
from trimtab_operator.runtime.pods.answers import Unreadable, parsed
from trimtab_operator.runtime.pods.signing import SigningKeys
from trimtab_operator.runtime.rounds.reconcile import failed
from trimtab_operator.runtime.rounds.workqueue import WorkQueue

from tests.resources import ADAPTERROLLOUTS
from tests.tasks import cancelled
from tests.unit.runtime.fake_api import FakeApi
from tests.unit.runtime.objects import NAMESPACE
from tests.unit.runtime.rounds import Rounds
from tests.unit.runtime.serving import LETTERS, new_key, rollout, serving_pod

ENGINE: Body = {
    "answers": True,
    "error": None,
    "instance": "i",
    "harmed": None,
    "limits": None,
    "baseModels": [],
    "adapters": [],
}
SENT = (1, 1_767_600_000_000)


def answer(**changes: Any) -> Body:
    return {"version": time.time_ns(), "keys": [], "counts": None, "engine": ENGINE, "rollouts": [], **changes}


def share(name: str, sequence: tuple[int, int] = SENT, **changes: Any) -> Body:
    return {"rollout": name, "uid": "x", "sequence": list(sequence), "aliases": {}, "revisions": [], **changes}


@dataclass
class Hostile:
    """A pod on a real port: `tells` is its answer to questions, `takes` that to documents."""

    tells: Callable[[], Any] = answer
    takes: Callable[[], Awaitable[web.StreamResponse]] | None = None
    calls: list[str] = field(default_factory=list)
    port: int = 0

    async def truth(self, _: web.Request) -> web.Response:
        told = self.tells()
        body = told if isinstance(told, bytes) else json.dumps(told).encode()
        return web.Response(body=body, content_type="application/json")

    async def document(self, request: web.Request) -> web.StreamResponse:
        self.calls.append(f"{request.method} {request.match_info.get('name', '')}".rstrip())
        return await self.takes() if self.takes is not None else web.json_response(share(request.match_info["name"]))


@asynccontextmanager
async def answering(hostile: Hostile) -> AsyncIterator[Hostile]:
    application = web.Application()
    application.add_routes(
        [
            web.get("/v1/rollouts", hostile.truth),
            web.put("/v1/rollouts", hostile.document),
            web.route("*", "/v1/rollouts/{name}", hostile.document),
        ]
    )
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hostile.port = runner.addresses[0][1]
    try:
        yield hostile
    finally:
        await runner.cleanup()


class CountingApi(FakeApi):
    def __init__(self) -> None:
        super().__init__()
        self.gets: list[str] = []

    async def get(self, resource: Any, namespace: str | None, name: str) -> Body:
        self.gets.append(name)
        return await super().get(resource, namespace, name)


class Operator:
    """The real queue, workers, poller, client and rounds; rounds of the namespace `other` are noted, not done."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession, hostile: Hostile) -> None:
        new_key(folder / "keys", "a.pem")
        self.hostile = hostile
        self.offset = timedelta()
        self.api = CountingApi()
        self.queue: WorkQueue[Key] = WorkQueue()
        self.seen: dict[Key, float] = {}
        rounds = Rounds(
            self.now,
            api=self.api,
            keys=folder / "keys",
            session=session,
            lease_transitions=lambda: 1,
            tell=self.queue.add,
        )
        self.cache, self.poller, self.reconciler = rounds.cache, rounds.poller, rounds.reconciler

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    async def handle(self, key: Key) -> float | None:
        if key.namespace == "other":
            self.seen[key] = time.monotonic()
            return None
        return await self.reconciler.reconcile(key)

    def pod(self, version: int = 1) -> None:
        body = serving_pod(version=version)
        ports = [{"name": "agent", "containerPort": self.hostile.port}]
        body["spec"] = {"initContainers": [{"name": "trimtab-agent", "ports": ports}]}
        self.cache.serving.put(body)

    def sending(self) -> bool:
        """Tell whether a document is under way to the pod."""
        outbox = self.poller._known["uid-of-vllm-1"].outbox
        return outbox is not None and bool(outbox._under_way)

    def known_names(self) -> int:
        """Return for how many rollouts anything is kept about the pod."""
        known = self.poller._known["uid-of-vllm-1"]
        kept: list[Iterable[str]] = [known.refusals, known.refused, known.sent, known.retired]
        if (outbox := known.outbox) is not None:
            kept += [outbox._waiting, outbox._under_way, outbox._ended]
        return len({name for each in kept for name in each})


@asynccontextmanager
async def operating(folder: Path, hostile: Hostile) -> AsyncIterator[Operator]:
    connector = aiohttp.TCPConnector(limit=0)
    async with answering(hostile), aiohttp.ClientSession(connector=connector) as session:
        operator = Operator(folder, session, hostile)
        tasks = [asyncio.create_task(operator.queue.work(operator.handle, failed)) for _ in range(16)]
        tasks.append(asyncio.create_task(operator.poller.run()))
        operator.pod()
        try:
            yield operator
        finally:
            await cancelled(*tasks)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def hangs() -> web.StreamResponse:
    await asyncio.sleep(3600)
    raise AssertionError


async def test_rollouts_that_do_not_exist_delay_no_other_namespace(tmp_path: Path) -> None:
    hostile = Hostile(lambda: answer(rollouts=[share(f"g{number}") for number in range(256)]), hangs)
    began = time.monotonic()
    async with operating(tmp_path, hostile) as operator:
        await until(lambda: len(hostile.calls) >= agentpoller.GHOSTS_AT_ONCE)
        for number in range(3):
            innocent = Key("AdapterRollout", "other", f"innocent-{number}")
            operator.queue.add(innocent)
            await until(partial(operator.seen.__contains__, innocent))
            await asyncio.sleep(0.3)
        asked = [name for name in operator.api.gets if name.startswith("g")]
        turns = 2 + (time.monotonic() - began) / agentpoller.GHOSTS_SECONDS
        assert len(asked) <= turns * agentpoller.GHOSTS_AT_ONCE


async def test_a_pod_that_goes_on_to_tell_of_what_is_gone_hears_so_ever_more_seldom(tmp_path: Path) -> None:
    hostile = Hostile(lambda: answer(rollouts=[share("ghost")]))
    async with operating(tmp_path, hostile) as operator:
        await until(lambda: hostile.calls != [])
        for _ in range(40):
            operator.offset += timedelta(seconds=1)
            operator.queue.add(Key(ADAPTERROLLOUTS.kind, NAMESPACE, "ghost"))
            await until(lambda: operator.queue.busy == 0 and not operator.sending())
        assert 3 <= len(hostile.calls) <= 7, "after 1, 2, 4, 8, 16 and 32 s"
        assert len([name for name in operator.api.gets if name == "ghost"]) == len(hostile.calls)


async def test_a_pod_that_goes_while_a_document_is_under_way_to_it_is_forgotten(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def late() -> web.StreamResponse:
        await release.wait()
        return web.json_response(share("guide"))

    key = Key(ADAPTERROLLOUTS.kind, NAMESPACE, "guide")
    hostile = Hostile(takes=late)
    async with operating(tmp_path, hostile) as operator:
        operator.cache.owners["AdapterRollout"].put(operator.api.put(ADAPTERROLLOUTS, rollout(port=hostile.port)))
        await until(lambda: hostile.calls != [])
        outbox = operator.poller._known["uid-of-vllm-1"].outbox
        assert outbox is not None
        operator.cache.serving.remove("uid-of-vllm-1")
        await until(lambda: operator.poller._known == {})
        release.set()
        await until(lambda: outbox.pending("guide") is None)
        assert operator.poller.holders(NAMESPACE, "guide") == []
        operator.queue.add(key)
        await until(lambda: operator.queue.busy == 0)
        assert operator.queue.failures(key) == 0


ALONE = {
    "what a person signed": share("by-hand", (0, 1)),
    "what no operator can have sent": share("zero", (0, 0)),
    "a path": share("../../secrets/keys"),
    "a name with a query": share("a?labelSelector=b"),
    "capitals": share("Guide"),
    "no uid": share("guide", uid=""),
    "a name that is too long": share("g" * 200),
}


@pytest.mark.parametrize("case", ALONE)
async def test_what_no_operator_sent_is_left_alone(case: str, tmp_path: Path) -> None:
    tells = [ALONE[case], share("ghost")]
    hostile = Hostile(lambda: answer(rollouts=tells))
    async with operating(tmp_path, hostile) as operator:
        await until(lambda: "DELETE ghost" in hostile.calls)
        assert set(hostile.calls) == {"DELETE ghost"}
        assert set(operator.api.gets) <= {"ghost", "trimtab-desired", "trimtab-agent-keys"}


async def test_a_pod_that_tells_of_other_rollouts_every_time_leaves_nothing_behind(tmp_path: Path) -> None:
    count = iter(range(10**9))
    hostile = Hostile(lambda: answer(rollouts=[share(f"g{next(count)}") for _ in range(256)]))
    async with operating(tmp_path, hostile) as operator:
        for _ in range(40):
            await asyncio.sleep(0.05)
            operator.offset += timedelta(seconds=20)
        assert operator.known_names() <= 256
        assert operator.queue.busy <= 256


async def test_a_pod_whose_every_answer_is_news_is_asked_less_often(tmp_path: Path) -> None:
    asked = 0

    def tells() -> Body:
        nonlocal asked
        asked += 1
        return answer(engine={**ENGINE, "instance": str(asked)})

    async with operating(tmp_path, Hostile(tells)):
        await until(lambda: asked > agentpoller.RESTLESS_ANSWERS + 5)
        before, began = asked, time.monotonic()
        await asyncio.sleep(2)
        assert asked - before <= 2 + (time.monotonic() - began) / agentpoller.RESTLESS_SECONDS


REVISION = {
    "name": "guide@aaaaaaaa",
    "digest": LETTERS["a"],
    "uri": "s3://adapters/guide/a",
    "verified": True,
    "loaded": True,
    "probed": True,
    "failed": None,
}
ODD_SHARES: dict[str, Body] = {
    "a revision with the name of a path": {"revisions": [{**REVISION, "name": "../x@aaaaaaaa"}]},
    "a revision of another adapter": {
        "revisions": [{**REVISION, "name": "other@aaaaaaaa"}],
        "aliases": {"guide": {"to": {"other@aaaaaaaa": 100}}},
    },
    "a digest that is none": {"revisions": [{**REVISION, "digest": "x"}]},
    "an alias to nothing": {"aliases": {"guide": {"to": {"guide@bbbbbbbb": 100}}}},
    "a sequence that no operator gets to": {"sequence": [2**61, 2**61]},
    "counts that are none": {},
}


@pytest.mark.parametrize("case", ODD_SHARES)
async def test_what_a_pod_holds_ends_no_round_about_its_rollout(case: str, tmp_path: Path) -> None:
    told = {**share("guide"), **ODD_SHARES[case]}
    counted = {"instance": "i", "revisions": {"guide@aaaaaaaa": {"requests": -1, "total": {"buckets": "x"}}, "b": {}}}
    hostile = Hostile(lambda: answer(rollouts=[told], counts=counted))
    async with operating(tmp_path, hostile) as operator:
        operator.cache.owners["AdapterRollout"].put(operator.api.put(ADAPTERROLLOUTS, rollout(port=hostile.port)))
        await until(lambda: any(call.startswith("PUT") for call in hostile.calls))
        assert operator.queue.failures(Key(ADAPTERROLLOUTS.kind, NAMESPACE, "guide")) == 0


MANY = ",".join(json.dumps(share(f"g{number}")) for number in range(14_000))
LARGE = {
    "many rollouts": json.dumps(answer()).replace('"rollouts": []', f'"rollouts": [{MANY}]').encode(),
    "many parts that nobody asked for": b'{"x": [' + b"[]," * 300_000 + b"[]]}",
    "many figures": b'{"counts": {"revisions": {"a": {"x": [' + b"1," * 500_000 + b"1]}}}}",
    "a thousand rollouts": json.dumps(answer(rollouts=[share(f"g{number}") for number in range(1000)])).encode(),
    "depth": b"[" * ANSWER_BYTES,
    "no text": b"\xff" * 1000,
    "nothing": b"",
    "null": b"null",
    "a sequence that no document is above": json.dumps(answer(sequence=[2**62, 0])).encode(),
    "a rollout's sequence that no document is above": json.dumps(
        answer(rollouts=[{**share("guide"), "sequence": [1, 2**62]}])
    ).encode(),
    "a version that is none": json.dumps(answer(version=-1)).encode(),
    "an integer of five thousand digits": b'{"version": ' + b"9" * 5000 + b"}",
    "lone surrogates": json.dumps(answer(keys=["\ud800"])).encode(),
}


@pytest.mark.parametrize("case", LARGE)
def test_an_answer_that_is_none_costs_little(case: str) -> None:
    began = time.process_time()
    with pytest.raises(Unreadable):
        parsed(PodAnswer, LARGE[case])
    assert time.process_time() - began < 2, "a hundredth of this, on a machine that does nothing else"


async def test_no_more_of_an_answer_is_read_than_one_may_have(tmp_path: Path) -> None:
    new_key(tmp_path / "keys", "a.pem")
    sent = 0

    class Endless(Hostile):
        async def truth(self, request: web.Request) -> web.Response:
            nonlocal sent
            response = web.StreamResponse()
            await response.prepare(request)
            for _ in range(64):
                await response.write(b" " * ANSWER_BYTES)
                sent += 1
            return response  # type: ignore[return-value]

    async with answering(Endless()) as hostile, aiohttp.ClientSession() as session:
        agents = Agents(SigningKeys(tmp_path / "keys"), session)
        with pytest.raises(AgentUnreachable, match="more than"):
            await agents.ask(Address("u", "127.0.0.1", hostile.port), None)
    assert sent < 16


LATER: dict[str, Body] = {
    "fields that are not known": {"more": {"a": 1}, "engine": {**ENGINE, "more": 1}},
    "words that are not known": {
        "rollouts": [share("guide", revisions=[{**REVISION, "failed": {"reason": "Dreams", "permanent": True}}])]
    },
    "fields that are not told any more": {"counts": None, "engine": {"answers": True}},
    "its own version of the answers": {"api": "trimtab.dev/agent/v1"},
}


@pytest.mark.parametrize("case", LATER)
async def test_an_agent_of_another_version_stops_nothing(case: str, tmp_path: Path) -> None:
    new_key(tmp_path / "keys", "a.pem")
    async with answering(Hostile(lambda: answer(**LATER[case]))) as hostile, aiohttp.ClientSession() as session:
        agents = Agents(SigningKeys(tmp_path / "keys"), session)
        found = await agents.ask(Address("u", "127.0.0.1", hostile.port), None)
        assert found.truth.engine_answers
        hostile.tells = lambda: answer(api="trimtab.dev/agent/v2")
        with pytest.raises(AgentUnreachable, match="run one version of both"):
            await agents.ask(Address("u", "127.0.0.1", hostile.port), None)


def test_counts_that_are_none_end_nothing() -> None:
    good = {"errors": 1, "rejected": 0, "total": {"buckets": [3, 1], "sum": 2.5}}
    revisions = {
        "guide@aaaaaaaa": good,
        "none": {},
        "words": {**good, "total": "much"},
        "deep": {**good, "total": {"buckets": [[[[[1]]]]], "sum": 0}},
    }
    told = parsed(PodAnswer, json.dumps(answer(counts={"instance": "i", "revisions": revisions})).encode())
    assert "guide@aaaaaaaa" in AgentTruth.of(told).counts
    other_start = parsed(PodAnswer, json.dumps(answer(counts={"instance": "j", "revisions": revisions})).encode())
    assert AgentTruth.of(other_start).counts == {}


def document(name: str) -> Share:
    return read_share(json.dumps({**share(name), "namespace": NAMESPACE, "adapterName": name}).encode())


async def sent(folder: Path, hostile: Hostile, *names: str) -> list[ShareTruth | Refusal]:
    new_key(folder / "keys", "a.pem")
    async with answering(hostile), aiohttp.ClientSession() as session:
        agents = Agents(SigningKeys(folder / "keys"), session)
        known = [key.id for key in SigningKeys(folder / "keys").all()]
        address = Address("u", "127.0.0.1", hostile.port, NAMESPACE)
        return list(await agents.send(address, known, [document(name) for name in names]))


async def test_one_answer_that_is_none_makes_none_of_the_others_unreadable(tmp_path: Path) -> None:
    answers = [{"share": share("a")}, {"share": share("b", sequence=(-1, 0))}, {"share": 7}, 7, {"share": share("e")}]

    async def takes() -> web.StreamResponse:
        return web.json_response({"answers": answers})

    results = await sent(tmp_path, Hostile(takes=takes), *"abcde")
    assert [isinstance(each, ShareTruth) for each in results] == [True, False, False, False, True]
    assert [each.reason for each in results if isinstance(each, Refusal)] == ["Unreachable"] * 3
    assert "sequence" in results[1].message  # type: ignore[union-attr]


FAILING = {
    "an error": (500, b"no"),
    "too large": (413, b"{}"),
    "no answer": (200, b"{"),
    "too few": (200, b'{"answers": []}'),
}


@pytest.mark.parametrize("case", FAILING)
async def test_documents_that_fail_together_are_sent_each_alone(case: str, tmp_path: Path) -> None:
    """Otherwise one of them would fail the others of its pod for ever."""
    status, body = FAILING[case]
    hostile = Hostile()

    async def takes() -> web.StreamResponse:
        call = hostile.calls[-1]
        if call in ("PUT", "PUT b"):
            return web.Response(status=status, body=body)
        return web.json_response(share(call.removeprefix("PUT ")))

    hostile.takes = takes
    results = await sent(tmp_path, hostile, *"abc")
    assert hostile.calls == ["PUT", "PUT a", "PUT b", "PUT c"]
    assert [isinstance(each, ShareTruth) for each in results] == [True, False, True]


async def test_documents_that_nobody_answers_are_not_sent_alone(tmp_path: Path) -> None:
    hostile = Hostile()

    async def breaks(request: web.Request) -> web.StreamResponse:
        hostile.calls.append(request.path)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    hostile.document = breaks  # type: ignore[method-assign]
    with pytest.raises(AgentUnreachable):
        await sent(tmp_path, hostile, *"abc")
    assert set(hostile.calls) == {"/v1/rollouts"}


async def test_large_answers_to_documents_take_their_turn_among_those_of_their_namespace(tmp_path: Path) -> None:
    """A pod may give one as often as it likes, and whatever is parsed holds up everybody."""
    size = LARGE_BYTES + 1

    async def takes() -> web.StreamResponse:
        return web.Response(body=json.dumps({"answers": [{"share": share("a")}]}).encode() + b" " * size)

    new_key(tmp_path / "keys", "a.pem")
    async with answering(Hostile(takes=takes)) as hostile, aiohttp.ClientSession() as session:
        agents = Agents(SigningKeys(tmp_path / "keys"), session)
        known = [key.id for key in SigningKeys(tmp_path / "keys").all()]
        address = Address("u", "127.0.0.1", hostile.port, NAMESPACE)
        async with agents._large[NAMESPACE]:
            sending = asyncio.create_task(agents.send(address, known, [document("a")]))
            await until(lambda: hostile.calls != [])
            await asyncio.sleep(0.3)
            assert not sending.done()
        assert isinstance((await sending)[0], ShareTruth)
        size = 0
        async with agents._large[NAMESPACE]:
            assert isinstance((await agents.send(address, known, [document("a")]))[0], ShareTruth)

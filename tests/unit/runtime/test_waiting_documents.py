"""Documents that wait for a pod: none is stuck, none is late, and none overwrites what is newer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from trimtab_agent.contract import Share
from trimtab_operator.domain.adapterrollout import AgentTruth
from trimtab_operator.domain.adapterrollout.observed import Refusal, ShareTruth
from trimtab_operator.domain.cluster import Key
from trimtab_operator.domain.plan import Document
from trimtab_operator.runtime.pods import agentpoller, outbox
from trimtab_operator.runtime.pods.agents import Address, Answer

from tests.tasks import cancelled
from tests.unit.runtime.objects import NAMESPACE
from tests.unit.runtime.rounds import Rounds
from tests.unit.runtime.serving import rollout, serving_pod

UID = "uid-of-vllm-1"


def key(name: str) -> Key:
    return Key("AdapterRollout", NAMESPACE, name)


def document(name: str, number: int = 1, *, leaves: bool = False, retired: bool = False) -> Document:
    share = Share.model_validate(
        {
            "namespace": NAMESPACE,
            "rollout": name,
            "uid": "arl-1",
            "sequence": [1, number],
            "adapterName": name,
            "revisions": [],
            "retired": retired,
        }
    )
    return Document("vllm-1", UID, "127.0.0.1", share, leaves, leaves)


class FakeAgents:
    """Takes whatever it is sent, once it may: `takes` is called with each request."""

    def __init__(self) -> None:
        self.several = True
        self.asked = 0
        self.requests: list[list[str]] = []
        self.takes: Callable[[list[str]], Any] = lambda names: None
        self.held: dict[str, ShareTruth] = {}
        self.changes = asyncio.Event()

    async def ask(
        self, address: Address, known: Collection[str] | None, *, after: int | None = None, wait: float = 0.0
    ) -> Answer:
        if wait:
            await self.changes.wait()
            self.changes.clear()
        else:
            self.asked += 1
        return Answer(AgentTruth(shares=tuple(self.held.values())), 1, frozenset(), self.several)

    async def send(
        self, address: Address, known: Collection[str], shares: Sequence[Share]
    ) -> list[ShareTruth | Refusal]:
        names = [share.rollout for share in shares]
        self.requests.append(names)
        if (waited := self.takes(names)) is not None:
            await waited
        return [ShareTruth(share.rollout, share.uid, share.sequence) for share in shares]

    async def send_alone(self, address: Address, known: Collection[str], share: Share) -> ShareTruth | Refusal:
        (answer,) = await self.send(address, known, [share])
        return answer


class World:
    def __init__(self) -> None:
        self.agents, self.busy = FakeAgents(), False
        self.now = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
        self.rounds = Rounds(lambda: self.now, agents=self.agents, busy=lambda _: self.busy)
        self.poller, self.cache, self.told = self.rounds.poller, self.rounds.cache, self.rounds.told

    @property
    def known(self) -> agentpoller.Known:
        return self.poller._known[UID]

    def store(self, *names: str) -> None:
        for name in names:
            body = rollout()
            body["metadata"] |= {"name": name, "uid": f"uid-of-{name}", "resourceVersion": "1"}
            self.cache.owners["AdapterRollout"].put(body)

    async def send(self, *documents: Document) -> None:
        for each in documents:
            await self.poller.send(key(each.share.rollout), [each])


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    world.cache.serving.put(serving_pod())
    polling = asyncio.create_task(world.poller.run())
    await until(lambda: UID in world.poller._known and world.known.truth is not None)
    try:
        yield world
    finally:
        await cancelled(polling)


async def test_an_error_about_one_document_leaves_none_stuck(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.store("a", "b", "c")
    world.busy = True
    take_in = world.poller._replace

    def fails(known: agentpoller.Known, name: str, share: ShareTruth | None) -> None:
        if name == "a":
            raise RuntimeError("a fault of ours")
        take_in(known, name, share)

    monkeypatch.setattr(world.poller, "_replace", fails)
    await world.send(document("a"), document("b"))
    await asyncio.sleep(0.15)
    world.busy = False
    await until(lambda: world.agents.requests == [["a", "b"]])
    await until(lambda: world.known.sent.get("b") == (1, 1))
    await world.send(document("c"))
    await until(lambda: world.known.sent.get("c") == (1, 1))


async def test_a_request_that_cannot_be_made_is_a_refusal_and_the_next_is_made(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.store("a", "b")
    with monkeypatch.context() as broken:
        broken.setattr(world.poller, "_port", lambda known: 1 / 0)
        await world.send(document("a"))
        await asyncio.sleep(0.05)
        sending = world.known.outbox
        assert sending is not None
        assert sending.pending("a") is None, "it counts as on its way"
        assert world.known.refusals["a"].reason == "Unreachable"
    await world.send(document("b"))
    await until(lambda: world.known.sent.get("b") == (1, 1))


async def test_a_clock_that_is_set_back_makes_no_answer_young(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agentpoller, "CONFIRMED_SECONDS", 0.2)
    world.busy = True
    await world.poller.confirm([UID])
    asked = world.agents.asked
    world.now -= timedelta(hours=1)
    await world.poller.confirm([UID])
    assert world.agents.asked == asked, "it was asked a moment ago"
    await asyncio.sleep(0.3)
    await world.poller.confirm([UID])
    assert world.agents.asked == asked + 1


async def test_what_waits_is_held_once_for_all_requests_it_takes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "DOCUMENTS_BYTES", 1)  # so that each request takes one
    names = ["a", "b", "c"]
    world.store(*names)
    world.busy = True
    began = asyncio.get_running_loop().time()
    await world.send(*map(document, names))
    await until(lambda: len(world.agents.requests) == 3)
    assert asyncio.get_running_loop().time() - began < 3


async def test_a_document_by_which_requests_leave_waits_for_no_others(world: World) -> None:
    world.store("a", "b")
    world.busy = True
    await world.send(document("a"), document("b", leaves=True))
    await until(lambda: world.agents.requests == [["a", "b"]], seconds=1)


async def test_a_document_of_a_rollout_that_was_deleted_is_not_sent(world: World) -> None:
    world.store("a", "b")
    world.busy = True
    await world.send(document("a"), document("b"), document("gone", retired=True))
    world.cache.owners["AdapterRollout"].remove("uid-of-a")
    world.busy = False
    await until(lambda: world.agents.requests == [["b", "gone"]])
    sending = world.known.outbox
    assert sending is not None
    await until(lambda: sending.pending("a") is None)
    assert world.known.refusals == {}


async def test_what_an_earlier_agent_told_by_itself_is_newer_than_its_answer(world: World) -> None:
    slow = asyncio.Event()
    world.agents.several = world.known.takes_several = False
    world.agents.takes = lambda names: slow.wait() if names == ["slow"] else None
    world.store("fast", "slow")
    world.busy = True
    await world.send(document("fast"), document("slow"))
    await asyncio.sleep(0.15)
    world.busy = False
    await until(lambda: world.known.sent.get("fast") == (1, 1), seconds=0.9)
    newer = ShareTruth("slow", "arl-1", (1, 1), {"slow": {"slow@aaaaaaaa": 100}})
    world.agents.held = {"slow": newer}
    world.agents.changes.set()
    await until(lambda: world.known.truth is not None and newer in world.known.truth.shares)
    slow.set()
    await until(lambda: world.known.sent.get("slow") == (1, 1))
    assert world.known.truth is not None
    assert newer in world.known.truth.shares


async def test_who_is_gone_and_was_not_told_behind_a_hang_is_told_of_when_it_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (agentpoller, outbox):
        monkeypatch.setattr(module, "SENDING_SECONDS", 0.1)
    free = asyncio.Event()
    world.agents.takes = lambda names: free.wait() if names == ["hangs"] else None
    world.store("hangs")
    await world.send(document("hangs"))
    await until(lambda: world.known.outbox is not None and world.known.outbox.hangs)
    await world.send(document("gone", retired=True))
    world.told.clear()
    await asyncio.sleep(0.1)
    assert key("gone") not in world.told, "while it hangs that would be for nothing"
    free.set()
    await until(lambda: key("gone") in world.told)

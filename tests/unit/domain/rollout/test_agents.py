"""The decisions carried out by real agents, each beside a fake engine behind the real guard, in one process.

What the world of the other tests believes of agents is held against them here: their answers are read, their refusals
are kept, and requests go on all the while.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from trimtab_agent.documents import Refused, read_share
from trimtab_operator.api.adapterrollout import AdapterRollout
from trimtab_operator.domain.adapterrollout import AgentTruth, Observed, ServingPod, plan
from trimtab_operator.domain.adapterrollout.observed import Refusal

from tests.serving.adapters import Published
from tests.unit.agent.pod import Pod, running
from tests.unit.domain.rollout.world import Agent, World, rollout

STRATEGY = {"canarySeconds": 10, "drainSeconds": 0, "analysis": {"maximumLatencyRatio": 20}}
"""Times say nothing here: they are of a busy machine."""
Answers = list[tuple[int, str]]


class Fleet:
    """Pods, and an operator whose clock goes ten times as fast as theirs."""

    def __init__(self, pods: list[Pod], adapter: Published) -> None:
        self.pods = pods
        self.rollout = rollout({"artifact": source(adapter)}, strategy=STRATEGY)
        self.now = datetime.now(UTC)
        self.refusals: dict[str, Refusal] = {}

    async def observed(self) -> Observed:
        seen = []
        for number, pod in enumerate(self.pods):
            name = f"pod-{number}"
            truth = AgentTruth.of(await pod.agent.answer(name, []))
            seen.append(ServingPod(name, name, ready=True, truth=truth, refusal=self.refusals.get(name)))
        return Observed(self.rollout, pods=tuple(seen))

    async def round(self) -> None:
        self.now += timedelta(seconds=0.5)
        observed = await self.observed()
        while (made := plan(observed, self.now)).inquiries:
            observed = replace(observed, answers={**observed.answers, **dict.fromkeys(made.inquiries)})
        body = self.rollout.model_dump(mode="json", by_alias=True, exclude_none=True)
        self.rollout = AdapterRollout.parse({**body, "status": made.status})
        for document in made.documents:
            self.refusals.pop(document.pod, None)
            try:
                self.pods[int(document.pod[4:])].agent.accept(read_share(document.share.to_bytes()))
            except Refused as error:
                self.refusals[document.pod] = Refusal(error.reason, error.message)
        await asyncio.sleep(0.05)

    async def until(self, reason: str) -> None:
        for _ in range(200):
            await self.round()
            ready = self.rollout.status.conditions[0]
            if ready.reason == reason and ready.observed_generation == self.rollout.metadata.generation:
                return
        raise AssertionError(self.rollout.status.to_json())

    def edit(self, adapter: Published) -> None:
        body = self.rollout.model_dump(mode="json", by_alias=True, exclude_none=True)
        body["metadata"]["generation"] += 1
        body["spec"]["source"] = {"artifact": source(adapter)}
        self.rollout = AdapterRollout.parse(body)

    async def asked(self) -> list[tuple[int, str]]:
        return [await pod.ask() for pod in self.pods]


def source(adapter: Published) -> dict[str, Any]:
    return {"uri": adapter.uri, "digest": adapter.digest}


@pytest.fixture
async def pods(tmp_path: Path) -> AsyncIterator[list[Pod]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running(tmp_path / str(number))) for number in range(3)]


async def test_rollout_second_revision_and_rollback_lose_no_request(pods: list[Pod]) -> None:
    old, new = pods[0].publish(), pods[0].publish()
    names = {old.name("guide"), new.name("guide")}
    fleet = Fleet(pods, old)
    await fleet.until("Serving")
    assert await fleet.asked() == [(200, old.name("guide"))] * 3
    answers: Answers = []
    stop = asyncio.Event()

    async def client(pod: Pod) -> None:
        while not stop.is_set():
            answers.append(await pod.ask())

    clients = [asyncio.create_task(client(pod)) for pod in pods]
    fleet.edit(new)
    await fleet.until("Canary")
    await fleet.round()
    assert sorted(await fleet.asked()) == sorted([(200, new.name("guide")), *[(200, old.name("guide"))] * 2])
    await fleet.until("Serving")
    assert await fleet.asked() == [(200, new.name("guide"))] * 3
    fleet.edit(old)
    await fleet.until("Serving")
    assert await fleet.asked() == [(200, old.name("guide"))] * 3
    stop.set()
    await asyncio.gather(*clients)
    assert len(answers) > 20
    assert {status for status, _ in answers} == {200}
    assert {model for _, model in answers} == names
    assert fleet.refusals == {}


async def test_an_adapter_that_changes_nothing_is_taken_back_and_no_engine_is_touched(pods: list[Pod]) -> None:
    good, empty = pods[0].publish(), pods[0].publish(zero=True)
    fleet = Fleet(pods, good)
    await fleet.until("Serving")
    fleet.edit(empty)
    await fleet.until("RolledBack")
    assert [each.reason for each in fleet.rollout.status.rejected] == ["ChangesNothing"]
    await fleet.round()
    assert await fleet.asked() == [(200, good.name("guide"))] * 3
    for pod in pods:
        assert [each["name"] for each in pod.agent.truth().to_json()["engine"]["adapters"]] == [good.name("guide")]


async def test_an_engine_that_restarts_is_not_ready_until_its_list_says_so(pods: list[Pod]) -> None:
    adapter = pods[0].publish()
    fleet = Fleet(pods, adapter)
    await fleet.until("Serving")
    await pods[1].server.stop()
    await fleet.until("PodNotUpdated")
    assert fleet.rollout.status.pod_reasons[0].reason == "EngineDown"
    await pods[1].start_engine()
    await fleet.until("Serving")
    assert await fleet.asked() == [(200, adapter.name("guide"))] * 3


async def test_the_agents_of_the_stories_answer_in_the_same_words(pods: list[Pod]) -> None:
    adapter = pods[0].publish()
    fleet = Fleet(pods, adapter)
    await fleet.until("Serving")
    await fleet.asked()
    real: dict[str, Any] = (await pods[0].agent.answer("pod-0", [])).to_json()
    world = World({"artifact": source(adapter)}, pods=1)
    world.after(3).asked(adapter.name("guide"), 1)
    told = Agent.answer(world.agents[0])
    assert missing(told, real) == []


def missing(told: Any, real: Any, place: str = "") -> list[str]:
    """Return what is told in a story that a real agent does not tell, or tells as something else."""
    if isinstance(told, dict) and isinstance(real, dict):
        lacking = [f"{place}.{key}" for key in told if key not in real]
        return lacking + [
            each for key in told if key in real for each in missing(told[key], real[key], f"{place}.{key}")
        ]
    if isinstance(told, list) and isinstance(real, list):
        return [each for one, other in zip(told, real, strict=False) for each in missing(one, other, place)]
    number = (int, float)
    if told is None or real is None or type(told) is type(real):
        return []
    return [] if isinstance(told, number) and isinstance(real, number) else [f"{place}: {type(real).__name__}"]

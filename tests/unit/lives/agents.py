"""Serving pods and the way to their agents, in memory: answers that come late or never, documents that arrive when
nobody waits for them any more, pods that hang.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from trimtab_agent.contract import Share, ShareAnswer
from trimtab_operator.domain.adapterrollout.observed import Refusal, ShareTruth
from trimtab_operator.runtime.pods.agents import ANSWER_SECONDS, Address, AgentUnreachable, Answer

from tests.unit.domain.rollout.world import Agent, read
from tests.unit.lives.faults import Fate

LATE_SECONDS = 1.5
"""Longer than a round waits for the answers to its documents, shorter than an agent has to confirm what is true."""


@dataclass
class Pod:
    """One serving pod. `mute`: it takes connections and answers nothing. `version` is that of its agent's answers."""

    agent: Agent
    ip: str
    random: Random
    mute: bool = False
    version: int = 1
    takes_several: bool = True
    """Whether its agent is of this version: an earlier one takes one document in a request."""
    told: dict[str, Any] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    selected: bool = True
    was_left_out: bool = False
    """Whether its labels once were none that a rollout selects."""
    sent: dict[str, Share] = field(default_factory=dict)
    """The newest document that was sent to it, by uid of the rollout."""

    def look(self) -> None:
        """Tell those who wait if anything has changed; counts are told only to those who ask."""
        now = self.agent.news()
        if now != self.told:
            self.told = now
            self.version += 1
            self.news.set()
            self.news = asyncio.Event()


@dataclass
class Network:
    """The pods, and what is on its way to them. `takes` has a pod take a document, `sends` is told of each before."""

    pods: list[Pod]
    takes: Callable[[Pod, Share], None]
    sends: Callable[[Pod, Share], None]
    faults: float = 0.0
    under_way: list[tuple[Pod, Share]] = field(default_factory=list)
    documents: int = 0

    def reached(self, uid: str) -> Pod:
        """Return a pod that can be connected to."""
        found = next((pod for pod in self.pods if pod.agent.uid == uid), None)
        if found is None or not found.agent.up:
            raise AgentUnreachable("no route to host")
        return found

    def happens(self, pod: Pod) -> bool:
        return pod.random.random() < self.faults

    def arrive(self) -> None:
        """Let what is under way arrive, late, and in whatever order."""
        under_way, self.under_way = self.under_way, []
        for pod, share in under_way:
            if pod in self.pods and pod.agent.up:
                self.takes(pod, share)


class AgentsInMemory:
    """In place of `runtime.pods.agents.Agents`, for one operator, that of `fate`."""

    def __init__(self, network: Network, fate: Fate, keys: frozenset[str]) -> None:
        self._network = network
        self._fate = fate
        self._keys = keys

    async def ask(
        self, address: Address, known_keys: Collection[str] | None, *, after: int | None = None, wait: float = 0.0
    ) -> Answer:
        network = self._network
        pod = network.reached(address.uid)
        if pod.mute:
            await asyncio.sleep(wait + ANSWER_SECONDS)
            raise AgentUnreachable("timeout")
        if after is not None and pod.version <= after:
            with suppress(TimeoutError):  # no news: it answers with what it has
                async with asyncio.timeout(wait):
                    await pod.news.wait()
            network.reached(address.uid)
        if network.happens(pod):
            raise AgentUnreachable("connection reset by peer")
        answer = Answer(read(pod.agent.answer()), pod.version, self._keys, pod.takes_several)
        if network.happens(pod):
            await asyncio.sleep(pod.random.uniform(0.1, LATE_SECONDS))
        return answer

    async def send(
        self, address: Address, known_keys: Collection[str], shares: Sequence[Share]
    ) -> list[ShareTruth | Refusal]:
        assert self._network.reached(address.uid).takes_several
        return await self._send(address, shares)

    async def send_alone(self, address: Address, known_keys: Collection[str], share: Share) -> ShareTruth | Refusal:
        return (await self._send(address, [share]))[0]

    async def _send(self, address: Address, shares: Sequence[Share]) -> list[ShareTruth | Refusal]:
        network = self._network
        if not self._fate.writes():
            raise AgentUnreachable("nobody sends any more")
        pod = network.reached(address.uid)
        network.documents += len(shares)
        for share in shares:
            network.sends(pod, share)
        if pod.mute or network.happens(pod):
            if pod.mute or pod.random.random() < 0.5:
                network.under_way += [(pod, share) for share in shares]
                await asyncio.sleep(ANSWER_SECONDS)
            raise AgentUnreachable("timeout")
        results = [self._take(pod, share) for share in shares]
        if network.happens(pod):
            raise AgentUnreachable("connection reset by peer")
        if network.happens(pod):
            await asyncio.sleep(LATE_SECONDS)
        return results

    def _take(self, pod: Pod, share: Share) -> ShareTruth | Refusal:
        self._network.takes(pod, share)
        answer = ShareTruth.of(ShareAnswer.model_validate(pod.agent.truth(share)))
        return pod.agent.refusal or answer

"""The parts that do rounds, put together over an API server in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import aiohttp
from trimtab_operator.domain.cluster import Key
from trimtab_operator.domain.kind import AnyKind
from trimtab_operator.domain.kinds import KINDS
from trimtab_operator.domain.settings import Settings
from trimtab_operator.runtime.cluster.cache import Cache
from trimtab_operator.runtime.pods.agentpoller import AgentPoller
from trimtab_operator.runtime.pods.agents import Agents
from trimtab_operator.runtime.pods.delivery import Delivery
from trimtab_operator.runtime.pods.desired import Desired
from trimtab_operator.runtime.pods.progress import ProgressPoller
from trimtab_operator.runtime.pods.signing import SigningKeys
from trimtab_operator.runtime.pods.terms import Terms
from trimtab_operator.runtime.rounds.act import Actor
from trimtab_operator.runtime.rounds.events import Events
from trimtab_operator.runtime.rounds.gate import summary_of
from trimtab_operator.runtime.rounds.inquiries import Inquiries
from trimtab_operator.runtime.rounds.known import Known, Troubles
from trimtab_operator.runtime.rounds.policies import Policies
from trimtab_operator.runtime.rounds.reconcile import Reconciler

from tests.unit.runtime.fake_api import FakeApi


class Rounds:
    """An operator without its watches: `told` is who was to look because of a change.

    `keys` are for agents, without them no document can be signed; `session` reaches them, or `agents` in its place.
    """

    def __init__(
        self,
        now: Callable[[], datetime],
        *,
        api: FakeApi | None = None,
        kinds: Mapping[str, AnyKind] = KINDS,
        settings: Settings | None = None,
        keys: Path | None = None,
        session: aiohttp.ClientSession | None = None,
        agents: Any = None,
        may_send: Callable[[], bool] = lambda: True,
        lease_transitions: Callable[[], int] = lambda: 3,
        tell: Callable[[Key], None] | None = None,
        policies: str = "",
        busy: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.api = api or FakeApi()
        self.told: list[Key] = []
        tell = tell or self.told.append
        self.pods_changed = asyncio.Event()
        self.cache = Cache(follow=tell, serving=self.pods_changed.set)
        self.signing = SigningKeys(keys, clock=lambda: now().timestamp())
        self.desired = Desired(self.api, self.signing, busy=busy, changed=tell)
        agents = agents or Agents(self.signing, cast(Any, session), may_send)
        self.poller = AgentPoller(agents, self.cache, self.pods_changed, tell, now, busy=busy)
        self.progress = ProgressPoller(self.cache, tell)
        self.troubles = Troubles(now)
        self.terms = Terms(lease_transitions)
        self.actor = Actor(self.api, self.cache, now)
        self.events = Events(self.api, now, "test")
        self.inquiries = Inquiries(
            reader=self.api,
            cache=self.cache,
            troubles=self.troubles,
            agents=self.poller,
            desired=self.desired,
            policies=Policies(self.api, policies),
        )
        self.reconciler = Reconciler(
            cache=self.cache,
            cluster=Known(
                cache=self.cache,
                troubles=self.troubles,
                settings=settings or Settings("p", "t"),
                progress=self.progress,
                agents=self.poller,
                signing=self.signing,
                terms=self.terms,
            ),
            troubles=self.troubles,
            inquiries=self.inquiries,
            actor=self.actor,
            delivery=Delivery(self.poller, self.desired, self.signing, self.terms, now),
            events=self.events,
            now=now,
            kinds=kinds,
        )

    async def round(self, key: Key) -> float | None:
        return await self.reconciler.reconcile(key)

    def jobs(self) -> list[str]:
        """Return the names of the Jobs that the API server has."""
        return [name for plural, _, name in self.api.objects if plural == "jobs"]

    def said(self, key: Key) -> tuple[str, str]:
        """Return reason and message of the summary condition of an object, as the API server has it."""
        found = summary_of(KINDS[key.kind], self.api.objects[f"{key.kind.lower()}s", key.namespace, key.name])
        return found["reason"], found["message"]

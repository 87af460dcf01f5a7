"""What a plan sends after its status was written: documents to agents, and the one that new pods start from."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from ...domain.cluster import Key
from ...domain.plan import Plan, Withdrawal
from .agentpoller import AgentPoller
from .desired import Desired
from .signing import SigningKeys
from .terms import Terms


class Delivery:
    """Signs and sends."""

    def __init__(
        self, agents: AgentPoller, desired: Desired, signing: SigningKeys, terms: Terms, now: Callable[[], datetime]
    ) -> None:
        self._agents = agents
        self._desired = desired
        self._signing = signing
        self._terms = terms
        self._now = now

    async def deliver(self, key: Key, plan: Plan) -> None:
        """Send the documents about an object, then have new pods start from what is wanted."""
        namespace = key.namespace
        if plan.sequence is not None:
            self._terms.note(namespace, plan.sequence)
        if key.kind == "AdapterRollout":  # also where it has none: what still waits is not wanted any more
            await self._agents.send(key, plan.documents)
        if plan.mounted is None:
            return
        if isinstance(plan.mounted, Withdrawal):
            await self._desired.remove(plan.mounted.namespace, plan.mounted.rollout)
            return
        signing_key = self._signing.for_agents(*self._agents.keys_known(namespace))
        if signing_key is not None:
            await self._desired.put(plan.mounted, signing_key, self._now().timestamp())

"""What a plan sends after its status was written: documents to agents, and the one that new pods start from."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

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

    async def deliver(self, namespace: str, plan: Plan) -> None:
        """Send the documents, all at once, then have new pods start from what is wanted."""
        if plan.sequence is not None:
            self._terms.note(namespace, plan.sequence)
        if plan.documents:
            await self._agents.send(plan.documents)
        if plan.mounted is None:
            return
        if isinstance(plan.mounted, Withdrawal):
            await self._desired.remove(plan.mounted.namespace, plan.mounted.rollout)
            return
        key = self._signing.for_agents(*self._agents.keys_known(namespace))
        if key is not None:
            await self._desired.put(plan.mounted, key, self._now().timestamp())

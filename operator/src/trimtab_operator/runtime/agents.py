"""Calls to the agents: what is true of a pod, and signed documents to it. One attempt each, others decide on more."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from trimtab_agent.documents import Share, pod_audience, sign_call

from ..domain.adapterrollout import AgentTruth
from ..domain.adapterrollout.observed import Refusal, ShareTruth
from . import metrics
from .addresses import base_url
from .signing import SigningKey, SigningKeys

log = logging.getLogger(__name__)

PATH = "/v1/rollouts"
ANSWER_BYTES = 4 * 1024 * 1024
ANSWER_SECONDS = 5.0
"""Beyond the time that a question waits for a change."""
NO_QUERY: Mapping[str, str] = {}


class AgentUnreachable(Exception):
    """No answer, or none that an agent of this version gives."""


@dataclass(frozen=True)
class Address:
    """Where the agent of a pod listens, and whom its tokens are for."""

    uid: str
    ip: str
    port: int

    @property
    def url(self) -> str:
        return base_url(self.ip, self.port)


@dataclass(frozen=True)
class Answer:
    """What an agent says: the truth, its version, and the ids of the keys it knows."""

    truth: AgentTruth
    version: int
    keys: frozenset[str]


class Agents:
    """The client. Every call is signed for the one pod it goes to."""

    def __init__(
        self,
        signing: SigningKeys,
        session: aiohttp.ClientSession,
        may_send: Callable[[], bool] = lambda: True,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._signing = signing
        self._may_send = may_send
        self._session = session
        self._now = now

    async def ask(
        self, address: Address, known_keys: Collection[str] | None, *, after: int | None = None, wait: float = 0.0
    ) -> Answer:
        """Return what is true of a pod: at once, or when its version is above `after`, at the latest after `wait` s.

        Raises:
            AgentUnreachable: it did not answer so.
        """
        query = {} if after is None else {"after": str(after), "waitSeconds": f"{wait:g}"}
        status, body = 0, dict[str, Any]()
        for key in self._candidates(known_keys):
            status, body = await self._call(address, "GET", PATH, key=key, query=query, seconds=wait + ANSWER_SECONDS)
            if (status, body.get("reason")) != (401, "KeyUnknown"):
                break
        if status != 200:
            raise AgentUnreachable(f"the agent answered {status} {body.get('reason', '')}: {body.get('message', '')}")
        try:
            keys = frozenset(str(each) for each in body["keys"])
            return Answer(AgentTruth.of(body), int(body["version"]), keys)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AgentUnreachable(f"an answer of another version: {type(error).__name__} {error}") from None

    async def send(self, address: Address, known_keys: Collection[str], share: Share) -> ShareTruth | Refusal:
        """Send a share; return what the pod then holds of it, or why it refuses.

        Raises:
            AgentUnreachable: it may have been taken or not.
        """
        if not self._may_send():
            raise AgentUnreachable("not sent: the Lease was not renewed in time")
        key = self._signing.for_agents(known_keys)
        if key is None:
            raise AgentUnreachable("there is no key to sign with")
        method = "DELETE" if share.retired else "PUT"
        path = f"{PATH}/{share.rollout}"
        status, body = await self._call(address, method, path, share.to_bytes(), key=key)
        if 400 <= status < 500:
            return Refusal(str(body.get("reason", status))[:64], str(body.get("message", "")))
        if status != 200:
            raise AgentUnreachable(f"the agent answered {status}")
        try:
            return ShareTruth.of(body)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AgentUnreachable(f"an answer of another version: {type(error).__name__} {error}") from None

    def _candidates(self, known: Collection[str] | None) -> list[SigningKey]:
        """Return the keys to try, the likeliest first. An agent that was never heard may know any of them."""
        every = self._signing.all()
        if not every:
            raise AgentUnreachable("there is no key to sign with")
        likeliest = self._signing.for_agents(known) if known is not None else every[-1]
        return [each for each in (likeliest, *reversed(every)) if each is not None]

    async def _call(
        self,
        address: Address,
        method: str,
        path: str,
        content: bytes = b"",
        *,
        key: SigningKey,
        query: Mapping[str, str] = NO_QUERY,
        seconds: float = ANSWER_SECONDS,
    ) -> tuple[int, dict[str, Any]]:
        audience, now = pod_audience(address.uid), self._now()
        token = sign_call(key.private, audience, method=method, path=path, body=content, now=now)
        code = "none"
        try:
            async with self._session.request(
                method,
                address.url + path,
                params=query,
                data=content or None,
                headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
                timeout=aiohttp.ClientTimeout(total=seconds),
                allow_redirects=False,
            ) as response:
                code = str(response.status)
                text = await response.content.read(ANSWER_BYTES)
                while not response.content.at_eof() and len(text) < ANSWER_BYTES:
                    text += await response.content.read(ANSWER_BYTES - len(text))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise AgentUnreachable(f"{method} {path}: {error or type(error).__name__}") from None
        finally:
            metrics.AGENT_REQUESTS.labels(method, code).inc()
        try:
            body = json.loads(text)
        except ValueError:
            body = {}
        return response.status, body if isinstance(body, dict) else {}

"""Calls to the agents: what is true of a pod, and signed documents to it. One attempt each, others decide on more."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

import aiohttp
from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from trimtab_agent.contract import (
    API,
    DOCUMENTS_AT_ONCE,
    DocumentAnswer,
    Documents,
    DocumentsAnswer,
    PodAnswer,
    RefusalAnswer,
    Share,
    ShareAnswer,
)
from trimtab_agent.documents import pod_audience, sign_call

from ...domain.adapterrollout import AgentTruth
from ...domain.adapterrollout.observed import Refusal, ShareTruth
from .. import metrics
from ..labels import code_label
from ..logs import keys
from .addresses import base_url
from .answers import AS_IT_IS, M, Unreadable, body_of, parsed, words_of
from .signing import SigningKey, SigningKeys

log = logging.getLogger(__name__)

PATH = "/v1/rollouts"
ANSWER_BYTES = 1024 * 1024
"""256 rollouts of three revisions each are a third of it."""
SHARE_ANSWER_BYTES = 64 * 1024
LARGE_BYTES = 64 * 1024
LARGE_SHARE = 0.25
"""Of the time, that parsing all larger answers of a namespace may take: a pod may give one as often as it likes."""
ANSWER_SECONDS = 5.0
"""Beyond the time that a question waits for a change."""
TOO_LARGE = (str(HTTPStatus.REQUEST_ENTITY_TOO_LARGE.value), "TooLarge")
"""Reasons of 413: with words of an agent, and without."""
NO_QUERY: Mapping[str, str] = {}


class AgentUnreachable(Exception):
    """No answer, or none that an agent of this version gives."""


class NotUnderstood(AgentUnreachable):
    """An answer that says nothing of what came of the request."""


def _each_by_itself(value: Any, validate: ValidatorFunctionWrapHandler) -> DocumentAnswer:
    """Return the answer to one document; one that is none says so, and nothing of the others."""
    try:
        answer: DocumentAnswer = validate(value)
    except ValidationError as error:
        message = f"not an answer of an agent: {words_of(error)}"
        return DocumentAnswer(refused=RefusalAnswer(reason="Unreachable", message=message))
    return answer


class AnswersByThemselves(DocumentsAnswer):
    """The same, of which each is read by itself."""

    answers: tuple[Annotated[DocumentAnswer, WrapValidator(_each_by_itself)], ...] = Field(max_length=DOCUMENTS_AT_ONCE)


@dataclass(frozen=True)
class Address:
    """Where the agent of a pod listens, and whom its tokens are for."""

    uid: str
    ip: str
    port: int
    namespace: str = ""

    @property
    def url(self) -> str:
        return base_url(self.ip, self.port)


@dataclass(frozen=True)
class Answer:
    """What an agent says: the truth, its version, the ids of the keys it knows, and if it takes several documents at
    once."""

    truth: AgentTruth
    version: int
    keys: frozenset[str]
    takes_several: bool = False


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
        self._large: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def ask(
        self, address: Address, known_keys: Collection[str] | None, *, after: int | None = None, wait: float = 0.0
    ) -> Answer:
        """Return what is true of a pod: at once, or when its version is above `after`, at the latest after `wait` s.

        Raises:
            AgentUnreachable: it did not answer so.
        """
        query = {} if after is None else {"after": str(after), "waitSeconds": f"{wait:g}"}
        status, refused = 0, RefusalAnswer()
        for key in self._candidates(known_keys):
            status, text = await self._call(
                address, "GET", PATH, key=key, query=query, seconds=wait + ANSWER_SECONDS, limit=ANSWER_BYTES
            )
            if status == HTTPStatus.OK:
                return await self._understood(address, text)
            refused = refusal_in(text)
            if (status, refused.reason) != (401, "KeyUnknown"):
                break
        raise AgentUnreachable(f"the agent answered {status} {refused.reason}: {refused.message}")

    async def _parsed(self, namespace: str, model: type[M], text: bytes) -> M:
        """Return the typed form of an answer; a large one waits until it is the turn of its namespace.

        Raises:
            NotUnderstood: it is not one.
        """
        try:
            if len(text) <= LARGE_BYTES:
                return parsed(model, text)
            async with self._large[namespace]:
                began = time.perf_counter()
                try:
                    return parsed(model, text)
                finally:
                    await asyncio.sleep((time.perf_counter() - began) * (1 / LARGE_SHARE - 1))
        except Unreadable as error:
            raise NotUnderstood(f"not an answer of an agent: {error}") from None

    async def _understood(self, address: Address, text: bytes) -> Answer:
        answer = await self._parsed(address.namespace, PodAnswer, text)
        if answer.api != API:
            raise AgentUnreachable(f"the agent speaks {answer.api}, this operator {API}; run one version of both")
        takes_several = answer.documents >= DOCUMENTS_AT_ONCE
        return Answer(AgentTruth.of(answer), answer.version, frozenset(answer.keys), takes_several)

    async def send(
        self, address: Address, known_keys: Collection[str], shares: Sequence[Share]
    ) -> list[ShareTruth | Refusal]:
        """Send shares, at most `DOCUMENTS_AT_ONCE`; return of each what the pod then holds of it, or why it refuses.

        Where the answer says nothing of each, all are sent again, each alone: one that an agent fails by, or whose
        answer is none, would otherwise meet the same others ever again.

        Raises:
            AgentUnreachable: they may have been taken or not.
        """
        try:
            return await self._send(address, known_keys, shares)
        except NotUnderstood as error:
            log.warning("documents are sent each alone", extra=keys(pod=address.uid, err=str(error)))
        return await asyncio.gather(*(self._send_again(address, known_keys, share) for share in shares))

    async def _send(
        self, address: Address, known_keys: Collection[str], shares: Sequence[Share]
    ) -> list[ShareTruth | Refusal]:
        body = Documents(documents=tuple(share.to_bytes().decode() for share in shares)).to_bytes()
        answer = await self._put(address, known_keys, PATH, body, model=AnswersByThemselves, limit=ANSWER_BYTES)
        if isinstance(answer, Refusal):
            if answer.reason in TOO_LARGE:
                raise NotUnderstood(f"the agent answered {answer.reason}: {answer.message}")
            return [answer] * len(shares)
        if len(answer.answers) != len(shares):
            raise NotUnderstood(f"{len(answer.answers)} answers to {len(shares)} documents")
        return [_result(share, each) for share, each in zip(shares, answer.answers, strict=True)]

    async def _send_again(self, address: Address, known_keys: Collection[str], share: Share) -> ShareTruth | Refusal:
        try:
            return await self.send_alone(address, known_keys, share)
        except AgentUnreachable as error:
            return Refusal("Unreachable", str(error))

    async def send_alone(self, address: Address, known_keys: Collection[str], share: Share) -> ShareTruth | Refusal:
        """Send a share in a request of its own, for example to an agent of an earlier version.

        Raises:
            AgentUnreachable: it may have been taken or not.
        """
        answer = await self._put(
            address,
            known_keys,
            f"{PATH}/{share.rollout}",
            share.to_bytes(),
            method="DELETE" if share.retired else "PUT",
            model=ShareAnswer,
            limit=SHARE_ANSWER_BYTES,
        )
        return answer if isinstance(answer, Refusal) else ShareTruth.of(answer)

    async def _put(
        self,
        address: Address,
        known_keys: Collection[str],
        path: str,
        body: bytes,
        *,
        method: str = "PUT",
        model: type[M],
        limit: int,
    ) -> M | Refusal:
        if not self._may_send():
            raise AgentUnreachable("not sent: the Lease was not renewed in time")
        key = self._signing.for_agents(known_keys)
        if key is None:
            raise AgentUnreachable("there is no key to sign with")
        status, text = await self._call(address, method, path, body, key=key, limit=limit)
        if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            refused = refusal_in(text)
            return Refusal(refused.reason or str(status), refused.message)
        if status != HTTPStatus.OK:
            raise NotUnderstood(f"the agent answered {status}")
        return await self._parsed(address.namespace, model, text)

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
        limit: int,
    ) -> tuple[int, bytes]:
        audience, now = pod_audience(address.uid), self._now()
        token = sign_call(key.private, audience, method=method, path=path, body=content, now=now)
        code = "none"
        try:
            async with self._session.request(
                method,
                address.url + path,
                params=query,
                data=content or None,
                headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json", **AS_IT_IS},
                timeout=aiohttp.ClientTimeout(total=seconds),
                allow_redirects=False,
                auto_decompress=False,
            ) as response:
                code = code_label(response.status)
                return response.status, await body_of(response, limit)
        except Unreadable as error:
            raise NotUnderstood(f"{method} {path}: {error}") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise AgentUnreachable(f"{method} {path}: {str(error)[:300] or type(error).__name__}") from None
        finally:
            metrics.AGENT_REQUESTS.labels(method, code).inc()


def _result(share: Share, answer: DocumentAnswer) -> ShareTruth | Refusal:
    if answer.refused is not None:
        return Refusal(answer.refused.reason or "Refused", answer.refused.message)
    if answer.share is None or answer.share.rollout != share.rollout:
        return Refusal("Unreachable", f"not an answer of an agent: it says nothing of {share.rollout}")
    return ShareTruth.of(answer.share)


def refusal_in(text: bytes) -> RefusalAnswer:
    """Return the reason in an answer that is none of success, empty where it gives none."""
    try:
        return parsed(RefusalAnswer, text)
    except Unreadable:
        return RefusalAnswer()

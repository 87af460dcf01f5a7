"""One request to one endpoint. Its outcome is a value; what an endpoint answers is its own and is not read."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp

from ...domain.notifications import Endpoint, Transition, message_of
from ..pods.answers import AS_IT_IS
from ..retry_after import pause_of
from .secrets import Secrets, SecretUnusable, signature_headers

NOT_TAKEN = frozenset((400, 405, 406, 411, 413, 414, 415, 417, 422, 431))
"""Answers that speak of the message itself: it is not taken however often it is sent. All else may be mended there."""


@dataclass(frozen=True)
class Outcome:
    """How a request ended.

    Attributes:
        delivered: whether the endpoint has it.
        not_taken: whether the message is the reason that it has not.
        words: why not, without anything secret.
        retry_after: seconds that the endpoint asked to be left alone for.
    """

    delivered: bool
    not_taken: bool = False
    words: str = ""
    retry_after: float = 0.0


class Sender:
    """Signs and sends; `seconds` is the limit of a request with all its parts."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        secrets: Secrets,
        *,
        seconds: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._session = session
        self._secrets = secrets
        self._patience = aiohttp.ClientTimeout(total=seconds)
        self._now = now

    def trouble(self, endpoint: Endpoint) -> str:
        """Return why nothing could be sent to an endpoint now, empty where something could."""
        try:
            self._secrets.url(endpoint)
            self._secrets.keys(endpoint)
        except SecretUnusable as error:
            return str(error)
        return ""

    async def send(self, endpoint: Endpoint, transition: Transition) -> Outcome:
        """Send a transition once."""
        message = message_of(endpoint, transition)
        try:
            url, keys = self._secrets.url(endpoint), self._secrets.keys(endpoint)
        except SecretUnusable as error:
            return Outcome(delivered=False, words=str(error))
        signed = signature_headers(transition.id, int(self._now()), message.body, keys)
        headers = {"Content-Type": message.content_type, "User-Agent": "trimtab-operator", **AS_IT_IS, **signed}
        try:
            async with self._session.post(
                url,
                data=message.body,
                headers=headers,
                timeout=self._patience,
                allow_redirects=False,
                auto_decompress=False,
            ) as response:
                return outcome_of(response.status, response.headers.get("Retry-After", ""), self._now())
        except TimeoutError:
            return Outcome(delivered=False, words=f"no answer within {self._patience.total:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Texts of errors have addresses in them, and those of some endpoints are secrets.
            return Outcome(delivered=False, words=type(error).__name__)


def outcome_of(status: int, retry_after: str, now: float) -> Outcome:
    """Return what an answer says; `now` is in seconds since 1970."""
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Outcome(delivered=True)
    redirected = HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST
    words = f"it answered {status}" + (", and redirects are not followed" if redirected else "")
    pause = pause_of(retry_after, now) or 0.0
    return Outcome(delivered=False, not_taken=status in NOT_TAKEN, words=words, retry_after=pause)

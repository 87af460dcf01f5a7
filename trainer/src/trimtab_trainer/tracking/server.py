"""A tracker's server: requests with JSON, what may be cured asked again, answers read to a bound.

Redirects are not followed, and no message holds a credential.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from ..certificates import check_authorities
from ..contract import Credentials, Reason
from ..contract.parsing import Unreadable, read_object
from ..errors import SettingsInvalid, StorageFailed
from ..fanout import ask_all
from ..interruption import Interruption
from ..keyfiles import read_key, source_of

T = TypeVar("T")

ATTEMPTS = 4
"""Of a request, the first included; 1, 2 and 4 s lie between them."""
CONNECT_SECONDS, TIMEOUT_SECONDS = 5.0, 30.0
ANSWER_BYTES = 8 << 20
MAY_BE_CURED = frozenset((408, 425, 429, 500, 502, 503, 504))

for _library in ("httpx2", "httpcore2"):
    logging.getLogger(_library).setLevel(logging.CRITICAL)


class Server:
    """A server at an address, as one credential sees it.

    Args:
        kind: what it should be, such as "MLflow", for what is said of other answers.
        field: setting that has its address.
        wanted: what the Secret has to have where the server asks for more.
    """

    def __init__(  # noqa: PLR0917  what distinguishes trackers
        self,
        uri: str,
        kind: str,
        field: str,
        wanted: str,
        headers: Mapping[str, str],
        auth: tuple[str, str] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.uri = uri.rstrip("/")
        self.sleep = sleep
        self._kind, self._field, self._wanted = kind, field, wanted
        check_authorities()
        self._client = httpx2.Client(
            headers={"User-Agent": "trimtab-trainer", **headers},
            auth=auth,
            follow_redirects=False,
            timeout=httpx2.Timeout(TIMEOUT_SECONDS, connect=CONNECT_SECONDS),
        )

    def close(self) -> None:
        self._client.close()

    def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        attempts: int | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """Return status and JSON of an answer; what may be cured by asking again is asked again, a few times.

        Raises:
            SettingsInvalid: it wants other credentials, or is none of its kind.
            StorageFailed: it does not answer.
        """
        words = ""
        for attempt in range(attempts or ATTEMPTS):
            if attempt:
                self.sleep(2.0 ** (attempt - 1))
            try:
                status, data = self._in_time(method, path, query or {}, body)
            except (httpx2.HTTPError, OSError) as error:
                words = type(error).__name__
                continue
            if status not in MAY_BE_CURED:
                return status, self._understood(status, data)
            words = f"it answered {status}"
        raise StorageFailed(
            f"the tracker {self.uri} cannot be told: {words}; is {self._field} right, and open to this pod?"
        )

    def denied(self, status: int) -> SettingsInvalid:
        """Return what to say of a server that wants other credentials."""
        return SettingsInvalid(
            f"{self.uri} answered {status}: put {self._wanted} into the Secret of the tracker", Reason.ACCESS_DENIED
        )

    def strange(self, what: str) -> SettingsInvalid:
        """Return what to say of an answer that none of its kind gives."""
        article = "an" if self._kind[0] in "AEIMO" else "a"
        return SettingsInvalid(f"{self.uri} {what}; is it {article} {self._kind}?")

    def _in_time(
        self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None
    ) -> tuple[int, bytes]:
        """Ask in a thread that is left behind if it takes for ever: the client bounds each piece, which may be a byte.

        Raises:
            TimeoutError
        """

        def overdue(seconds: float) -> None:
            if seconds > CONNECT_SECONDS + 2 * TIMEOUT_SECONDS:
                raise TimeoutError

        (answer,) = ask_all(
            1,
            lambda _, __: self._once(method, path, query, body),
            at_once=1,
            name="tracker",
            stop=Interruption(),  # a stage that tells is ended at once
            silent=overdue,
        )
        return answer

    def _once(
        self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None
    ) -> tuple[int, bytes]:
        content = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json"} if body is not None else {}
        url = f"{self.uri}/{path}"
        with self._client.stream(method, url, params=dict(query), content=content, headers=headers) as response:
            data = b""
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > ANSWER_BYTES:
                    raise self.strange(f"answers with more than {ANSWER_BYTES} bytes")
            return response.status_code, data

    def _understood(self, status: int, data: bytes) -> dict[str, Any]:
        if status in (401, 403):
            raise self.denied(status)
        try:
            return read_object(data)
        except Unreadable:
            raise SettingsInvalid(
                f"{self.uri} answered {status} and no JSON; {self._field} is the address of the server, without /api"
            ) from None


def keys_of(credentials: Credentials, *names: str) -> list[str | None]:
    """Return the keys of these names, None for each that is not there.

    Raises:
        SettingsInvalid: one holds what no header can.
    """
    source = source_of(credentials)
    found = [read_key(Path(credentials.directory) / name, source) for name in names]
    for name, value in zip(names, found, strict=True):
        if value is not None and not (value.isascii() and value.isprintable()):
            raise SettingsInvalid(
                f"key {name} of {source} holds a character that no credential has; write it anew",
                Reason.CREDENTIALS_MISSING,
            )
    return found


def batched(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield values in order, at most so many at once."""
    return (values[first : first + size] for first in range(0, len(values), size))

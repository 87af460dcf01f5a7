"""Answers that name the model by the alias that was asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable

from .asgi import Message, with_length


class Renaming:
    """An answer on its way back in which `model` says what the client asked for, not the revision that it became.

    Within a JSON string quotes are escaped, so the bytes `"model":"name"` are a member and no text, in an object as in
    the events of a stream. A part of an answer may end anywhere: what may be the beginning of such bytes waits for the
    next part; nothing else does.
    """

    def __init__(self, revision: str, alias: str) -> None:
        old, new = json.dumps(revision).encode(), json.dumps(alias).encode()
        self._pairs = [(key + old, key + new) for key in (b'"model":', b'"model": ')]
        self._start: Message | None = None
        self._applies = False
        self._kept = b""

    def passes(self, message: Message) -> Iterable[Message]:
        """Return what to send instead of a message of the engine."""
        if message["type"] == "http.response.start":
            headers = {key.lower(): value for key, value in message.get("headers", [])}
            kind = headers.get(b"content-type", b"")
            renamed = kind.startswith((b"application/json", b"text/event-stream"))
            self._applies = renamed and b"content-encoding" not in headers
            if self._applies and b"content-length" in headers:
                self._start = message  # its length is known with the body
            else:
                yield message
            return
        if message["type"] == "http.response.body" and self._applies:
            last = not message.get("more_body", False)
            message = {**message, "body": self._part(message.get("body", b""), last)}
            if self._start is not None:
                length = len(message["body"]) if last else None
                self._start = {**self._start, "headers": with_length(self._start["headers"], length)}
        if self._start is not None:
            yield self._start
            self._start = None
        yield message

    def _part(self, data: bytes, last: bool) -> bytes:
        data = self._kept + data
        for old, new in self._pairs:
            data = data.replace(old, new)
        keep = 0 if last else max(_overlap(data, old) for old, _ in self._pairs)
        self._kept = data[len(data) - keep :]
        return data[: len(data) - keep]


def _overlap(data: bytes, text: bytes) -> int:
    """Return how long the end of the data is that is a beginning of the text, but not all of it."""
    at = data.find(text[:1], max(0, len(data) - len(text) + 1))
    while at >= 0:
        if text.startswith(data[at:]):
            return len(data) - at
        at = data.find(text[:1], at + 1)
    return 0

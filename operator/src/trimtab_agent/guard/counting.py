"""What became of the requests of each revision, for the analysis of a canary."""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from .asgi import Message

NAMES_KEPT = 64
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of the latency histograms, seconds; one more bucket holds the rest."""
SHORTEST = 1e-6
"""Seconds; no answer is faster, and the logarithm of nothing is none."""
ERROR_BYTES = 4096
"""As much of an error as is looked at."""
TOKENS = re.compile(rb'"(?:completion|output)_tokens" ?: ?(\d{1,9})')
"""How many tokens an answer in one piece has. Within a string its quotes would be escaped, so no text looks like it."""


class Sums:
    """Durations as sums of natural logarithms of seconds: enough for a mean and a variance, however many there were."""

    def __init__(self) -> None:
        self.n, self.total, self.squares = 0, 0.0, 0.0

    def add(self, seconds: float) -> None:
        logarithm = math.log(max(seconds, SHORTEST))
        self.n += 1
        self.total += logarithm
        self.squares += logarithm * logarithm

    def to_json(self) -> dict[str, Any]:
        return {"n": self.n, "sum": self.total, "squares": self.squares}


class Ended:
    """How requests ended: each that began is one of answers, errors, rejected and disconnected, or runs."""

    def __init__(self) -> None:
        self.requests = self.answers = self.errors = self.rejected = self.disconnected = self.running = 0

    def begins(self) -> None:
        self.requests += 1
        self.running += 1

    def ends(self, outcome: str) -> None:
        self.running -= 1
        setattr(self, outcome, getattr(self, outcome) + 1)

    def to_json(self) -> dict[str, Any]:
        names = ("requests", "answers", "errors", "rejected", "disconnected", "running")
        return {name: getattr(self, name) for name in names}


class Count(Ended):
    """All requests of one revision since the engine started; times in seconds.

    `by_alias` are those that the guard itself sent to this revision: a fair sample of what clients ask, which alone can
    be compared with another revision's. Of them, the logarithms of: `first`, from the request to the first byte of a
    stream, or to an answer in one piece that has no tokens; `chunk`, from one event of a stream to the next; `token`
    and `whole`, answers in one piece, by the tokens written and to the end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_alias = Ended()
        self.first, self.chunk, self.token, self.whole = Sums(), Sums(), Sums(), Sums()
        self.total_sum = self.first_sum = 0.0
        self.total_buckets = [0] * (len(BOUNDS) + 1)
        self.first_buckets = [0] * (len(BOUNDS) + 1)

    def to_json(self) -> dict[str, Any]:
        """Return the counts. Beside `byAlias` all requests: `first` to the first byte, `total` to the end."""
        sums = {name: getattr(self, name).to_json() for name in ("first", "chunk", "token", "whole")}
        return {
            **super().to_json(),
            "total": {"sum": self.total_sum, "buckets": self.total_buckets},
            "first": {"sum": self.first_sum, "buckets": self.first_buckets},
            "byAlias": {**self.by_alias.to_json(), **sums},
        }


class Counts:
    """Those of every revision since the engine started; of old names only some are kept."""

    def __init__(self) -> None:
        self._kept: dict[str, Count] = {}

    def of(self, name: str, *, known: bool) -> Count | None:
        """Return where a request for a revision counts; only `known` names begin to, or clients could make any."""
        if known and name not in self._kept:
            if len(self._kept) >= NAMES_KEPT:
                idle = next((old for old, count in self._kept.items() if not count.running), None)
                if idle is not None:
                    del self._kept[idle]
            self._kept[name] = Count()
        return self._kept.get(name)

    def to_json(self) -> dict[str, Any]:
        return {name: count.to_json() for name, count in self._kept.items()}


class Passing:
    """One request on its way through the engine: what became of it, and when the parts of its answer came."""

    def __init__(self, name: str, count: Count, by_alias: bool, clock: Callable[[], float]) -> None:
        self.name = name
        self._count, self._by_alias, self._clock = count, by_alias, clock
        self._counted: tuple[Ended, ...] = (count, count.by_alias) if by_alias else (count,)
        self._start = self._first = self._last = clock()
        self._status = self._bytes = self._events = self._tokens = 0
        self._streams = self._complete = self._left = False
        self._error = b""
        for ended in self._counted:
            ended.begins()

    def received(self, message: Message) -> None:
        """See what the client sends after its body."""
        self._left = self._left or message["type"] == "http.disconnect"

    def answered(self, message: Message) -> None:
        """See a part of the answer."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            kind = next((value for key, value in message.get("headers", []) if key.lower() == b"content-type"), b"")
            self._streams = kind.startswith(b"text/event-stream")
        elif message["type"] == "http.response.body":
            if part := message.get("body", b""):
                self._part(part)
            self._complete = self._complete or not message.get("more_body", False)

    def _part(self, part: bytes) -> None:
        self._last = self._clock()
        if not self._bytes:
            self._first = self._last
            self._count.first_sum += self._first - self._start
            _observe(self._count.first_buckets, self._first - self._start)
        self._bytes += len(part)
        if self._streams:
            self._events += part.count(b"data:")
        elif self._status == 404:
            self._error = (self._error + part)[:ERROR_BYTES]
        elif found := TOKENS.search(part):
            self._tokens = int(found[1])

    def ends(self) -> None:
        """Count it."""
        outcome = self._outcome()
        for ended in self._counted:
            ended.ends(outcome)
        if outcome != "answers":
            return
        took = self._clock() - self._start
        self._count.total_sum += took
        _observe(self._count.total_buckets, took)
        if not self._by_alias:
            return
        if self._tokens:
            self._count.token.add((self._last - self._start) / self._tokens)
            self._count.whole.add(self._last - self._start)
        elif self._bytes:
            self._count.first.add(self._first - self._start)
        if self._events > 1:
            self._count.chunk.add((self._last - self._first) / (self._events - 1))

    def _outcome(self) -> str:
        if self._status >= 500 or (not self._complete and not self._left):
            return "errors"
        if not self._complete or not self._status:
            return "disconnected"
        if self._status == 404 and _lacks_the_model(self._error, self.name):
            return "errors"  # the table and the engine disagree
        return "rejected" if self._status >= 400 else "answers"


def _observe(buckets: list[int], seconds: float) -> None:
    buckets[bisect_left(BOUNDS, seconds)] += 1


def _lacks_the_model(error: bytes, name: str) -> bool:
    """Tell whether a 404 says that the engine has not this model; other 404 are about what the client asked for.

    The sentence begins so in every version of vLLM, and no client can make another error begin with it.
    """
    try:
        document = json.loads(error)
        told = document.get("error", document)["message"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False
    return isinstance(told, str) and told.startswith(f"The model `{name}` does not exist")

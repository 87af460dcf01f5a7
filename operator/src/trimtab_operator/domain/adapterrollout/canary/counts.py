"""What the guards counted of one revision, as sums: requests by the alias, how they ended, and how long they took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

LARGEST = 1e15
"""A count or a sum beyond this is none; floats are exact far below it."""


@dataclass(frozen=True)
class Times:
    """Durations as sums of natural logarithms of seconds, from which mean and variance follow."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, other: Times) -> Times:
        return Times(self.n + other.n, self.total + other.total, self.squares + other.squares)

    def __sub__(self, other: Times) -> Times:
        if self.n <= other.n:
            return Times()
        return Times(self.n - other.n, self.total - other.total, self.squares - other.squares)

    @property
    def mean(self) -> float:
        """The mean logarithm; e to its power is the geometric mean in seconds."""
        return self.total / self.n

    @property
    def variance(self) -> float:
        """The sample variance of the logarithms; needs two durations."""
        return max(0.0, (self.squares - self.total**2 / self.n) / (self.n - 1))

    @classmethod
    def of(cls, body: object) -> Self:
        """Return what a guard says.

        Raises:
            ValueError: it says something else.
        """
        if not isinstance(body, Mapping):
            raise ValueError("no times")
        return cls(_count(body.get("n")), _number(body.get("sum")), _number(body.get("squares")))


@dataclass(frozen=True)
class Counts:
    """Requests by the alias to one revision since its engine started.

    Attributes:
        requests: those that the engine ended, errors and refusals of what the client sent included.
        errors: among them, the engine's own.
        disconnected: the client left before the end.
        running: under way at this moment.
        first: streamed answers, to the first byte; answers in one piece that have no tokens, to that piece.
        chunk: streamed answers, from one event to the next.
        token: answers in one piece, by the tokens written.
        whole: the same answers, to their end.
        told: whether every guard told these counts; those of an earlier version do not.
    """

    requests: int = 0
    errors: int = 0
    disconnected: int = 0
    running: int = 0
    first: Times = Times()
    chunk: Times = Times()
    token: Times = Times()
    whole: Times = Times()
    told: bool = True

    @classmethod
    def of(cls, body: object) -> Self:
        """Return a guard's count of one revision; never raises, what is not understood is not told."""
        told = body.get("byAlias") if isinstance(body, Mapping) else None
        if not isinstance(told, Mapping):
            return cls(told=False)
        try:
            ended = [_count(told.get(name)) for name in ("answers", "errors", "rejected")]
            return cls(
                requests=sum(ended),
                errors=ended[1],
                disconnected=_count(told.get("disconnected")),
                running=_count(told.get("running")),
                first=Times.of(told.get("first")),
                chunk=Times.of(told.get("chunk")),
                token=Times.of(told.get("token")),
                whole=Times.of(told.get("whole")),
            )
        except ValueError:
            return cls(told=False)

    @property
    def seen(self) -> int:
        """Every request that was under way at some time since the zero."""
        return self.requests + self.disconnected + self.running

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            disconnected=self.disconnected + other.disconnected,
            running=self.running + other.running,
            first=self.first + other.first,
            chunk=self.chunk + other.chunk,
            token=self.token + other.token,
            whole=self.whole + other.whole,
        ).known(self.told and other.told)

    def since(self, mark: Counts) -> Counts:
        """Return what was counted after a mark of the same start of the engine. What runs, runs now."""
        return Counts(
            requests=max(0, self.requests - mark.requests),
            errors=max(0, self.errors - mark.errors),
            disconnected=max(0, self.disconnected - mark.disconnected),
            running=self.running,
            first=self.first - mark.first,
            chunk=self.chunk - mark.chunk,
            token=self.token - mark.token,
            whole=self.whole - mark.whole,
        ).known(self.told and mark.told)

    def known(self, told: bool) -> Counts:
        """Return the same counts, told or not."""
        return self if told else Counts(told=False)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        raise ValueError("no count")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST <= value <= LARGEST:
        raise ValueError("no sum")
    return float(value)

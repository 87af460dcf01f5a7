"""What a status write tells, as values: the runtime adds them to its metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """An amount of a counter, or an observation of a histogram. Labels are words of ours, never a tenant's."""

    metric: str
    labels: tuple[str, ...] = ()
    amount: float = 1.0

"""The time that a run waits instead of computing: for data, and for checkpoints."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


class Idle:
    """Adds up what the training loop waits for, in seconds, since it was made."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.data_seconds = 0.0
        self.checkpoint_seconds = 0.0

    def waiting_for_data(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yield the same; the time until each is there counts."""
        while True:
            started = time.monotonic()
            found = next(items, None)
            self.data_seconds += time.monotonic() - started
            if found is None:
                return
            yield found

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Count the time that a checkpoint holds the loop up."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.checkpoint_seconds += time.monotonic() - started

    def shares(self) -> dict[str, float]:
        """Return both as shares of all time so far, for records."""
        whole = max(time.monotonic() - self._started, 1e-9)
        return {
            "seconds": round(whole, 3),
            "data_wait_ratio": round(self.data_seconds / whole, 5),
            "checkpoint_stall_ratio": round(self.checkpoint_seconds / whole, 5),
        }

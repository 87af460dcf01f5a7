"""How long a test waits: for as long as something moves. A machine may be slow, and others may be using it."""

from __future__ import annotations

import time

QUIET_SECONDS = 300.0
LOOK_SECONDS = 0.5
LONGEST_SECONDS = 900.0
"""However much moves: a log that goes on, or an object that is written for ever, is no progress."""


class Patience:
    """Ends a wait when what is looked at has been the same for a while.

    Args:
        what: is waited for, for the failure's message.
        quiet: seconds without a change after which nothing more is expected.
    """

    def __init__(self, what: str, quiet: float = QUIET_SECONDS) -> None:
        self._what = what
        self._quiet = quiet
        self._seen: object = None
        self._begun = self._changed = time.monotonic()
        self._looked = 0.0

    def spend(self, seen: object) -> None:
        """Fail when nothing has moved for too long; `seen` is what is looked at, or how to look where that is dear."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if (fresh := seen() if callable(seen) else seen) != self._seen:
            self._seen, self._changed = fresh, now
        assert now - self._changed < self._quiet, f"{self._what} did not come, nothing moves any more: {fresh}"
        assert now - self._begun < LONGEST_SECONDS, f"{self._what} did not come, but other things go on: {fresh}"

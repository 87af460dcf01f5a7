"""Being told to stop: SIGTERM (a preemption, an eviction, a suspension) or SIGINT, at any moment of a stage.

Two ways, one flag. Where work can be thrown away (loading, a gradient, an evaluation, publishing) the signal raises in
place, within one operation of the library that is running, and the block ends with `Interrupted`. Where it cannot (an
optimizer step, a checkpoint) it only sets the flag, and the next `check` raises. What is swallowed by somebody's
`except` in between is raised by the next check all the same, so the process never ends with success after a signal.

`train` opens it around the stage; imports no torch.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .errors import Interrupted


class _Told(BaseException):
    """A signal in place: no library takes it for an error of its own and tries again, as botocore would."""


class Interruption:
    """Whether this process was told to stop."""

    def __init__(self) -> None:
        self.requested = False
        self._at_once = False

    @contextmanager
    def listening(self) -> Iterator[Interruption]:
        """Take over SIGTERM and SIGINT while the block runs (only the main thread can; elsewhere, `request`)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            for number in before:
                signal.signal(number, self._received)
            yield self
        except _Told:  # it came while a block was being left
            raise Interrupted("told to stop") from None
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise `Interrupted` in the middle of the block: what it does can be thrown away."""
        outer, self._at_once = self._at_once, True
        try:
            self.check()
            yield
        except _Told:
            raise Interrupted("told to stop") from None
        except Interrupted:
            raise
        except Exception as error:
            if self.requested:  # the signal came out of a library as another error
                raise Interrupted("told to stop") from error
            raise
        finally:
            self._at_once = outer
        self.check()

    @contextmanager
    def later(self) -> Iterator[None]:
        """Let the block end first: what it does must not be torn."""
        outer, self._at_once = self._at_once, False
        try:
            yield
        finally:
            self._at_once = outer

    def request(self) -> None:
        """Ask to stop, as a signal does, but never in the middle."""
        self.requested = True

    def check(self) -> None:
        """Raise `Interrupted` if asked to stop."""
        if self.requested:
            raise Interrupted("told to stop")

    def _received(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if self._at_once:
            self._at_once = False  # once: what unwinds now may have to write a checkpoint
            raise _Told

"""Process 1 of the container: it starts the worker again whenever that ends.

A sidecar container that ended makes its whole pod unready, and with it a server that answers perfectly well. So the
container does not end with the worker, only with the pod.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
STEADY_SECONDS = 60.0
"""A worker that ran as long as this is started again at once."""
SETTINGS_INVALID = 2


def supervise(command: Sequence[str]) -> int:
    """Run a command again and again until a signal ends it; return the exit code."""
    return Supervisor(command).run()


class Supervisor:
    """One command, and whether it is to be started again."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._worker: subprocess.Popen[bytes] | None = None
        self._told_to_stop = False

    def run(self) -> int:
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        pause = SHORTEST_PAUSE
        while not self._told_to_stop:
            started = time.monotonic()
            self._worker = subprocess.Popen(self._command)
            if self._stopping():  # the signal came before there was anybody to hand it to
                self._worker.terminate()
            code = _wait(self._worker)
            if self._stopping():
                return max(code, 0)
            if code == SETTINGS_INVALID:
                return code  # nothing gets better by itself: let the kubelet show it
            pause = SHORTEST_PAUSE if time.monotonic() - started > STEADY_SECONDS else min(LONGEST_PAUSE, pause * 2)
            print(f'{{"level": "error", "msg": "the worker ended", "code": {code}, "again": {pause}}}', file=sys.stderr)
            self._pause(pause)
        return 0

    def _stop(self, number: int, _: FrameType | None) -> None:
        self._told_to_stop = True
        if self._worker is not None and self._worker.poll() is None:
            self._worker.send_signal(number)

    def _stopping(self) -> bool:
        return self._told_to_stop

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._told_to_stop:
            time.sleep(0.05)


def _wait(worker: subprocess.Popen[bytes]) -> int:
    """Wait for the worker; process 1 also gets children that lost their parent, and must take their ends."""
    while True:
        code = worker.poll()
        if code is not None:
            return code
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            return worker.wait()
        if found is not None and found.si_pid != worker.pid:
            os.waitpid(found.si_pid, 0)

"""The command `trimtab-trainer`: it can be told to stop before its imports are done.

In a container it is process 1, to which the kernel hands no signal that it has no handler for: without one a pod that
is deleted in its first seconds would be held for its whole grace period. So this imports next to nothing by itself.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

INTERRUPTED = 14
"""`ExitCode.INTERRUPTED`, which is not imported yet."""


def main() -> int:
    """Run the command line; return its exit code."""
    signal.signal(signal.SIGTERM, _leave)
    from .__main__ import main as run

    try:
        return run()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what ends after its last words has ended as they say


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once: nothing has begun, and an import that is torn by an exception may swallow it."""
    os._exit(INTERRUPTED)

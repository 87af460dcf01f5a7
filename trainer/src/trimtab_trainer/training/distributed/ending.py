"""How a run of several processes ended, of how each of them did. Pure; `supervisor` asks.

What one of them dies of, the others only notice: their "a process was lost" is a consequence, and the run ends by the
name of the cause. Having been told to stop is a cause only where there is no other.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from ...contract import ExitCode, Reason, TerminationMessage
from ...errors import (
    DataInvalid,
    Interrupted,
    OutOfMemory,
    ProcessLost,
    SettingsInvalid,
    StorageFailed,
    TrainerError,
)

KINDS: dict[int, type[TrainerError]] = {
    ExitCode.SETTINGS_INVALID: SettingsInvalid,
    ExitCode.DATA_INVALID: DataInvalid,
    ExitCode.OUT_OF_MEMORY: OutOfMemory,
    ExitCode.STORAGE_FAILED: StorageFailed,
    ExitCode.INTERRUPTED: Interrupted,
}
"""Errors by exit code; of any other code it is a bug."""


@dataclass(frozen=True)
class End:
    """How a process ended.

    Attributes:
        code: its exit code, or the negative number of the signal that ended it.
        words: its last words, if it had any.
        by_us: it was ended because another one had ended, so its code says nothing.
    """

    rank: int
    code: int
    words: TerminationMessage | None = None
    by_us: bool = False

    @property
    def reason(self) -> Reason | None:
        return self.words.reason if self.words is not None else None


def outcome(ends: Sequence[End], size: int, *, told_to_stop: bool, out_of_memory: bool) -> TerminationMessage:
    """Return the first process's last words of a run that was published, or that a pod has done its part of.

    Args:
        ends: of all processes of this pod, in the order in which they ended.
        size: how many they are in all pods.
        told_to_stop: whether they were.
        out_of_memory: whether the kernel ended a process of this container for want of memory.

    Raises:
        TrainerError: the run was not published; it says what of.
    """
    first = min(ends, key=lambda end: end.rank)
    done = first.code == 0 if first.rank == 0 else all(end.code == 0 for end in ends)  # the leader publishes for all
    if done and first.words is not None:
        return first.words
    of_itself = [end for end in ends if not end.by_us]
    for cause in (*(end for end in of_itself if _is_cause(end)), *(end for end in of_itself if end.code < 0)):
        raise _error(cause, size, out_of_memory)
    interrupted = next((end for end in of_itself if end.code == ExitCode.INTERRUPTED), None)
    if told_to_stop or interrupted is not None:
        message = interrupted.words.message if interrupted is not None and interrupted.words is not None else ""
        raise Interrupted(message or "told to stop")
    silent = sorted(end.rank for end in ends if end.by_us)
    spoken = next((end.words.message for end in of_itself if end.code and end.words is not None), None)
    told = f": {spoken}" if spoken is not None else ""
    raise ProcessLost(f"{_named(silent, size)} gave no answer{told}" if silent else f"a process was lost{told}")


def _is_cause(end: End) -> bool:
    """Tell whether a process ended of something of its own: not by a signal, and not because of another one."""
    return end.code > 0 and end.code != ExitCode.INTERRUPTED and end.reason is not Reason.PROCESS_LOST


def _error(end: End, size: int, out_of_memory: bool) -> TrainerError:
    who = _named([end.rank], size)
    if end.code < 0:
        name = signal.Signals(-end.code).name if -end.code in set(signal.Signals) else f"signal {-end.code}"
        if out_of_memory and -end.code == signal.SIGKILL:
            return OutOfMemory(f"the kernel ended {who} for want of memory; raise the memory limit")
        return ProcessLost(f"{who} was ended by {name}; what is in a checkpoint is kept")
    kind = KINDS.get(end.code, TrainerError)
    if end.words is None:
        return kind(f"{who} ended with exit code {end.code} and without last words; its lines are in the log")
    message = end.words.message if end.rank == 0 else f"{who}: {end.words.message}"
    return kind(message, end.words.reason)


def _named(ranks: Sequence[int], size: int) -> str:
    """Return what processes are called, counted from 0 as ranks are everywhere."""
    return f"{'rank' if len(ranks) == 1 else 'ranks'} {', '.join(map(str, ranks))} of {size}"

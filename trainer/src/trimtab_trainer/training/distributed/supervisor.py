"""Starts the processes that train as one, passes on that they are told to stop, and ends them together.

It is the process that a pod or a person started, and does nothing else meanwhile; it imports no torch. torchrun is not
it: that gives processes that are told to stop 30 s before it kills them, less than a checkpoint may take, and knows
neither exit codes nor last words.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...contract import WORLD_SIZE, ExitCode, TerminationMessage
from ...interruption import Interruption
from ...report import Report
from ..machine.control_groups import killed_for_memory
from .ending import End, outcome
from .nodes import Nodes
from .processes import Place

LOOK_EVERY = 0.05
"""Seconds."""
AFTER_A_FAILURE = 120.0
"""Seconds that the others have once one has failed: they notice, and the leader writes a checkpoint."""
AFTER_THE_LEADER = 10.0
"""Seconds that the others have once the leader has ended, and whoever was told to end has."""


@dataclass
class _Process:
    rank: int
    handle: subprocess.Popen[bytes]
    last_words: Path
    by_us: bool = False


def supervise(
    nodes: Nodes, arguments: Sequence[str], scratch: Path, stop: Interruption, report: Report
) -> TerminationMessage:
    """Run a stage in several processes; return the last words of the first of them.

    Args:
        nodes: how many there are in this pod, and in which others.
        arguments: of trimtab-trainer; each process is told in addition where its last words go.
        scratch: a folder.
        stop: what this process is told is passed on.
        report: where events go.

    Raises:
        TrainerError: the run did not end well.
    """
    folder = Path(tempfile.mkdtemp(prefix="processes-", dir=scratch))  # a meeting of before would be joined
    killed_before = killed_for_memory()
    places = [Place.of(nodes, rank, folder / "meeting") for rank in range(nodes.processes)]
    processes = [_start(place, arguments, folder) for place in places]
    of_several = {"node": nodes.rank, "nodes": nodes.count} if nodes.count > 1 else {}
    report("processes started", world_size=nodes.size, pids=[each.handle.pid for each in processes], **of_several)
    try:
        ends = _watch(processes, stop, report)
    finally:
        for each in processes:
            each.handle.kill()
            each.handle.wait()
    memory = killed_for_memory() > killed_before
    return outcome(ends, nodes.size, told_to_stop=stop.requested, out_of_memory=memory)


def _start(place: Place, arguments: Sequence[str], folder: Path) -> _Process:
    words = folder / f"last-words-{place.rank}.json"
    command = [sys.executable, "-m", "trimtab_trainer", *arguments, "--termination-log", str(words)]
    environment = {name: value for name, value in os.environ.items() if name != WORLD_SIZE}  # libraries act on it
    handle = subprocess.Popen(command, env={**environment, **place.environment()})
    return _Process(place.rank, handle, words)


def _watch(processes: list[_Process], stop: Interruption, report: Report) -> list[End]:
    """Wait for all to end; return how they did, in that order.

    Those of other pods are nobody's to wait for here: what becomes of them is told by the sums that they take part in.
    """
    ends: list[End] = []
    told, deadline = False, float("inf")
    while running := [each for each in processes if each.rank not in {end.rank for end in ends}]:
        if stop.requested and not told:
            told = True
            for each in running:
                each.handle.send_signal(signal.SIGTERM)
        for each in running:
            code = each.handle.poll()
            if code is None:
                continue
            ends.append(End(each.rank, code, _words(each.last_words), each.by_us))
            report("process ended", rank=each.rank, exit_code=code)
            if each.rank == 0:
                deadline = min(deadline, time.monotonic() + AFTER_THE_LEADER)
            elif code == ExitCode.INTERRUPTED:
                stop.request()  # whoever told that one alone told all
            elif code != 0:
                deadline = min(deadline, time.monotonic() + AFTER_A_FAILURE)
        if time.monotonic() >= deadline:
            deadline = time.monotonic() + AFTER_THE_LEADER
            for each in running:
                if each.handle.poll() is None:
                    # Being asked once is enough, and who was told to stop before was asked.
                    each.handle.send_signal(signal.SIGKILL if each.by_us else signal.SIGTERM)
                    each.by_us = True
        time.sleep(LOOK_EVERY)
    return ends


def _words(file: Path) -> TerminationMessage | None:
    try:
        return TerminationMessage.decode(file.read_text())
    except OSError:
        return None

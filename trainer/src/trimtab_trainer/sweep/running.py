"""One run of a search alone: the ordinary commands of `trimtab-trainer` in a process of their own."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..contract import ExitCode, Reason, RunConfig, Stage, TerminationMessage, hub_sources
from ..contract.curve import Curve
from ..contract.parsing import finite
from ..errors import Interrupted
from ..interruption import Interruption
from ..storage import open_store
from ..storage.store import replacing
from . import files

LOOKED_AT_SECONDS, NOTED_SECONDS = 0.2, 1.0
DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


@dataclass(frozen=True)
class Ran:
    """What came of a run: the value it published, or the reason it has none; `rows` is the digest of what it is of."""

    seconds: float
    value: float | None = None
    curve: Curve | None = None
    accelerator_seconds: float | None = None
    reason: Reason | None = None
    message: str = ""
    rows: str | None = None


def ran(config: RunConfig, folder: Path, name: str, stop: Interruption) -> Ran:
    """Train a configuration, or find it trained: the run's own note in the output says so.

    Raises:
        Interrupted: told to stop; the run has written a checkpoint, and goes on from it when it is run again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    file.write_text(json.dumps(config.to_json(), indent=1) + "\n")
    arguments = ["--config", str(file), "--attempt", str(_attempt(folder, name))]
    if hub_sources(config):
        mirrored = folder / f"{name}-mirrored.json"
        words = _stage(["mirror", *arguments, "--found", str(mirrored)], folder, name, stop)
        if words.reason is not Reason.COMPLETED:
            return Ran(_spent(folder, name), reason=words.reason, message=words.message)
        arguments += ["--mirrored", str(mirrored)]
    words = _stage(["train", *arguments], folder, name, stop)
    seconds = _spent(folder, name)
    if words.reason is not Reason.COMPLETED or words.artifact is None:
        return Ran(seconds, reason=words.reason, message=words.message)
    figures = files.published(open_store(config.output.uri, None), words.artifact.digest)
    cost = figures.get("cost")
    return Ran(
        seconds,
        finite(figures.get("validationLoss")),
        files.curve_of(figures),
        finite(cost.get("acceleratorSeconds")) if isinstance(cost, dict) else None,
        rows=words.prepared.validation_digest if words.prepared is not None else None,
    )


def _attempt(folder: Path, name: str) -> int:
    """Return the number of this attempt: one that was killed may still write, and has to be told from this one."""
    counter = folder / f"{name}.attempts"
    before = counter.read_text() if counter.exists() else ""
    number = int(before) if before.strip().isdigit() else 0
    with replacing(counter) as file:
        file.write(b"%d" % (number + 1))
    return number


def _spent(folder: Path, name: str) -> float:
    """Return the seconds that the processes of a run have taken, those of attempts that were stopped or killed too."""
    clock = folder / f"{name}.seconds"
    try:
        return float(clock.read_text())
    except (OSError, ValueError):  # none yet
        return 0.0


def _note(clock: Path, before: float, began: float) -> float:
    """Write down what a run has taken, for who goes on where this process is killed; return when that was."""
    now = time.monotonic()
    with replacing(clock) as file:
        file.write(f"{before + now - began:.1f}\n".encode())
    return now


def _stage(arguments: Sequence[str], folder: Path, name: str, stop: Interruption) -> TerminationMessage:
    """Run one stage; return its last words. Its bar is seen, its events are kept in a file."""
    last, log = folder / f"{name}.end.json", folder / f"{name}.log"
    last.unlink(missing_ok=True)
    clock, before, began = folder / f"{name}.seconds", _spent(folder, name), time.monotonic()
    noted = began
    command = [sys.executable, "-m", "trimtab_trainer", *arguments, "--termination-log", str(last)]
    with log.open("ab") as events:
        # Of a group of its own: Ctrl-C reaches it through this process, once. This process has no threads.
        process = subprocess.Popen(command, stdout=events, start_new_session=True, preexec_fn=_with_parent)  # noqa: PLW1509
        try:
            told = False
            while process.poll() is None:
                if stop.requested and not told:
                    process.terminate()
                    told = True
                time.sleep(LOOKED_AT_SECONDS)
                if time.monotonic() - noted >= NOTED_SECONDS:
                    noted = _note(clock, before, began)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            _note(clock, before, began)
    if stop.requested or process.returncode == ExitCode.INTERRUPTED:
        raise Interrupted("told to stop; run the same command again, and it goes on from the last checkpoint")
    words = TerminationMessage.decode(last.read_text()) if last.exists() else None
    if words is not None:
        return words
    if process.returncode == -signal.SIGKILL:
        reason, how = Reason.OUT_OF_MEMORY, "the system killed it, as it does when memory runs out; it has"
    else:
        reason, how = Reason.BUG, f"it ended with exit code {process.returncode} and"
    return TerminationMessage(
        stage=Stage(arguments[0]), run_uid="", attempt=0, reason=reason, message=f"{how} no last words; see {log}"
    )


def _with_parent() -> None:
    """Ask the kernel to stop this process when its parent is killed, who could not tell it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGTERM)
        if os.getppid() == 1:
            os._exit(int(ExitCode.INTERRUPTED))

"""Pods that train, as an operator starts them: a container each, which starts its processes, is told to stop, or dies.

Containers and their processes are forked from the test's, which has loaded torch: starting Python anew for each of them
takes ten times as long as all that they do. What they run is `trimtab_trainer.__main__.main` with the command line of a
pod, and signals, exit codes, last words and sockets are real.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from trimtab_trainer import __main__ as command
from trimtab_trainer.contract import TerminationMessage
from trimtab_trainer.training import train  # noqa: F401  loaded once, before anything is forked
from trimtab_trainer.training.distributed import supervisor

from tests.trainer.train.stage import StageRun

Disturbance = tuple[str, Callable[[list[int]], None]]
"""An event of the log, and what happens then; it is given the container's process and those that it started."""


@dataclass
class Ended:
    """A pod's container that is over."""

    code: int
    words: TerminationMessage
    events: list[dict[str, Any]]

    def told(self, message: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["message"] == message]


class Forked:
    """A process with the part of `subprocess.Popen` that the supervisor uses; it runs `python -m trimtab_trainer`."""

    def __init__(self, command_line: Sequence[str], env: Mapping[str, str], stdout: int | None = None) -> None:
        assert list(command_line[:3]) == [sys.executable, "-m", "trimtab_trainer"]
        self._code: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(command_line[3:], env, stdout)

    def poll(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self) -> int:
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _become(arguments: Sequence[str], env: Mapping[str, str], stdout: int | None) -> NoReturn:
    """Run the command in this process, as if it had been started anew."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if stdout is not None:
            os.dup2(stdout, 1)
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115  until the process ends
        os.environ.clear()
        os.environ.update(env)
        supervisor.subprocess.Popen = Forked  # type: ignore[attr-defined]
        code = command.main(list(arguments))
    except BaseException:  # told by this process, which is a copy of the test's, and never in its name
        traceback.print_exc()
    finally:
        os._exit(code)  # nothing of the test's own process is to be undone here


class Pod:
    """One of the pods of an attempt."""

    def __init__(
        self,
        root: Path,
        run: StageRun,
        attempt: int,
        *,
        env: Mapping[str, str],
        node: int = 0,
        prepares: bool = False,
    ) -> None:
        """Start the stage's container.

        Args:
            root: a folder of its own, for all attempts.
            run: what is trained.
            attempt: number.
            env: beside the test's own.
            node: which of the attempt's pods.
            prepares: it is not told what was prepared.
        """
        config, prepared = root / "run.json", root / "prepared.json"
        config.write_text(json.dumps(run.config.to_json()))
        prepared.write_text(json.dumps(run.prepared.to_json()))
        name = f"{attempt}-{node}"
        self._words = root / f"last-words-{name}"
        line = [sys.executable, "-m", "trimtab_trainer", "train", "--config", str(config)]
        line += [] if prepares else ["--prepared", str(prepared)]
        line += ["--attempt", str(attempt), "--scratch", str(root / f"pod-{name}")]
        line += ["--termination-log", str(self._words)]
        reading, writing = os.pipe()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **env}
        self.handle = Forked(line, env=environment, stdout=writing)
        os.close(writing)
        self._out = os.fdopen(reading)
        self.events: list[dict[str, Any]] = []

    def kill(self) -> None:
        """End the container and all its processes at once, as a node's end does."""
        started = [pid for event in self.events if event["message"] == "processes started" for pid in event["pids"]]
        self.handle.kill()
        for pid in started:
            with contextlib.suppress(ProcessLookupError):  # it ended with its parent
                os.kill(pid, signal.SIGKILL)

    def until(self, message: str) -> None:
        """Read its log until it says something; to the end if it never does."""
        for line in self._out:
            self.events.append(json.loads(line))
            if self.events[-1]["message"] == message:
                return

    def ended(self) -> Ended:
        """Wait for its end."""
        self.until("")
        code = self.handle.wait()
        found = TerminationMessage.decode(self._words.read_text()) if self._words.exists() else None
        assert found is not None, (code, self.events)
        return Ended(code, found, self.events)


def container(root: Path, run: StageRun, attempt: int, disturb: Disturbance | None = None) -> Ended:
    """Run the stage in one pod of two processes."""
    pod = Pod(root, run, attempt, env={"TRIMTAB_PROCESSES": "2"})
    if disturb is not None:
        pod.until(disturb[0])
        started = next(event["pids"] for event in pod.events if event["message"] == "processes started")
        disturb[1]([pod.handle.pid, *started])
    return pod.ended()

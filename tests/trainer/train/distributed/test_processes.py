"""Processes, started and ended as a pod does it: they lose nothing, and end together by one name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from trimtab_trainer.contract import ExitCode, Reason, TerminationMessage

from tests.trainer.train.stage import StageRun, stage_run

WAIT = 400
"""Seconds, of which a quiet machine needs a tenth."""


@dataclass
class Ended:
    """A pod's container that is over."""

    code: int
    words: TerminationMessage
    events: list[dict[str, Any]]

    def told(self, message: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["message"] == message]


def container(
    root: Path, run: StageRun, attempt: int, disturb: tuple[str, Callable[[list[int]], None]] | None = None, **env: str
) -> Ended:
    """Run the stage as an operator's pod does, in two processes.

    `disturb` is an event of the log, and what happens then; it is given the container's process and those it started.
    """
    config, prepared, words = root / "run.json", root / "prepared.json", root / f"last-words-{attempt}"
    config.write_text(json.dumps(run.config.to_json()))
    prepared.write_text(json.dumps(run.prepared.to_json()))
    command = [sys.executable, "-m", "trimtab_trainer", "train", "--config", str(config), "--prepared", str(prepared)]
    command += ["--attempt", str(attempt), "--scratch", str(root / f"pod-{attempt}"), "--termination-log", str(words)]
    environment = {**os.environ, "TRIMTAB_PROCESSES": "2", "OMP_NUM_THREADS": "1", **env}
    events: list[dict[str, Any]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            events.append(json.loads(line))
            started = [event["pids"] for event in events if event["message"] == "processes started"]
            if disturb is not None and events[-1]["message"] == disturb[0]:
                disturb[1]([process.pid, *started[0]])
                disturb = None
        code = process.wait(timeout=WAIT)
    found = TerminationMessage.decode(words.read_text())
    assert found is not None
    return Ended(code, found, events)


def weights(run: StageRun, uri: str) -> dict[str, torch.Tensor]:
    return load_file(Path(uri.removeprefix("file://")) / "adapter_model.safetensors")


def test_whatever_happens_to_one_of_them_ends_all_by_name_and_the_next_attempt_goes_on(tmp_path: Path) -> None:
    sections: dict[str, Any] = {
        "training": {"maxSteps": 12, "evaluateEverySteps": 4, "optimizer": "SGD", "learningRate": 0.5},
        "checkpoint": {"everySteps": 2},
    }
    want, _ = stage_run(tmp_path / "one", **sections).train()
    run = stage_run(tmp_path / "two", **sections)
    root, stored = tmp_path / "two", "checkpoint stored"

    # One is killed.
    killed = container(root, run, 0, (stored, lambda pids: os.kill(pids[2], signal.SIGKILL)))
    assert (killed.code, killed.words.reason) == (ExitCode.BUG, Reason.PROCESS_LOST)
    assert "rank 1 of 2 was ended by SIGKILL" in killed.words.message

    # The pod is told to stop: all of them are, and say so alike.
    stopped = container(root, run, 1, (stored, lambda pids: os.kill(pids[0], signal.SIGTERM)))
    assert (stopped.code, stopped.words.reason) == (ExitCode.INTERRUPTED, Reason.INTERRUPTED)
    assert {event["exit_code"] for event in stopped.told("process ended")} == {ExitCode.INTERRUPTED}

    ended = container(root, run, 2)
    assert ended.code == ExitCode.DONE, ended.words.message
    resumed = [ended_.told("resumed") for ended_ in (stopped, ended)]
    steps = [event[0]["step"] for event in resumed]
    assert steps == sorted(steps)
    assert steps[0] >= 2  # what was done before the first one was lost
    summary, artifact = ended.words.summary, ended.words.artifact
    assert artifact is not None
    assert (summary.step, summary.world_size, summary.resumed_from_step) == (12, 2, steps[-1])
    for found, wanted in zip(weights(run, artifact.uri).values(), weights(run, want.uri).values(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    metrics = json.loads((Path(artifact.uri.removeprefix("file://")) / "metrics.json").read_text())
    assert metrics["machine"]["worldSize"] == 2
    assert [rank["memoryPeakBytes"] > 2**20 for rank in metrics["machine"]["ranks"]] == [True, True]
    noted = json.loads(next(run.output.glob("runs/*/RESULT.json")).read_text())
    assert len(noted["summary"]["ranks"]) == 2
    assert run.checkpoints() == []

    # What has its result starts no process.
    again = container(root, run, 3)
    assert (again.code, again.told("processes started")) == (ExitCode.DONE, [])

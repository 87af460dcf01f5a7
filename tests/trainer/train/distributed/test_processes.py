"""Processes, started and ended as a pod does it: they lose nothing, and end together by one name."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from trimtab_trainer.contract import ExitCode, Reason

from tests.trainer.train.stage import StageRun, stage_run

from .pods import container


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

"""One run of a search alone: the ordinary commands in a process, and what is made of their ends."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from trimtab_trainer.contract import ExitCode, Reason, RunConfig, Stage, TerminationMessage
from trimtab_trainer.errors import Interrupted
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.sweep import running
from trimtab_trainer.sweep.running import ran


def config(base: str) -> RunConfig:
    return RunConfig.model_validate(
        {
            "baseModel": {"uri": base},
            "dataset": {"training": {"uri": "file:///nowhere/train.jsonl"}, "validation": {"fraction": 0.1}},
            "output": {"uri": "file:///nowhere/output"},
        }
    )


def test_what_a_run_refuses_is_told_with_its_reason(tmp_path: Path) -> None:
    made = ran(config(f"file://{tmp_path}/base"), tmp_path / "trial", "run", Interruption())
    assert (made.reason, made.value) == (Reason.DATASET_NOT_FOUND, None)
    assert "/nowhere/train.jsonl" in made.message
    assert made.seconds > 0
    events = [json.loads(line) for line in (tmp_path / "trial" / "run.log").read_text().splitlines()]
    assert events[-1]["message"] == "stage ended early"


def test_a_source_on_a_hub_is_mirrored_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Sequence[str]] = []

    def stage(arguments: Sequence[str], folder: Path, name: str, stop: Interruption) -> TerminationMessage:
        asked.append(arguments)
        reason = Reason.COMPLETED if arguments[0] == "mirror" else Reason.OUT_OF_MEMORY
        return TerminationMessage(stage=Stage(arguments[0]), run_uid="", attempt=0, reason=reason)

    monkeypatch.setattr(running, "_stage", stage)
    made = ran(config("hf://org/name@main"), tmp_path, "run", Interruption())
    assert made.reason == Reason.OUT_OF_MEMORY
    assert [each[0] for each in asked] == ["mirror", "train"]
    found = asked[0][list(asked[0]).index("--found") + 1]
    assert asked[1][list(asked[1]).index("--mirrored") + 1] == found
    ran(config("file:///base"), tmp_path, "other", Interruption())
    assert [each[0] for each in asked] == ["mirror", "train", "train"]


def test_each_attempt_has_a_number_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers: list[str] = []

    def stage(arguments: Sequence[str], folder: Path, name: str, stop: Interruption) -> TerminationMessage:
        numbers.append(arguments[list(arguments).index("--attempt") + 1])
        raise Interrupted("told to stop")

    monkeypatch.setattr(running, "_stage", stage)
    for _ in range(3):
        with pytest.raises(Interrupted):
            ran(config("file:///base"), tmp_path, "run", Interruption())
    assert numbers == ["0", "1", "2"]


def test_what_attempts_before_took_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = tmp_path / "ends"
    ends.write_text(f"#!/bin/sh\nsleep 0.5\nexit {int(ExitCode.INTERRUPTED)}\n")
    ends.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(ends))
    with pytest.raises(Interrupted):
        ran(config("file:///base"), tmp_path / "trial", "run", Interruption())
    (tmp_path / "trial" / "run.seconds").write_text("100.0\n")
    ends.write_text("#!/bin/sh\nsleep 0.5\nexit 1\n")
    made = ran(config("file:///base"), tmp_path / "trial", "run", Interruption())
    assert made.seconds > 100


def test_an_end_without_last_words_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    made = ran(config("file:///base"), tmp_path, "run", Interruption())
    assert made.reason == Reason.BUG
    assert f"exit code 1 and no last words; see {tmp_path / 'run.log'}" in made.message


def test_what_the_system_kills_did_not_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = tmp_path / "killed"
    killed.write_text("#!/bin/sh\nkill -KILL $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    made = ran(config("file:///base"), tmp_path, "run", Interruption())
    assert made.reason == Reason.OUT_OF_MEMORY
    assert f"see {tmp_path / 'run.log'}" in made.message


def test_told_to_stop_it_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper = tmp_path / "sleeper"
    sleeper.write_text(f"#!/bin/sh\ntrap 'echo told > {tmp_path}/told; exit {int(ExitCode.INTERRUPTED)}' TERM\n")
    with sleeper.open("a") as file:
        file.write(f"touch {tmp_path}/begun\nwhile true; do sleep 0.1; done\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(sleeper))
    stop = Interruption()

    def pause(seconds: float) -> None:
        real(seconds)
        if (tmp_path / "begun").exists():
            stop.request()

    real = time.sleep
    monkeypatch.setattr(time, "sleep", pause)
    with pytest.raises(Interrupted, match="goes on from the last checkpoint"):
        ran(config("file:///base"), tmp_path / "trial", "run", stop)
    assert (tmp_path / "told").exists()

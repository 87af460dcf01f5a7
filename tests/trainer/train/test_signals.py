"""SIGTERM at any moment: `Interrupted` within seconds, nothing lost, and the same adapter in the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from trimtab_trainer.contract import ExitCode
from trimtab_trainer.errors import Interrupted
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.training.checkpoint import Checkpoints

from tests.long import long_unless

from .stage import stage_run


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the adapter of a run that nobody interrupts."""
    return stage_run(tmp_path_factory.mktemp("undisturbed")).train()[0].digest


def nothing() -> None:
    pass


def on_call(owner: Any, name: str, count: int) -> Callable[..., None]:
    """Send SIGTERM to this process inside the count-th call of a function, and call `told` before that."""

    def apply(patch: pytest.MonkeyPatch, told: Callable[[], object] = nothing) -> None:
        import importlib

        target = importlib.import_module(owner) if isinstance(owner, str) else owner
        whole = getattr(target, name)
        calls = 0

        def wrapper(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == count:
                told()
                os.kill(os.getpid(), signal.SIGTERM)
            return whole(*arguments, **options)

        patch.setattr(target, name, wrapper)

    return apply


OBJECTIVE = "trimtab_trainer.training.methods.objective"

POINTS: dict[str, tuple[Callable[..., None], int | None]] = {
    "while the base model is fetched": (on_call("trimtab_trainer.training.loading", "fetch_base_model", 1), None),
    "while the model is loaded": (on_call("trimtab_trainer.training.loading", "load_base", 1), None),
    "in the first step": (on_call(OBJECTIVE, "summed_loss", 1), None),
    "between the micro-batches of the fourth step": (
        on_call(OBJECTIVE, "summed_loss", 7),
        3,
    ),
    "inside an optimizer step": (on_call(torch.optim.AdamW, "step", 3), 3),
    "in an evaluation": (on_call("trimtab_trainer.training.validation", "summed_loss", 1), 2),
    "before a checkpoint is written": (on_call(Checkpoints, "begin", 2), 4),
    "while the files are exported": (on_call("trimtab_trainer.training.train", "export", 1), 6),
    "while the exported files are measured": (on_call(OBJECTIVE, "mean_loss", 5), 6),
    "while the adapter is uploaded": (on_call("trimtab_trainer.publishing.result", "commit", 1), 6),
    "before the result is noted": (on_call("trimtab_trainer.publishing.publish", "write_result", 1), 6),
}


LATER = ("while the exported files are measured", "while the adapter is uploaded")
"""Points between the begin and the end of the publication, which `make test` has."""


@pytest.mark.parametrize("point", long_unless(lambda point: point not in LATER, POINTS))
def test_a_signal_loses_nothing(tmp_path: Path, undisturbed: str, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    interrupt, step = POINTS[point]
    run, told = stage_run(tmp_path), list[int]()
    with monkeypatch.context() as patch:
        interrupt(patch, lambda: told.append(len(run.log.getvalue())))
        with pytest.raises(Interrupted) as caught:
            run.train(attempt=0)
    after = [json.loads(line)["message"] for line in run.log.getvalue()[told[0] :].splitlines()]
    assert set(after) <= {"told to stop", "checkpoint stored"}, "it went on"
    assert caught.value.exit_code is ExitCode.INTERRUPTED
    newest = run.checkpoints()[-1:]
    assert newest == ([] if step is None else [f"step-{step:06d}-00000000-0"])
    artifact, summary = run.train(attempt=1)
    assert summary.resumed_from_step == step
    assert artifact.digest == undisturbed
    assert run.checkpoints() == []


def test_a_signal_after_the_result_is_noted_is_too_late_to_matter(
    tmp_path: Path, undisturbed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_call(Checkpoints, "delete_all", 1)(monkeypatch)
    assert stage_run(tmp_path).train()[0].digest == undisturbed


def test_a_process_that_is_terminated_exits_14_and_the_next_one_ends_with_the_same_adapter(tmp_path: Path) -> None:
    sections: dict[str, Any] = {
        "training": {"maxSteps": 30, "evaluateEverySteps": 10},
        "checkpoint": {"everySteps": 10},
    }
    straight = stage_run(tmp_path / "straight", **sections)
    want, _ = straight.train()
    run = stage_run(tmp_path / "broken", **sections)
    (tmp_path / "run.json").write_text(json.dumps(run.config.to_json()))
    (tmp_path / "prepared.json").write_text(json.dumps(run.prepared.to_json()))

    def start(attempt: int) -> subprocess.Popen[str]:
        arguments = ["--config", str(tmp_path / "run.json"), "--prepared", str(tmp_path / "prepared.json")]
        arguments += ["--attempt", str(attempt), "--scratch", str(tmp_path / f"scratch-{attempt}")]
        arguments += ["--termination-log", str(tmp_path / f"last-words-{attempt}")]
        command = [sys.executable, "-m", "trimtab_trainer", "train", *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    with start(0) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "checkpoint stored" in line:
                process.terminate()
                break
        after = [json.loads(line)["message"] for line in process.stdout.read().splitlines()]
        assert process.wait(timeout=400) == 14
    assert not {"artifact stored and verified", "published"} & set(after), "it went on"
    steps = [json.loads(path.read_text())["step"] for path in run.output.glob("runs/*/checkpoints/*/MANIFEST.json")]
    with start(1) as process:
        output = process.communicate(timeout=400)[0]
        assert process.returncode == 0, output
    events = [json.loads(line) for line in output.splitlines()]
    assert [event["step"] for event in events if event["message"] == "resumed"] == [max(steps)]
    words = json.loads((tmp_path / "last-words-1").read_text())
    assert words["artifact"]["digest"] == want.digest
    assert words["summary"]["resumedFromStep"] == max(steps)


class TestInterruption:
    def test_what_can_be_thrown_away_ends_at_once(self) -> None:
        stop = Interruption()
        with stop.listening(), pytest.raises(Interrupted), stop.at_once():  # noqa: PT012 the block is the test
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("went on")
        assert stop.requested

    def test_what_must_not_be_torn_ends_first(self) -> None:
        stop, done = Interruption(), False
        with stop.listening(), pytest.raises(Interrupted), stop.at_once():  # noqa: PT012 the block is the test
            with stop.later():
                os.kill(os.getpid(), signal.SIGTERM)
                done = True
            stop.check()
            pytest.fail("went on")
        assert done

    def test_a_signal_that_somebody_swallowed_still_ends_the_block(self) -> None:
        stop = Interruption()
        with stop.listening(), pytest.raises(Interrupted), stop.at_once():  # noqa: SIM117 the inner block is the test
            with suppress(BaseException):
                os.kill(os.getpid(), signal.SIGTERM)

    def test_a_signal_that_came_out_of_a_library_as_another_error_is_told_as_what_it_is(self) -> None:
        stop = Interruption()
        with stop.listening(), pytest.raises(Interrupted), stop.at_once():  # noqa: PT012 the block is the test
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except BaseException as error:
                raise OSError("could not read") from error

    def test_a_library_that_tries_again_after_any_error_does_not_go_on(self) -> None:
        stop, tries = Interruption(), 0
        with stop.listening(), pytest.raises(Interrupted), stop.at_once():  # noqa: PT012 the block is the test
            while True:
                with suppress(Exception):
                    tries += 1
                    os.kill(os.getpid(), signal.SIGTERM)
        assert tries == 1

    def test_other_errors_stay_what_they_are(self) -> None:
        stop = Interruption()
        with stop.listening(), pytest.raises(OSError, match="disk"), stop.at_once():
            raise OSError("disk")

    def test_the_handlers_from_before_are_put_back(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        with Interruption().listening():
            assert signal.getsignal(signal.SIGTERM) != before
        assert signal.getsignal(signal.SIGTERM) == before

    def test_on_another_thread_it_can_still_be_asked_to_stop(self) -> None:
        stop, ends = Interruption(), []

        def work() -> None:
            try:
                with stop.listening(), stop.at_once():
                    pass
            except Interrupted:
                ends.append("interrupted")

        stop.request()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert ends == ["interrupted"]

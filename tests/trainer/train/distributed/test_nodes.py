"""Several pods, as those of one attempt: they find each other, train as one, and lose nothing when one of them goes."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trimtab_trainer.contract import ExitCode, Reason
from trimtab_trainer.errors import Interrupted, SettingsInvalid, TrainerError
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.training.distributed.meeting import meet
from trimtab_trainer.training.distributed.nodes import Nodes
from trimtab_trainer.training.distributed.processes import Place

from tests.ports import free_port
from tests.trainer.train.stage import StageRun, stage_run

from .pods import Ended, Pod


def weights(uri: str) -> dict[str, torch.Tensor]:
    return load_file(Path(uri.removeprefix("file://")) / "adapter_model.safetensors")


def attempt(root: Path, run: StageRun, number: int, processes: int = 1) -> tuple[Pod, Pod]:
    """Start the two pods of an attempt, told of each other as the operator tells them."""
    port = free_port()

    def pod(index: int) -> Pod:
        told = {"PET_NNODES": "2", "PET_NPROC_PER_NODE": str(processes), "PET_NODE_RANK": str(index)}
        told |= {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port), "WORLD_SIZE": str(2 * processes)}
        told |= {"JOB_COMPLETION_INDEX": str(index), "TRIMTAB_PROCESSES": str(processes)}
        return Pod(root, run, number, env=told, node=index)

    return pod(0), pod(1)


def test_what_one_pod_meets_ends_both_by_name_and_nothing_is_lost(tmp_path: Path) -> None:
    """Killed while it loads, while it trains and while the adapter is published; drained; then two pods of two each."""
    sections: dict[str, Any] = {
        "training": {
            "maxSteps": 12,
            "microBatchSize": 1,
            "evaluateEverySteps": 4,
            "optimizer": "SGD",
            "learningRate": 0.5,
        },
        "checkpoint": {"everySteps": 2},
    }
    want, _ = stage_run(tmp_path / "one", **sections).train()
    run = stage_run(tmp_path / "two", **sections)
    root = tmp_path / "two"

    def ends(number: int, until: str, killed: int | None = None) -> tuple[Ended, Pod]:
        """Run an attempt in which something is done to the second pod, or the first is killed; return the other."""
        first, second = attempt(root, run, number)
        second.until("processes started")
        first.until(until)
        gone, other = (first, second) if killed == 0 else (second, first)
        if killed is None:
            gone.handle.send_signal(signal.SIGTERM)
        else:
            gone.kill()
        return other.ended(), gone

    loading, _ = ends(0, "model loaded", killed=1)
    assert (loading.code, loading.words.reason) == (ExitCode.BUG, Reason.PROCESS_LOST)
    training, _ = ends(1, "checkpoint stored", killed=1)
    assert (training.code, training.words.reason) == (ExitCode.BUG, Reason.PROCESS_LOST)
    assert "the other processes are lost" in training.words.message

    drained, other = ends(2, "checkpoint stored")
    assert (drained.code, drained.words.reason) == (ExitCode.INTERRUPTED, Reason.INTERRUPTED)
    assert other.ended().code == ExitCode.INTERRUPTED
    assert drained.told("resumed")[0]["step"] >= 2  # what was done before the second was lost

    done, _ = ends(3, "exported files measured", killed=0)
    assert (done.code, done.words.artifact) == (ExitCode.DONE, None)  # its part was done

    first, second = attempt(root, run, 4, processes=2)
    last, beside = first.ended(), second.ended()
    assert (last.code, beside.code) == (ExitCode.DONE, ExitCode.DONE), last.words.message
    artifact, summary = last.words.artifact, last.words.summary
    assert artifact is not None
    assert (summary.step, summary.world_size, summary.resumed_from_step) == (12, 4, 12)
    for found, wanted in zip(weights(artifact.uri).values(), weights(want.uri).values(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert run.checkpoints() == []
    assert (len(last.told("published")), beside.told("published")) == (1, [])


def test_a_pod_that_waits_in_vain_says_for_whom_and_is_no_failure(tmp_path: Path) -> None:
    told = {
        "PET_NNODES": "2",
        "PET_NODE_RANK": "0",
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": str(free_port()),
    }
    pod = Pod(tmp_path, stage_run(tmp_path), 0, env={**told, "TRIMTAB_RANK_TIMEOUT_SECONDS": "1"})
    ended = pod.ended()
    assert (ended.code, ended.words.reason) == (ExitCode.INTERRUPTED, Reason.INTERRUPTED)
    assert "the other pods did not come: of 2 pods 1 are here, and 1 not" in ended.words.message


def test_pods_that_are_to_prepare_first_are_refused(tmp_path: Path) -> None:
    run = stage_run(tmp_path)
    pod = Pod(tmp_path, run, 0, env={"PET_NNODES": "2", "PET_NODE_RANK": "0", "PET_MASTER_ADDR": "a"}, prepares=True)
    ended = pod.ended()
    assert (ended.code, ended.words.reason) == (ExitCode.SETTINGS_INVALID, Reason.SETTINGS_INVALID)
    assert "give all of them its --prepared" in ended.words.message


def come(places: list[Place], abouts: list[str], seconds: float = 120) -> list[TrainerError | None]:
    """Let some come to the meeting at once; return what each is refused with."""

    def one(place: Place, about: str) -> tuple[Any, TrainerError | None]:
        try:
            return meet(place, about, timedelta(seconds=seconds), Interruption()), None
        except TrainerError as error:
            return None, error

    with ThreadPoolExecutor(len(places)) as threads:
        found = list(threads.map(one, places, abouts))
    return [error for _, error in found]


def place(rank: int, count: int, port: int) -> Place:
    return Place.of(Nodes(rank, count, 1, f"localhost:{port}"), 0, Path())


def test_pods_find_each_other(tmp_path: Path) -> None:
    port = free_port()
    assert come([place(rank, 3, port) for rank in range(3)], ["run a"] * 3) == [None] * 3


def test_a_pod_that_sees_fewer_than_the_others_is_refused_by_name() -> None:
    port = free_port()
    first, second = come([place(0, 2, port), place(1, 3, port)], ["run a"] * 2, seconds=10)
    assert isinstance(first, SettingsInvalid)
    assert 'rank 0 was told [2, 1, "run a"] (processes of all pods, of each, run) and rank 1 [3, 1' in first.message
    assert isinstance(second, Interrupted)  # the third of its three does not come


def test_a_pod_of_another_run_or_attempt_is_refused_by_name() -> None:
    port = free_port()
    errors = come([place(rank, 2, port) for rank in range(2)], ["run a in attempt 1", "run a in attempt 2"])
    assert [type(error) for error in errors] == [SettingsInvalid, SettingsInvalid]


def test_a_pod_that_does_not_come_ends_the_others_by_name() -> None:
    (alone,) = come([place(0, 2, free_port())], ["run a"], seconds=1)
    assert isinstance(alone, Interrupted)
    assert "the other pods did not come: of 2 pods 1 are here, and 1 not" in alone.message
    (headless,) = come([place(1, 2, free_port())], ["run a"], seconds=1)
    assert isinstance(headless, Interrupted)
    assert "nobody answers at localhost" in headless.message


def test_two_pods_of_one_index_are_refused() -> None:
    port = free_port()
    errors = come([place(0, 2, port), place(1, 2, port), place(1, 2, port)], ["run a"] * 3)
    assert [error.message for error in errors if error is not None] == [
        "two processes say that they are rank 1 of 2; number the pods"
    ]


def test_who_waits_for_others_can_be_told_to_stop() -> None:
    stop = Interruption()
    stop.request()
    with pytest.raises(Interrupted):
        meet(place(1, 2, free_port()), "run a", timedelta(seconds=60), stop)

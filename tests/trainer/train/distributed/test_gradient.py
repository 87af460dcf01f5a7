"""Several processes take the step that one takes: gradient, losses, weights, whatever each of them has of it."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from trimtab_trainer.data.view import Sequences
from trimtab_trainer.errors import Interrupted
from trimtab_trainer.training.distributed.checkpoints import check_alike, newest_first
from trimtab_trainer.training.distributed.world import World
from trimtab_trainer.training.loop import Trainer
from trimtab_trainer.training.optimizer import optimizer_state
from trimtab_trainer.training.state import TrainingState
from trimtab_trainer.training.validation import mean_loss

from tests.trainer.train.runs import gradients, random_rows, run_config, sequences, shake, trainer, unpacked

from .ranks import on_ranks

Weights = dict[str, torch.Tensor]


def data(packed: bool) -> Sequences:
    """Return sequences of which some have ten times the supervised tokens of others; a batch is not always full."""
    rows = random_rows(26, shortest=4, longest=60)
    return sequences([rows[:3], rows[3:4], rows[4:9], *([row] for row in rows[9:])]) if packed else unpacked(rows)


def settings(root: Path, micro_batch: int = 2, **sections: Any) -> Any:
    """Return settings whose weights follow the gradient: Adam's first steps know of it little but the sign."""
    training: dict[str, Any] = {"maxSteps": 6, "batchSize": 8, "microBatchSize": micro_batch, "maxGradientNorm": 0.5}
    training |= {"optimizer": "SGD", "learningRate": 0.5}
    return run_config(root, training=training | sections.pop("training", {}), **sections)


def assert_close(found: Weights, want: Weights) -> None:
    assert found.keys() == want.keys()
    for name in want:
        torch.testing.assert_close(found[name], want[name], rtol=1e-5, atol=1e-6)


def assert_same(found: Weights, want: Weights) -> None:
    assert found.keys() == want.keys()
    assert [name for name in want if not torch.equal(found[name], want[name])] == []


def all_stop_together(
    root: Path, make: Callable[[World], Trainer], during: str, tell: Callable[[World, Trainer], None]
) -> None:
    """Train on two processes and tell them to stop in step 2: both end there, and one checkpoint is written.

    Args:
        during: "hidden" of the model or "evaluate" of the run, within which `tell` is called.
    """

    def body(world: World) -> tuple[str, int, Weights]:
        run = make(world)
        of: Any = run.model if during == "hidden" else run
        whole = getattr(of, during)

        def told_now(*arguments: Any) -> Any:
            if run.state.step == 2:
                tell(world, run)
            return whole(*arguments)

        setattr(of, during, told_now)
        try:
            with run.stop.listening():
                run.run()
        except Interrupted as error:
            return error.message, run.state.step, run.model.trained_tensors()
        return "went on", run.state.step, {}

    first, second = on_ranks(2, root / "two", body)
    assert first[:2] == second[:2] == ("told to stop", 2)
    assert_same(first[2], second[2])
    written = sorted(path.parent.name for path in root.glob("output/runs/*/checkpoints/*/MANIFEST.json"))
    assert written == ["step-000002-00000000-0"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("size", [2, 4])
def test_the_gradient_is_that_of_one_process(tiny: Path, tmp_path: Path, size: int, packed: bool) -> None:
    config, rows = settings(tmp_path, training={"maxGradientNorm": 0}), data(packed)

    def body(world: World) -> tuple[Weights, float]:
        run = trainer(tiny, tmp_path, config, rows, world=world)
        shake(run.model)
        return gradients(run), mean_loss(run.model, run.training, run.stop, 3, world)

    ((want, loss),) = on_ranks(1, tmp_path / "one", body)
    for found, mean in on_ranks(size, tmp_path / "several", body):
        assert_close(found, want)
        assert mean == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("pods", [1, 2])
def test_a_whole_run_of_several_processes_is_that_of_one(tiny: Path, tmp_path: Path, pods: int) -> None:
    """With dropout, clipping, evaluations and a best checkpoint: the cuts are the same, so is all else."""
    early = {"evaluateEverySteps": 2, "earlyStopping": {"patience": 9}, "optimizer": "AdamW", "learningRate": 0.005}
    config = settings(tmp_path, training=early, lora={"dropout": 0.2}, checkpoint={"everySteps": 3})
    rows, held_out = data(False), unpacked(random_rows(7, seed=9))

    def body(world: World) -> tuple[Weights, Weights, list[float], list[float], list[float]]:
        run = trainer(tiny, tmp_path / f"of-{world.size}", config, rows, held_out, world=world)
        state = run.run()
        losses, evaluated = [point.loss for point in state.curve], [point.loss for point in state.evaluations]
        remembered, _ = optimizer_state(run.optimizer, run.model.parameters)
        norms = [point.gradient_norm or 0.0 for point in state.curve]
        return run.model.trained_tensors(), remembered, losses, evaluated, norms

    (want,) = on_ranks(1, tmp_path / "one", body)
    first, second = on_ranks(2, tmp_path / "two", body, pods=pods)
    moved = torch.cat([(first[0][name] - want[0][name]).flatten() for name in want[0]]).norm()
    assert moved < 1e-5 * torch.cat([tensor.flatten() for tensor in want[0].values()]).norm()
    assert_same(second[0], first[0])
    assert_same(second[1], first[1])
    for found in (first, second):
        assert found[2] == pytest.approx(want[2], rel=1e-5)
        assert found[3] == pytest.approx(want[3], rel=1e-5)
        assert found[4] == pytest.approx(want[4], rel=1e-5)


@pytest.mark.parametrize("before", [1, 4])
def test_two_processes_go_on_from_a_checkpoint_of_any_number(tiny: Path, tmp_path: Path, before: int) -> None:
    """One sequence a micro-batch, as it has to be on four: with dropout, so the cuts must be the same."""
    rows = data(False)

    def body(world: World, until: int, attempt: int, name: str) -> tuple[Weights, int]:
        config = settings(tmp_path / name, 1, lora={"dropout": 0.2})
        run = trainer(tiny, tmp_path / name, config, rows, attempt=attempt, world=world)
        for checkpoint in newest_first(run.checkpoints, world, run.stop):
            run.resume(checkpoint)
            break
        resumed = run.state.step
        while run.state.step < until:
            run.step()
        run.save()
        run.checkpoints.wait(everything=True)
        return run.model.trained_tensors(), resumed

    ((want, _),) = on_ranks(1, tmp_path / "straight", lambda world: body(world, 6, 0, "straight"))
    on_ranks(before, tmp_path / "before", lambda world: body(world, 3, 0, "broken"))
    for found, resumed in on_ranks(2, tmp_path / "after", lambda world: body(world, 6, 1, "broken")):
        assert resumed == 3
        assert_close(found, want)


def test_the_number_of_processes_changes_at_edges_of_epochs_and_at_the_last_step(tiny: Path, tmp_path: Path) -> None:
    """Of 26 sequences, 8 a step, the last step of an epoch has two: fewer than there are processes."""
    rows, held_out = data(False), unpacked(random_rows(7, seed=9))
    training = {"maxSteps": 8, "evaluateEverySteps": 4, "earlyStopping": {"patience": 9}}

    def body(world: World, until: int, attempt: int, name: str) -> tuple[int, Weights, TrainingState]:
        config = settings(tmp_path / name, 1, training=training, lora={"dropout": 0.2})
        run = trainer(tiny, tmp_path / f"{name}-{world.rank}", config, rows, held_out, attempt=attempt, world=world)
        for checkpoint in newest_first(run.checkpoints, world, run.stop):
            run.resume(checkpoint)
            break
        resumed, step = run.state.step, run.step

        def stopping() -> None:
            step()
            if run.state.step == until < run.total_steps:
                run.stop.request()

        run.step = stopping  # type: ignore[method-assign]
        with contextlib.suppress(Interrupted):
            run.run()
        return resumed, run.model.trained_tensors(), run.state

    ((_, want, straight),) = on_ranks(1, tmp_path / "straight", lambda world: body(world, 8, 0, "straight"))
    begins = 0
    for attempt, (size, until) in enumerate([(1, 3), (4, 4), (2, 7), (3, 8), (2, 8)]):
        ends = on_ranks(size, tmp_path / f"{attempt}", lambda world: body(world, until, attempt, "broken"))  # noqa: B023
        assert [(resumed, state.step) for resumed, _, state in ends] == [(begins, until)] * size
        begins = until
    for _, found, state in ends:
        assert_close(found, want)
        assert [point.step for point in state.curve] == [point.step for point in straight.curve] == [*range(1, 9)]
        assert [point.loss for point in state.curve] == pytest.approx([each.loss for each in straight.curve], rel=1e-5)
        assert [point.step for point in state.evaluations] == [4, 8]
        assert state.validation_loss == pytest.approx(straight.validation_loss, rel=1e-5)
        assert (state.tokens, state.supervised_tokens) == (straight.tokens, straight.supervised_tokens)


def test_a_process_without_a_sequence_takes_the_same_step(tiny: Path, tmp_path: Path) -> None:
    """The last batch of an epoch has two sequences for four processes."""
    config, rows = settings(tmp_path, 1, training={"batchSize": 4, "maxSteps": 2}), unpacked(random_rows(6))

    def body(world: World) -> Weights:
        run = trainer(tiny, tmp_path / f"of-{world.size}", config, rows, world=world)
        run.run()
        return run.model.trained_tensors()

    (want,) = on_ranks(1, tmp_path / "one", body)
    for found in on_ranks(4, tmp_path / "four", body):
        assert_close(found, want)


def test_memory_that_runs_out_in_one_process_halves_the_micro_batch_of_all(tiny: Path, tmp_path: Path) -> None:
    config, rows = settings(tmp_path, 4, training={"maxSteps": 2}), unpacked(random_rows(8))

    def body(world: World, scarce: bool) -> tuple[Weights, int, str]:
        log = io.StringIO()
        run = trainer(tiny, tmp_path / f"{world.size}-{scarce}", config, rows, world=world, log=log)
        whole = run.model.hidden

        def hidden(batch: Any, cache: Any = None) -> Any:
            if len(batch.tokens) > 2 and world.rank == 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return whole(batch)

        if scarce:
            run.model.hidden = hidden  # type: ignore[method-assign]
        run.run()
        return run.model.trained_tensors(), run.micro_batch, log.getvalue()

    ((want, _, _),) = on_ranks(1, tmp_path / "one", lambda world: body(world, scarce=False))
    for found, micro_batch, log in on_ranks(2, tmp_path / "two", lambda world: body(world, scarce=True)):
        assert micro_batch == 2
        assert "micro-batch halved" in log
        assert_close(found, want)


@pytest.mark.parametrize("told", [0, 1])
@pytest.mark.parametrize("during", ["hidden", "evaluate"])
def test_one_that_is_told_to_stop_tells_all_and_one_checkpoint_is_written(
    tiny: Path, tmp_path: Path, told: int, during: str
) -> None:
    rows, held_out = data(False), unpacked(random_rows(4, seed=9))
    config = settings(tmp_path, training={"evaluateEverySteps": 2})

    def tell(world: World, run: Trainer) -> None:
        if world.rank == told:
            run.stop.request()

    all_stop_together(
        tmp_path, lambda world: trainer(tiny, tmp_path, config, rows, held_out, world=world), during, tell
    )


def test_processes_whose_weights_differ_end(tmp_path: Path) -> None:
    def body(world: World) -> str:
        check_alike({"a": torch.ones(3)}, world, 1)
        try:
            check_alike({"a": torch.ones(3) * (1 + 1e-6 * world.rank)}, world, 2)
        except RuntimeError as error:
            return str(error)
        return "went on"

    assert on_ranks(2, tmp_path, body) == ["after step 2 not all 2 processes have the same weights"] * 2


def test_when_one_hangs_the_others_wait_so_long_and_no_longer(tmp_path: Path) -> None:
    from trimtab_trainer.errors import ProcessLost

    def body(world: World) -> str:
        while world.rank == 1 and not (tmp_path / "said").exists():
            time.sleep(0.05)
        try:
            world.sum([1.0])
        except ProcessLost as error:
            (tmp_path / "said").write_text(error.message)
        os._exit(0)

    with pytest.raises(FileNotFoundError):  # neither has a result
        on_ranks(2, tmp_path / "two", body, patience=2)
    assert "the other processes are lost" in (tmp_path / "said").read_text()


def test_when_one_dies_the_leader_keeps_what_was_done(tiny: Path, tmp_path: Path) -> None:
    """Its last step is lost, and nothing else: the others notice within the patience that they have."""
    from trimtab_trainer.errors import ProcessLost

    config, rows = settings(tmp_path), data(False)

    def body(world: World) -> str:
        run: Trainer = trainer(tiny, tmp_path, config, rows, world=world)
        whole = run.accumulate

        def dying() -> Any:
            if run.state.step == 3 and world.rank == 1:
                os._exit(9)
            return whole()

        run.accumulate = dying  # type: ignore[method-assign]
        try:
            run.run()
        except ProcessLost as error:
            (tmp_path / "said").write_text(error.message)
            os._exit(0)
        return "went on"

    with pytest.raises(FileNotFoundError):  # neither has a result
        on_ranks(2, tmp_path / "two", body)
    assert "the other processes are lost" in (tmp_path / "said").read_text()
    written = sorted(path.parent.name for path in tmp_path.glob("output/runs/*/checkpoints/*/MANIFEST.json"))
    assert written == ["step-000003-00000000-0"]

"""A run that was interrupted ends with the very bits of one that was not."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from trimtab_trainer.contract import RunConfig
from trimtab_trainer.errors import Interrupted, StorageFailed
from trimtab_trainer.storage import FileEntry
from trimtab_trainer.training.loop import Trainer
from trimtab_trainer.training.state import Best

from .runs import adapted, held_uploads, random_rows, run_config, trainer, unpacked
from .stage import stage_run
from .test_loop import losses, same, weights

OPTIMIZERS = ["AdamW", "AdamW8bit", "PagedAdamW8bit", "SGD"]


def settings(root: Path, optimizer: str, steps: int, **training: Any) -> RunConfig:
    """Rank 40 on layers of 128: states of 8-bit optimizers in 8 bits (from 4,096 weights) and in 32."""
    return run_config(
        root,
        lora={"rank": 40, "dropout": 0.1, "targetModules": ["q_proj", "k_proj", "down_proj"]},
        training={"maxSteps": steps, "optimizer": optimizer, "weightDecay": 0.01, "batchSize": 4, **training},
        checkpoint={"everySteps": 4},
    )


def resumed(tiny: Path, root: Path, config: RunConfig, attempt: int = 1, **more: Any) -> Trainer:
    run = trainer(tiny, root, config, unpacked(random_rows(10)), attempt=attempt, **more)
    checkpoint = next(run.checkpoints.newest_first())
    run.resume(checkpoint)
    return run


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_four_steps_and_four_resumed_are_eight(tiny: Path, tmp_path: Path, optimizer: str) -> None:
    data = unpacked(random_rows(10))
    config = settings(tmp_path / "a", optimizer, 8)
    straight = trainer(tiny, tmp_path / "a", config, data)
    straight.run()

    # Told to stop after four steps of eight, with a learning rate that is still that of eight.
    config = settings(tmp_path / "b", optimizer, 8)
    first = trainer(tiny, tmp_path / "b", config, data)
    while first.state.step < 4:
        first.step()
    first.save()
    first.checkpoints.wait(everything=True)
    second = resumed(tiny, tmp_path / "b", config)
    assert second.state.step == 4
    assert second.board.read().curve == first.state.drawn, "what was drawn before is told before the next step"
    torch.rand(100)  # whatever else used the random numbers
    second.run()
    assert same(weights(straight), weights(second))
    assert losses(straight) == losses(second)
    told = second.board.read().curve
    assert told is not None
    assert told == straight.board.read().curve
    assert told.steps == tuple(range(1, 9))
    assert straight.state.tokens == second.state.tokens


def test_states_of_8_bit_optimizers_are_in_8_bits_and_restored_bit_for_bit(tiny: Path, tmp_path: Path) -> None:
    config = settings(tmp_path, "AdamW8bit", 4)
    first = trainer(tiny, tmp_path, config, unpacked(random_rows(10)))
    first.run()
    second = resumed(tiny, tmp_path, config)
    kinds = set()
    for one, other in zip(first.model.parameters.values(), second.model.parameters.values(), strict=True):
        before, after = first.optimizer.state[one], second.optimizer.state[other]
        assert before.keys() == after.keys()
        for key, value in before.items():
            assert torch.equal(value, after[key]) if isinstance(value, torch.Tensor) else value == after[key]
        kinds.add(before["state1"].dtype)
    assert kinds == {torch.uint8, torch.float32}


def test_a_stop_in_the_middle_of_an_evaluation_repeats_it_and_nothing_else(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trimtab_trainer.training import validation
    from trimtab_trainer.training.methods import objective

    data = unpacked(random_rows(10))
    more = {"evaluateEverySteps": 3, "earlyStopping": {"patience": 9}}
    straight = trainer(tiny, tmp_path / "a", settings(tmp_path / "a", "AdamW", 7, **more), data, data)
    straight.run()
    config = settings(tmp_path / "b", "AdamW", 7, **more)
    first = trainer(tiny, tmp_path / "b", config, data, data)
    whole = validation.mean_loss

    def interrupted(*arguments: Any) -> float:
        if first.state.step == 3 and not first.stop.requested:
            first.stop.request()
        return whole(*arguments)

    monkeypatch.setattr(objective, "mean_loss", interrupted)
    with pytest.raises(Interrupted):
        first.run()
    assert (first.state.step, first.state.evaluated_step) == (3, 0)
    second = trainer(tiny, tmp_path / "b", config, data, data, attempt=1)
    second.resume(next(second.checkpoints.newest_first()))
    state = second.run()
    assert state.evaluations == straight.state.evaluations
    assert state.best is not None
    assert state.best.loss == min(point.loss for point in state.evaluations)
    assert same(weights(straight), weights(second))


def test_a_checkpoint_that_was_resumed_from_is_not_written_anew_when_its_evaluation_improves(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pod of a job that was suspended comes back under the same attempt: deleting it first would risk it."""
    data = unpacked(random_rows(10))
    config = settings(tmp_path, "AdamW", 5, evaluateEverySteps=3, earlyStopping={"patience": 9})
    first = trainer(tiny, tmp_path, config, data, data)
    while first.state.step < 3:
        first.step()
    first.save()  # told to stop before the evaluation
    first.checkpoints.wait(everything=True)
    script = iter([1.0, 2.0])
    monkeypatch.setattr("trimtab_trainer.training.methods.objective.mean_loss", lambda *_: next(script))
    second = trainer(tiny, tmp_path, config, data, data)
    second.resume(next(second.checkpoints.newest_first()))
    best_weights = weights(second)
    deleted: list[str] = []
    monkeypatch.setattr(second.checkpoints.store, "delete", lambda paths: deleted.extend(paths))
    state = second.run()
    assert state.best == Best(step=3, loss=1.0, checkpoint=first.checkpoints.name(3))
    assert not [path for path in deleted if first.checkpoints.name(3) in path]
    assert same(second.checkpoints.best_weights(state.best), best_weights)
    for attempt in (0, 1):
        third = trainer(tiny, tmp_path, config, data, data, attempt=attempt)
        third.resume(next(third.checkpoints.newest_first()))
        assert (third.state.step, third.state.best) == (5, state.best)
        assert same(third.checkpoints.best_weights(state.best), best_weights)


def test_a_checkpoint_is_copied_while_the_next_step_computes_and_before_it_moves_anything(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(tiny, tmp_path, settings(tmp_path, "AdamW", 8), unpacked(random_rows(10)))
    computed, kept = threading.Event(), dict[str, torch.Tensor]()
    accumulate, copied = run.accumulate, run.model.trained_tensors

    def accumulated() -> Any:
        share = accumulate()
        if run.state.step == 4:
            kept.update(copied())
            computed.set()
        return share

    def late(*, copy: bool = True) -> dict[str, torch.Tensor]:
        if run.state.step == 4:
            assert computed.wait(60), "the next step waits for the copy"
            time.sleep(0.2)
        return copied(copy=copy)

    monkeypatch.setattr(run, "accumulate", accumulated)
    monkeypatch.setattr(run.model, "trained_tensors", late)
    run.run()
    steps = {checkpoint.state.step: checkpoint.weights for checkpoint in run.checkpoints.newest_first()}
    assert same(steps[4], kept)
    assert not same(steps[8], kept)


def test_who_is_told_to_stop_while_a_copy_is_made_does_no_other_step(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(tiny, tmp_path, settings(tmp_path, "AdamW", 8), unpacked(random_rows(10)))
    made, steps = run.checkpoints.made, list[int]()

    def told() -> None:
        made()
        if steps[-1:] == [4]:  # it was begun
            run.stop.request()
        steps.append(run.state.step)

    monkeypatch.setattr(run.checkpoints, "made", told)
    with pytest.raises(Interrupted):
        run.run()
    assert run.state.step == 4
    assert [checkpoint.state.step for checkpoint in run.checkpoints.newest_first()] == [4]


def test_checkpoints_that_are_not_of_this_run_make_way_for_those_that_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, whole = stage_run(tmp_path), Trainer.step

    def stopped_after(steps: int, attempt: int) -> None:
        def step(trainer: Trainer) -> None:
            whole(trainer)
            if trainer.state.step == steps:
                trainer.stop.request()

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", step)
            with pytest.raises(Interrupted):
                run.train(attempt)

    def refused(*_: Any) -> None:
        raise ValueError("its tensors are named otherwise")

    stopped_after(5, attempt=0)
    assert "step-000005-00000000-0" in run.checkpoints()
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "resume", refused)
        stopped_after(2, attempt=1)
    assert run.checkpoints() == ["step-000002-00000000-1"]
    assert run.train(attempt=2)[1].resumed_from_step == 2


def test_a_checkpoint_that_storage_refused_is_tried_again_when_the_run_is_told_to_stop(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(tiny, tmp_path, settings(tmp_path, "AdamW", 8), unpacked(random_rows(10)))

    def refused(*_: Any) -> FileEntry:
        run.stop.request()
        raise StorageFailed("the storage answered 503")

    with monkeypatch.context() as outage:
        outage.setattr(run.checkpoints.store, "upload", refused)
        while run.state.step < 4:
            run.step()
        run.save()
        run.checkpoints.settle()
    with pytest.raises(Interrupted):
        run.run()
    assert resumed(tiny, tmp_path, settings(tmp_path, "AdamW", 8)).state.step == 4


def test_whoever_is_told_to_stop_while_storage_is_slow_stores_the_newest_step_alone(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that waits would take the time that a pod has to end."""
    run = trainer(tiny, tmp_path, settings(tmp_path, "AdamW", 16), unpacked(random_rows(10)))
    begun, released = held_uploads(run.checkpoints.store, monkeypatch)
    wait = run.checkpoints.wait

    def waited(everything: bool = False) -> None:
        released.set()
        wait(everything)

    monkeypatch.setattr(run.checkpoints, "wait", waited)
    while run.state.step < 9:
        if run.state.step in (4, 8):
            run.save()
            assert begun.wait(60)
        run.step()
    run.stop.request()
    with pytest.raises(Interrupted):
        run.run()
    steps = sorted({info.path.split("/")[3].split("-")[1] for info in run.checkpoints.store.list("runs/")})
    assert steps == ["000004", "000009"]
    assert resumed(tiny, tmp_path, settings(tmp_path, "AdamW", 16)).state.step == 9


def test_the_cuts_of_the_batch_are_resumed_too(tiny: Path, tmp_path: Path) -> None:
    config = settings(tmp_path, "AdamW", 8, microBatchSize=4)
    first = trainer(tiny, tmp_path, config, unpacked(random_rows(10)))
    first.micro_batch = 1  # memory ran out once
    first.step()
    first.save()
    first.checkpoints.wait()
    assert resumed(tiny, tmp_path, config).micro_batch == 1


def test_the_state_of_another_optimizer_or_adapter_is_refused_and_nothing_is_touched(
    tiny: Path, tmp_path: Path
) -> None:
    trainer(tiny, tmp_path, settings(tmp_path, "AdamW", 4), unpacked(random_rows(10))).run()
    run = trainer(tiny, tmp_path, settings(tmp_path, "AdamW8bit", 4), unpacked(random_rows(10)), attempt=1)
    before = weights(run)
    checkpoint = next(run.checkpoints.newest_first())
    with pytest.raises(ValueError, match="another optimizer"):
        run.resume(checkpoint)
    assert same(weights(run), before)
    wider = run_config(tmp_path, lora={"rank": 8})
    with pytest.raises(ValueError, match="differ in name or shape"):
        adapted(tiny, wider).load_trained_tensors(checkpoint.weights)

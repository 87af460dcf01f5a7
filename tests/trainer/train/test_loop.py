"""The loop: the gradient does not depend on its cuts, evaluation changes nothing, and what is published is right."""

from __future__ import annotations

import io
import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trimtab_trainer.contract import EarlyStopping, Reason
from trimtab_trainer.errors import DataInvalid, OutOfMemory, SettingsInvalid
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.training.batches import Batches
from trimtab_trainer.training.loop import Trainer, smaller_micro_batch
from trimtab_trainer.training.machine.exhausted import is_out_of_memory
from trimtab_trainer.training.network.adapter import add_adapter
from trimtab_trainer.training.network.model import frozen_hash, load_base
from trimtab_trainer.training.network.trained import not_finite
from trimtab_trainer.training.state import LARGEST_SCALE, TrainingState, evaluated
from trimtab_trainer.training.validation import mean_loss

from .runs import CPU, adapted, gradients, held_uploads, random_rows, run_config, sequences, shake, trainer, unpacked


def losses(run: Trainer) -> list[float]:
    return [point.loss for point in run.state.curve]


def weights(run: Trainer) -> dict[str, torch.Tensor]:
    return run.model.trained_tensors()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("micro_batch", [8, 4, 2, 1])
def test_the_gradient_is_that_of_the_whole_batch_however_it_is_cut(
    tiny: Path, tmp_path: Path, micro_batch: int
) -> None:
    """Rows of very different lengths: a mean of means would be another gradient."""
    rows = random_rows(8, shortest=4, longest=60)
    config = run_config(tmp_path, training={"batchSize": 8, "microBatchSize": micro_batch, "maxGradientNorm": 0})
    run = trainer(tiny, tmp_path, config, unpacked(rows))
    shake(run.model)
    found = gradients(run)

    # The definition, without any of the loop's parts: one forward pass a row, the mean over all supervised tokens.
    total, tokens = torch.zeros(()), 0
    for row in rows:
        logits = run.model.causal(input_ids=torch.tensor([row]), use_cache=False).logits[0, :-1]
        first = max(1, int(len(row) * 0.4))
        total = total + torch.nn.functional.cross_entropy(
            logits[first - 1 :], torch.tensor(row[first:]), reduction="sum"
        )
        tokens += len(row) - first
    (total / tokens).backward()
    for name, parameter in run.model.parameters.items():
        assert parameter.grad is not None
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_weights_of_rows_are_in_the_gradient(tiny: Path, tmp_path: Path) -> None:
    """A row that counts three times gives what three such rows give."""
    rows, counts = random_rows(4, shortest=4, longest=40), [1, 3, 1, 2]
    weighted = replace(unpacked(rows), weights=np.array(counts, np.float32))
    repeated = unpacked([row for row, count in zip(rows, counts, strict=True) for _ in range(count)])
    found = []
    for data in (weighted, repeated):
        config = run_config(tmp_path, training={"batchSize": 8, "microBatchSize": 2, "maxGradientNorm": 0})
        run = trainer(tiny, tmp_path, config, data)
        shake(run.model)
        found.append(gradients(run))
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-4, atol=1e-6)


def test_packing_gives_the_gradient_of_the_rows_alone(tiny: Path, tmp_path: Path) -> None:
    rows = random_rows(8)
    config = run_config(tmp_path, training={"batchSize": 8, "maxGradientNorm": 0})
    found = []
    for data in (unpacked(rows), sequences([rows[:3], rows[3:4], rows[4:]])):
        run = trainer(tiny, tmp_path, config, data)
        shake(run.model)
        found.append(gradients(run))
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-4, atol=1e-6)


def test_the_trajectory_of_the_tiny_model_is_pinned(tiny: Path, tmp_path: Path) -> None:
    config = run_config(tmp_path, training={"maxSteps": 8, "epochs": None}, lora={"dropout": 0.05})
    run = trainer(tiny, tmp_path, config, unpacked(random_rows(10)))
    run.run()
    assert losses(run) == pytest.approx(PINNED, abs=1e-4)


PINNED = [6.26498, 6.21693, 6.11513, 5.90398, 5.89705, 5.79205, 5.61185, 5.62861]


def test_evaluating_changes_nothing_in_training(tiny: Path, tmp_path: Path) -> None:
    data, held_out = unpacked(random_rows(10)), unpacked(random_rows(5, seed=9))
    config = run_config(tmp_path, lora={"dropout": 0.1}, training={"maxSteps": 6, "evaluateEverySteps": 2})
    evaluating = trainer(tiny, tmp_path / "one", config, data, held_out)
    silent = trainer(tiny, tmp_path / "other", config, data)
    base = frozen_hash(evaluating.model.module)
    assert len(evaluating.run().evaluations) == 3
    assert silent.run().evaluations == ()
    assert same(weights(evaluating), weights(silent))
    assert losses(evaluating) == losses(silent)
    assert frozen_hash(evaluating.model.module) == base


def test_the_validation_loss_is_the_mean_over_tokens_whatever_the_batch_size(tiny: Path, tmp_path: Path) -> None:
    rows = random_rows(16, shortest=4, longest=60)
    run = trainer(tiny, tmp_path, run_config(tmp_path), unpacked(rows))
    shake(run.model)
    found = [mean_loss(run.model, Batches(unpacked(rows)), Interruption(), size) for size in (1, 4, 16)]
    packed = mean_loss(run.model, Batches(sequences([rows[:5], rows[5:]])), Interruption(), 2)
    total, tokens = 0.0, 0
    with torch.no_grad():
        for row in rows:
            logits = run.model.causal(input_ids=torch.tensor([row]), use_cache=False).logits[0, :-1]
            first = max(1, int(len(row) * 0.4))
            total += torch.nn.functional.cross_entropy(
                logits[first - 1 :], torch.tensor(row[first:]), reduction="sum"
            ).item()
            tokens += len(row) - first
    assert [*found, packed] == pytest.approx([total / tokens] * 4, rel=1e-6)


def test_the_validation_loss_is_that_without_dropout(tiny: Path, tmp_path: Path) -> None:
    data, found = Batches(unpacked(random_rows(6))), []
    for dropout in (0.0, 0.5):
        model = adapted(tiny, run_config(tmp_path, lora={"dropout": dropout}))
        shake(model)
        model.module.train()  # as it is between two steps
        found.append(mean_loss(model, data, Interruption()))
        assert model.module.training
    assert found[0] == found[1]


@pytest.mark.parametrize("side", ["training", "validation"])
def test_data_without_a_supervised_token_is_refused(tiny: Path, tmp_path: Path, side: str) -> None:
    """Others train on it with a loss of 0.0 and succeed."""
    good, masked = unpacked(random_rows(4)), unpacked(random_rows(4))
    masked.supervised[:] = False
    with pytest.raises(DataInvalid, match=f"{side} data has no supervised token") as caught:
        trainer(tiny, tmp_path, run_config(tmp_path), *((masked, good) if side == "training" else (good, masked)))
    assert caught.value.reason is Reason.NO_ASSISTANT_TURN


def test_a_batch_without_supervised_tokens_moves_nothing(tiny: Path, tmp_path: Path) -> None:
    data = unpacked(random_rows(4))
    data.supervised[: int(data.offsets[1])] = False
    config = run_config(tmp_path, training={"batchSize": 1, "microBatchSize": 1})
    run = trainer(tiny, tmp_path, config, data)
    state = run.run()
    assert state.step == 4
    assert all(bool(tensor.isfinite().all()) for tensor in weights(run).values())


def test_every_adapter_weight_gets_a_gradient_or_training_stops(tiny: Path, tmp_path: Path) -> None:
    run = trainer(tiny, tmp_path, run_config(tmp_path), unpacked(random_rows(4)))
    run.model.head.project = torch.nn.Identity()

    def detached(batch: Any, cache: Any = None) -> torch.Tensor:
        torch.manual_seed(0)
        return torch.randn(*batch.tokens.shape, 384) * next(iter(run.model.parameters.values())).sum()

    run.model.hidden = detached  # type: ignore[method-assign]
    with pytest.raises(SettingsInvalid, match="no gradient reaches 27 of 28 adapter weights"):
        run.run()


def test_a_loss_that_is_not_finite_is_a_named_end(tiny: Path, tmp_path: Path) -> None:
    run = trainer(tiny, tmp_path, run_config(tmp_path), unpacked(random_rows(4)))
    spoil(run)
    with pytest.raises(SettingsInvalid, match=r"of step 1 is not finite, before anything was learned: .*baseModel"):
        run.run()


def spoil(run: Trainer) -> None:
    with torch.no_grad():
        next(iter(run.model.parameters.values())).fill_(math.inf)


def steps_kept(run: Trainer) -> list[int]:
    return [checkpoint.state.step for checkpoint in run.checkpoints.newest_first()]


def test_a_loss_that_is_not_finite_later_leaves_what_was_kept_before(tiny: Path, tmp_path: Path) -> None:
    """It is the settings', so no attempt tries again; whoever looks finds the weights of before, and the best."""
    config = run_config(
        tmp_path,
        training={"maxSteps": 6, "evaluateEverySteps": 1},
        checkpoint={"everySteps": 2, "keep": 2},
    )
    data = unpacked(random_rows(8))
    for attempt in range(2):  # the next one meets it again
        run = trainer(tiny, tmp_path, config, data, unpacked(random_rows(4, seed=1)), attempt=attempt)
        for checkpoint in run.checkpoints.newest_first():
            run.resume(checkpoint)
            break
        assert run.state.step == (0, 2)[attempt]
        accumulate = run.accumulate

        def broken(run: Trainer = run, accumulate: Any = accumulate) -> Any:
            if run.state.step == 2:
                run.checkpoints.made()
                spoil(run)
            return accumulate()

        run.accumulate = broken  # type: ignore[method-assign]
        with pytest.raises(SettingsInvalid, match=r"the loss of step 3 is not finite; lower training\.learningRate"):
            run.run()
        run.checkpoints.settle()
        assert steps_kept(run)[0] == 2
        best = run.state.best
        assert best is not None
        assert best.step <= 2
        assert all(bool(each.isfinite().all()) for each in run.checkpoints.best_weights(best).values())


def test_what_is_not_finite_is_found_and_what_is_large_is_not() -> None:
    tensors = {
        "large": torch.full((4,), 3e38),
        "infinite": torch.tensor([1.0, math.inf, -math.inf]),
        "no number": torch.tensor([math.nan]),
        "empty": torch.empty(0),
    }
    assert not_finite(tensors) == ["infinite", "no number"]
    assert not_finite({"large": tensors["large"]}) == []
    assert not_finite({}) == []


@pytest.mark.parametrize("stopped", [False, True], ids=["on its way", "told to stop"])
def test_weights_that_are_not_finite_are_in_no_checkpoint(tiny: Path, tmp_path: Path, stopped: bool) -> None:
    stop = Interruption()
    config = run_config(tmp_path, checkpoint={"everySteps": 1, "keep": 2})
    run = trainer(tiny, tmp_path, config, unpacked(random_rows(8)), stop=stop)
    step = run.optimizer.step

    def overflowing(*arguments: Any) -> Any:
        done = step(*arguments)
        if run.state.step == 1:
            spoil(run)
            if stopped:
                stop.request()
        return done

    run.optimizer.step = overflowing  # type: ignore[method-assign, assignment]
    with pytest.raises(SettingsInvalid, match=r"1 trained weights are not finite after step 2 \("):
        run.run()
    run.checkpoints.settle()
    assert steps_kept(run) == [1]


def test_a_checkpoint_that_waits_outlives_weights_that_are_not_finite(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(tiny, tmp_path, run_config(tmp_path, checkpoint={"everySteps": 1}), unpacked(random_rows(8)))
    begun, released = held_uploads(run.checkpoints.store, monkeypatch)
    step = run.optimizer.step

    def overflowing(*arguments: Any) -> Any:
        done = step(*arguments)
        if run.state.step == 1:
            assert begun.wait(60)
        if run.state.step == 2:
            spoil(run)
        return done

    run.optimizer.step = overflowing  # type: ignore[method-assign, assignment]
    with pytest.raises(SettingsInvalid, match=r"not finite after step 3 \("):
        run.run()
    released.set()
    run.checkpoints.settle()
    assert steps_kept(run) == [2, 1]


class TestMemory:
    """Too little memory halves the micro-batch, then recomputes activations, then ends with a name."""

    def starve(self, run: Trainer, fits: int, kept: bool = True) -> list[int]:
        """Let only so many sequences fit into a forward pass; with `kept`, even if activations are kept."""
        tried = []
        whole = run.model.hidden

        def hidden(batch: Any, cache: Any = None) -> torch.Tensor:
            tried.append(len(batch.tokens))
            if len(batch.tokens) > fits or not (kept or run.model.recomputed):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
            return whole(batch)

        run.model.hidden = hidden  # type: ignore[method-assign]
        return tried

    def test_a_smaller_micro_batch_gives_the_gradient_all_the_same(self, tiny: Path, tmp_path: Path) -> None:
        config = run_config(tmp_path, training={"batchSize": 8, "microBatchSize": 8})
        data = unpacked(random_rows(8))
        plenty = trainer(tiny, tmp_path / "plenty", config, data)
        scarce = trainer(tiny, tmp_path / "scarce", config, data)
        tried = self.starve(scarce, fits=2)
        plenty.run()
        state = scarce.run()
        assert tried[:4] == [8, 4, 2, 2]
        assert (scarce.micro_batch, state.micro_batch) == (2, 2)
        assert losses(scarce) == pytest.approx(losses(plenty), abs=1e-4)

    def test_activations_are_recomputed_before_giving_up(self, tiny: Path, tmp_path: Path) -> None:
        run = trainer(tiny, tmp_path, run_config(tmp_path), unpacked(random_rows(4)))
        self.starve(run, fits=1, kept=False)
        assert run.run().step == 4
        assert run.model.recomputed == 1

    def test_a_copy_that_does_not_fit_beside_a_step_is_made_after_it(
        self, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = trainer(tiny, tmp_path, run_config(tmp_path, checkpoint={"everySteps": 2}), unpacked(random_rows(8)))
        copied = run.model.trained_tensors

        def starved(*, copy: bool = True) -> dict[str, torch.Tensor]:
            if threading.current_thread() is not threading.main_thread():
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
            return copied(copy=copy)

        monkeypatch.setattr(run.model, "trained_tensors", starved)
        run.run()
        assert steps_kept(run) == [4, 2]

    def test_a_copy_that_does_not_fit_at_all_ends_the_run(
        self, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = trainer(tiny, tmp_path, run_config(tmp_path, checkpoint={"everySteps": 2}), unpacked(random_rows(8)))
        tries = []

        def starved(*, copy: bool = True) -> dict[str, torch.Tensor]:
            tries.append(copy)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

        monkeypatch.setattr(run.model, "trained_tensors", starved)
        with pytest.raises(torch.OutOfMemoryError):
            run.run()
        assert (len(tries), run.state.step) == (2, 2)

    def test_an_evaluation_halves_its_batches_too(self, tiny: Path, tmp_path: Path) -> None:
        run = trainer(tiny, tmp_path, run_config(tmp_path), unpacked(random_rows(4)))
        held_out = Batches(unpacked(random_rows(7)))
        plenty = mean_loss(run.model, held_out, Interruption(), 7)
        tried = self.starve(run, fits=2)
        assert mean_loss(run.model, held_out, Interruption(), 7) == pytest.approx(plenty, rel=1e-6)
        assert tried == [7, 3, 1, 1, 1, 1, 1, 1, 1]
        self.starve(run, fits=0)
        with pytest.raises(OutOfMemory, match=r"lower training\.maxSequenceLength"):
            mean_loss(run.model, held_out, Interruption(), 7)

    def test_when_one_sequence_does_not_fit_it_ends_with_a_next_step(self, tiny: Path, tmp_path: Path) -> None:
        run = trainer(tiny, tmp_path, run_config(tmp_path), unpacked(random_rows(4)))
        self.starve(run, fits=0)
        with pytest.raises(OutOfMemory, match=r"lower training\.maxSequenceLength"):
            run.run()

    def test_sizes_divide_the_batch(self) -> None:
        assert [smaller_micro_batch(size, 12) for size in (12, 6, 4, 3, 2)] == [6, 3, 2, 1, 1]

    def test_which_errors_mean_too_little_memory(self) -> None:
        assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
        assert is_out_of_memory(MemoryError())
        assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"))
        assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


STOPPING: dict[str, tuple[EarlyStopping | None, list[float], tuple[int, int, bool]]] = {
    "every evaluation improves": (EarlyStopping(patience=2), [3.0, 2.0, 1.0], (3, 0, False)),
    "patience runs out": (EarlyStopping(patience=2), [3.0, 3.1, 3.2], (1, 2, True)),
    "too small an improvement is the best, but no progress": (
        EarlyStopping(patience=2, minimum_improvement=0.1),
        [3.0, 2.95, 2.92],
        (3, 2, True),
    ),
    "small improvements add up": (
        EarlyStopping(patience=2, minimum_improvement=0.1),
        [3.0, 2.95, 2.89, 2.85],
        (4, 1, False),
    ),
    "without early stopping nothing stops": (None, [3.0, 3.1, 3.2, 3.3], (1, 3, False)),
}


@pytest.mark.parametrize("case", STOPPING)
def test_early_stopping(case: str) -> None:
    early, curve, want = STOPPING[case]
    state = TrainingState()
    for step, loss in enumerate(curve, 1):
        assert not state.stopped_early
        state = evaluated(state.model_copy(update={"step": step}), loss, f"step-{step}", early)
    assert state.best is not None
    assert (state.best.step, state.stale_evaluations, state.stopped_early) == want


def test_a_run_stops_early_and_the_best_weights_are_at_hand(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    data = unpacked(random_rows(4))
    config = run_config(tmp_path, training={"maxSteps": 20, "evaluateEverySteps": 1, "earlyStopping": {"patience": 2}})
    run = trainer(tiny, tmp_path, config, data, data)
    script = iter([3.0, 2.0, 2.5, 2.6])
    seen: dict[int, dict[str, torch.Tensor]] = {}

    def scripted(*_: Any) -> float:
        seen[run.state.step] = weights(run)
        return next(script)

    monkeypatch.setattr("trimtab_trainer.training.methods.objective.mean_loss", scripted)
    state = run.run()
    assert (state.step, state.stopped_early, state.best and state.best.step) == (4, True, 2)
    assert same(load_file(run.checkpoints.best_folder / "adapter.safetensors"), seen[2])


def test_memory_that_runs_out_of_a_model_that_computes_nothing_twice_is_a_named_end(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JetMoe and GPT-NeoX-Japanese have no way to in transformers, which raises an error without a name."""
    run = trainer(tiny, tmp_path, run_config(tmp_path, training={"microBatchSize": 1}), unpacked(random_rows(4)))
    monkeypatch.setattr(type(run.model.causal), "supports_gradient_checkpointing", False)
    with pytest.raises(OutOfMemory, match="a single sequence of up to"):
        run.shrink("no memory")
    assert run.model.recomputed == 0


def test_the_norm_of_the_gradient_is_clipped_unless_it_is_off(tiny: Path, tmp_path: Path) -> None:
    norms = {}
    for limit in (0.0, 0.01, 100.0):
        config = run_config(tmp_path, training={"maxGradientNorm": limit})
        run = trainer(tiny, tmp_path, config, unpacked(random_rows(4)))
        shake(run.model)
        found = gradients(run)
        norms[limit] = torch.stack([gradient.norm() for gradient in found.values()]).norm().item()
    assert norms[0.01] == pytest.approx(0.01, rel=1e-3)
    assert norms[0.0] == pytest.approx(norms[100.0])
    assert norms[0.0] > 0.1


def test_progress_is_told(tiny: Path, tmp_path: Path) -> None:
    log = io.StringIO()
    data = unpacked(random_rows(8))
    run = trainer(tiny, tmp_path, run_config(tmp_path), data, data, log=log)
    state = run.run()
    progress = run.board.read()
    assert (progress.step, progress.checkpoint_step) == (4, 4)
    assert progress.loss == state.loss
    assert progress.validation_loss == state.validation_loss
    assert progress.tokens_per_second is not None
    assert '"message": "evaluation"' in log.getvalue()


def test_float16_learns_what_float32_does_and_scales_less_where_it_overflows(tiny: Path, tmp_path: Path) -> None:
    data, config = unpacked(random_rows(8)), run_config(tmp_path)
    exact = trainer(tiny, tmp_path, config, data)
    base = load_base(tiny, config.quantization, torch.float16, CPU)
    half = add_adapter(base, config.lora, torch.float16, config.training.seed)
    log = io.StringIO()
    run = trainer(tiny, tmp_path, config, data, model=half, log=log)
    for each in (exact, run):
        shake(each.model)
    want, found = gradients(exact), gradients(run)
    assert run.scale == LARGEST_SCALE
    assert all(torch.nn.functional.cosine_similarity(want[n].flatten(), found[n].flatten(), 0) > 0.99 for n in want)
    run.state = run.state.model_copy(update={"loss_scale": 2.0**40})
    assert run.gradient() is None, "nothing of it is used"
    run.step()
    assert run.state.step == 1
    assert 1 <= run.state.loss_scale < 2.0**40
    assert "gradient beyond float16, the loss is scaled less" in log.getvalue()
    assert all(bool(torch.isfinite(p).all()) for p in run.model.parameters.values())


def test_float16_state_is_kept_and_that_of_others_is_as_it_was() -> None:
    assert "loss_scale" not in TrainingState().model_dump(mode="json")
    lowered = TrainingState(loss_scale=1024.0)
    assert TrainingState.model_validate(lowered.model_dump(mode="json")) == lowered

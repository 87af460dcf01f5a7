"""Preference methods in several processes: the steps, figures and losses of one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from trimtab_trainer.training.distributed.world import World
from trimtab_trainer.training.methods.splits import preferences_in, splits_of

from tests.trainer.train.methods.preferences import random_answers, references, side
from tests.trainer.train.runs import run_config, trainer

from .ranks import on_ranks

Learned = tuple[dict[str, torch.Tensor], list[float], list[float], list[dict[str, Any]]]


@pytest.mark.parametrize("method", ["DPO", "KTO", "ORPO"])
def test_a_method_learns_the_same_in_several_processes(tiny: Path, tmp_path: Path, method: str) -> None:
    training = {"method": method, "maxSteps": 3, "batchSize": 6, "microBatchSize": 2, "evaluateEverySteps": 3}
    config = run_config(tmp_path, training=training | {"optimizer": "SGD", "learningRate": 0.5}, lora={"dropout": 0.2})
    each = 1 if method == "KTO" else 2
    labels = {"labels": [number % 3 > 0 for number in range(10)]} if each == 1 else {}
    rows = side(random_answers(10, each), **labels)

    def body(world: World) -> Learned:
        view: Any = SimpleNamespace(train=rows, validation=rows, test=None)
        splits = splits_of(view, config.training)
        run = trainer(tiny, tmp_path / f"of-{world.size}", config, rows, rows, world=world)
        run.training, run.validation = splits["train"], splits["validation"]
        if config.training.method.needs_reference:
            own = references(tmp_path / f"reference-{world.size}-{world.rank}")
            own.give(run.model, preferences_in(splits), with_adapter=False)
        state = run.run()
        figures = [point.preference.to_json() for point in (*state.curve, *state.evaluations) if point.preference]
        losses = [point.loss for point in state.curve], [point.loss for point in state.evaluations]
        return run.model.trained_tensors(), *losses, figures

    (want,) = on_ranks(1, tmp_path / "one", body)
    assert len(want[3]) == 4
    for found in on_ranks(2, tmp_path / "two", body):
        for name, tensor in want[0].items():
            torch.testing.assert_close(found[0][name], tensor, rtol=1e-5, atol=1e-6)
        assert found[1] == pytest.approx(want[1], rel=1e-5)
        assert found[2] == pytest.approx(want[2], rel=1e-5)
        for one, other in zip(found[3], want[3], strict=True):
            assert one == pytest.approx(other, rel=1e-4, abs=1e-6)

"""Order of the data and the learning rate: functions of the step alone."""

from __future__ import annotations

import numpy as np
import pytest
from trimtab_trainer.contract import TrainingSettings
from trimtab_trainer.training.schedule import learning_rate, sequences_of_step, step_seed, steps_per_epoch

RATES = {
    "constant after warm-up": ({"schedule": "Constant", "warmupRatio": 0.2}, [0.5, 1.0, 1, 1, 1, 1, 1, 1, 1, 1]),
    "linear to zero": (
        {"schedule": "Linear", "warmupRatio": 0.0},
        [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1],
    ),
    "cosine after warm-up": (
        {"schedule": "Cosine", "warmupRatio": 0.2},
        [0.5, 1.0, *(0.5 * (1 + np.cos(np.pi * k / 8)) for k in range(8))],
    ),
}


@pytest.mark.parametrize("case", RATES)
def test_learning_rate(case: str) -> None:
    given, want = RATES[case]
    training = TrainingSettings.model_validate({"learningRate": 0.01, **given})
    assert [learning_rate(training, step, 10) for step in range(10)] == pytest.approx([0.01 * rate for rate in want])


def test_an_epoch_sees_every_sequence_once_and_the_next_one_in_another_order() -> None:
    training = TrainingSettings(batch_size=4, epochs=2)
    assert steps_per_epoch(training, 10) == 3
    epochs = [[sequences_of_step(training, 10, step).tolist() for step in range(at, at + 3)] for at in (0, 3)]
    for epoch in epochs:
        assert [len(batch) for batch in epoch] == [4, 4, 2]
        assert sorted(index for batch in epoch for index in batch) == list(range(10))
    assert epochs[0] != epochs[1]


def test_order_and_dropout_depend_on_seed_and_step_alone() -> None:
    one, other = TrainingSettings(batch_size=4, seed=1), TrainingSettings(batch_size=4, seed=2)
    assert sequences_of_step(one, 10, 7).tolist() == sequences_of_step(one, 10, 7).tolist()
    assert sequences_of_step(one, 10, 7).tolist() != sequences_of_step(other, 10, 7).tolist()
    assert len({step_seed(settings, step) for settings in (one, other) for step in range(100)}) == 200
    assert step_seed(one, 3) == 486255829187756567

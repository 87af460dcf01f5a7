"""The curves of a run as they are told: few points, few bytes, and still the curve."""

from __future__ import annotations

import json
import math

import pytest
from pydantic import ValidationError
from trimtab_trainer.contract import Curve, Reason, Stage, Summary, TerminationMessage
from trimtab_trainer.contract.curve import CURVE_BYTES, POINTS
from trimtab_trainer.contract.outcome import TERMINATION_MESSAGE_BYTES


def falling(count: int, every: int = 1) -> list[tuple[int, float]]:
    return [(every * (index + 1), 0.5 + 2.0 * math.exp(-index / max(1, count))) for index in range(count)]


def test_a_short_run_is_told_whole_with_four_digits() -> None:
    curve = Curve.of([(1, 2.123456), (2, 0.000123456)], [(2, 1234.56)])
    assert curve is not None
    assert curve.to_json() == {
        "steps": [1, 2],
        "loss": [2.123, 0.0001235],
        "validationSteps": [2],
        "validationLoss": [1235.0],
    }


def test_before_the_first_step_there_is_nothing_to_draw() -> None:
    assert Curve.of([], []) is None


@pytest.mark.parametrize("count", [1, 63, 64, 65, 127, 500])
def test_a_long_run_keeps_at_most_64_points_its_end_and_its_mean(count: int) -> None:
    points = falling(count)
    curve = Curve.of(points, points)
    assert curve is not None
    assert POINTS // 2 < len(curve.steps) <= POINTS or count <= POINTS // 2
    assert curve.steps[-1] == curve.validation_steps[-1] == count
    assert curve.validation_loss[-1] == pytest.approx(points[-1][1], rel=1e-3)
    # Each point stands for the steps since the one before: weighted so, they have the mean of the whole.
    widths = [after - before for before, after in zip((0, *curve.steps), curve.steps, strict=False)]
    mean = sum(width * loss for width, loss in zip(widths, curve.loss, strict=True)) / count
    assert mean == pytest.approx(sum(loss for _, loss in points) / count, rel=1e-3)


def test_what_a_trainer_of_before_tells_is_thinned_to_the_room_there_is() -> None:
    told = Curve(steps=tuple(range(10**6, 10**6 + 64)), loss=(1.234,) * 64)
    assert CURVE_BYTES < 1_400, "what they may take"
    wide = told.model_copy(update={"validation_steps": told.steps, "validation_loss": told.loss})
    assert wide.size > CURVE_BYTES
    fitting = wide.fitting()
    assert fitting is not None
    assert fitting.size <= CURVE_BYTES
    assert (fitting.steps[-1], fitting.validation_steps[-1]) == (wide.steps[-1], wide.validation_steps[-1])
    assert told.fitting() == told


def test_ten_million_steps_of_tiny_losses_fit_into_the_bytes() -> None:
    points = [(step * 20_000 + 9_000_000, 1.2345e-13 * (1 + step)) for step in range(500)]
    curve = Curve.of(points, points)
    assert curve is not None
    assert curve.size == len(json.dumps(curve.to_json(), separators=(",", ":"))) <= CURVE_BYTES
    assert len(curve.steps) >= 24
    assert curve.steps[-1] == points[-1][0]


@pytest.mark.parametrize(
    "told",
    [
        {"steps": [1, 2], "loss": [1.0]},
        {"steps": [2, 1], "loss": [1.0, 1.0]},
        {"steps": [-1], "loss": [1.0]},
        {"steps": [1], "loss": [math.nan]},
        {"validationSteps": [1], "validationLoss": [math.inf]},
        {"steps": list(range(65)), "loss": [1.0] * 65},
    ],
)
def test_what_cannot_be_drawn_is_no_curve(told: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Curve.model_validate(told)


def test_last_words_keep_as_much_of_the_curve_as_they_have_room_for_and_lose_no_word_for_it() -> None:
    words = TerminationMessage(
        stage=Stage.TRAIN,
        run_uid="1b4e28ba",
        attempt=0,
        reason=Reason.COMPLETED,
        summary=Summary(step=500, curve=Curve.of(falling(500), falling(50))),
    )
    assert words.decode(words.encode()) == words
    for length in (2000, 3000, 3700):
        text = words.model_copy(update={"message": "m" * length}).encode()
        assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
        read = TerminationMessage.decode(text)
        assert read is not None
        assert read.message == "m" * length
        if length < 3700:
            assert read.summary.curve is not None
            assert read.summary.curve.steps[-1] == 500

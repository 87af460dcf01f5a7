"""Records of searches to make pages of."""

from __future__ import annotations

import math
import random
from typing import Any

from trimtab_trainer.contract import RunIdentity
from trimtab_trainer.contract.curve import Curve
from trimtab_trainer.contract.sweeps.record import RecordedObjective, RecordedTrial, SweepRecord
from trimtab_trainer.contract.sweeps.settings import Direction, ParameterRange, Scale, SweepParameter

MODELS = [{"uri": "s3://models/smollm2-135m-instruct"}, {"uri": "s3://models/another/of-a-very-long-name-indeed"}]


def curve(last: float, steps: int) -> Curve:
    at = range(5, steps + 1, 5)
    return Curve(
        steps=tuple(at),
        loss=tuple(round(last - 0.1 + 2 * math.exp(-step / 40) + 0.03 * math.sin(step), 4) for step in at),
        validation_steps=tuple(range(20, steps + 1, 20)),
        validation_loss=tuple(round(last + 2 * math.exp(-step / 40), 4) for step in range(20, steps + 1, 20)),
    )


def trials(number: int = 40, text: str | None = None) -> list[RecordedTrial]:
    """Return trials of a learning rate that matters, a rank that matters less, and a base model."""
    draw = random.Random(7)
    made = []
    for index in range(number):
        rate, rank, model = 10 ** draw.uniform(-5, -2), draw.choice([4, 8, 16, 32]), draw.choice(MODELS)
        loss = 1.2 + 0.4 * (math.log10(rate) + 3.3) ** 2 + 0.3 / rank + draw.gauss(0, 0.03)
        pruned, bad = index % 7 == 6, index % 11 == 10
        made.append(
            RecordedTrial(
                id=f"{draw.getrandbits(32):08x}",
                parameters={
                    "training.learningRate": float(f"{rate:.4g}"),
                    "lora.rank": rank,
                    "baseModel": model if text is None else {"uri": text},
                },
                state="Bad" if bad else "Pruned" if pruned else "Complete",
                value=None if bad else round(loss + (0.5 if pruned else 0), 6),
                standard_error=None if bad or pruned else 0.04,
                reason="OutOfMemory" if bad else text[:64] if text else None,
                accelerator_seconds=80 if pruned else 240,
                curve=None if bad else curve(loss, 60 if pruned else 200),
            )
        )
    return made


def record(number: int = 40, text: str | None = None, **changes: Any) -> SweepRecord:
    """Return the record of a search that has ended; in it `text` stands for whatever comes from others."""
    return SweepRecord(
        run=RunIdentity(name="field-guide", namespace=text or "team-a", uid="01234567-89ab"),
        parameters=[
            SweepParameter(
                name="training.learningRate", range=ParameterRange(minimum=1e-5, maximum=1e-2, scale=Scale.LOG)
            ),
            SweepParameter(name="lora.rank", values=[4, 8, 16, 32]),
            SweepParameter(name="baseModel", values=[*MODELS, *([{"uri": text}] if text else [])]),
        ],
        objective=RecordedObjective(metric=text[:128] if text else "validationLoss", direction=Direction.MINIMIZE),
        algorithm="TPE",
        ended=text or f"maxTrials = {number} were begun",
        importance={"training.learningRate": 0.86, "lora.rank": 0.1, "baseModel": 0.04},
        trials=trials(number, text),
    ).model_copy(update=changes)

"""What the last words of a trainer's pod may be: the adapter is published, whatever else they say."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from trimtab_trainer.contract import Reason, Summary

from tests.unit.domain.makers import ARTIFACT, World

Words = dict[str, Any]
WHOLE_NAMES = [f"model.layers.{layer}.mlp.experts.{expert}.up_proj" for layer in range(40) for expert in range(2)]


def said(**figures: object) -> Callable[[Words], Words]:
    return lambda words: {**words, "summary": {**words["summary"], **figures}}


def made(**fields: object) -> Callable[[Words], Words]:
    return lambda words: {**words, "artifact": {**words["artifact"], **fields}}


ODD: dict[str, tuple[Callable[[Words], Words], dict[str, Any]]] = {
    "a loss that is not finite": (said(loss=math.nan), {"progress": {"percent": 100, "step": 100, "totalSteps": 100}}),
    "a test loss beyond all bounds": (said(testLoss=math.inf), {"artifact": {"testLoss": None}}),
    "a step below zero": (said(step=-1), {"progress": {"step": 100}}),
    "a step that no API holds": (said(step=10**30), {"progress": {"step": 100}}),
    "steps as large as may be": (said(step=2**53, totalSteps=2**53), {"progress": {"step": 2**53}}),
    "a checkpoint that no API holds": (said(checkpointStep=10**30), {"checkpoint": None}),
    "a curve of a trainer that draws it finer": (
        said(curve={"steps": [*range(200)], "loss": [1.0] * 200}),
        {"progress": {"step": 100}, "curve": None},
    ),
    "a curve that is not finite": (said(curve={"steps": [1], "loss": [math.nan]}), {"curve": None}),
    "more modules than a status lists": (
        made(targetModules=WHOLE_NAMES),
        {"artifact": {"targetModules": WHOLE_NAMES[:64]}},
    ),
    "a module twice": (made(targetModules=["q", "q", "v"]), {"artifact": {"targetModules": ["q", "v"]}}),
}


@pytest.mark.parametrize(("change", "want"), ODD.values(), ids=ODD)
def test_what_was_published_is_completed_whatever_else_is_said(
    change: Callable[[Words], Words], want: dict[str, Any]
) -> None:
    world = World().settle().prepared().running().after(30)
    words = world.words(Reason.COMPLETED, artifact=ARTIFACT, summary=Summary(step=100, total_steps=100, loss=1.0))
    text = json.dumps(change(json.loads(words.encode())))
    world.pod(phase="Succeeded", running=False, terminated=True, exit_code=0, terminated_time=world.now, said=text)
    world.change_job(complete=True, active=0, ended=world.now).settle()
    assert (world.state, world.succeeded) == ("Completed", "True")
    status = world.job.status.to_json()
    json.dumps(status, allow_nan=False)
    for section, figures in want.items():
        found = status.get(section)
        assert (found or {}).items() >= {k: v for k, v in (figures or {}).items() if v is not None}.items()
        assert figures is not None or found is None
        assert not [name for name, figure in (figures or {}).items() if figure is None and name in found]

"""The scenes that `make bench-verdicts` plays first: every one has the verdict that it was written for."""

from __future__ import annotations

import pytest

from tests.bench.evaluation.answer_scenes import Scene, scenes, verdict


@pytest.mark.parametrize("scene", [pytest.param(each, id=f"{each.name}: {each.wrong or 'good'}") for each in scenes()])
def test_the_gate_says_what_it_has_to(scene: Scene) -> None:
    found = verdict(scene)
    assert found.reason is scene.wanted, found.message

"""A FineTuneJob that trains all weights: what its trainer is told, and who has no use for its model."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from trimtab_operator.api import FineTuneJobSpec
from trimtab_operator.domain.finetunesweep.checks import check_sweep
from trimtab_operator.domain.finetunesweep.searching import job_of, search_of
from trimtab_trainer.contract import RunConfig
from trimtab_trainer.contract.settings import NO_ADAPTER, NOT_QUANTIZED, ONLY_SFT
from trimtab_trainer.contract.sweeps.checks import NOTHING_OF_LORA
from trimtab_trainer.contract.sweeps.settings import Unsearchable

from tests.unit.domain.makers import ARTIFACT, EvaluationWorld, ExportWorld, World, finetunejob
from tests.unit.domain.rollout.world import World as RolloutWorld
from tests.unit.domain.rollout.world import artifact, sha
from tests.unit.domain.test_sweep import TEMPLATE, sweep
from tests.unit.domain.test_sweep import World as SweepWorld

FULL: dict[str, Any] = {"lora": {"type": "None"}, "quantization": {"type": "None"}}
MODEL = ARTIFACT.model_copy(update={"uri": "s3://adapters/demo/models/e", "rank": None, "target_modules": []})


def started() -> World:
    return World(**FULL).settle().prepared().running()


def config_of(world: World) -> dict[str, Any]:
    (text,) = {body["data"]["run.json"] for body in world.created if body["kind"] == "ConfigMap"}
    found: dict[str, Any] = RunConfig.model_validate_json(text).to_json()
    return found


def test_its_trainer_is_told_so() -> None:
    assert config_of(started())["lora"]["type"] == "None"


def test_what_it_publishes_is_called_a_model() -> None:
    world = started()
    assert world.message == "Job demo-train-1 trains"
    world.published(MODEL)
    status = world.job.status
    assert (world.state, world.succeeded) == ("Completed", "True")
    assert world.message.startswith(f"model {MODEL.digest} is published at {MODEL.uri}")
    assert status.artifact.rank is None
    document = status.to_json()
    assert "rank" not in document["artifact"]
    document.pop("summary")
    assert type(status).model_validate(document) == status


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"lora": {"type": "None"}}, NOT_QUANTIZED),
        ({**FULL, "training": {"method": "DPO"}}, ONLY_SFT),
        ({**FULL, "training": {"method": "ORPO"}}, ONLY_SFT),
        ({**FULL, "lora": {"type": "None", "rank": 8}}, NO_ADAPTER),
    ],
)
def test_what_does_not_go_with_it_is_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        finetunejob(**spec)
    assert message in str(refused.value)


def test_an_evaluation_refuses_it_at_once_and_says_how_else_its_model_is_evaluated() -> None:
    world = EvaluationWorld(finetunejob(**FULL)).settle()
    assert (world.state, world.succeeded) == ("SpecInvalid", "False")
    assert "spec.baseModel.uri" in world.message
    assert world.created == []


def test_an_export_refuses_it_at_once() -> None:
    world = ExportWorld(finetunejob(**FULL)).settle()
    assert (world.state, world.succeeded) == ("SpecInvalid", "False")
    assert "a whole model already" in world.message
    assert world.created == []


def test_a_rollout_refuses_it_before_any_agent_hears_of_it() -> None:
    world = RolloutWorld({"artifact": artifact("a")})
    world.ranks[sha("a")] = None
    world.after(3)
    assert world.condition()[1] == "NotAnAdapter"
    assert any("is a whole model" in each.message for each in world.rollout.status.conditions)
    assert not any(agent.shares for agent in world.agents)


SEARCHED = {**TEMPLATE, **FULL}


def test_a_sweep_searches_its_settings_and_says_in_each_trial_that_there_is_no_adapter() -> None:
    found = search_of(sweep(template=SEARCHED))
    trial = found.at((0.0,))
    assert trial.trouble == ""
    (name,) = trial.jobs
    spec = job_of(sweep(template=SEARCHED), trial, name)["spec"]
    assert spec["lora"]["type"] == "None"
    assert FineTuneJobSpec.model_validate(spec).full


def test_a_sweep_of_an_adapters_settings_is_refused_because_they_would_make_one() -> None:
    searched = sweep(template=SEARCHED, parameters=[{"name": "lora.rank", "values": [4, 8]}])
    with pytest.raises(Unsearchable) as refused:
        check_sweep(searched.spec, search_of(searched))
    assert str(refused.value) == NOTHING_OF_LORA


def test_a_sweep_may_compare_an_adapter_with_none() -> None:
    template = {**TEMPLATE, "quantization": {"type": "None"}}
    searched = sweep(template=template, parameters=[{"name": "lora.type", "values": ["LoRA", "None"]}])
    found = search_of(searched)
    check_sweep(searched.spec, found)
    trials = [found.at((place,)) for place in (0.0, 1.0)]
    assert [each.trouble for each in trials] == ["", ""]
    specs = [FineTuneJobSpec.model_validate(next(iter(each.jobs.values()))) for each in trials]
    assert [each.full for each in specs] == [False, True]


def test_the_decision_about_such_a_sweep_names_what_to_change() -> None:
    world = SweepWorld(template=SEARCHED, parameters=[{"name": "lora.rank", "values": [4, 8]}])
    world.settle()
    assert NOTHING_OF_LORA in str(world.sweep.status.to_json())

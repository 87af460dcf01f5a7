"""The stage that mirrors what is on a hub: who goes through it, what its pod alone has, what the others are given."""

from __future__ import annotations

import json
from typing import Any

import pytest
from trimtab_operator.domain.evaluation import EVALUATING
from trimtab_operator.domain.finetunejob import TRAINING
from trimtab_operator.domain.work.building.job import build_job, build_run_config_map
from trimtab_operator.domain.work.building.names import job_names_to_confirm
from trimtab_trainer.contract import Mirrored, MirroredSource, Reason, RunConfig, Stage, relocated

from tests.unit.domain.makers import PREPARED, SETTINGS, EvaluationWorld, World, evaluation, finetunejob, finished, sha

MODEL, ROWS = "hf://org/base@main", "hf://datasets/org/rows@v1/data/"
ON_A_HUB: dict[str, Any] = {
    "baseModel": {"uri": MODEL, "secretName": "hub"},
    "dataset": {"training": {"uri": ROWS}, "secretName": "hub-rows"},
}
MIRRORED = Mirrored(
    sources=(
        MirroredSource(uri=MODEL, commit="1" * 40, digest=sha("a"), license="apache-2.0"),
        MirroredSource(uri=ROWS, commit="2" * 40, digest=sha("b")),
    )
)


def container(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = body["spec"]["template"]["spec"]["containers"][0]
    return found


def argument(body: dict[str, Any], option: str) -> Any:
    arguments = container(body)["args"]
    return json.loads(arguments[arguments.index(option) + 1]) if option in arguments else None


def secrets(body: dict[str, Any]) -> set[str]:
    volumes = body["spec"]["template"]["spec"]["volumes"]
    return {volume["secret"]["secretName"] for volume in volumes if "secret" in volume}


def mirrored(world: World, found: Mirrored = MIRRORED) -> World:
    return world.running().after(30).succeeds(world.words(Reason.COMPLETED, mirrored=found))


def test_what_is_on_a_hub_is_mirrored_before_it_is_prepared() -> None:
    world = World(**ON_A_HUB).settle()
    assert (world.job_names, world.state) == (["demo-mirror-0"], "Mirroring")
    world.running().reports(activity="Mirroring", step=3, total_steps=14)
    assert "3 of 14 files" in world.message
    mirrored(world).prepared()
    assert world.job_names == ["demo-mirror-0", "demo-prepare-1", "demo-train-2"]
    status = world.job.status
    assert [(each.uri, each.commit, each.license) for each in status.mirrored] == [
        (MODEL, "1" * 40, "apache-2.0"),
        (ROWS, "2" * 40, None),
    ]
    assert status.images == {"mirror": "prepare:1", "prepare": "prepare:1", "train": "trainer:1"}
    world.running().published()
    assert world.state == "Completed"
    assert world.job.status.accelerator_seconds == 0


def test_who_wants_nothing_of_a_hub_mirrors_nothing_and_asks_for_no_more_names() -> None:
    world = World().settle()
    assert (world.job_names, world.job.status.mirrored) == (["demo-prepare-0"], None)
    assert job_names_to_confirm(TRAINING, finetunejob()) == ["demo-prepare-0"]
    assert job_names_to_confirm(TRAINING, finetunejob(**ON_A_HUB)) == ["demo-mirror-0"]
    assert "--mirrored" not in container(world.created[-1])["args"]


def test_the_token_of_a_hub_is_in_the_pod_that_mirrors_alone() -> None:
    job = finetunejob(**ON_A_HUB)
    made = {stage: build_job(TRAINING, job, SETTINGS, stage, number=0) for stage in TRAINING.stages}
    assert secrets(made[Stage.MIRROR]) == {"hub", "hub-rows", "storage"}
    assert secrets(made[Stage.PREPARE]) == secrets(made[Stage.TRAIN]) == {"storage"}
    for stage, body in made.items():
        assert body["spec"]["template"]["metadata"]["labels"]["trimtab.dev/stage"] == stage.value
        assert not [each for each in container(body)["env"] if "TOKEN" in each["name"]]
    resources = container(made[Stage.MIRROR])["resources"]
    assert resources == container(made[Stage.PREPARE])["resources"]
    assert "nvidia.com/gpu" not in resources["limits"]


def test_data_in_storage_keep_their_secret_beside_a_base_model_on_a_hub() -> None:
    data = {"training": {"uri": "s3://data/x/"}, "secretName": "data"}
    job = finetunejob(baseModel=ON_A_HUB["baseModel"], dataset=data)
    assert secrets(build_job(TRAINING, job, SETTINGS, Stage.MIRROR, number=0)) == {"hub", "storage"}
    assert secrets(build_job(TRAINING, job, SETTINGS, Stage.PREPARE, number=0)) == {"data", "storage"}


def test_later_stages_are_given_what_was_mirrored_and_read_it_with_the_keys_of_the_output() -> None:
    world = mirrored(World(**ON_A_HUB).settle()).prepared()
    prepare, train = world.created[-2:]
    assert argument(prepare, "--mirrored") == argument(train, "--mirrored") == MIRRORED.to_json()
    assert argument(train, "--prepared") == PREPARED.to_json()
    config = RunConfig.model_validate_json(build_run_config_map(TRAINING, world.job)["data"]["run.json"])
    assert config.base_model.credentials is not None
    assert config.base_model.credentials.directory == "/run/trimtab/secrets/base-model"
    there = relocated(config, MIRRORED)
    assert there.base_model.uri == f"s3://adapters/demo/models/{'a' * 64}"
    assert there.base_model.digest == sha("a")
    assert there.dataset.training.uri == f"s3://adapters/demo/datasets/{'b' * 64}/files/"
    assert there.base_model.credentials == there.dataset.credentials == config.output.credentials


@pytest.mark.parametrize("reason", [Reason.SOURCE_GATED, Reason.SOURCE_NOT_FOUND, Reason.REVISION_MOVED])
def test_what_a_person_has_to_mend_is_not_retried(reason: Reason) -> None:
    world = World(**ON_A_HUB).settle().running()
    world.exits(10, world.words(reason, "accept the terms"))
    assert (world.state, world.succeeded, world.message) == (reason.value, "False", "accept the terms")
    assert world.job_names == ["demo-mirror-0"]


def test_a_hub_that_asks_for_time_gets_it() -> None:
    world = World(**ON_A_HUB, retries={"onFailure": 2}).settle().running()
    world.exits(13, world.words(Reason.HUB_QUOTA_EXCEEDED, "left alone for 300 s", retry_after_seconds=300))
    assert world.state == "Retrying"
    assert world.last.look_again_seconds == 300
    assert world.job.status.attempts[-1].retry_after_seconds == 300
    world.after(299).settle()
    assert world.job_names == ["demo-mirror-0"]
    world.after(1).settle()
    assert world.job_names == ["demo-mirror-0", "demo-mirror-1"]
    world.running().exits(13, world.words(Reason.HUB_UNREACHABLE, "no answer", retry_after_seconds=10**9))
    assert world.last.look_again_seconds == 3600


def test_a_mirror_that_is_gone_is_made_again_at_the_same_commit() -> None:
    world = mirrored(World(**ON_A_HUB).settle()).prepared().running()
    world.exits(13, world.words(Reason.MIRROR_MISSING, "is not there any more")).after(10).settle()
    assert world.job_names[-1] == "demo-mirror-3"
    assert argument(world.created[-1], "--mirrored") == MIRRORED.to_json()
    mirrored(world)
    assert world.job_names[-1] == "demo-train-4"


def test_a_mirror_whose_result_was_lost_is_looked_for_again() -> None:
    world = World(**ON_A_HUB).settle().running().succeeds(None)
    assert world.job_names == ["demo-mirror-0", "demo-mirror-1"]
    assert world.job.status.attempts[0].reason == "ResultLost"


def test_the_status_stays_small_beside_what_was_mirrored() -> None:
    world = mirrored(World(**ON_A_HUB, retries={"onDisruption": 100}).settle()).prepared()
    for _ in range(12):
        world.running().after(7).disrupted("PreemptionByScheduler " + "x" * 400, pod_left=True)
    assert len(world.job.status.attempts) == 10
    assert argument(world.created[-1], "--mirrored") == MIRRORED.to_json()
    assert len(json.dumps(world.job.status.to_json())) < 10_000


def test_a_mirror_over_its_memory_limit_says_which_limit() -> None:
    world = World(**ON_A_HUB).settle().running().exits(137, reason="OOMKilled")
    assert (world.state, world.succeeded) == ("OutOfMemory", "False")
    assert "prepareResources" in world.message


def test_an_evaluation_reads_what_its_finetunejob_mirrored() -> None:
    upstream = finished()
    spec = upstream.spec.model_copy(update={"base_model": finetunejob(**ON_A_HUB).spec.base_model})
    noted = mirrored(World(**ON_A_HUB).settle()).job.status.mirrored
    status = upstream.status.model_copy(update={"mirrored": noted})
    world = EvaluationWorld(upstream.model_copy(update={"spec": spec, "status": status})).settle()
    assert world.job_names == ["demo-eval-prepare-0"]
    assert world.job.status.resolved.base_model.to_json() == {
        "uri": f"s3://adapters/demo/models/{'a' * 64}",
        "digest": sha("a"),
        "secretName": "storage",
    }


def test_an_evaluation_mirrors_a_base_model_of_its_own() -> None:
    alone: dict[str, Any] = {
        "target": {"artifact": {"uri": "s3://adapters/x", "digest": sha("7"), "secretName": "theirs"}},
        "baseModel": {"uri": MODEL, "secretName": "hub"},
        "output": {"uri": "s3://results/x", "secretName": "results"},
    }
    world = EvaluationWorld(**alone).settle()
    assert (world.job_names, world.state) == (["demo-eval-mirror-0"], "Mirroring")
    assert secrets(world.created[-1]) == {"hub", "results"}
    mirrored(world, Mirrored(sources=MIRRORED.sources[:1])).prepared()
    assert world.job_names == ["demo-eval-mirror-0", "demo-eval-prepare-1", "demo-eval-2"]
    assert secrets(world.created[-1]) == {"results", "theirs"}
    assert EVALUATING.stages_of(evaluation(**alone)) == (Stage.MIRROR, Stage.PREPARE, Stage.EVALUATE)
    world.running().evaluated()
    assert world.state == "Completed"


def test_an_evaluation_mirrors_the_rows_of_its_tasks() -> None:
    task = {"name": "rows", "type": "Perplexity", "dataset": {"uri": ROWS}}
    alone: dict[str, Any] = {
        "target": {"artifact": {"uri": "s3://adapters/x/adapters/0", "digest": sha("e")}},
        "baseModel": {"uri": "s3://models/base"},
        "output": {"uri": "s3://adapters/x", "secretName": "storage"},
        "tasks": [task],
        "thresholds": [],
        "datasetSecretName": "hub-rows",
    }
    made = evaluation(**alone)
    assert EVALUATING.from_hub(made) == {"dataset"}
    assert EVALUATING.stages_of(made) == (Stage.MIRROR, Stage.PREPARE, Stage.EVALUATE)
    mirror, prepare = (
        build_job(EVALUATING, made, SETTINGS, stage, number=0) for stage in (Stage.MIRROR, Stage.PREPARE)
    )
    assert "hub-rows" in secrets(mirror)
    assert "hub-rows" not in secrets(prepare), "the token is in no other pod"
    world = EvaluationWorld(**alone).settle()
    assert world.state == "Mirroring"
    stored = evaluation(**{**alone, "tasks": [{**task, "dataset": {"uri": "s3://rows/"}}]})
    assert EVALUATING.stages_of(stored) == (Stage.PREPARE, Stage.EVALUATE)

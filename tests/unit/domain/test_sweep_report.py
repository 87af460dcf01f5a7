"""The page of a sweep: who writes it, when, and that a sweep ends without it as well as with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from trimtab_operator.api.finetunesweep import FineTuneSweep
from trimtab_operator.domain.cluster import NameTaken, Refusal
from trimtab_operator.domain.finetunesweep.decide import plan
from trimtab_operator.domain.finetunesweep.observed import Observed
from trimtab_operator.domain.plan import Create, Plan
from trimtab_trainer.__main__ import main
from trimtab_trainer.contract import ExitCode, Reason, Stage, TerminationMessage
from trimtab_trainer.contract.sweeps.record import SweepRecord
from trimtab_trainer.storage.layout import sweep_prefix

from tests.unit.domain.makers import T0
from tests.unit.domain.test_sweep import TEMPLATE, UID, World

CURVE = {"steps": [5, 10], "loss": [2.0, 1.5], "validationSteps": [10], "validationLoss": [1.6]}


def searched(losses: tuple[float, ...] = (1.5, 1.2), **spec: Any) -> World:
    world = World(maxTrials=len(losses), **spec).settle()
    return told(world, losses)


def told(world: World, losses: tuple[float, ...]) -> World:
    for loss in losses:
        name = world.running[0]
        world.tells(name, curve=CURVE).prepared().ends(name, loss)
    return world


def labelled(world: World, value: str) -> World:
    body = world.sweep.to_json()
    metadata = {**body["metadata"], "labels": {"trimtab.dev/report": value}}
    world.sweep = FineTuneSweep.parse({**body, "metadata": metadata})
    return world.settle()


def children(world: World) -> list[dict[str, Any]]:
    """Return what is created to write the page at the end of a search of one trial."""
    world = World(maxTrials=1, **world) if isinstance(world, dict) else world
    world.settle().prepared()
    name = world.running[0]
    condition = {
        "type": "Succeeded",
        "status": "True",
        "reason": "Completed",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    world.tells(name, conditions=[condition], progress={"validationLoss": 1.5}, curve=CURVE)
    return [action.body for action in world.decided().actions if isinstance(action, Create)]


def test_the_page_is_written_before_the_search_ends_and_its_place_is_told() -> None:
    world = searched()
    assert (world.state, world.succeeded) == ("Completed", "True")
    assert (world.condition("Reported").status, world.condition("Reported").reason) == ("True", "Written")
    status = world.sweep.status
    assert status.report_uri == f"s3://adapters/x/{sweep_prefix('guide', UID)}/sweep.html"
    assert status.importance == {"training.learningRate": 1.0}
    (document,) = world.reported
    record = SweepRecord.model_validate(document)
    assert [(each.value, each.state) for each in record.trials] == [(1.5, "Complete"), (1.2, "Complete")]
    assert [each.parameters for each in record.trials] == [
        {"training.learningRate": 1e-4},
        {"training.learningRate": 2e-4},
    ]
    assert record.trials[0].curve is not None
    assert record.trials[0].curve.validation_loss == (1.6,)
    assert (record.ended, record.importance) == ("maxTrials = 2 were begun", {"training.learningRate": 1.0})
    assert record.output is not None
    assert record.output.uri == "s3://adapters/x"


def test_the_curves_of_trials_that_go_at_the_end_are_in_it() -> None:
    world = searched((1.0, 2.0), retainTrials="Best").settle()
    assert len(world.jobs) == 1
    assert all(each["curve"] for each in world.reported[0]["trials"])


class Read(World):
    """A search of which somebody else has still to read some trials."""

    awaited: Mapping[str, tuple[str, ...]] = MappingProxyType({})

    def observed(self) -> Observed:
        return replace(super().observed(), awaited=self.awaited)


def test_a_trial_that_is_not_kept_goes_when_who_waits_for_it_has_read_it() -> None:
    world = Read(maxTrials=2, retainTrials="Best").settle()
    first = world.running[0]
    world.awaited = {first: ("Evaluation x",)}
    told(world, (2.0, 1.0))
    assert (world.state, len(world.jobs)) == ("Completed", 2)
    assert world.decided().look_again_seconds == 30
    world.awaited = {}
    assert first not in world.settle().jobs


def test_its_pod_is_that_of_a_trial_without_accelerators() -> None:
    template = {
        **TEMPLATE,
        "output": {"uri": "s3://adapters/x", "secretName": "storage"},
        "template": {
            "serviceAccountName": "trainers",
            "nodeSelector": {"pool": "a"},
            "resources": {"limits": {"nvidia.com/gpu": 1}},
        },
    }
    config, job = children(World(maxTrials=1, template=template))
    spec = job["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert (container["image"], container["args"][0]) == ("prepare", Stage.REPORT.value)
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert (spec["serviceAccountName"], spec["nodeSelector"]) == ("trainers", {"pool": "a"})
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    secrets = [volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume]
    assert secrets == ["storage"], "and no key of the base model or of the data"
    mounted = [volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume]
    assert mounted == [config["metadata"]["name"]]
    for body in (config, job):
        (owner,) = body["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("FineTuneSweep", UID, True)
        assert len(body["metadata"]["name"]) <= 63
    assert job["spec"]["activeDeadlineSeconds"] == 300
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus", "it waits where the trials do"


def test_the_stage_of_the_trainer_reads_what_the_operator_writes(tmp_path: Path) -> None:
    template = {**TEMPLATE, "output": {"uri": f"file://{tmp_path}"}}
    config, job = children(World(maxTrials=1, template=template))
    file, log = tmp_path / "run.json", tmp_path / "last"
    file.write_text(config["data"]["run.json"])
    (container,) = job["spec"]["template"]["spec"]["containers"]
    places = {"/run/trimtab/config/run.json": file, "/work": tmp_path / "work", "/dev/termination-log": log, "9401": 0}
    assert main([str(places.get(each, each)) for each in container["args"]]) == ExitCode.DONE
    words = TerminationMessage.decode(log.read_text())
    assert words is not None
    assert words.message == f"file://{tmp_path}/{sweep_prefix('guide', UID)}/sweep.html"
    assert (tmp_path / sweep_prefix("guide", UID) / "trials.jsonl").read_text().count("\n") == 1


def test_no_name_is_too_long() -> None:
    metadata = {"name": "a" * 32}
    for body in children(World(maxTrials=1, metadata=metadata)):
        assert len(body["metadata"]["name"]) <= 63


def test_it_is_tried_twice_and_the_sweep_ends_all_the_same() -> None:
    world = World(maxTrials=2).settle()
    world.report_ends = {"0": "failed", "1": "failed"}
    told(world, (1.5, 1.2))
    assert (world.state, world.succeeded) == ("Completed", "True")
    assert (world.condition("Reported").status, world.condition("Reported").reason) == ("False", "ReportFailed")
    assert "BackoffLimitExceeded" in world.condition("Reported").message
    assert (len(world.reports), world.sweep.status.report_uri) == (2, None)
    world = World(maxTrials=2).settle()
    world.report_ends = {"0": "failed"}
    told(world, (1.5, 1.2))
    assert world.condition("Reported").reason == "Written"
    assert len(world.reports) == 2


def test_the_words_of_its_pod_say_why() -> None:
    world = World(maxTrials=1).settle()
    world.report_ends = {"0": "failed", "1": "failed"}
    world.prepared()
    words = TerminationMessage(
        stage=Stage.REPORT, run_uid=UID, attempt=1, reason=Reason.ACCESS_DENIED, message="s3://adapters/x refuses keys"
    )

    def decided() -> Plan:
        observed = replace(world.observed(), last_words=dict.fromkeys(world.reports, words))
        return plan(replace(observed, answers=_Answers()), world.now)

    world.decided = decided  # type: ignore[method-assign]
    world.ends(world.running[0], 1.0)
    assert world.condition("Reported").message == "AccessDenied: s3://adapters/x refuses keys"


class _Answers(dict[Any, Any]):
    """Any inquiry is answered: nothing more is chosen, and nothing matters."""

    def __contains__(self, key: object) -> bool:
        return True

    def get(self, key: Any, default: Any = None) -> Any:
        return ((0.0,),)

    def __missing__(self, key: Any) -> Any:
        return {}


def test_a_job_that_does_not_start_holds_up_the_end_for_a_quarter_of_an_hour_at_most() -> None:
    world = World(maxTrials=1).settle().prepared()
    world.report_ends = {"0": "waits"}
    world.ends(world.running[0], 1.0)
    assert (world.state, world.succeeded) == ("Searching", "Unknown")
    assert "the page of the search is being written" in world.message
    assert world.condition("Reported").reason == "Writing"
    assert world.decided().look_again_seconds == pytest.approx(901)
    world.now += timedelta(seconds=902)
    world.settle()
    assert (world.state, world.condition("Reported").reason) == ("Completed", "ReportFailed")
    assert "900 s" in world.condition("Reported").message


@pytest.mark.parametrize("what", ["Job", "ConfigMap"])
def test_what_the_namespace_refuses_or_another_holds_is_waited_for_as_a_job_that_does_not_start(what: str) -> None:
    troubles: dict[str, dict[str, object]] = {
        f"the namespace refuses the {what}: exceeded": {"refused": Refusal(what, "exceeded", T0, T0)},
        f"the API server does not take the {what}: 500": {"refused": Refusal(what, "500", T0, T0, fault=True)},
        f"{what} guide-report-x belongs to something else": {"taken": NameTaken(f"{what} guide-report-x", T0)},
    }
    for words, trouble in troubles.items():
        world = World(maxTrials=1).settle().prepared()
        vars(world).update(trouble)
        world.ends(world.running[0], 1.0)
        for seconds in (0, 300, 600):
            world.now += timedelta(seconds=seconds)
            if world.refused is not None:
                world.refused = replace(world.refused, tried=world.now)
            world.settle()
            assert (world.state, world.succeeded, world.reports) == ("Searching", "Unknown", {})
            assert world.condition("Reported").reason == "Writing"
            assert world.condition("Reported").message.startswith(words)
            again = world.decided().look_again_seconds
            assert again is not None
            assert 1 <= again <= 60
        world.taken = world.refused = None
        assert (world.settle().state, world.condition("Reported").reason) == ("Completed", "Written")


def test_a_page_that_is_refused_on_and_on_is_given_up_and_the_search_ends_without() -> None:
    world = World(maxTrials=1).settle().prepared()
    world.refused = Refusal("Job", "exceeded quota: count", T0, T0)
    world.ends(world.running[0], 1.0)
    world.now += timedelta(seconds=901)
    world.refused = replace(world.refused, tried=world.now)
    assert (world.settle().state, world.condition("Reported").reason) == ("Completed", "ReportFailed")
    assert world.condition("Reported").message == (
        "it was not written within 900 s: the namespace refuses the Job: exceeded quota: count"
    )


def refuses(world: World) -> World:
    """Have the namespace refuse a Job of a page from now on."""
    world.refused = Refusal("Job", "exceeded quota: count", world.now, world.now)
    return world.settle()


def test_the_page_of_the_end_has_its_own_time_after_one_that_is_not_asked_for_any_more() -> None:
    world = World(maxTrials=2).settle()
    labelled(world, "true")
    told(world, (1.5,))
    world.reports.clear()
    assert world.sweep.status.report_request == "true"
    refuses(world)
    labelled(world, "again")
    assert world.condition("Reported").reason == "Writing"
    world.refused = None
    labelled(world, "")
    assert [each.type for each in world.sweep.status.conditions] == ["Succeeded"], "nothing is being written"
    world.now += timedelta(hours=3)
    refuses(world)
    told(world, (1.4,))
    assert (world.state, world.condition("Reported").reason) == ("Searching", "Writing")
    world.refused = None
    assert (world.settle().state, world.condition("Reported").reason) == ("Completed", "Written")


@pytest.mark.parametrize("held", [True, False])
def test_a_page_that_is_refused_has_its_time_again_after_the_sweep_was_suspended(*, held: bool) -> None:
    """Also where what keeps it from being made was there all the time."""
    world = refuses(World(maxTrials=1).settle().prepared())
    world.ends(world.running[0], 1.0)
    assert world.condition("Reported").reason == "Writing"
    world.spec(suspend=True).settle()
    assert [each.type for each in world.sweep.status.conditions] == ["Succeeded"]
    world.now += timedelta(hours=3)
    since = T0 if held else world.now
    world.refused = Refusal("Job", "exceeded quota: count", since, world.now)
    world.spec(suspend=False).settle()
    assert (world.state, world.condition("Reported").reason) == ("Searching", "Writing")
    world.refused = None
    assert (world.settle().state, world.condition("Reported").reason) == ("Completed", "Written")


def test_a_page_whose_job_failed_is_not_promised_by_another() -> None:
    world = World(maxTrials=1).settle().prepared()
    world.report_ends = {"0": "failed", "1": "waits"}
    world.ends(world.running[0], 1.0)
    world.now += timedelta(seconds=902)
    assert "if a Job of it begins later" in world.settle().condition("Reported").message
    world = World(maxTrials=1).settle().prepared()
    world.report_ends = {"0": "waits"}
    world.ends(world.running[0], 1.0)
    (name,) = world.reports
    world.reports[name] = replace(world.reports[name], failed=True)
    world.refused = Refusal("FineTuneJob", "exceeded quota: count", world.now, world.now + timedelta(seconds=900))
    world.now += timedelta(seconds=902)
    assert world.settle().condition("Reported").message == "it was not written within 900 s"


def test_a_page_that_is_refused_holds_up_no_trial_and_tries_no_trial_more_often() -> None:
    world = World(maxTrials=2).settle()
    labelled(world, "true")
    world.refused = Refusal("Job", "exceeded quota: count", world.now, world.now)
    told(world, (1.5,))
    assert (world.state, len(world.running), world.condition("Reported").reason) == ("Searching", 1, "Writing")
    world.refused = Refusal("FineTuneJob", "exceeded quota: count", world.now, world.now)
    assert not any(isinstance(action, Create) for action in world.decided().actions)


def test_a_search_without_a_value_has_no_page() -> None:
    world = World(maxTrials=1).settle()
    world.ends(world.running[0], None, reason="OutOfMemory")
    assert (world.state, world.reports) == ("TrialsFailed", {})
    assert [each.type for each in world.sweep.status.conditions] == ["Succeeded"]


def test_a_label_asks_for_a_page_on_the_way_and_each_value_for_one() -> None:
    world = World(maxTrials=4).settle()
    labelled(world, "true")
    assert world.reports == {}, "there is nothing to see yet"
    told(world, (1.5,))
    assert (world.state, len(world.reports)) == ("Searching", 1)
    assert world.sweep.status.report_request == "true"
    assert world.sweep.status.report_uri is not None
    assert "ended" not in world.reported[0]
    told(world, (1.4,))
    assert len(world.reports) == 1, "which is answered once"
    labelled(world, "again")
    assert (len(world.reports), len(world.reported[1]["trials"])) == (2, 3)
    assert [each["state"] for each in world.reported[1]["trials"]] == ["Complete", "Complete", "Running"]
    told(world, (1.3, 1.2))
    assert (world.state, len(world.reports)) == ("Completed", 3), "and once more at the end"
    assert world.reported[2]["ended"] == "maxTrials = 4 were begun"


def test_a_label_asks_for_a_page_after_the_end() -> None:
    world = searched((1.5, 1.2))
    before = world.sweep.status
    labelled(world, "true")
    assert (world.state, world.succeeded, len(world.reports)) == ("Completed", "True", 2)
    assert world.sweep.status.report_request == "true"
    assert world.reported[1] == world.reported[0], "it says the same, and why the search ended"
    after = world.sweep.status
    told_again = {"report_request": None, "conditions": before.conditions}
    assert after.model_copy(update=told_again) == before, "nothing else of the end is another"
    assert len(labelled(world, "true").reports) == 2, "which is answered once"


def test_a_page_that_failed_at_the_end_is_written_when_a_label_asks_for_it() -> None:
    world = World(maxTrials=2, retainTrials="Best").settle()
    world.report_ends = {"0": "failed", "1": "failed"}
    told(world, (1.5, 1.2))
    assert (world.state, world.condition("Reported").reason, len(world.jobs)) == ("Completed", "ReportFailed", 1)
    world.report_ends = {}
    labelled(world, "again")
    assert (world.state, world.condition("Reported").reason) == ("Completed", "Written")
    assert world.sweep.status.report_uri is not None
    assert [bool(each.get("curve")) for each in world.reported[-1]["trials"]] == [False, True], "of those still there"
    assert len(world.jobs) == 1


def test_a_page_after_the_end_is_given_up_and_the_end_stays() -> None:
    world = searched((1.5, 1.2))
    world.refused = Refusal("Job", "exceeded quota: count", world.now, world.now)
    labelled(world, "true")
    assert (world.state, world.condition("Reported").reason) == ("Completed", "Writing")
    assert world.decided().look_again_seconds == pytest.approx(5)
    world.now += timedelta(seconds=901)
    world.refused = replace(world.refused, tried=world.now)
    assert (world.settle().state, world.condition("Reported").reason) == ("Completed", "ReportFailed")
    assert "exceeded quota" in world.condition("Reported").message
    world = searched((1.5, 1.2))
    world.report_ends = {"0": "waits"}
    labelled(world, "true")
    assert (world.state, world.condition("Reported").reason) == ("Completed", "Writing")
    assert world.decided().look_again_seconds == pytest.approx(901)
    world.now += timedelta(seconds=902)
    assert world.settle().condition("Reported").reason == "ReportFailed"


def test_a_search_that_ended_without_a_value_or_before_it_began_has_no_page_after_either() -> None:
    world = World(maxTrials=1).settle()
    world.ends(world.running[0], None, reason="OutOfMemory")
    assert (labelled(world, "true").state, world.reports) == ("TrialsFailed", {})
    world = World(parameters=[{"name": "trainning.seed", "values": [1]}]).settle()
    assert (labelled(world, "true").state, world.reports) == ("SpecInvalid", {})


def test_a_page_on_the_way_that_does_not_start_is_given_up_though_nothing_else_happens() -> None:
    world = World(maxTrials=2).settle()
    world.report_ends = {"0": "waits"}
    labelled(world, "true")
    told(world, (1.5,))
    assert (world.state, world.condition("Reported").reason) == ("Searching", "Writing")
    assert world.decided().look_again_seconds == pytest.approx(901)
    world.now += timedelta(seconds=902)
    assert world.settle().condition("Reported").reason == "ReportFailed"


def test_more_trials_that_are_asked_for_while_it_is_written_are_in_the_page_of_the_end() -> None:
    world = World(maxTrials=1).settle().prepared()
    world.report_ends = {"0": "waits"}
    world.ends(world.running[0], 1.0)
    (name,) = world.reports
    world.report_ends = {}
    world.reports[name] = replace(world.reports[name], complete=True)
    world.spec(maxTrials=2).settle()
    told(world, (0.5,))
    assert (world.state, [len(each["trials"]) for each in world.reported]) == ("Completed", [1, 2])


def test_a_page_on_the_way_that_fails_holds_up_no_trial() -> None:
    world = World(maxTrials=2).settle()
    world.report_ends = {"0": "failed", "1": "failed"}
    labelled(world, "true")
    told(world, (1.5,))
    assert (world.state, len(world.running)) == ("Searching", 1)
    assert world.condition("Reported").reason == "ReportFailed"
    assert world.sweep.status.report_request == "true"
    world.report_ends = {}
    told(world, (1.4,))
    assert (world.state, world.condition("Reported").reason) == ("Completed", "Written")


def test_an_operator_that_dies_after_any_write_of_the_page_writes_the_same_one() -> None:
    def life(dies_at: int) -> World:
        world = World(maxTrials=1).settle().prepared()
        job = world.jobs[world.running[0]].to_json()
        condition = {
            "type": "Succeeded",
            "status": "True",
            "reason": "Completed",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        status = {**job["status"], "conditions": [condition], "progress": {"validationLoss": 1.0}}
        world.tells(job["metadata"]["name"], **status)
        made = world.decided()
        for part in [*made.actions, "status"][:dies_at]:
            world.act(Plan(status=made.status) if part == "status" else Plan(actions=(part,)))  # type: ignore[arg-type]
        return world.settle()

    undisturbed = life(99)
    for dies_at in range(4):
        world = life(dies_at)
        assert (world.state, set(world.reports)) == ("Completed", set(undisturbed.reports)), dies_at
        assert world.sweep.status.report_uri == undisturbed.sweep.status.report_uri
        assert world.sweep.status.importance == undisturbed.sweep.status.importance
        assert all(each == world.reported[0] for each in world.reported), "which is immutable"

"""Attempts of several pods: what they are made of, when they begin and end, and which of them an end is told by."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from trimtab_operator.api.finetunejob import NODES_MAXIMUM
from trimtab_operator.domain.evaluation import EVALUATING
from trimtab_operator.domain.finetunejob import TRAINING
from trimtab_operator.domain.plan import NodeOf, Plan
from trimtab_operator.domain.settings import PodDefaults
from trimtab_operator.domain.views import INDEX_LABEL, JobView, PodView
from trimtab_operator.domain.work.attempts.ending import cause_of
from trimtab_operator.domain.work.building.inputs import config_inputs, job_inputs
from trimtab_operator.domain.work.building.job import build_job
from trimtab_operator.domain.work.building.peers import build_peers
from trimtab_operator.domain.work.staged import needs
from trimtab_trainer.contract import TRAIN_LIMITS, Reason, Stage, Summary, TrainLimits
from trimtab_trainer.training.distributed.nodes import Nodes, nodes

from tests.unit.domain.makers import PREPARED, SETTINGS, UID, World, evaluation, finetunejob
from tests.unit.runtime.objects import pod as pod_body

TWO_GPUS = {"resources": {"limits": {"nvidia.com/gpu": 2}}}


def job_of(stage: Stage = Stage.TRAIN, settings: Any = SETTINGS, **spec: Any) -> dict[str, Any]:
    return build_job(TRAINING, finetunejob(**spec), settings, stage, number=3, prepared=PREPARED)


def environment(body: dict[str, Any]) -> dict[str, Any]:
    (container,) = body["spec"]["template"]["spec"]["containers"]
    names = [each["name"] for each in container["env"]]
    assert len(names) == len(set(names)), names
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


# -- what they are made of --------------------------------------------------------------------------------------------


def test_several_pods_are_an_indexed_job_that_one_failure_ends() -> None:
    body = job_of(nodes=3)
    spec = body["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert (spec["backoffLimit"], spec["podReplacementPolicy"]) == (0, "Failed")
    assert {rule["action"] for rule in spec["podFailurePolicy"]["rules"]} == {"FailJob"}
    assert spec["template"]["spec"]["subdomain"] == "train-demo"
    view = JobView.of({**body, "metadata": body["metadata"] | {"uid": "u"}})
    assert view is not None
    assert (view.pods, view.accelerators) == (3, 3)


def test_one_pod_is_what_it_was() -> None:
    assert job_of(nodes=1) == job_of()
    body = job_of()
    assert not {"completionMode"} & body["spec"].keys()
    assert "subdomain" not in body["spec"]["template"]["spec"]
    assert not [name for name in environment(body) if name.startswith("PET_")]


@pytest.mark.parametrize("stage", [Stage.PREPARE, Stage.MIRROR])
def test_only_training_is_the_work_of_several(stage: Stage) -> None:
    assert "completionMode" not in job_of(stage, nodes=3)["spec"]


def test_an_evaluation_is_the_work_of_one() -> None:
    assert EVALUATING.pods(evaluation(), Stage.EVALUATE) == 1


def test_each_pod_is_told_of_the_others_as_the_trainer_reads_it() -> None:
    told = environment(job_of(nodes=2, template=TWO_GPUS))
    assert told["PET_NODE_RANK"] == {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX_LABEL}']"}}
    assert (told["TRIMTAB_PROCESSES"], told["WORLD_SIZE"]) == ("2", "4")
    seen = nodes({**told, "PET_NODE_RANK": "1", "JOB_COMPLETION_INDEX": "1"}, 2)
    assert seen == Nodes(1, 2, 2, "demo-train-3-0.train-demo:29400")


def test_a_template_cannot_tell_a_pod_that_it_is_another() -> None:
    told = environment(job_of(nodes=2, template={"env": [{"name": "PET_NNODES", "value": "1"}]}))
    assert told["PET_NNODES"] == "2"


def test_the_accelerators_of_all_pods_are_counted_and_prepare_is_told_of_them() -> None:
    body = job_of(nodes=2, template=TWO_GPUS)
    assert body["metadata"]["labels"]["trimtab.dev/accelerators"] == "4"
    limits = TrainLimits.told(environment(job_of(Stage.PREPARE, nodes=2, template=TWO_GPUS)))
    assert limits is not None
    assert (limits.nodes, limits.accelerators, limits.processes) == (2, 2, 4)
    assert "nodes" not in json.loads(environment(job_of(Stage.PREPARE))[TRAIN_LIMITS])


def test_a_queue_may_not_admit_some_of_them_alone() -> None:
    minimum = "kueue.x-k8s.io/job-min-parallelism"
    defaults = replace(SETTINGS, work_pods=PodDefaults.model_validate({"annotations": {minimum: "1"}}))
    for count in (1, 2):
        body = job_of(settings=defaults, nodes=count)
        assert minimum not in body["metadata"]["annotations"] | body["spec"]["template"]["metadata"]["annotations"]


def test_they_find_each_other_by_a_service_and_nobody_else_reaches_them() -> None:
    job = finetunejob(nodes=2)
    service, policy = build_peers(TRAINING, job, Stage.TRAIN)
    labels = job_of(nodes=2)["spec"]["template"]["metadata"]["labels"]
    for body in (service, policy):
        assert body["metadata"]["name"] == "train-demo"
        assert [owner["uid"] for owner in body["metadata"]["ownerReferences"]] == [UID]
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    peers = {"matchLabels": service["spec"]["selector"]}
    assert service["spec"]["selector"] == {"trimtab.dev/finetunejob": "demo", "trimtab.dev/stage": "train"}
    assert service["spec"]["selector"].items() <= labels.items()
    assert policy["spec"]["podSelector"] == peers
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    assert policy["spec"]["ingress"] == [
        {"from": [{"podSelector": peers}]},
        {"ports": [{"port": 9401, "protocol": "TCP"}]},
    ]


def test_host_names_of_the_longest_name_and_the_most_pods_are_labels() -> None:
    job = finetunejob(nodes=NODES_MAXIMUM)
    job = job.model_copy(update={"metadata": job.metadata.model_copy(update={"name": "n" * 45})})
    name = build_job(TRAINING, job, SETTINGS, Stage.TRAIN, number=999, prepared=PREPARED)["metadata"]["name"]
    assert len(f"{name}-{NODES_MAXIMUM - 1}") <= 63
    assert len(build_peers(TRAINING, job, Stage.TRAIN)[0]["metadata"]["name"]) <= 63


def test_how_many_they_are_does_not_define_the_result() -> None:
    one, two = finetunejob(), finetunejob(nodes=2)
    assert config_inputs(TRAINING, one) == config_inputs(TRAINING, two)
    assert TRAINING.run_config(one) == TRAINING.run_config(two)
    assert job_inputs(TRAINING, one) != job_inputs(TRAINING, two)  # but the next attempt takes it


def test_the_index_of_a_pod_is_what_kubernetes_says() -> None:
    def index(**labels: str) -> int:
        body = pod_body()
        view = PodView.of({**body, "metadata": body["metadata"] | {"labels": body["metadata"]["labels"] | labels}})
        assert view is not None
        return view.index

    assert index() == 0
    assert index(**{INDEX_LABEL: "2"}) == 2
    assert index(**{INDEX_LABEL: "two"}) == 0


# -- a life -----------------------------------------------------------------------------------------------------------


class Together(World):
    """A cluster whose train Jobs have two pods."""

    def each_runs(self) -> Together:
        self.start(1)
        self.start(0)
        self.change_job(active=2).settle()
        return self

    def start(self, index: int) -> None:
        placed = {"scheduled_time": self.now, "node": f"node-{index}", "ip": f"10.0.0.{index}"}
        self.pod(index, phase="Running", started=self.now, running=True, **placed)

    def ends(self, index: int, code: int, reason: Reason | None = None, message: str = "", **fields: Any) -> Together:
        """Let the trainer of a pod end."""
        said = self.words(reason, message).encode() if reason is not None else ""
        ended = {"running": False, "terminated": True, "terminated_time": self.now, "said": said, **fields}
        self.pod(index, phase="Succeeded" if code == 0 else "Failed", exit_code=code, **ended)
        return self

    def fails(self, message: str = "") -> Together:
        """Let the Job fail, as its controller does once no pod is left."""
        self.change_job(failed=True, active=0, ended=self.now, failed_message=message).settle()
        return self


def training() -> Together:
    world = Together(nodes=2, retries={"onFailure": 3, "onDisruption": 3})
    world.settle().prepared()
    assert world.current.pods == 2
    return world


def test_a_run_of_two_pods_makes_its_peers_first_and_is_paid_for_twice() -> None:
    world = training()
    assert [body["kind"] for body in world.created] == ["ConfigMap", "Job", "Service", "NetworkPolicy", "Job"]
    world.each_runs().after(100)
    assert world.message == "Job demo-train-1 trains in 2 pods"
    world.reports(step=50)
    world.ends(1, 0, Reason.COMPLETED).settle()
    assert world.state == "Training"
    world.published()
    assert world.state == "Completed"
    assert world.job.status.accelerator_seconds == 200


def test_the_next_attempt_has_the_same_peers() -> None:
    world = training()
    world.each_runs().after(10).ends(1, 1, Reason.BUG, "a bug").ends(0, 14, Reason.INTERRUPTED).fails()
    world.after(60).settle()
    assert world.created[-1]["metadata"]["name"] == "demo-train-2"
    assert {body["metadata"]["name"] for body in world.created if body["kind"] == "Service"} == {"train-demo"}


def test_pods_that_wait_for_one_say_so_and_its_time_counts_from_the_first() -> None:
    world = training()
    world.start(0)
    world.pod(1, unschedulable="0/3 nodes: Insufficient nvidia.com/gpu").settle()
    assert world.state == "Queued"
    assert "pod 1 of 2, for which the others wait: no node can take the pod: 0/3 nodes" in world.message
    world.after(50).start(1)
    world.after(10).settle()
    assert world.state == "Training"
    assert world.job.status.attempts[-1].start_time == "2026-01-05T12:00:20Z"


def test_a_pod_that_is_not_made_is_asked_about() -> None:
    world = training()
    world.start(0)
    world.pods_refused("exceeded quota: gpus")
    world.after(20).settle()
    assert world.state == "QuotaExceeded"


def test_a_pod_that_runs_is_not_taken_for_a_job_that_waits() -> None:
    """Its spec changed while one of its pods had no node yet: the other may have begun."""
    world = training()
    world.start(0)
    world.pod(1, unschedulable="no").settle()
    world.patch_spec(nodes=3).settle()
    assert world.deleted == []


ENDS: dict[str, tuple[list[dict[str, Any]], str, str | None]] = {
    "one crashes, the other is told to stop": (
        [{"code": 14, "reason": Reason.INTERRUPTED}, {"code": 1, "reason": Reason.BUG, "message": "KeyError"}],
        "InternalError", "failures",
    ),
    "one is killed, the other notices": (
        [{"code": 1, "reason": Reason.PROCESS_LOST}, {"code": 137}], "ContainerFailed", "failures",
    ),
    "one is out of memory, the other notices first": (
        [{"code": 1, "reason": Reason.PROCESS_LOST}, {"code": 12, "reason": Reason.OUT_OF_MEMORY}],
        "OutOfMemory", None,
    ),
    "one reaches its limit": (
        [{"code": 1, "reason": Reason.PROCESS_LOST}, {"code": 137, "terminated_reason": "OOMKilled"}],
        "OutOfMemory", None,
    ),
    "one is preempted, the other notices": (
        [{"code": 1, "reason": Reason.PROCESS_LOST}, {"code": 137, "disruption": "PreemptionByScheduler"}],
        "PreemptionByScheduler", "disruptions",
    ),
    "one was told what cannot be, the other is told to stop": (
        [{"code": 14, "reason": Reason.INTERRUPTED}, {"code": 10, "reason": Reason.SETTINGS_INVALID}],
        "SettingsInvalid", None,
    ),
    "both are told to stop": (
        [{"code": 14, "reason": Reason.INTERRUPTED}] * 2, "Interrupted", "disruptions",
    ),
    "the leader's part fails after the other's is done": (
        [{"code": 13, "reason": Reason.STORAGE_FAILED}, {"code": 0, "reason": Reason.COMPLETED}],
        "StorageFailed", "failures",
    ),
    "each only misses the other": (
        [{"code": 1, "reason": Reason.PROCESS_LOST}] * 2, "ProcessLost", "failures",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ENDS)
def test_an_attempt_ends_by_the_pod_that_has_the_cause(case: str) -> None:
    pods, reason, charged = ENDS[case]
    world = training()
    world.each_runs().after(30)
    for index, ended in enumerate(pods):
        world.ends(index, **ended)
    world.fails()
    attempt = world.job.status.attempts[1]
    assert (attempt.reason, attempt.charged_to) == (reason, charged)


def test_an_end_that_not_all_pods_have_told_of_is_read_anew() -> None:
    world = training()
    world.each_runs().after(5).ends(0, 1, Reason.PROCESS_LOST).ends(1, 12, Reason.OUT_OF_MEMORY)
    world.change_job(failed=True, active=0, ended=world.now)
    assert needs(world.observed(), Plan()).jobs == {}
    world.pods = [pod for pod in world.pods if pod.index == 0]
    assert needs(world.observed(), Plan()).jobs.keys() == {"demo-train-1"}


def test_of_two_that_fail_of_themselves_the_first_tells() -> None:
    world = training()
    world.each_runs().after(5).ends(1, 1, Reason.BUG, "first").after(5).ends(0, 1, Reason.BUG, "second").fails()
    assert world.job.status.attempts[-1].message == "first"
    assert cause_of(()) is None


def test_what_the_leader_published_is_done_though_another_pod_fails_beside_it() -> None:
    world = training()
    world.each_runs().after(30).ends(1, 137)
    world.published()
    assert world.state == "Completed"


def test_an_attempt_is_over_when_the_last_of_its_trainers_is() -> None:
    """A sidecar keeps both pods; one trainer still writes a checkpoint."""
    world = training()
    world.each_runs().after(30)
    world.pod(1, running=False, terminated=True, exit_code=14, terminated_time=world.now)
    world.settle().after(60).settle()
    assert world.job.status.attempts[-1].reason is None
    said = world.words(Reason.INTERRUPTED).encode()
    world.pod(0, running=False, terminated=True, exit_code=14, terminated_time=world.now, said=said)
    world.settle().after(6).settle()
    assert world.job.status.attempts[-2].reason == "Interrupted"
    assert world.job.status.attempts[-2].active_seconds == 90


def test_a_node_that_is_lost_takes_the_attempt_along() -> None:
    world = training()
    world.each_runs().after(30)
    world.pod(1, deletion_time=world.now + timedelta(seconds=30)).settle()
    world.answers[NodeOf("node-1")] = "NotReady"
    world.after(151).settle()
    assert world.job.status.disruptions == 1
    assert "node node-1 is not ready" in next(
        a.message or "" for a in world.job.status.attempts if a.reason == "NodeLost"
    )
    assert world.deleted == ["demo-train-1"]


def test_suspending_waits_for_both_and_stops_the_clock() -> None:
    world = training()
    world.each_runs().after(100)
    world.patch_spec(suspend=True).settle()
    assert world.current.suspended
    world.ends(1, 14, Reason.INTERRUPTED).after(20).settle()
    assert world.job.status.attempts[-1].start_time is not None
    world.ends(0, 14, Reason.INTERRUPTED).settle()
    assert (world.job.status.attempts[-1].start_time, world.job.status.attempts[-1].active_seconds) == (None, 120)
    world.pods = [pod for pod in world.pods if pod.job_uid != world.current.uid]
    world.after(1000).patch_spec(suspend=False).settle()
    world.each_runs().after(10).ends(1, 0, Reason.COMPLETED).published()
    assert world.state == "Completed"
    assert world.job.status.accelerator_seconds == 2 * 130


def test_more_nodes_are_for_the_next_attempt() -> None:
    world = training()
    world.each_runs().after(10)
    world.patch_spec(nodes=1).settle()
    assert world.deleted == []
    world.ends(1, 14, Reason.INTERRUPTED).ends(0, 14, Reason.INTERRUPTED).fails().after(5).settle()
    assert (world.current.name, world.current.pods) == ("demo-train-2", 1)


# -- pods whose labels somebody writes over ---------------------------------------------------------------------------

WRITTEN_OVER: dict[str, dict[str, Any]] = {
    "whose it is": {"owner_name": "platform"},
    "of which kind": {"owner_kind": ""},
    "the stage": {"stage": ""},
}


@pytest.mark.parametrize("labels", WRITTEN_OVER.values(), ids=WRITTEN_OVER)
def test_pods_that_cannot_find_each_other_hold_nothing_and_the_state_says_why(labels: dict[str, Any]) -> None:
    world = training()
    world.pod(0).pod(1, **labels).change_job(active=2).settle()
    assert (world.state, world.succeeded) == ("PodRefused", "False")
    assert "has not trimtab.dev/finetunejob: demo and trimtab.dev/stage: train, by which the 2 pods" in world.message
    world.settle()
    assert world.deleted == ["demo-train-1"]


def test_pods_that_waited_for_one_they_cannot_find_end_with_the_reason_and_are_not_tried_again() -> None:
    """They ran before anybody saw their labels."""
    world = training()
    world.start(0)
    world.pod(1, stage="")
    world.start(1)
    world.change_job(active=2).settle()
    assert world.state == "Training"
    world.after(900).ends(1, 14, Reason.INTERRUPTED, "the other pods did not come: nobody answers")
    world.ends(0, 14, Reason.INTERRUPTED, "the other pods did not come: pod 1").fails()
    assert (world.state, world.succeeded) == ("PodRefused", "False")
    assert "find each other" in world.message
    assert "the other pods did not come" in world.message


def test_labels_that_somebody_takes_from_a_pod_that_trains_end_nothing() -> None:
    world = training()
    world.each_runs().reports(step=50)
    world.pod(1, stage="").settle()
    assert world.state == "Training"
    words = world.words(Reason.INTERRUPTED, summary=Summary(step=50)).encode()
    for index in (0, 1):
        world.ends(index, 14, said=words)
    world.fails()
    assert world.job.status.attempts[1].reason == "Interrupted"


def test_one_pod_alone_needs_no_labels() -> None:
    world = World().settle()
    world.pod(owner_name="platform", stage="").running()
    assert world.state == "Preparing"

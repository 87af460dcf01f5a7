"""Pods that train together: what each is told of the others is held against what is there."""

from __future__ import annotations

import pytest
from trimtab_trainer.contract import Reason, Stage, Summary, TerminationMessage, TrainLimits
from trimtab_trainer.errors import ProcessLost, SettingsInvalid
from trimtab_trainer.training.distributed.ending import End, outcome
from trimtab_trainer.training.distributed.nodes import Nodes, nodes

SECOND = {
    "PET_NNODES": "2",
    "PET_NPROC_PER_NODE": "4",
    "PET_NODE_RANK": "1",
    "PET_MASTER_ADDR": "demo-train-1-0.ftj-demo",
    "PET_MASTER_PORT": "29400",
    "WORLD_SIZE": "8",
    "JOB_COMPLETION_INDEX": "1",
}


def test_a_pod_is_told_its_place_by_torchruns_variables() -> None:
    assert nodes(SECOND, 4) == Nodes(1, 2, 4, "demo-train-1-0.ftj-demo:29400")
    assert nodes({"PET_NNODES": "2", "PET_NODE_RANK": "0", "PET_MASTER_ADDR": "a"}, 1) == Nodes(0, 2, 1, "a:29400")
    assert Nodes(1, 2, 4).size == 8


@pytest.mark.parametrize("told", [{}, {"WORLD_SIZE": "1"}, {"JOB_COMPLETION_INDEX": "0"}])
def test_a_pod_that_is_told_of_no_others_is_alone(told: dict[str, str]) -> None:
    assert nodes(told, 3) == Nodes(processes=3)


def test_one_of_one_is_alone() -> None:
    assert nodes({"PET_NNODES": "1", "PET_NODE_RANK": "0", "WORLD_SIZE": "2"}, 2) == Nodes(processes=2)


WRONG: dict[str, tuple[dict[str, str], int, str]] = {
    "it sees fewer than there are": ({**SECOND, "PET_NNODES": "1", "PET_NODE_RANK": "0"}, 4, "JOB_COMPLETION_INDEX=1"),
    "it sees no others": ({"JOB_COMPLETION_INDEX": "1"}, 4, "would train alone beside the others"),
    "it sees three of what are two": ({**SECOND, "PET_NNODES": "3"}, 4, "WORLD_SIZE=8, but 12 processes are to train"),
    "one accelerator is not given": (SECOND, 3, "PET_NPROC_PER_NODE=4, but 3 processes train here"),
    "it has another pod's rank": ({**SECOND, "PET_NODE_RANK": "0"}, 4, "PET_NODE_RANK=0, but JOB_COMPLETION_INDEX=1"),
    "its rank is beyond the last": ({**SECOND, "PET_NODE_RANK": "2"}, 4, "PET_NODE_RANK=2, but PET_NNODES=2"),
    "the first is nowhere": ({**SECOND, "PET_MASTER_ADDR": " "}, 4, "PET_MASTER_ADDR does not say where"),
    "a number is none": ({**SECOND, "PET_NNODES": "two"}, 4, "PET_NNODES=two cannot be; give 1 to 64"),
    "there are too many": ({**SECOND, "PET_NNODES": "65"}, 4, "PET_NNODES=65 cannot be; give 1 to 64"),
    "its rank is missing": ({"PET_NNODES": "2"}, 1, "PET_NODE_RANK= cannot be; give 0 to 63"),
    "a port is none": ({**SECOND, "PET_MASTER_PORT": "0"}, 4, "PET_MASTER_PORT=0 cannot be"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_pod_that_was_told_what_cannot_be_is_refused_by_name(case: str) -> None:
    environment, processes, message = WRONG[case]
    with pytest.raises(SettingsInvalid) as caught:
        nodes(environment, processes)
    assert message in caught.value.message


def words(reason: Reason, message: str = "") -> TerminationMessage:
    return TerminationMessage(stage=Stage.TRAIN, run_uid="u", attempt=0, reason=reason, message=message)


DONE = words(Reason.COMPLETED).model_copy(update={"summary": Summary(step=7)})


def test_a_pod_without_the_leader_is_done_when_all_its_processes_are() -> None:
    ends = [End(3, 0, words(Reason.COMPLETED)), End(2, 0, words(Reason.COMPLETED))]
    assert outcome(ends, 4, told_to_stop=False, out_of_memory=False).artifact is None
    lost = [End(3, 0, words(Reason.COMPLETED)), End(2, 1, words(Reason.PROCESS_LOST, "the others are lost"))]
    with pytest.raises(ProcessLost, match="a process was lost: the others are lost"):
        outcome(lost, 4, told_to_stop=False, out_of_memory=False)


def test_the_leaders_pod_is_done_when_the_leader_is() -> None:
    ends = [End(1, -9), End(0, 0, DONE)]
    assert outcome(ends, 4, told_to_stop=False, out_of_memory=False).summary.step == 7


def test_a_process_of_another_pod_is_named_by_its_rank_among_all() -> None:
    with pytest.raises(ProcessLost, match="rank 3 of 4 was ended by SIGKILL"):
        outcome([End(3, -9), End(2, 1, words(Reason.PROCESS_LOST))], 4, told_to_stop=False, out_of_memory=False)


def test_limits_count_the_processes_of_all_pods() -> None:
    assert TrainLimits(accelerators=4, nodes=2).processes == 8
    assert TrainLimits(nodes=2).processes == 2
    assert TrainLimits().processes == 1

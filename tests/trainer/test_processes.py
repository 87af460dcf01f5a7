"""Which processes train, who computes what, and how a run ended of how each of them did."""

from __future__ import annotations

from pathlib import Path

import pytest
from trimtab_trainer.contract import ExitCode, Reason, Stage, Summary, TerminationMessage, TrainingSettings
from trimtab_trainer.errors import Interrupted, OutOfMemory, ProcessLost, SettingsInvalid, StorageFailed, TrainerError
from trimtab_trainer.training.distributed.ending import End, outcome
from trimtab_trainer.training.distributed.nodes import Nodes
from trimtab_trainer.training.distributed.processes import Place, processes
from trimtab_trainer.training.distributed.sharing import check_batch, dealt, shared_micro_batch, uneven
from trimtab_trainer.training.machine.control_groups import killed_for_memory

SEVERAL = {"NVIDIA_VISIBLE_DEVICES": "GPU-a,GPU-b"}


@pytest.mark.parametrize(
    ("environment", "want"),
    [
        ({}, 1),
        (SEVERAL, 2),
        ({**SEVERAL, "TRIMTAB_PROCESSES": "2"}, 2),
        ({"TRIMTAB_PROCESSES": "4"}, 4),  # a cluster that pretends
        ({**SEVERAL, "CUDA_VISIBLE_DEVICES": ""}, 1),
        ({"CUDA_VISIBLE_DEVICES": "0"}, 1),
    ],
)
def test_there_is_a_process_for_each_accelerator_that_was_given(
    tmp_path: Path, environment: dict[str, str], want: int
) -> None:
    assert processes(environment, tmp_path) == want


def test_an_accelerator_without_a_process_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"2 of NVIDIA's accelerators given .*but TRIMTAB_PROCESSES=1") as end:
        processes({**SEVERAL, "TRIMTAB_PROCESSES": "1"}, tmp_path)
    assert end.value.reason is Reason.ACCELERATOR_UNUSABLE


@pytest.mark.parametrize("told", ["0", "two", "1.5", "-1", "1025"])
def test_a_number_of_processes_that_is_none_is_refused(tmp_path: Path, told: str) -> None:
    with pytest.raises(SettingsInvalid, match=f"TRIMTAB_PROCESSES={told} is no number of processes"):
        processes({"TRIMTAB_PROCESSES": told}, tmp_path)


def test_a_process_is_told_its_place_by_its_environment(tmp_path: Path) -> None:
    place = Place.of(Nodes(processes=4), 1, tmp_path / "meeting")
    assert Place.told(place.environment()) == place == Place(1, 4, str(tmp_path / "meeting"), 1, 4)
    assert (place.node, place.address) == (0, None)
    assert Place.told({"RANK": "1", "WORLD_SIZE": "4"}) is None


def test_processes_of_several_pods_are_numbered_through(tmp_path: Path) -> None:
    place = Place.of(Nodes(1, 2, 4, "demo-train-1-0.ftj-demo:29400"), 2, tmp_path)
    assert Place.told(place.environment()) == place
    assert (place.rank, place.size, place.local_rank, place.node) == (6, 8, 2, 1)
    assert place.address == ("demo-train-1-0.ftj-demo", 29400)
    assert not place.leads


def test_every_micro_batch_is_of_one_process() -> None:
    cuts = list(range(11))
    found = [cuts[dealt(rank, 4)] for rank in range(4)]
    assert sorted(cut for share in found for cut in share) == cuts
    assert found[0] == [0, 4, 8]


@pytest.mark.parametrize(
    ("planned", "batch_size", "size", "want"),
    [
        (8, 8, 1, 8),
        (8, 8, 2, 4),  # else one would wait
        (8, 8, 4, 2),
        (16, 64, 2, 16),
        (12, 12, 2, 6),
        (8, 24, 2, 6),  # 8 gives three micro-batches to two
        (4, 10, 4, 1),  # 3, 3, 2 and 2 sequences; with 2 each one would have 4
        (3, 12, 4, 3),
        (1, 8, 8, 1),
    ],
)
def test_micro_batches_are_so_large_that_nobody_waits_in_vain(
    planned: int, batch_size: int, size: int, want: int
) -> None:
    assert shared_micro_batch(planned, batch_size, size) == want


def settings(batch_size: int, micro_batch: int | None = None) -> TrainingSettings:
    return TrainingSettings(batch_size=batch_size, micro_batch_size=micro_batch)


def test_a_batch_that_leaves_accelerators_without_work_is_refused_by_name() -> None:
    check_batch(settings(1), 1)
    check_batch(settings(8, 2), 4)
    check_batch(settings(10), 4)
    with pytest.raises(SettingsInvalid, match="batchSize 4 is less than the 8 accelerators"):
        check_batch(settings(4), 8)
    with pytest.raises(SettingsInvalid, match=r"microBatchSize 4 on 4 accelerators is more than training\.batchSize 8"):
        check_batch(settings(8, 4), 4)


def test_a_batch_that_cannot_be_divided_is_told() -> None:
    assert uneven(settings(8), 4) is None
    told = uneven(settings(10), 4)
    assert told is not None
    assert "batchSize 10 cannot be divided among 4 accelerators" in told


def words(reason: Reason, message: str = "as it is") -> TerminationMessage:
    return TerminationMessage(stage=Stage.TRAIN, run_uid="u", attempt=0, reason=reason, message=message)


LOST = words(Reason.PROCESS_LOST, "the other processes are lost")
DONE = words(Reason.COMPLETED).model_copy(update={"summary": Summary(step=7)})
STOPPED = words(Reason.INTERRUPTED, "told to stop")
ENDS: dict[str, tuple[list[End], dict[str, bool], type[TrainerError], str]] = {
    "one is killed, the other notices": (
        [End(1, -9), End(0, 1, LOST)], {}, ProcessLost, "rank 1 of 2 was ended by SIGKILL",
    ),
    "the kernel kills one for want of memory": (
        [End(1, -9), End(0, 1, LOST)], {"out_of_memory": True}, OutOfMemory, "the kernel ended rank 1 of 2",
    ),
    "one crashes, though the kernel killed another program for memory": (
        [End(1, -11), End(0, 1, LOST)], {"out_of_memory": True}, ProcessLost, "rank 1 of 2 was ended by SIGSEGV",
    ),
    "one has too little memory, which is the cause though the other ends first": (
        [End(0, 1, LOST), End(1, 12, words(Reason.OUT_OF_MEMORY))], {}, OutOfMemory, "rank 1 of 2: as it is",
    ),
    "the leader's storage fails": (
        [End(0, 13, words(Reason.STORAGE_FAILED)), End(1, 1, LOST)], {}, StorageFailed, "as it is",
    ),
    "one hangs": (
        [End(0, 1, LOST), End(1, -9, by_us=True)], {}, ProcessLost, "rank 1 of 2 gave no answer: the other",
    ),
    "one that hung was told to end and did": (
        [End(0, 1, LOST), End(1, 14, STOPPED, by_us=True)], {}, ProcessLost, "rank 1 of 2 gave no answer",
    ),
    "all are told to stop": ([End(1, 14, STOPPED), End(0, 14, STOPPED)], {}, Interrupted, "told to stop"),
    "all are told to stop while loading, where one notices the other's end": (
        [End(1, 14, STOPPED), End(0, 1, LOST)], {"told_to_stop": True}, Interrupted, "told to stop",
    ),
    "told to stop, and the last checkpoint is not stored": (
        [End(1, 14, STOPPED), End(0, 13, words(Reason.STORAGE_FAILED))], {"told_to_stop": True}, StorageFailed, "",
    ),
    "a bug without last words": ([End(1, 1), End(0, 1, LOST)], {}, TrainerError, "rank 1 of 2 ended with exit code 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", ENDS)
def test_a_run_ends_by_the_name_of_the_cause(case: str) -> None:
    ends, told, kind, message = ENDS[case]
    with pytest.raises(TrainerError) as caught:
        outcome(ends, 2, **{"told_to_stop": False, "out_of_memory": False, **told})
    assert type(caught.value) is kind
    assert message in caught.value.message


def test_a_run_that_was_published_is_done_whatever_the_others_did() -> None:
    ends = [End(1, -9), End(0, ExitCode.DONE, DONE)]
    assert outcome(ends, 2, told_to_stop=True, out_of_memory=False).summary.step == 7


def test_the_kernels_kills_are_read_from_the_control_group(tmp_path: Path) -> None:
    assert killed_for_memory(tmp_path) == 0
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (group / "memory.events").write_text("low 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert killed_for_memory(tmp_path) == 2

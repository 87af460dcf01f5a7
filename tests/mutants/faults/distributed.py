"""Faults of several processes that train together."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, Trap

DISTRIBUTED = [
    Mutant(
        "each process takes the step of its own share",
        Trap.TOGETHER,
        "the adapters drift apart, and one of them is published",
        "training/loop.py",
        "        self.world.add_gradients(parameters)\n",
        "",
        "train/distributed/test_gradient.py::test_a_whole_run_of_several_processes_is_that_of_one[1]",
    ),
    Mutant(
        "processes of one run are not given different rows",
        Trap.TOGETHER,
        "the gradient is that of some rows, several times",
        "training/distributed/sharing.py",
        "    return slice(rank, None, size)",
        "    return slice(0, None, size)",
        "train/distributed/test_gradient.py::test_the_gradient_is_that_of_one_process[2-False]",
    ),
    Mutant(
        "dropout depends on who computes a micro-batch",
        Trap.TOGETHER,
        "a run with another number of accelerators is another run",
        "training/loop.py",
        "itertools.count(self.world.rank, self.world.size)",
        "itertools.count()",
        "train/distributed/test_gradient.py::test_a_whole_run_of_several_processes_is_that_of_one[1]",
    ),
    Mutant(
        "one that is told to stop does not tell the others",
        Trap.TOGETHER,
        "they wait for it until they are killed, and no checkpoint is written",
        "training/distributed/world.py",
        "        if self.any(stop.requested):",
        "        if stop.requested:",
        "train/distributed/test_gradient.py::test_one_that_is_told_to_stop_tells_all_and_one_checkpoint_is_written[hidden-1]",
    ),
    Mutant(
        "memory that runs out in one process is its own affair",
        Trap.TOGETHER,
        "the others wait for a sum that it takes no part in",
        "training/loop.py",
        "            if self.world.any(reason is not None):",
        "            if reason is not None:",
        "train/distributed/test_gradient.py::test_memory_that_runs_out_in_one_process_halves_the_micro_batch_of_all",
    ),
    Mutant(
        "a pod that sees no others trains alone",
        Trap.TOGETHER,
        "as many adapters are trained as there are pods, and one of them is published",
        "training/distributed/nodes.py",
        """        if (index := environment.get(INDEX, "0").strip()) != "0":""",
        """        if (index := environment.get(INDEX, "0").strip()) == "-1":""",
        "test_nodes.py::test_a_pod_that_was_told_what_cannot_be_is_refused_by_name[it sees no others]",
    ),
    Mutant(
        "pods of two runs are taken for those of one",
        Trap.TOGETHER,
        "gradients of different rows are added up",
        "training/distributed/meeting.py",
        "    if unlike is not None:",
        "    if unlike:",
        "train/distributed/test_nodes.py::test_a_pod_of_another_run_or_attempt_is_refused_by_name",
    ),
    Mutant(
        "each pod counts its own processes alone",
        Trap.TOGETHER,
        "rows are learned twice, and others not at all",
        "training/distributed/processes.py",
        "            rank=nodes.rank * nodes.processes + local_rank,",
        "            rank=local_rank,",
        "test_processes.py::test_processes_of_several_pods_are_numbered_through",
    ),
    Mutant(
        "the consequence is taken for the cause",
        Trap.TOGETHER,
        "a process that ran out of memory is retried for ever, as one that was lost",
        "training/distributed/ending.py",
        " and end.reason is not Reason.PROCESS_LOST",
        "",
        "test_processes.py::test_a_run_ends_by_the_name_of_the_cause"
        "[one has too little memory, which is the cause though the other ends first]",
    ),
]

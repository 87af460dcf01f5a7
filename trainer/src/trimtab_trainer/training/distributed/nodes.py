"""The pods, or machines, whose processes train one run together; no torch.

Each is told of the others by its environment, with torchrun's variables as Kubeflow Trainer sets them: PET_NNODES, its
place PET_NODE_RANK, PET_NPROC_PER_NODE, and where the first process of the first one is found. What they say is held
against what is there: a pod that sees fewer than there are would train alone, and publish, beside the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...contract import ADDRESS, MEETING_PORT, NODE, NODES, PORT, PROCESSES_PER_NODE, WORLD_SIZE
from ...errors import SettingsInvalid

INDEX = "JOB_COMPLETION_INDEX"
"""Kubernetes sets it in the pods of an Indexed Job."""
MOST = 64
SHOWN_LENGTH = 80


@dataclass(frozen=True)
class Nodes:
    """This pod among those that train together.

    Attributes:
        rank: of this one, from 0.
        count: how many there are.
        processes: of each of them.
        meeting: host:port of the first process of the first one.
    """

    rank: int = 0
    count: int = 1
    processes: int = 1
    meeting: str = ""

    @property
    def size(self) -> int:
        """How many processes all of them have."""
        return self.count * self.processes


def nodes(environment: Mapping[str, str], processes: int) -> Nodes:
    """Return what the environment tells of the pods that train together; one alone where it tells nothing.

    Args:
        environment: of this process.
        processes: that train in this pod, as its accelerators say.

    Raises:
        SettingsInvalid: what it tells cannot be, or not together with what is here.
    """
    if NODES not in environment:
        if (index := environment.get(INDEX, "0").strip()) != "0":
            raise SettingsInvalid(
                f"{INDEX}={index[:SHOWN_LENGTH]}: this is one of several pods, and {NODES} does not say of how many: "
                f"it would train alone beside the others; set spec.nodes, or {NODES}, {NODE} and {ADDRESS} in each"
            )
        _check_size(environment, processes)
        return Nodes(processes=processes)
    count, rank = _number(environment, NODES, 1, MOST), _number(environment, NODE, 0, MOST - 1)
    if rank >= count:
        raise SettingsInvalid(f"{NODE}={rank}, but {NODES}={count}: they are counted from 0; give each its own")
    index = environment.get(INDEX, str(rank)).strip()
    if index != str(rank):
        raise SettingsInvalid(f"{NODE}={rank}, but {INDEX}={index[:SHOWN_LENGTH]}; give the pod its index")
    if PROCESSES_PER_NODE in environment:
        each = _number(environment, PROCESSES_PER_NODE, 1, 1024)
        if each != processes:
            raise SettingsInvalid(
                f"{PROCESSES_PER_NODE}={each}, but {processes} processes train here, one for each accelerator; give "
                "every pod so many accelerators, and say so in every one"
            )
    _check_size(environment, count * processes)
    if count == 1:
        return Nodes(processes=processes)
    host, port = environment.get(ADDRESS, "").strip(), _number(environment, PORT, 1, 65_535, MEETING_PORT)
    if not host:
        raise SettingsInvalid(f"{NODES}={count}, but {ADDRESS} does not say where the first of them is found")
    return Nodes(rank, count, processes, f"{host}:{port}")


def _check_size(environment: Mapping[str, str], size: int) -> None:
    """Refuse another number of processes than the one that is told.

    Raises:
        SettingsInvalid: it is another.
    """
    told = environment.get(WORLD_SIZE, "").strip()
    if not told or (told == "1" and NODES not in environment):
        return
    if told != str(size):
        raise SettingsInvalid(
            f"{WORLD_SIZE}={told[:SHOWN_LENGTH]}, but {size} processes are to train: {NODES} times one for each "
            "accelerator of a pod; every pod has to see all of them, and as many accelerators as the others"
        )


def _number(environment: Mapping[str, str], name: str, least: int, most: int, otherwise: int | None = None) -> int:
    told = environment.get(name, "" if otherwise is None else str(otherwise)).strip()
    if not (told.isascii() and told.isdigit() and len(told) <= 9 and least <= int(told) <= most):
        raise SettingsInvalid(f"{name}={told[:SHOWN_LENGTH]} cannot be; give {least} to {most}")
    return int(told)

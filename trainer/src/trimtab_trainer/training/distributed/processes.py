"""How many processes train in this pod, and which of all this one is; no torch. `nodes` tells of other pods.

What is given is what is used: one process for each accelerator, as the environment names them, or so many as
TRIMTAB_PROCESSES says, which an operator sets to what the pod asked for. Where no accelerator is seen at all (a cluster
that pretends, a test) so many processes share the processors.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...contract import PROCESSES, Reason
from ...errors import SettingsInvalid
from ..machine.accelerator import given
from .nodes import Nodes

RANK, WORLD_SIZE, MEETING = "TRIMTAB_RANK", "TRIMTAB_WORLD_SIZE", "TRIMTAB_MEETING"
LOCAL_RANK, LOCAL_WORLD_SIZE = "TRIMTAB_LOCAL_RANK", "TRIMTAB_LOCAL_WORLD_SIZE"
"""What the supervisor tells each process; not torchrun's names, which libraries act on."""
TCP = "tcp://"
MOST = 1024
SET_DEATH_SIGNAL = 1
"""Option of prctl(2): what to send to this process when its parent dies."""


@dataclass(frozen=True)
class Place:
    """Which of how many processes this one is.

    Attributes:
        rank, size: among all; local_rank and local_size among those of this pod.
        meeting: where they meet: a file where all are in one pod, else tcp://host:port.
    """

    rank: int = 0
    size: int = 1
    meeting: str = ""
    local_rank: int = 0
    local_size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def node(self) -> int:
        """Which of the pods it is in."""
        return self.rank // self.local_size

    @classmethod
    def of(cls, nodes: Nodes, local_rank: int, meeting: Path) -> Place:
        """Return the place of a process of a pod; `meeting` is a file for those of one pod alone."""
        return cls(
            rank=nodes.rank * nodes.processes + local_rank,
            size=nodes.size,
            meeting=f"{TCP}{nodes.meeting}" if nodes.count > 1 else str(meeting),
            local_rank=local_rank,
            local_size=nodes.processes,
        )

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port where the processes of several pods meet; None where all are in this one."""
        if not self.meeting.startswith(TCP):
            return None
        host, _, port = self.meeting.removeprefix(TCP).rpartition(":")
        return host, int(port)

    @classmethod
    def told(cls, environment: Mapping[str, str]) -> Place | None:
        """Return what the supervisor told this process; None if no supervisor started it."""
        if RANK not in environment:
            return None
        rank, size, local_rank, local_size = (
            int(environment[name]) for name in (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE)
        )
        return cls(rank, size, environment[MEETING], local_rank, local_size)

    def environment(self) -> dict[str, str]:
        """Return what `told` reads."""
        return {
            RANK: str(self.rank),
            WORLD_SIZE: str(self.size),
            LOCAL_RANK: str(self.local_rank),
            LOCAL_WORLD_SIZE: str(self.local_size),
            MEETING: self.meeting,
        }


def end_with_parent() -> None:
    """Have the kernel end this process when the one that started it is gone, however that went (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGKILL)


def processes(environment: Mapping[str, str], root: Path = Path("/")) -> int:
    """Return how many processes train.

    Raises:
        SettingsInvalid: ACCELERATOR_UNUSABLE, more accelerators were given than there are to be processes.
    """
    have = given(environment, root)
    told = environment.get(PROCESSES, "").strip()
    if not told:
        return have.count if have is not None else 1
    if not told.isdigit() or not 1 <= int(told) <= MOST:
        raise SettingsInvalid(f"{PROCESSES}={told[:80]} is no number of processes; give 1 to {MOST}")
    if have is not None and have.count > int(told):
        raise SettingsInvalid(
            f"{have.count} of {have.vendor}'s accelerators given ({have.evidence}), but {PROCESSES}={told}, and the "
            "others would be held for nothing; ask for so many, or say of a claim how many accelerators it stands for",
            Reason.ACCELERATOR_UNUSABLE,
        )
    return int(told)

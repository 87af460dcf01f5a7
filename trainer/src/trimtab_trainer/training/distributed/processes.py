"""How many processes train, and which of them this one is; no torch.

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
from ..accelerator import given

RANK, WORLD_SIZE, MEETING = "TRIMTAB_RANK", "TRIMTAB_WORLD_SIZE", "TRIMTAB_MEETING"
"""What the supervisor tells each process; not torchrun's names, which libraries act on."""
MOST = 1024
SET_DEATH_SIGNAL = 1
"""Option of prctl(2): what to send to this process when its parent dies."""


@dataclass(frozen=True)
class Place:
    """Which of how many processes this one is; they meet in a file."""

    rank: int = 0
    size: int = 1
    meeting: Path | None = None

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @classmethod
    def told(cls, environment: Mapping[str, str]) -> Place | None:
        """Return what the supervisor told this process; None if no supervisor started it."""
        if RANK not in environment:
            return None
        return cls(int(environment[RANK]), int(environment[WORLD_SIZE]), Path(environment[MEETING]))

    def environment(self) -> dict[str, str]:
        """Return what `told` reads."""
        return {RANK: str(self.rank), WORLD_SIZE: str(self.size), MEETING: str(self.meeting)}


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

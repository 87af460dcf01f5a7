"""The energy that the accelerator took, where the machine tells: NVIDIA's counter of joules since its driver started.

The counter is the board's, read through nvidia-ml-py: all that it took while this process held it, waiting included.
Where several processes train, one of them reads the boards of all.
A slice of a board (MIG, time slices) and other makes have none. `loop` reads it once a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def counter(nvml: Any, uuid: str) -> Callable[[], float]:
    """Return what reads a board's joules since its driver started.

    Args:
        nvml: the module `pynvml`.
        uuid: the board's, as `GPU-...`.

    Raises:
        nvml.NVMLError: there is no such board, or it does not count.
    """
    nvml.nvmlInit()
    board = nvml.nvmlDeviceGetHandleByUUID(uuid)

    def read() -> float:
        return float(nvml.nvmlDeviceGetTotalEnergyConsumption(board)) / 1000

    read()
    return read


class EnergyMeter:
    """Tells how much energy was taken since it was asked last, beginning with its making."""

    def __init__(self, read: Callable[[], float] | None) -> None:
        """Take what returns the joules of a counter that only grows; None: nothing is told."""
        self._read = read
        self._last = read() if read is not None else 0.0

    @classmethod
    def of(cls, where: torch.device, boards: int = 1) -> EnergyMeter:
        """Return the meter of a device, or of all `boards` of this machine; without a counter it tells nothing."""
        if where.type != "cuda" or torch.version.hip is not None:
            return cls(None)
        devices = [where] if boards == 1 else [torch.device("cuda", index) for index in range(boards)]
        uuids = [f"GPU-{torch.cuda.get_device_properties(each).uuid}" for each in devices]
        try:
            import pynvml

            counters = [counter(pynvml, uuid) for uuid in uuids]
            return cls(lambda: sum(read() for read in counters))
        except Exception:  # no library, no driver, no counter (a slice, an old board): nothing depends on it
            return cls(None)

    def since_last(self) -> float | None:
        """Return joules, or None where nothing is told; a driver that went away is no reason to stop training."""
        if self._read is None:
            return None
        try:
            now = self._read()
        except Exception:  # whatever the library makes of it
            self._read = None
            return None
        taken, self._last = max(0.0, now - self._last), now
        return taken

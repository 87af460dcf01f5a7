"""Energy: a counter of the board, read as a difference, and no figure where nothing counts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from trimtab_trainer.training.machine.energy import EnergyMeter, counter


class NVMLError(Exception):
    pass


def nvml(millijoules: list[int], boards: tuple[str, ...] = ("GPU-1",)) -> Any:
    """Return what stands in for `pynvml`: boards by uuid, and readings one after the other."""

    def board(uuid: str) -> str:
        if uuid not in boards:
            raise NVMLError("Not Found")
        return uuid

    def energy(handle: str) -> int:
        assert handle in boards
        if not millijoules:
            raise NVMLError("GPU is lost")
        return millijoules.pop(0)

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=board,
        nvmlDeviceGetTotalEnergyConsumption=energy,
    )


def test_the_meter_tells_joules_since_it_was_asked_last() -> None:
    meter = EnergyMeter(counter(nvml([0, 5_000, 5_000, 7_500, 7_500]), "GPU-1"))
    assert [meter.since_last(), meter.since_last(), meter.since_last()] == [0.0, 2.5, 0.0]


def test_a_counter_that_is_lost_ends_no_training() -> None:
    meter = EnergyMeter(counter(nvml([1_000, 1_000, 2_000]), "GPU-1"))
    assert [meter.since_last(), meter.since_last(), meter.since_last()] == [1.0, None, None]


def test_a_driver_that_began_anew_takes_nothing_back() -> None:
    meter = EnergyMeter(counter(nvml([9_000, 9_000, 1_000, 2_000]), "GPU-1"))
    assert [meter.since_last(), meter.since_last()] == [0.0, 1.0]


def test_a_slice_has_no_counter() -> None:
    with pytest.raises(NVMLError):
        counter(nvml([1]), "MIG-1")


def test_a_processor_tells_nothing() -> None:
    assert EnergyMeter.of(torch.device("cpu")).since_last() is None

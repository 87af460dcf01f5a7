"""Accelerators by name: memory, products of 16-bit numbers and bandwidth, as their makers state them."""

from __future__ import annotations

import re
from dataclasses import dataclass

GIB = 1 << 30


@dataclass(frozen=True)
class Device:
    """A type of accelerator.

    Attributes:
        name: as in the list below.
        memory: bytes that a process can have of it: what its driver shows, less what driver and context take.
        products: dense 16-bit operations a second.
        bandwidth: bytes a second.
    """

    name: str
    memory: int
    products: float
    bandwidth: float


CONTEXT = GIB * 6 // 10
"""What a CUDA context and the libraries' handles take of an accelerator."""


def _device(name: str, gib: float, tera: float, terabytes: float) -> Device:
    return Device(name, int(gib * GIB) - CONTEXT, tera * 1e12, terabytes * 1e12)


DEVICES = (
    _device("T4", 14.7, 65, 0.32),
    _device("V100-16GB", 15.8, 125, 0.9),
    _device("V100-32GB", 31.7, 125, 0.9),
    _device("L4", 22.5, 121, 0.3),
    _device("A10", 22.5, 125, 0.6),
    _device("RTX-4090", 23.6, 165.2, 1.008),
    _device("A30", 23.6, 165, 0.933),
    _device("A100-40GB", 39.5, 312, 1.56),
    _device("L40", 44.5, 181, 0.864),
    _device("L40S", 44.5, 362, 0.864),
    _device("A100-80GB", 79.2, 312, 2.04),
    _device("H100-80GB", 79.2, 989.4, 3.35),
    _device("H100-NVL", 93.1, 835, 3.9),
    _device("H20", 95.1, 148, 4.0),
    _device("H200", 139.8, 989.4, 4.8),
    _device("B200", 178.0, 2250, 8.0),
    _device("MI300X", 191.5, 1307, 5.3),
)


def find_device(name: str) -> Device | None:
    """Return the device that a name means: one of ours, or a product as node labels have it (`NVIDIA-H100-80GB-HBM3`).

    The longest name that is in it part by part wins; of A100s that do not say how much memory, the smaller one; another
    RTX than ours is none. A slice (MIG) is no such device, whatever it is a slice of.
    """
    parts = [part for part in re.split(r"[^a-z0-9]+", name.lower()) if part]
    if "mig" in parts:
        return None
    fitting = [device for device in DEVICES if _within(device.name, parts)]
    if fitting:
        return max(fitting, key=lambda device: len(device.name))
    first = [device for device in DEVICES if (family := _family(device.name)) is not None and family in parts]
    return min(first, key=lambda device: device.memory, default=None)


def _family(name: str) -> str | None:
    """Return what a name says before its memory; None where it does not end with one."""
    family, _, memory = name.lower().partition("-")
    return family if memory.endswith("gb") else None


def _within(name: str, parts: list[str]) -> bool:
    return set(name.lower().split("-")) <= set(parts)

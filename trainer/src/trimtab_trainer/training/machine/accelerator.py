"""Whether the accelerator that this process was given is one that it can use; no torch, but for what it sees.

A device that torch does not see is no reason for torch to complain: it computes on the processor, a hundred times more
slowly, while the device is held. What was given is told by the environment (device plugins and schedulers name devices
there) and by device nodes. A name is believed everywhere; nodes alone only in a pod, which has them because it was
given them, whereas a workstation has all of its own. `all` is what base images for CUDA say wherever they run, so it
counts only with a node. Whoever wants the processor says so: `CUDA_VISIBLE_DEVICES=` with no device hides them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import SettingsInvalid

NOBODY = ("", "void", "none", "-1", "nodevfiles")
"""Values that name no device; `void` also stands where devices come by CDI, as nodes."""
MOUNTED = "/var/run/nvidia-container-devices"
"""Names devices by files of this folder, where the device plugin's list is passed by mounts."""

SHOWN_LENGTH = 80


@dataclass(frozen=True)
class Vendor:
    """How devices of one make are given: `visible` variables name them, `nodes` are patterns below /dev.

    `hidden_by` are those that users set: naming no device in one of them is a wish for the processor. `node_each`: each
    node is a device.
    """

    name: str
    visible: tuple[str, ...]
    hidden_by: tuple[str, ...]
    nodes: tuple[str, ...]
    node_each: bool = False


VENDORS = (
    Vendor(
        "NVIDIA",
        ("NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
        ("CUDA_VISIBLE_DEVICES",),
        ("nvidia[0-9]*",),
        node_each=True,
    ),
    Vendor(
        "AMD",
        ("AMD_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
        ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
        ("kfd",),
    ),
    Vendor("Habana", ("HABANA_VISIBLE_DEVICES",), ("HABANA_VISIBLE_DEVICES",), ("accel/accel[0-9]*", "hl[0-9]*")),
    Vendor("Huawei", ("ASCEND_VISIBLE_DEVICES",), ("ASCEND_VISIBLE_DEVICES",), ("davinci[0-9]*",)),
    Vendor("AWS", ("NEURON_RT_VISIBLE_CORES",), ("NEURON_RT_VISIBLE_CORES",), ("neuron[0-9]*",)),
    Vendor("Google", ("TPU_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS"), ("TPU_VISIBLE_DEVICES",), ("accel[0-9]*",)),
    Vendor("Intel", ("ZE_AFFINITY_MASK",), ("ZE_AFFINITY_MASK",), ("dri/renderD*",)),
)


@dataclass(frozen=True)
class Given:
    """Accelerators that this process was given: how many at least, what says so, and what would hide them."""

    vendor: str
    count: int
    evidence: str
    hidden_by: str


def given(environment: Mapping[str, str], root: Path = Path("/")) -> Given | None:
    """Return what accelerators this process was given; None if none, or if they are hidden from it on purpose."""
    in_pod = "KUBERNETES_SERVICE_HOST" in environment
    for vendor in VENDORS:
        if any(_names_nobody(environment.get(name)) for name in vendor.hidden_by):
            continue
        named = [(name, environment[name]) for name in vendor.visible if not _is_vague(environment.get(name))]
        if named:
            counts = {name: _count(value, root) for name, value in named}
            name = min(counts, key=lambda each: counts[each])  # each variable can only narrow the others
            return Given(vendor.name, counts[name], f"{name}={environment[name][:SHOWN_LENGTH]}", vendor.hidden_by[0])
        nodes = sorted(node for pattern in vendor.nodes for node in (root / "dev").glob(pattern))
        told = any(environment.get(name, "").strip().lower() == "all" for name in vendor.visible)
        if nodes and (in_pod or told):
            count = len(nodes) if vendor.node_each and not told else 1
            shown = ", ".join(f"/{node.relative_to(root)}" for node in nodes[:count])[:SHOWN_LENGTH]
            return Given(vendor.name, count, shown, vendor.hidden_by[0])
    return None


def check_alone(environment: Mapping[str, str]) -> None:
    """Refuse to be one of several processes, as torchrun starts them: each would do the same work, and write the same.

    Raises:
        SettingsInvalid: there are others.
    """
    several = environment.get("WORLD_SIZE", "1").strip()
    if several.isdigit() and int(several) > 1:
        raise SettingsInvalid(
            f"WORLD_SIZE={several[:SHOWN_LENGTH]}: this is one of several processes, and a run is the work of one; "
            "start trimtab-trainer itself, without torchrun: it starts a process for each accelerator"
        )


def _names_nobody(value: str | None) -> bool:
    return value is not None and value.strip().lower() in NOBODY


def _is_vague(value: str | None) -> bool:
    """Tell whether a variable names no device in particular."""
    return value is None or value.strip().lower() in (*NOBODY, "all")


def _count(value: str, root: Path) -> int:
    """Return how many different devices torch must see of those that a variable names.

    Of slices (MIG: by name, or GPU:slice) one process sees but one.
    """
    names = {part.strip() for part in value.split(",") if part.strip()}
    if value.strip().rstrip("/") == MOUNTED:
        folder = root / MOUNTED.lstrip("/")
        names = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    if any(name.startswith("MIG-") or ":" in name for name in names):
        return 1
    return max(1, len(names))

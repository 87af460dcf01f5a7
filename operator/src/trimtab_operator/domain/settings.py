"""Settings of the operator that decisions depend on; `runtime/` reads them from the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ACCELERATOR_RESOURCES = (
    "nvidia.com/gpu",
    "nvidia.com/gpu.shared",
    "nvidia.com/mig-*",
    "amd.com/gpu",
    "amd.com/*_nps*",
    "gpu.intel.com/i915",
    "gpu.intel.com/xe",
    "habana.ai/gaudi",
    "aws.amazon.com/neuron",
    "aws.amazon.com/neuroncore",
    "aws.amazon.com/neurondevice",
    "google.com/tpu",
    "huawei.com/Ascend910",
    "huawei.com/Ascend310P",
    "deviceclass.resource.kubernetes.io/gpu.*",
    "deviceclass.resource.kubernetes.io/mig.*",
)
"""Extended resources that are devices. The vendors' others, such as `nvidia.com/gpumem` and `gpu.intel.com/memory.max`,
are measured in bytes and shares, so a domain alone says nothing."""


@dataclass(frozen=True)
class Settings:
    """Defaults and limits, all in seconds where a time is meant."""

    prepare_image: str
    trainer_image: str
    image_pull_policy: str = "IfNotPresent"
    node_loss_seconds: float = 120
    """How long past its grace period a Terminating pod on a node that is not Ready may hold up the job."""
    pod_start_seconds: float = 600
    """How long an image, a volume or a container's configuration may be unavailable before the job fails."""
    name_taken_seconds: float = 60
    retry_seconds: float = 10
    """Delay before the attempt after a first failure; it doubles, up to 300 s."""
    prepare_resources: dict[str, Any] = field(default_factory=dict)
    train_resources: dict[str, Any] = field(default_factory=dict)
    """Of evaluating too."""
    accelerator_resources: tuple[str, ...] = ACCELERATOR_RESOURCES
    """What counts as accelerators: names of resources, in which `*` stands for anything."""
    scratch_size: str = "50Gi"
    shared_memory_size: str = "1Gi"

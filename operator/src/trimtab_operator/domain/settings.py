"""Settings of the operator that decisions depend on; `runtime/` reads them from the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


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
    scratch_size: str = "50Gi"
    shared_memory_size: str = "1Gi"
    delete_what_gitops_tracks: bool = False
    """Whether a TTL also deletes what a tool keeps that would create it again, see `gitops`."""

"""Settings of the operator that decisions depend on; `runtime/` reads them from the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field
from trimtab_trainer.contract import Model

from trimtab_operator.api.pods.names import OBJECT_NAME
from trimtab_operator.api.pods.scheduling import LABEL_KEY, LABEL_VALUE, Toleration
from trimtab_operator.api.pods.template import LocalObjectReference

USER_ID = 65532
ID = Annotated[int, Field(ge=0, le=2**31 - 1)]


class SecurityContext(Model):
    """Whom work pods run as: the part of a PodSecurityContext that is a choice. What is None is left to the cluster."""

    run_as_user: Annotated[ID, Field(ge=1)] | None = None
    run_as_group: ID | None = None
    fs_group: ID | None = None
    supplemental_groups: list[ID] | None = None


class PodDefaults(Model):
    """What work pods get beside the template of their object, whose words come first; in the words of core/v1."""

    security_context: SecurityContext = SecurityContext(run_as_user=USER_ID, run_as_group=USER_ID, fs_group=USER_ID)
    image_pull_secrets: list[LocalObjectReference] = Field(default=[])
    node_selector: dict[LABEL_KEY, LABEL_VALUE] = Field(default={})
    tolerations: list[Toleration] = Field(default=[])
    priority_class_name: OBJECT_NAME | None = None
    labels: dict[LABEL_KEY, LABEL_VALUE] = Field(default={})
    annotations: dict[LABEL_KEY, str] = Field(default={})


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
    evaluator_image: str = ""
    """With trainer and vLLM, for Evaluations with `engine: Vllm`; empty: there is none."""
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
    work_pods: PodDefaults = field(default_factory=PodDefaults)
    accelerator_resources: tuple[str, ...] = ACCELERATOR_RESOURCES
    """What counts as accelerators: names of resources, in which `*` stands for anything."""
    scratch_size: str = "50Gi"
    shared_memory_size: str = "1Gi"
    delete_what_gitops_tracks: bool = False
    """Whether a TTL also deletes what a tool keeps that would create it again, see `gitops`."""
    gitops_labels: tuple[str, ...] = ()
    """Labels by which such a tool tracks what it keeps here, beside those that only such a tool writes."""

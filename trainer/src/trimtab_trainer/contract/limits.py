"""What the train stage will have to run in, for `prepare`, which warns where a run cannot fit.

It comes in the environment, not in the run configuration: that defines what is made, and is refused by a trainer that
does not know a field of it. A trainer of before does not look, an operator of before does not tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import Field

from .model import Received

TRAIN_LIMITS = "TRIMTAB_TRAIN_LIMITS"
"""Name of the variable; its value is JSON."""
PROCESSES = "TRIMTAB_PROCESSES"
"""Name of the variable that tells the train stage how many processes it is: one for each accelerator of its pod. A
trainer of before does not look, and refuses several accelerators by itself."""
NODES, PROCESSES_PER_NODE, NODE = "PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK"
ADDRESS, PORT = "PET_MASTER_ADDR", "PET_MASTER_PORT"
WORLD_SIZE = "WORLD_SIZE"
"""Names of the variables that tell the pods of one attempt of each other: torchrun's, as Kubeflow Trainer sets them.
The last is the number of all processes: a trainer of before refuses to be one of several by it."""
MEETING_PORT = 29400
"""Where the processes of several pods meet, in the pod of index 0; torchrun's."""


class TrainLimits(Received):
    """Limits of the train stage's container, as far as they are known before it has a node."""

    memory_bytes: int | None = Field(default=None, ge=0, description="memoryBytes it may take")
    accelerators: int = Field(default=0, ge=0, description="accelerators it is given")
    nodes: int | None = Field(default=None, ge=1, description="nodes that train together, if several, each with these")
    accelerator_product: str | None = Field(
        default=None, max_length=253, description="acceleratorProduct that its node must have"
    )

    @property
    def processes(self) -> int:
        """How many train together: one for each accelerator of each pod."""
        return (self.nodes or 1) * max(1, self.accelerators)

    @classmethod
    def told(cls, environment: Mapping[str, str]) -> Self | None:
        """Return what the environment tells; None where it tells nothing.

        Raises:
            ValueError: what it tells cannot be read.
        """
        text = environment.get(TRAIN_LIMITS)
        return None if text is None else cls.model_validate_json(text)

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


class TrainLimits(Received):
    """Limits of the train stage's container, as far as they are known before it has a node."""

    memory_bytes: int | None = Field(default=None, ge=0, description="memoryBytes it may take")
    accelerators: int = Field(default=0, ge=0, description="accelerators it is given")
    accelerator_product: str | None = Field(
        default=None, max_length=253, description="acceleratorProduct that its node must have"
    )

    @classmethod
    def told(cls, environment: Mapping[str, str]) -> Self | None:
        """Return what the environment tells; None where it tells nothing.

        Raises:
            ValueError: what it tells cannot be read.
        """
        text = environment.get(TRAIN_LIMITS)
        return None if text is None else cls.model_validate_json(text)

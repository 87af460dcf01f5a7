"""The custom resources that users write. The pydantic models are the source of the CRDs."""

from .conditions import FINETUNEJOB_REASONS, SUCCEEDED, AttemptReason, Condition, State
from .finetunejob import (
    API_VERSION,
    GROUP,
    VERSION,
    ArtifactStatus,
    AttemptStatus,
    CheckpointStatus,
    DatasetStatus,
    FineTuneJob,
    FineTuneJobSpec,
    FineTuneJobStatus,
    TrainingProgress,
    parse,
)

__all__ = [
    "API_VERSION",
    "FINETUNEJOB_REASONS",
    "GROUP",
    "SUCCEEDED",
    "VERSION",
    "ArtifactStatus",
    "AttemptReason",
    "AttemptStatus",
    "CheckpointStatus",
    "Condition",
    "DatasetStatus",
    "FineTuneJob",
    "FineTuneJobSpec",
    "FineTuneJobStatus",
    "State",
    "TrainingProgress",
    "parse",
]

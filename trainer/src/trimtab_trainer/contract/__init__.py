"""What the operator and the trainer agree on: settings, run configuration, outcome, progress, digests.

Imports nothing but pydantic and the standard library, because the operator imports it.
"""

from .digest import canonical_json, digest_of, run_digest
from .outcome import (
    CONTRACT_VERSION,
    Artifact,
    ExitCode,
    Prepared,
    Progress,
    Reason,
    Stage,
    Summary,
    TerminationMessage,
)
from .run import Credentials, RunConfig, RunIdentity, StoredBaseModel, StoredDataset, StoredOutput
from .settings import (
    CheckpointSettings,
    DatasetFormat,
    EarlyStopping,
    HeldOut,
    LoraSettings,
    LossOn,
    Model,
    Optimizer,
    QuantizationSettings,
    Schedule,
    TrainingData,
    TrainingSettings,
    Validation,
)

__all__ = [
    "CONTRACT_VERSION",
    "Artifact",
    "CheckpointSettings",
    "Credentials",
    "DatasetFormat",
    "EarlyStopping",
    "ExitCode",
    "HeldOut",
    "LoraSettings",
    "LossOn",
    "Model",
    "Optimizer",
    "Prepared",
    "Progress",
    "QuantizationSettings",
    "Reason",
    "RunConfig",
    "RunIdentity",
    "Schedule",
    "Stage",
    "StoredBaseModel",
    "StoredDataset",
    "StoredOutput",
    "Summary",
    "TerminationMessage",
    "TrainingData",
    "TrainingSettings",
    "Validation",
    "canonical_json",
    "digest_of",
    "run_digest",
]

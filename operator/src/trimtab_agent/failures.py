"""Why a revision does not serve: the reasons that the agent names, part of its interface."""

from __future__ import annotations

from enum import StrEnum

MESSAGE_CHARACTERS = 1024


class FailureReason(StrEnum):
    """In one word, what is wrong with a revision in this pod."""

    # Found before the engine was touched
    ACCESS_DENIED = "AccessDenied"
    STORAGE_FAILED = "StorageFailed"
    ARTIFACT_MISSING = "ArtifactMissing"
    ARTIFACT_DAMAGED = "ArtifactDamaged"
    DIGEST_MISMATCH = "DigestMismatch"
    BASE_MODEL_MISMATCH = "BaseModelMismatch"
    RANK_TOO_HIGH = "RankTooHigh"
    NOT_FINITE = "NotFinite"
    MAGNITUDE_TOO_HIGH = "MagnitudeTooHigh"
    CHANGES_NOTHING = "ChangesNothing"
    NOT_SUPPORTED = "NotSupported"
    DOES_NOT_FIT = "DoesNotFit"
    # Said by the engine
    ENGINE_REFUSED = "EngineRefused"
    ENGINE_FAILED = "EngineFailed"
    NAME_TAKEN = "NameTaken"
    LOADING_DISABLED = "LoadingDisabled"
    VOLUME_NOT_SHARED = "VolumeNotShared"
    # Shown by the probe
    PROBE_FAILED = "ProbeFailed"
    BASE_HARMED = "BaseHarmed"
    NEIGHBOUR_HARMED = "NeighbourHarmed"


class RevisionFailed(Exception):
    """A revision cannot go on.

    `permanent`: trying again cannot help while document and engine stay as they are.
    `harmed`: the engine has taken damage and must start again; unloading the revision does not heal it.
    """

    def __init__(self, reason: FailureReason, message: str, *, permanent: bool, harmed: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message[:MESSAGE_CHARACTERS]  # names of tensors and words of engines are part of it
        self.permanent = permanent
        self.harmed = harmed

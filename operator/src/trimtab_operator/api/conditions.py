"""Conditions and the words their reasons are made of. Reasons are part of the API: renaming one breaks users."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field
from trimtab_trainer.contract import Model
from trimtab_trainer.contract import Reason as TrainerReason

MESSAGE_LENGTH = 1024
"""Condition messages are cut here: long enough for a scheduler's words, short enough for a 10 kB status."""


class Condition(Model):
    """metav1.Condition."""

    type: str = Field(min_length=1, max_length=64, description="type of the condition, in CamelCase.")
    status: Literal["True", "False", "Unknown"] = Field(description="status of the condition.")
    observed_generation: int | None = Field(
        default=None, ge=0, description="observedGeneration of the object that the condition was made from."
    )
    last_transition_time: str = Field(
        max_length=32,
        json_schema_extra={"format": "date-time"},
        description="lastTransitionTime at which the status changed last.",
    )
    reason: str = Field(
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        description="reason of the last transition: the word that kubectl get prints.",
    )
    message: str = Field(max_length=MESSAGE_LENGTH, description="message for a person, with the next step.")


class State(StrEnum):
    """Reasons of `Succeeded` that the operator itself gives; those of the trainer are added below."""

    # while active: Succeeded is Unknown
    PENDING = "Pending"
    SUSPENDED = "Suspended"
    QUEUED = "Queued"
    QUOTA_EXCEEDED = "QuotaExceeded"
    PREPARING = "Preparing"
    TRAINING = "Training"
    PUBLISHING = "Publishing"
    RETRYING = "Retrying"
    NAME_TAKEN = "NameTaken"
    VOLUME_UNAVAILABLE = "VolumeUnavailable"
    IMAGE_UNAVAILABLE = "ImageUnavailable"
    CONTAINER_INVALID = "ContainerInvalid"
    # the end
    COMPLETED = "Completed"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    RETRIES_EXHAUSTED = "RetriesExhausted"
    SCRATCH_SPACE_EXCEEDED = "ScratchSpaceExceeded"
    POD_REFUSED = "PodRefused"
    SPEC_INVALID = "SpecInvalid"


class AttemptReason(StrEnum):
    """Why an attempt ended that the trainer gave no reason for. Reasons of DisruptionTarget are used as they are."""

    SUSPENDED = "Suspended"
    DISRUPTION_TARGET = "DisruptionTarget"
    NODE_LOST = "NodeLost"
    JOB_DELETED = "JobDeleted"
    POD_VANISHED = "PodVanished"
    RESULT_LOST = "ResultLost"
    CONTAINER_FAILED = "ContainerFailed"


SUCCEEDED = "Succeeded"

FINETUNEJOB_REASONS: tuple[str, ...] = tuple(sorted({*State, *AttemptReason, *TrainerReason}))

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
    MIRRORING = "Mirroring"
    PREPARING = "Preparing"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    EXPORTING = "Exporting"
    PUBLISHING = "Publishing"
    RETRYING = "Retrying"
    NAME_TAKEN = "NameTaken"
    VOLUME_UNAVAILABLE = "VolumeUnavailable"
    IMAGE_UNAVAILABLE = "ImageUnavailable"
    CONTAINER_INVALID = "ContainerInvalid"
    NOT_UNDERSTOOD = "NotUnderstood"
    # the end
    COMPLETED = "Completed"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    RETRIES_EXHAUSTED = "RetriesExhausted"
    SCRATCH_SPACE_EXCEEDED = "ScratchSpaceExceeded"
    POD_REFUSED = "PodRefused"
    SPEC_INVALID = "SpecInvalid"
    FINE_TUNE_JOB_FAILED = "FineTuneJobFailed"
    EVALUATION_NOT_PASSED = "EvaluationNotPassed"
    NOTHING_TO_COMPARE = "NothingToCompare"


class PassedReason(StrEnum):
    """Reasons of `Passed`, the verdict on an Evaluation."""

    PASSED = "Passed"
    THRESHOLD_MISSED = "ThresholdMissed"
    REGRESSED = "Regressed"
    GROUP_GAP = "GroupGap"
    INSUFFICIENT_ROWS = "InsufficientRows"
    METRIC_MISSING = "MetricMissing"
    NO_THRESHOLDS = "NoThresholds"
    JUDGE_UNRELIABLE = "JudgeUnreliable"
    EVALUATION_FAILED = "EvaluationFailed"
    NOT_YET = "NotYet"


class AttemptReason(StrEnum):
    """Why an attempt ended that the trainer gave no reason for. Reasons of DisruptionTarget are used as they are."""

    SUSPENDED = "Suspended"
    SPEC_CHANGED = "SpecChanged"
    DISRUPTION_TARGET = "DisruptionTarget"
    NODE_LOST = "NodeLost"
    JOB_DELETED = "JobDeleted"
    POD_FAILED = "PodFailed"
    POD_VANISHED = "PodVanished"
    RESULT_LOST = "ResultLost"
    CONTAINER_FAILED = "ContainerFailed"


class WarnedReason(StrEnum):
    """Reasons of `Warned`, which is there only if something is to be known of work that did not fail for it."""

    PREPARED_WITH_WARNINGS = "PreparedWithWarnings"
    FINISHED_WITH_WARNINGS = "FinishedWithWarnings"


SUCCEEDED = "Succeeded"
PASSED = "Passed"
WARNED = "Warned"
NOT_UNDERSTOOD = State.NOT_UNDERSTOOD.value
"""Reason of every kind's summary condition where an object has a value that this version does not know."""

_OF_EVALUATIONS: frozenset[str] = frozenset(
    {
        State.EVALUATING,
        State.FINE_TUNE_JOB_FAILED,
        State.NOTHING_TO_COMPARE,
        State.SPEC_INVALID,
        TrainerReason.TOKENIZER_MISMATCH,
        TrainerReason.METRIC_NOT_APPLICABLE,
        TrainerReason.HARNESS_TASK_NOT_FOUND,
        TrainerReason.HARNESS_TASK_REFUSED,
        TrainerReason.LABEL_UNKNOWN,
        TrainerReason.GROUP_MISSING,
        TrainerReason.REFERENCE_MISSING,
        TrainerReason.TEST_SPLIT_MISSING,
        TrainerReason.TRAINED_ON,
        TrainerReason.FINAL_SET_OPENED,
        TrainerReason.ANSWERS_MISSING,
        TrainerReason.JUDGE_REFUSED,
        TrainerReason.JUDGE_UNREADABLE,
        TrainerReason.JUDGE_PROMPT_TOO_LONG,
        TrainerReason.JUDGE_UNREACHABLE,
        TrainerReason.JUDGE_OVERLOADED,
        TrainerReason.ENGINE_MISSING,
        TrainerReason.ENGINE_REFUSED,
        TrainerReason.ENGINE_FAILED,
    }
)
_OF_FINETUNEJOBS: frozenset[str] = frozenset(
    {
        State.TRAINING,
        TrainerReason.TARGET_MODULES_NOT_FOUND,
        TrainerReason.SEQUENCE_TOO_LONG,
        TrainerReason.SPLIT_IMPOSSIBLE,
    }
)
_OF_EXPORTS: frozenset[str] = frozenset({State.EXPORTING, State.EVALUATION_NOT_PASSED})
_OF_DATA: frozenset[str] = frozenset(
    {
        State.MIRRORING,
        State.PREPARING,
        State.NOTHING_TO_COMPARE,
        TrainerReason.SOURCE_NOT_FOUND,
        TrainerReason.SOURCE_GATED,
        TrainerReason.REVISION_NOT_FOUND,
        TrainerReason.REVISION_MOVED,
        TrainerReason.CHAT_TEMPLATE_INVALID,
        TrainerReason.ACCELERATOR_UNUSABLE,
        TrainerReason.DATASET_INVALID,
        TrainerReason.DATASET_NOT_FOUND,
        TrainerReason.DATASET_EMPTY,
        TrainerReason.DATASET_MALFORMED,
        TrainerReason.FORMAT_UNKNOWN,
        TrainerReason.NO_ASSISTANT_TURN,
        TrainerReason.PREPARED_DATA_MISSING,
        TrainerReason.MIRROR_MISSING,
        TrainerReason.HUB_UNREACHABLE,
        TrainerReason.HUB_QUOTA_EXCEEDED,
        TrainerReason.SOURCE_DAMAGED,
        TrainerReason.PROCESS_LOST,
    }
)
"""Of work that has data, asks a hub, or holds accelerators."""
_ALL: frozenset[str] = frozenset({*State, *AttemptReason, *TrainerReason})

FINETUNEJOB_REASONS: tuple[str, ...] = tuple(sorted(_ALL - _OF_EVALUATIONS - _OF_EXPORTS))
EVALUATION_REASONS: tuple[str, ...] = tuple(sorted(_ALL - _OF_FINETUNEJOBS - _OF_EXPORTS))
EXPORT_REASONS: tuple[str, ...] = tuple(
    sorted((_ALL - _OF_FINETUNEJOBS - _OF_EVALUATIONS - _OF_DATA) | {State.FINE_TUNE_JOB_FAILED, State.SPEC_INVALID})
)

"""How a stage ends and what it says meanwhile: exit codes, the termination message, progress."""

from __future__ import annotations

import json
import re
from enum import IntEnum, StrEnum
from typing import Annotated, Self

from pydantic import BeforeValidator, Field

from .curve import Curve
from .evaluation import EvaluationOutcome, PreparedEvaluation
from .exporting import Exported
from .gate.figures import COUNT, CURVES, FIGURE, PREFERENCE, TEXT, TEXTS, WHOLE
from .hub import Mirrored
from .model import Received, speaks
from .run import RUN_VERSION
from .settings import DIGEST

CONTRACT_VERSION = RUN_VERSION


TERMINATION_MESSAGE_BYTES = 4096
"""The kubelet keeps no more of /dev/termination-log."""

PACKED_OUTCOME_BYTES = 3072
"""What of it the outcome of an evaluation may take; the rest is for the message and what was prepared."""


DEVICE_LENGTH, RANKS_MAXIMUM = 128, 1024
_WORD = re.compile(r"[A-Z][A-Za-z0-9]{0,63}")
_OTHER = re.compile(r"trimtab\.dev/run/v[0-9][0-9.]{0,15}")


class ExitCode(IntEnum):
    """Exit status of `trimtab-trainer`; the operator's podFailurePolicy names each."""

    DONE = 0
    BUG = 1
    SETTINGS_INVALID = 10
    DATA_INVALID = 11
    OUT_OF_MEMORY = 12
    STORAGE_FAILED = 13
    INTERRUPTED = 14


class Stage(StrEnum):
    MIRROR = "mirror"
    PREPARE = "prepare"
    TRAIN = "train"
    EVALUATE = "evaluate"
    JUDGE = "judge"
    REPORT = "report"
    TRACK = "track"
    EXPORT = "export"


class Reason(StrEnum):
    """Why a stage ended: one CamelCase word, part of the API (it becomes the reason of `Succeeded`)."""

    COMPLETED = "Completed"
    # 10: the settings cannot work, whatever is retried
    SETTINGS_INVALID = "SettingsInvalid"
    BUCKET_NOT_FOUND = "BucketNotFound"
    CREDENTIALS_MISSING = "CredentialsMissing"
    ACCESS_DENIED = "AccessDenied"
    BASE_MODEL_NOT_FOUND = "BaseModelNotFound"
    BASE_MODEL_INVALID = "BaseModelInvalid"
    BASE_MODEL_CHANGED = "BaseModelChanged"
    SOURCE_NOT_FOUND = "SourceNotFound"
    SOURCE_GATED = "SourceGated"
    REVISION_NOT_FOUND = "RevisionNotFound"
    REVISION_MOVED = "RevisionMoved"
    CHAT_TEMPLATE_INVALID = "ChatTemplateInvalid"
    TARGET_MODULES_NOT_FOUND = "TargetModulesNotFound"
    SEQUENCE_TOO_LONG = "SequenceTooLong"
    ACCELERATOR_UNUSABLE = "AcceleratorUnusable"
    # 11: the data cannot work
    DATASET_INVALID = "DatasetInvalid"
    DATASET_NOT_FOUND = "DatasetNotFound"
    DATASET_EMPTY = "DatasetEmpty"
    DATASET_MALFORMED = "DatasetMalformed"
    FORMAT_UNKNOWN = "FormatUnknown"
    NO_ASSISTANT_TURN = "NoAssistantTurn"
    SPLIT_IMPOSSIBLE = "SplitImpossible"
    # of adapters that are given, and of evaluations: 10
    ARTIFACT_NOT_FOUND = "ArtifactNotFound"
    ARTIFACT_INVALID = "ArtifactInvalid"
    ARTIFACT_CHANGED = "ArtifactChanged"
    BASE_MODEL_MISMATCH = "BaseModelMismatch"
    TOKENIZER_MISMATCH = "TokenizerMismatch"
    METRIC_NOT_APPLICABLE = "MetricNotApplicable"
    HARNESS_TASK_NOT_FOUND = "HarnessTaskNotFound"
    HARNESS_TASK_REFUSED = "HarnessTaskRefused"
    # of evaluations: 11
    LABEL_UNKNOWN = "LabelUnknown"
    GROUP_MISSING = "GroupMissing"
    REFERENCE_MISSING = "ReferenceMissing"
    TEST_SPLIT_MISSING = "TestSplitMissing"
    TRAINED_ON = "TrainedOn"
    FINAL_SET_OPENED = "FinalSetOpened"
    # of judges: 10, and 13 where asking again may help
    JUDGE_REFUSED = "JudgeRefused"
    JUDGE_UNREADABLE = "JudgeUnreadable"
    JUDGE_PROMPT_TOO_LONG = "JudgePromptTooLong"
    JUDGE_UNREACHABLE = "JudgeUnreachable"
    JUDGE_OVERLOADED = "JudgeOverloaded"
    # of engines that evaluations start: 10, and 1 where another try may help
    ENGINE_MISSING = "EngineMissing"
    ENGINE_REFUSED = "EngineRefused"
    ENGINE_FAILED = "EngineFailed"
    # 12, 13, 14, 1
    OUT_OF_MEMORY = "OutOfMemory"
    STORAGE_FAILED = "StorageFailed"
    PREPARED_DATA_MISSING = "PreparedDataMissing"
    MIRROR_MISSING = "MirrorMissing"
    ANSWERS_MISSING = "AnswersMissing"
    HUB_UNREACHABLE = "HubUnreachable"
    HUB_QUOTA_EXCEEDED = "HubQuotaExceeded"
    SOURCE_DAMAGED = "SourceDamaged"
    INTERRUPTED = "Interrupted"
    PROCESS_LOST = "ProcessLost"
    BUG = "InternalError"

    @classmethod
    def _missing_(cls, value: object) -> Reason | None:
        """Take any other word for what it is: a trainer of another version says more than this one knows."""
        if not isinstance(value, str) or not _WORD.fullmatch(value):
            return None
        word = str.__new__(cls, value)
        word._name_ = word._value_ = value
        return word


class Prepared(Received):
    """What `prepare` found out, and `train` needs: content addresses and sizes."""

    base_model_digest: DIGEST
    rows_digest: DIGEST = Field(description="rowsDigest addresses <output>/data/rows/<digest>")
    view_digest: DIGEST = Field(description="viewDigest addresses <output>/data/views/<digest>")
    run_digest: DIGEST = Field(description="runDigest addresses <output>/runs/<digest>")
    rows: WHOLE = Field(description="rows that are trained on")
    validation_rows: WHOLE = 0
    validation_digest: DIGEST | None = Field(
        default=None, description="validationDigest of what the validation rows say, whatever their tokens"
    )
    validation_bytes: WHOLE | None = Field(default=None, description="validationBytes of what is learned of them")
    validation_supervised_tokens: WHOLE | None = None
    test_rows: WHOLE = 0
    tokens: WHOLE = Field(description="tokens of the rows that are trained on")
    supervised_tokens: WHOLE = Field(default=0, description="supervisedTokens: those with a loss")
    dropped: WHOLE = Field(default=0, description="rows dropped by cleaning or for their length")
    report_uri: str | None = Field(
        default=None, alias="reportURI", max_length=1200, description="reportURI of data.html"
    )
    total_steps: WHOLE = Field(default=0, description="totalSteps: optimizer steps of the whole run")


class Artifact(Received):
    """A published adapter, or a whole model, which has neither rank nor target modules."""

    uri: str = Field(max_length=1200)
    digest: DIGEST
    rank: int | None = Field(default=None, ge=1, le=2**31 - 1)
    target_modules: Annotated[list[str], TEXTS] = Field(default=[])
    base_model_digest: DIGEST
    report_uri: str | None = Field(
        default=None, alias="reportURI", max_length=1200, description="reportURI of report.html"
    )

    @property
    def full(self) -> bool:
        """Whether it is a whole model, not an adapter."""
        return self.rank is None


class Rank(Received):
    """One of the processes that trained: what it computed on, and the most memory that it took there."""

    device: Annotated[str, BeforeValidator(lambda told: told[:DEVICE_LENGTH] if isinstance(told, str) else "")] = Field(
        default="", max_length=DEVICE_LENGTH
    )
    memory_peak_bytes: COUNT = None


def ranks_told(told: object) -> object:
    """Return what is told of processes, None for what is no list of such."""
    if not isinstance(told, list | tuple) or len(told) > RANKS_MAXIMUM:
        return None
    return told if all(isinstance(each, dict | Rank) for each in told) else None


class Summary(Received):
    """Figures of the end of a run; absent where they do not apply, or cannot be kept."""

    step: COUNT = None
    total_steps: COUNT = None
    loss: FIGURE = None
    validation_loss: FIGURE = None
    test_loss: FIGURE = Field(default=None, description="testLoss: nats per supervised token, with the adapter")
    base_test_loss: FIGURE = Field(default=None, description="baseTestLoss: the same, base model alone")
    resumed_from_step: COUNT = None
    checkpoint_step: COUNT = Field(default=None, description="checkpointStep: newest checkpoint in storage")
    tokens_per_second: FIGURE = None
    world_size: COUNT = Field(default=None, description="worldSize: processes that trained, each on its accelerator")
    ranks: Annotated[tuple[Rank, ...] | None, BeforeValidator(ranks_told)] = Field(
        default=None, max_length=RANKS_MAXIMUM, description="ranks: those, if several"
    )
    preference: PREFERENCE = Field(default=None, description="preference method's figures over the newest steps")
    validation_preference: PREFERENCE = Field(default=None, description="validationPreference: on the validation rows")
    test_preference: PREFERENCE = Field(default=None, description="testPreference: on the test rows")
    curve: CURVES = None


def summary_told(told: object) -> object:
    """Return figures of the end, none for what is no set of such."""
    return told if isinstance(told, dict | Summary) else Summary()


class TerminationMessage(Received):
    """What the last words of a container are: at most 4 kB of JSON in the termination log.

    What is beside the result and cannot be read, as a later version may say it otherwise, is left out: a success that
    could not be read would be trained again.
    """

    version: str = CONTRACT_VERSION
    stage: Stage
    run_uid: str
    attempt: int
    reason: Reason
    message: TEXT = ""
    warnings: Annotated[tuple[str, ...], TEXTS] = Field(
        default=(), description="what a person should know though it ended well"
    )
    retry_after_seconds: COUNT = Field(
        default=None, description="retryAfterSeconds: how long a hub asks to be left alone"
    )
    mirrored: Mirrored | None = None
    prepared: Prepared | None = None
    artifact: Artifact | None = None
    summary: Annotated[Summary, BeforeValidator(summary_told)] = Summary()
    prepared_evaluation: PreparedEvaluation | None = None
    answers_digest: DIGEST | None = Field(
        default=None,
        description="answersDigest of what an endpoint is yet to judge: <output>/evaluations/answers/<digest>",
    )
    judge_ready: bool | None = Field(
        default=None,
        description="judgeReady: the judge's endpoint replied to a first look, before the answers",
    )
    packed_outcome: str | None = Field(default=None, description="packedOutcome: `EvaluationOutcome.pack`")
    exported: Exported | None = None

    @property
    def outcome(self) -> EvaluationOutcome | None:
        """Return what an evaluation found, or None if this is something else."""
        try:
            return EvaluationOutcome.unpack(self.packed_outcome) if self.packed_outcome is not None else None
        except ValueError:
            return None

    def encode(self) -> str:
        """Return the JSON text, shortened until it fits: ranks, curve, message, warnings, names of target modules."""
        message, warnings, artifact, summary = self.message, self.warnings, self.artifact, self.summary
        while True:
            shortened = self.model_copy(
                update={"message": message, "warnings": warnings, "artifact": artifact, "summary": summary}
            )
            text = json.dumps(shortened.to_json(), ensure_ascii=False, separators=(",", ":"))
            excess = len(text.encode()) - TERMINATION_MESSAGE_BYTES
            if excess <= 0:
                return text
            if summary.ranks is not None:
                summary = summary.model_copy(update={"ranks": None})
            elif summary.curve is not None:
                summary = summary.model_copy(update={"curve": summary.curve.thinner()})
            elif message not in ("", "..."):
                message = message[: max(0, len(message) - excess - 4)] + "..."
            elif warnings:
                warnings = warnings[:-1]
            elif artifact is not None and artifact.target_modules:
                artifact = artifact.model_copy(update={"target_modules": artifact.target_modules[:-1]})
            else:
                return text

    @classmethod
    def decode(cls, text: str) -> Self | None:
        """Return the message in a termination log, or None if the text is something else or of another contract."""
        try:
            words = cls.model_validate_json(text)
        except ValueError:
            return None
        return words if speaks(words.version, CONTRACT_VERSION) else None

    @staticmethod
    def other_contract(text: str) -> str | None:
        """Return the version of the contract in a termination log that is of another one; None of any other text."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return None
        version = document.get("version") if isinstance(document, dict) else None
        if not isinstance(version, str) or not _OTHER.fullmatch(version) or speaks(version, CONTRACT_VERSION):
            return None
        return version


class Progress(Received):
    """Answer of `GET :9401/progress`.

    `step` counts tasks of an evaluation (of target and baseline apart), files while mirroring and shards of an export.
    """

    run_uid: str
    attempt: int
    stage: Stage
    activity: str = Field(
        description="Mirroring, Preparing, Loading, Comparing (answers, with the model before training), "
        "Training, Evaluating, Checkpointing, Exporting or Publishing"
    )
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    validation_loss: float | None = None
    preference: PREFERENCE = Field(default=None, description="preference method's figures over the newest steps")
    validation_preference: PREFERENCE = Field(default=None, description="the same on the validation rows")
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    checkpoint_step: int | None = None
    checkpoint_time: str | None = None
    world_size: int | None = Field(default=None, description="worldSize: processes that train, each on its accelerator")
    curve: Curve | None = Field(default=None, description="both curves so far, over all attempts")

"""The ways a stage ends early: one exception for each exit code of the contract.

Everything that can be told to a person is raised as one of these; `__main__` turns it into the exit code and the
termination message. Any other exception is a bug. Messages name the place (file, line, object) and the next step, and
never hold a secret.
"""

from __future__ import annotations

from typing import ClassVar

from .contract import ExitCode, Reason

SCRATCH_FULL = "scratch space is full"
"""What the message of that end begins with: it is of the machine, not of the settings of a trial."""


class TrainerError(Exception):
    """A stage cannot go on; `reason` becomes the reason of the FineTuneJob's condition."""

    exit_code: ClassVar[ExitCode] = ExitCode.BUG
    default_reason: ClassVar[Reason] = Reason.BUG

    def __init__(self, message: str, reason: Reason | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason


class SettingsInvalid(TrainerError):
    """The settings cannot work, whatever is retried."""

    exit_code = ExitCode.SETTINGS_INVALID
    default_reason = Reason.SETTINGS_INVALID


class DataInvalid(TrainerError):
    """The data cannot work, whatever is retried."""

    exit_code = ExitCode.DATA_INVALID
    default_reason = Reason.DATASET_INVALID


class TooMuchDropped(DataInvalid):
    """More of the rows is dropped than is allowed: a refusal by numbers, which all rows may not have."""


class OutOfMemory(TrainerError):
    """The memory of the machine or of its accelerator does not suffice."""

    exit_code = ExitCode.OUT_OF_MEMORY
    default_reason = Reason.OUT_OF_MEMORY


class StorageFailed(TrainerError):
    """Object storage did not answer, or not with what was written; trying again may help.

    Attributes:
        retry_after: how many seconds who was asked wants to be left alone, if it says so.
    """

    exit_code = ExitCode.STORAGE_FAILED
    default_reason = Reason.STORAGE_FAILED

    def __init__(self, message: str, reason: Reason | None = None, retry_after: int | None = None) -> None:
        super().__init__(message, reason)
        self.retry_after = retry_after


class PreparedDataMissing(StorageFailed):
    """What the prepare stage wrote is not there any more, or not as it was: the next attempt has to prepare again."""

    default_reason = Reason.PREPARED_DATA_MISSING


class MirrorMissing(StorageFailed):
    """What the mirror stage wrote is not there any more: the next attempt has to mirror again, at the same commit."""

    default_reason = Reason.MIRROR_MISSING


class AnswersMissing(StorageFailed):
    """What models answered is not there any more, or not as it was: the next attempt has to ask them again."""

    default_reason = Reason.ANSWERS_MISSING


class HubFailed(StorageFailed):
    """A hub did not answer, or not with what it has; trying again may help."""

    default_reason = Reason.HUB_UNREACHABLE


class JudgeFailed(StorageFailed):
    """A judge's endpoint did not answer, or not in time; trying again may help."""

    default_reason = Reason.JUDGE_UNREACHABLE


class ProcessLost(TrainerError):
    """One of the processes that train together ended, or did not answer in time; the others cannot go on alone."""

    default_reason = Reason.PROCESS_LOST


class EngineFailed(TrainerError):
    """A serving engine that the stage started did not come up, or ended, or does not answer; another try may help."""

    default_reason = Reason.ENGINE_FAILED


class Interrupted(TrainerError):
    """Told to stop; what was done so far is kept, and the next attempt goes on from there."""

    exit_code = ExitCode.INTERRUPTED
    default_reason = Reason.INTERRUPTED

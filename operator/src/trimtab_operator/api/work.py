"""What FineTuneJobs, Evaluations and AdapterExports share: work in attempts, with budgets for those that end badly."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from trimtab_trainer.contract import Model
from trimtab_trainer.contract.settings import DIGEST

from .status.conditions import Condition
from .status.summary import SummarizedStatus

ATTEMPT_MESSAGE_LENGTH = 160
EARLIER_MESSAGE_LENGTH = 56
"""Messages of attempts are cut here, of all but the newest, so that ten of them leave the status below 10 kB."""

RETRY_AFTER_MAXIMUM = 3600
"""Seconds: a hub that asks for more is asked again all the same."""

MIRRORED_MAXIMUM = 4
"""Sources of one object: a base model, and three sides of a data set."""

ATTEMPTS_MAXIMUM = 1_000_000
ACCELERATORS_MAXIMUM = 1_000_000
"""Of one attempt: what an object in the cluster says beyond it is not believed."""


class RetryBudgets(Model):
    """How many attempts may end badly, by cause. Invalid settings and data and too little memory are never retried."""

    on_failure: int = Field(default=1, ge=0, le=100, description="onFailure counts crashes and storage failures.")
    on_disruption: int = Field(
        default=20, ge=0, le=10_000, description="onDisruption counts evictions, preemptions and lost nodes."
    )


class AttemptStatus(Model):
    """One Job, and how it ended."""

    number: int = Field(ge=0, le=ATTEMPTS_MAXIMUM, description="number of the attempt, counted over all stages.")
    stage: str = Field(max_length=16, description="stage: mirror, prepare, train, evaluate, judge or export.")
    job_name: str = Field(max_length=63, description="jobName of the attempt's Job.")
    job_uid: str = Field(alias="jobUID", max_length=64, description="jobUID of the attempt's Job.")
    reason: str | None = Field(default=None, max_length=64, description="reason the attempt ended; absent: it runs.")
    message: str | None = Field(
        default=None, max_length=ATTEMPT_MESSAGE_LENGTH, description="message of the attempt's end."
    )
    charged_to: Literal["failures", "disruptions"] | None = Field(
        default=None, description="chargedTo names the retry budget that paid for its end."
    )
    start_time: str | None = Field(
        default=None,
        max_length=32,
        json_schema_extra={"format": "date-time"},
        description="startTime of its pod, absent while it is suspended; of its first pod once it has ended.",
    )
    first_start_time: str | None = Field(
        default=None,
        max_length=32,
        json_schema_extra={"format": "date-time"},
        description="firstStartTime of an attempt that was suspended, until it ends.",
    )
    end_time: str | None = Field(
        default=None, max_length=32, json_schema_extra={"format": "date-time"}, description="endTime of the attempt."
    )
    active_seconds: int | None = Field(default=None, ge=0, description="activeSeconds with a running pod.")
    retry_after_seconds: int | None = Field(
        default=None,
        ge=0,
        le=RETRY_AFTER_MAXIMUM,
        description="retryAfterSeconds that a hub asks to be left alone for.",
    )
    accelerators: int | None = Field(
        default=None,
        ge=0,
        le=ACCELERATORS_MAXIMUM,
        description="accelerators that its pods hold together, until it ends.",
    )
    start_step: int | None = Field(default=None, ge=0, description="startStep it resumed from.")
    end_step: int | None = Field(default=None, ge=0, description="endStep it reached.")


class MirroredStatus(Model):
    """A source of a hub that lies in the output."""

    uri: str = Field(max_length=1024, description="uri as the spec has it.")
    commit: str = Field(
        min_length=40, max_length=40, pattern=r"^[0-9a-f]{40}$", description="commit that its revision was."
    )
    digest: DIGEST = Field(description="digest of its files; they lie at models/<digest> or datasets/<digest>.")
    license: str | None = Field(default=None, max_length=64, description="license as the repository names it.")


class WorkStatus(SummarizedStatus):
    """The part of a status that is the ledger of the attempts."""

    observed_generation: int | None = Field(default=None, ge=0, description="observedGeneration of the spec.")
    conditions: list[Condition] = Field(
        default=[],
        max_length=8,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        description="conditions: Succeeded, whose reason is the state; of an Evaluation also Passed, the verdict.",
    )
    start_time: str | None = Field(
        default=None,
        max_length=32,
        json_schema_extra={"format": "date-time"},
        description="startTime of the first Job.",
    )
    completion_time: str | None = Field(
        default=None, max_length=32, json_schema_extra={"format": "date-time"}, description="completionTime of the end."
    )
    images: dict[str, Annotated[str, Field(max_length=512)]] | None = Field(
        default=None, max_length=4, description="images by stage: the template's, else fixed at the first attempt."
    )
    mirrored: list[MirroredStatus] | None = Field(
        default=None,
        max_length=MIRRORED_MAXIMUM,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uri"]},
        description="mirrored sources of a hub; attempts take these commits.",
    )
    failures: int = Field(default=0, ge=0, description="failures charged to retries.onFailure.")
    disruptions: int = Field(default=0, ge=0, description="disruptions charged to retries.onDisruption.")
    active_seconds: int = Field(default=0, ge=0, description="activeSeconds of all attempts that ended.")
    accelerator_seconds: int = Field(default=0, ge=0, description="acceleratorSeconds: accelerators times seconds.")
    lost_accelerator_seconds: int = Field(
        default=0, ge=0, description="lostAcceleratorSeconds of work that was done again, or for nothing."
    )
    attempts: list[AttemptStatus] = Field(
        default=[],
        max_length=10,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["number"]},
        description="attempts, the newest 10, oldest first.",
    )

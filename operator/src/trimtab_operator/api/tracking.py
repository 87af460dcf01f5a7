"""`spec.tracking`: the tracker that is told of a run, and the condition that says whether it was after its end."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator
from trimtab_trainer.contract import Model
from trimtab_trainer.contract.model import rules
from trimtab_trainer.contract.tracking import EXPERIMENT, PROJECT, TRACKER_URI

from .status.reasons import Explanation

TRACKED = "Tracked"


class TrackedReason(StrEnum):
    """Reasons of `Tracked`."""

    TRACKING = "Tracking"
    TRACKED = "Tracked"
    TRACKING_FAILED = "TrackingFailed"


SECRET_NAME = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
ONE_TRACKER = (
    "set either mlflow or trackio; Weights & Biases is not told, see the documentation for why and what instead"
)


class MlflowTracker(Model):
    """An MLflow tracking server."""

    uri: TRACKER_URI = Field(description="uri of the server: http:// or https://, a host, and a path if it has one.")
    experiment: EXPERIMENT = Field(description="experiment that runs belong to; it is made where it is not there.")
    secret_name: SECRET_NAME | None = Field(
        default=None,
        description="secretName of a Secret with MLFLOW_TRACKING_TOKEN, or with MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD; absent: the server is asked as anybody. The pod that tells it alone mounts it.",
    )


class TrackioTracker(Model):
    """A Trackio server."""

    uri: TRACKER_URI = Field(description="uri of the server: http:// or https://, a host, and a path if it has one.")
    project: PROJECT = Field(description="project that runs belong to; it is made where it is not there.")
    secret_name: SECRET_NAME | None = Field(
        default=None,
        description="secretName of a Secret with TRACKIO_WRITE_TOKEN. The pod that tells it alone mounts it.",
    )


class Tracking(Model):
    """Whom to tell what a run measured. It is told by Jobs of their own; nothing waits for that."""

    model_config = ConfigDict(json_schema_extra=rules(("has(self.mlflow) != has(self.trackio)", ONE_TRACKER)))

    mlflow: MlflowTracker | None = Field(default=None, description="mlflow server to tell.")
    trackio: TrackioTracker | None = Field(default=None, description="trackio server to tell.")
    every_seconds: int | None = Field(
        default=None,
        ge=60,
        le=86_400,
        description="everySeconds it is told too, by a short Job, how far the run is while it trains; absent: only "
        "after the end, when it is told all.",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.mlflow is None) == (self.trackio is None):
            raise ValueError(ONE_TRACKER)
        return self

    @property
    def secret_name(self) -> str | None:
        """The Secret of the tracker."""
        tracker = self.mlflow or self.trackio
        return tracker.secret_name if tracker is not None else None

    @property
    def uri(self) -> str:
        """Address of the tracker."""
        tracker = self.mlflow or self.trackio
        return tracker.uri if tracker is not None else ""


OF_TRACKED: dict[str, tuple[str, dict[str, Explanation]]] = {
    TRACKED: (
        "The condition `Tracked` is there after the end of a run with `spec.tracking`: whether its tracker was told. "
        "It changes nothing of how the run ended.",
        {
            TrackedReason.TRACKING.value: Explanation("active", "A Job tells the tracker.", "Nothing."),
            TrackedReason.TRACKED.value: Explanation("succeeded", "The tracker has the run.", "Nothing."),
            TrackedReason.TRACKING_FAILED.value: Explanation(
                "failed",
                "The tracker could not be told within 15 minutes; the message says why.",
                "Correct what it names in `spec.tracking`, and it is told again. After a change elsewhere, such as in "
                "the Secret, delete the Job `<name>-track-*-0` too, and change anything in `spec.tracking`.",
            ),
        },
    )
}

"""`spec.tracking`: the tracker that is told of a run after its end, and the condition that says whether it was."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field
from trimtab_trainer.contract import Model
from trimtab_trainer.contract.tracking import EXPERIMENT, TRACKER_URI

from .status.reasons import Explanation

TRACKED = "Tracked"


class TrackedReason(StrEnum):
    """Reasons of `Tracked`."""

    TRACKING = "Tracking"
    TRACKED = "Tracked"
    TRACKING_FAILED = "TrackingFailed"


class MlflowTracker(Model):
    """An MLflow tracking server."""

    uri: TRACKER_URI = Field(description="uri of the server: http:// or https://, a host, and a path if it has one.")
    experiment: EXPERIMENT = Field(description="experiment that runs belong to; it is made where it is not there.")
    secret_name: (
        Annotated[
            str,
            Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"),
        ]
        | None
    ) = Field(
        default=None,
        description="secretName of a Secret with MLFLOW_TRACKING_TOKEN, or with MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD; absent: the server is asked as anybody. The pod that tells it alone mounts it.",
    )


class Tracking(Model):
    """Whom to tell what a run measured. It is told after the end, by a Job of its own; nothing waits for that."""

    mlflow: MlflowTracker = Field(description="mlflow server to tell.")


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

"""`TrackingRecord`: what a tracker is told of a run, and where the tracker is.

The operator renders it into a ConfigMap for the `track` stage when a FineTuneJob has ended; a person may write one too.
It holds no secrets: credentials are a directory with one file per key.
"""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import Field, FiniteFloat, field_validator, model_validator

from .curve import Curve
from .model import Model, speaks
from .run import Credentials, RunIdentity, StoredOutput
from .settings import DIGEST

TRACKING_VERSION = "trimtab.dev/tracking/v1"
TRACKER_URI = Annotated[
    str, Field(min_length=8, max_length=1024, pattern=r"^https?://[A-Za-z0-9.\-\[\]:]+(/[A-Za-z0-9._~/\-]*)?$")
]
"""http:// or https://, a host and at most a port and a path: nothing that is secret."""
EXPERIMENT = Annotated[
    str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9]([A-Za-z0-9 ._/@-]*[A-Za-z0-9])?$")
]


class StoredMlflow(Model):
    """An MLflow tracking server."""

    uri: TRACKER_URI
    experiment: EXPERIMENT
    credentials: Credentials | None = None


PROJECT = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_-]+$")]
"""What Trackio keeps of a project's name; two that differ in other signs would be one."""


class StoredTrackio(Model):
    """A Trackio server."""

    uri: TRACKER_URI
    project: PROJECT
    credentials: Credentials | None = None


class TrackingRecord(Model):
    """A run, as far as its object tells; the rest is beside its adapter, where it has published one."""

    version: str = TRACKING_VERSION
    run: RunIdentity
    output: StoredOutput
    mlflow: StoredMlflow | None = None
    trackio: StoredTrackio | None = None
    step: int | None = Field(default=None, ge=0, description="step of a run that goes on; absent: it has ended")
    succeeded: bool
    reason: str = Field(max_length=64, description="reason of its end, or what it does")
    message: str = Field(default="", max_length=1024)
    start_seconds: int = Field(ge=0, description="start of it, in seconds since 1970")
    end_seconds: int = Field(ge=0, description="end of it, or when it was at the step, likewise")
    attempts: int = Field(default=0, ge=0)
    adapter: DIGEST | None = Field(default=None, description="digest of the adapter that it published")
    parameters: dict[str, str] = Field(default={}, max_length=64, description="what it was made from")
    figures: dict[str, FiniteFloat] = Field(default={}, max_length=64, description="last figures")
    curve: Curve | None = Field(default=None, description="curve of the losses, where there is no adapter")

    @property
    def the_trackio(self) -> StoredTrackio:
        """The Trackio server, where there is no MLflow."""
        assert self.trackio is not None  # one of them is there
        return self.trackio

    @model_validator(mode="after")
    def _tells_one(self) -> Self:
        if (self.mlflow is None) == (self.trackio is None):
            raise ValueError("a record names one tracker: mlflow or trackio")
        return self

    @field_validator("run")
    @classmethod
    def _can_be_looked_for(cls, run: RunIdentity) -> RunIdentity:
        if re.fullmatch(r"[A-Za-z0-9-]{1,64}", run.uid) is None:
            raise ValueError("run.uid has letters, digits and dashes, 64 at most")
        return run

    @field_validator("version")
    @classmethod
    def _of_this_contract(cls, version: str) -> str:
        if not speaks(version, TRACKING_VERSION):
            raise ValueError(f"this trainer reads {TRACKING_VERSION}")
        return version

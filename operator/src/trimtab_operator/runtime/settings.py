"""Settings of the process, read from the environment and checked before anything starts."""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from ..domain.notifications.endpoints import ENDPOINTS_MAXIMUM, Endpoint
from ..domain.settings import ACCELERATOR_RESOURCES, PodDefaults
from ..domain.settings import Settings as DomainSettings

PREFIX = "TRIMTAB_"
LEASE_SECONDS_MAXIMUM = 300


class SettingsInvalid(Exception):
    """Variables that cannot be used, one line for each."""


def _from_json(value: object) -> object:
    return json.loads(value or "{}") if isinstance(value, str) else value


def _from_json_list(value: object) -> object:
    return json.loads(value or "[]") if isinstance(value, str) else value


def _from_list(value: object) -> object:
    return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value


QUANTITY = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|[kMGTPE]i?)?$")]
PORT = Annotated[int, Field(ge=0, le=65535)]
SECONDS = Annotated[float, Field(gt=0, le=86_400)]
RESOURCES = Annotated[dict[str, Any], BeforeValidator(_from_json)]
NAMES = Annotated[tuple[str, ...], BeforeValidator(_from_list)]


class Settings(BaseModel):
    """One field for each variable: TRIMTAB_PREPARE_IMAGE is `prepare_image`, and so on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prepare_image: str = Field(min_length=1)
    trainer_image: str = Field(min_length=1)
    evaluator_image: str = ""
    """With trainer and vLLM, of Evaluations with `engine: Vllm`."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    namespace: str = Field(default="default", min_length=1)
    """Where the Lease is."""
    watch_namespaces: NAMES = ()
    """Empty: all."""

    node_loss_seconds: SECONDS = 120
    pod_start_seconds: SECONDS = 600
    name_taken_seconds: SECONDS = 60
    retry_seconds: SECONDS = 10
    delete_what_gitops_tracks: bool = False
    """Whether ttlSecondsAfterFinished also deletes what Argo CD, Flux and the like would create again."""
    gitops_labels: NAMES = ()
    """Labels by which such a tool is told to track."""
    prepare_resources: RESOURCES = Field(default={})
    train_resources: RESOURCES = Field(default={})
    work_pods: Annotated[PodDefaults, BeforeValidator(_from_json)] = Field(default_factory=PodDefaults)
    """Defaults of work pods, as JSON."""
    accelerator_resources: NAMES = ACCELERATOR_RESOURCES
    """Extended resources that are counted as accelerators; `*` stands for anything."""
    scratch_size: QUANTITY = "50Gi"
    shm_size: QUANTITY = "1Gi"

    admission_policies: str = Field(default="", max_length=200)
    """What the names of the chart's admission policies begin with; empty: there are none."""
    agent_keys: Path | None = None
    """Folder with the private keys that sign documents for agents."""
    notifications: Annotated[
        tuple[Endpoint, ...], BeforeValidator(_from_json_list), Field(max_length=ENDPOINTS_MAXIMUM)
    ] = ()
    """Endpoints that are told of changes, as JSON."""
    notification_secrets: Path | None = None
    """Folder with a folder for each endpoint that has a Secret."""
    object_metrics: bool = False
    """Metrics with namespace and name in their labels."""
    progress_seconds: SECONDS = 10
    audit_seconds: SECONDS = 20
    lease_seconds: int = Field(default=10, ge=6, le=LEASE_SECONDS_MAXIMUM)
    lease_name: str = "trimtab-operator"
    identity: str = Field(default_factory=socket.gethostname, min_length=1)
    workers: int = Field(default=16, ge=1, le=256)
    request_seconds: SECONDS = 15
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    metrics_port: PORT = 9402
    health_port: PORT = 9403

    @field_validator("notifications")
    @classmethod
    def _have_names(cls, endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        names = Counter(each.name for each in endpoints)
        if twice := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"two endpoints have the name {twice[0]}")
        return endpoints

    @property
    def domain(self) -> DomainSettings:
        """The part that decisions depend on."""
        return DomainSettings(
            prepare_image=self.prepare_image,
            trainer_image=self.trainer_image,
            evaluator_image=self.evaluator_image,
            image_pull_policy=self.image_pull_policy,
            node_loss_seconds=self.node_loss_seconds,
            pod_start_seconds=self.pod_start_seconds,
            name_taken_seconds=self.name_taken_seconds,
            retry_seconds=self.retry_seconds,
            delete_what_gitops_tracks=self.delete_what_gitops_tracks,
            gitops_labels=self.gitops_labels,
            prepare_resources=self.prepare_resources,
            train_resources=self.train_resources,
            work_pods=self.work_pods,
            accelerator_resources=self.accelerator_resources,
            scratch_size=self.scratch_size,
            shared_memory_size=self.shm_size,
        )


def flag(name: str) -> str:
    """Return the flag of a setting: --node-loss-seconds of node_loss_seconds."""
    return f"--{name.replace('_', '-')}"


def read(environment: Mapping[str, str] = os.environ, given: Mapping[str, str | None] | None = None) -> Settings:
    """Return the settings in an environment; an empty variable counts as not set, and what was given as a flag wins.

    Raises:
        SettingsInvalid: names every variable that is missing, unusable or unknown in it.
    """
    values: dict[str, str] = {}
    for name, value in environment.items():
        if name.startswith(PREFIX) and value and name[len(PREFIX) :].lower() in Settings.model_fields:
            values[name[len(PREFIX) :].lower()] = value
    values |= {name: value for name, value in (given or {}).items() if value is not None}
    try:
        return Settings.model_validate(values)
    except (ValidationError, json.JSONDecodeError) as error:
        raise SettingsInvalid("\n".join(_lines(error))) from None


def _lines(error: ValidationError | json.JSONDecodeError) -> list[str]:
    if isinstance(error, json.JSONDecodeError):
        return [f"{PREFIX}*: a setting that has to be JSON is none: {error.msg}"]
    return [f"{PREFIX}{_place(found['loc'])}: {found['msg']}" for found in error.errors()]


def _place(location: tuple[int | str, ...]) -> str:
    """Return the variable, and where in its JSON."""
    name, *inside = location or ("?",)
    return ".".join((str(name).upper(), *map(str, inside)))

"""`RunConfig`: everything `trimtab-trainer` needs to know, as YAML or JSON.

The operator renders it into a ConfigMap, once for a FineTuneJob; a person writes it by hand on a laptop. It holds
no secrets: credentials are a directory with one file per key, or the environment's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from .data import COLUMN, Balance, Cleaning, DataAudit, TooLong
from .methods import check_data
from .model import Model, speaks
from .settings import (
    CHAT_TEMPLATE,
    DIGEST,
    HUB_SCHEME,
    IGNORE_KEYS,
    KEY,
    MODEL_URI,
    NULL,
    OBJECT_URI,
    CheckpointSettings,
    DatasetFormat,
    HeldOut,
    LoraSettings,
    LoraType,
    QuantizationSettings,
    TrainingData,
    TrainingSettings,
    Validation,
    check_full,
)

RUN_VERSION = "trimtab.dev/run/v1"

Side = TypeVar("Side", TrainingData, Validation, HeldOut)


class Credentials(Model):
    """Where the keys AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ... lie as files, and the Secret they came from."""

    directory: str = Field(description="directory with one file per key")
    secret_name: str | None = Field(default=None, description="secretName, for messages only")


class StoredBaseModel(Model):
    uri: MODEL_URI
    digest: DIGEST | None = Field(default=None, description="digest the base model must have; recorded if absent")
    credentials: Credentials | None = None


class StoredDataset(Model):
    format: DatasetFormat = DatasetFormat.AUTO
    ignore_keys: list[KEY] = IGNORE_KEYS
    chat_template: OBJECT_URI | None = CHAT_TEMPLATE
    training: TrainingData
    validation: Validation | None = None
    test: HeldOut | None = None
    split_seed: int = Field(default=17, ge=0, le=2_147_483_647)
    group_by: COLUMN | None = None
    stratify_by: COLUMN | None = None
    cleaning: Cleaning | None = None
    balance: Balance | None = None
    audit: DataAudit | None = None
    credentials: Credentials | None = None

    @property
    def uris(self) -> list[str]:
        """Where rows come from: of training first, then of held-out data with a uri of its own."""
        held_out = (self.validation.uri if self.validation else None, self.test.uri if self.test else None)
        return [self.training.uri, *(uri for uri in held_out if uri is not None)]

    def at(self, places: Mapping[str, str]) -> Self:
        """Return the same rows, each at its new place where there is one."""

        def moved(side: Side) -> Side:
            return side.model_copy(update={"uri": places.get(side.uri or "", side.uri)})

        update: dict[str, Model | None] = {"training": moved(self.training)}
        update["validation"] = moved(self.validation) if self.validation is not None else None
        update["test"] = moved(self.test) if self.test is not None else None
        return self.model_copy(update=update)

    @model_validator(mode="after")
    def _from_one_place(self) -> Self:
        if len({uri.startswith(HUB_SCHEME) for uri in self.uris}) > 1:
            raise ValueError("either all data of a dataset come from a hub (hf://) or none: their keys are one Secret")
        return self


class StoredOutput(Model):
    uri: OBJECT_URI
    credentials: Credentials | None = None


class RunIdentity(Model):
    """Who runs: pod addresses are reused, so progress carries the uid."""

    name: str = "local"
    namespace: str = "local"
    uid: str = "00000000-0000-0000-0000-000000000000"


class RunConfig(Model):
    """One fine-tuning run: `trimtab-trainer prepare --config run.yaml`, then `train`."""

    version: str = RUN_VERSION
    run: RunIdentity = RunIdentity()
    base_model: StoredBaseModel
    dataset: StoredDataset
    output: StoredOutput
    lora: LoraSettings = LoraSettings()
    quantization: QuantizationSettings = QuantizationSettings()
    training: TrainingSettings = TrainingSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()

    @field_validator("version")
    @classmethod
    def _of_this_contract(cls, version: str) -> str:
        if not speaks(version, RUN_VERSION):
            raise ValueError(f"this trainer reads {RUN_VERSION}")
        return version

    @property
    def adapter(self) -> LoraSettings | None:
        """The adapter that is trained; None: all weights of the base model are."""
        return self.lora if self.lora.type is LoraType.LORA else None

    @field_validator("lora", mode="before")
    @classmethod
    def _said(cls, lora: Any) -> Any:
        if lora is None:
            raise ValueError(NULL)
        return lora

    @model_validator(mode="after")
    def _full(self) -> Self:
        check_full(self.lora, self.quantization, self.training.method)
        return self

    @model_validator(mode="after")
    def _early_stopping_needs_validation(self) -> Self:
        if self.training.early_stopping is not None and self.dataset.validation is None:
            raise ValueError("training.earlyStopping needs dataset.validation")
        return self

    @model_validator(mode="after")
    def _data_of_the_method(self) -> Self:
        cleaning = self.dataset.cleaning
        cuts = cleaning is not None and cleaning.too_long is TooLong.TRUNCATE
        check_data(self.training.method, self.dataset.format.value, cuts=cuts)
        return self

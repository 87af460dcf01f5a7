"""What a CustomResourceDefinition has beside the models: names, columns of `kubectl get`, reasons of conditions.

Each kind's record stands in the file of its models; `domain.kinds` has the list of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field
from trimtab_trainer.contract import Model

from ..status.reasons import Explanation

Column = tuple[str, str, str, str]
"""Name, type, JSONPath and description of a column of `kubectl get`."""


class OwnerReference(Model):
    """The part of an owner reference that decisions need."""

    model_config = ConfigDict(extra="ignore")

    uid: str
    controller: bool = False


class ObjectMeta(Model):
    """The part of the metadata that decisions need."""

    model_config = ConfigDict(extra="ignore")

    name: str
    namespace: str
    uid: str
    generation: int = 1
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = Field(default={})
    annotations: dict[str, str] = Field(default={})
    finalizers: list[str] = Field(default=[])
    owner_references: list[OwnerReference] = Field(default=[])

    @property
    def controller(self) -> str | None:
        """The uid of the object that controls this one."""
        return next((each.uid for each in self.owner_references if each.controller), None)


class CustomObject(Model):
    """An object of one of the kinds, as it is decided on."""

    model_config = ConfigDict(extra="ignore")

    metadata: ObjectMeta

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Self:
        """Return the typed form of an object from the API server.

        Raises:
            pydantic.ValidationError: it has a value that this version does not know. Fields that it does not know are
                ignored; whoever writes the status leaves them as they are.
        """
        return cls.model_validate(body, extra="ignore")


@dataclass(frozen=True)
class CustomResource:
    """One kind: its models, its names and what people see of it.

    Attributes:
        model: of the whole object; its docstring and rules are those of the root.
        wide_columns: are shown by `kubectl get -o wide` only.
        summary: the condition whose reason is the state.
        writers: what the right to write its objects amounts to, for the roles that the chart adds to edit and admin.
        embeds: sections that are those of another kind, by path, with its name.
        reasons: explanations of each condition's reasons, by type of condition, with a sentence on the condition; of
            other reasons by the field of the status that has them.
    """

    model: type[CustomObject]
    spec: type[BaseModel]
    status: type[BaseModel]
    plural: str
    short_name: str
    columns: tuple[Column, ...]
    wide_columns: tuple[Column, ...]
    summary: str
    writers: str
    reasons: dict[str, tuple[str, dict[str, Explanation]]]
    embeds: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.model.__name__

    @property
    def singular(self) -> str:
        return self.kind.lower()


def condition_path(kind: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{field}'


AGE: Column = ("Age", "date", ".metadata.creationTimestamp", "Time since it was created.")
OF_SUCCEEDED = (
    "The condition `Succeeded` is the summary; its reason is the word that `kubectl get` prints as STATE, and its "
    "message says what happened and what to do next."
)

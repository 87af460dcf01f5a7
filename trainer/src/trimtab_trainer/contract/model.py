"""What every setting is made of: frozen values with camelCase names, their rules, and the versions of contracts."""

from __future__ import annotations

from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

Rule = tuple[str, str]
"""A CEL expression and the message shown when it is false."""


class Model(BaseModel):
    """Frozen value with camelCase JSON names; unknown fields are errors.

    A field that is added to what the operator writes (the run configuration and its sections) keeps what its default
    did before, and is left out of the JSON at that default: `Field(default=3, exclude_if=lambda value: value == 3)`.
    So runs of before keep their digests and are read by trainers of before, and a field that a trainer does not know
    is one that matters: it is refused, by name.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, use_enum_values=False
    )

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return itself: nobody changes a value.

        pydantic copies a default that it cannot hash, such as one with a list in it, for every object that it reads.
        """
        return self

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form (camelCase, no absent fields)."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def to_json_as_read(self) -> dict[str, Any]:
        """Return the JSON form with the fields that are unknown here too, if it was read with `extra="allow"`.

        For what is passed on to others, who may know them.
        """
        return _with_unknown(self, self.to_json())


def _with_unknown(model: BaseModel, told: dict[str, Any]) -> dict[str, Any]:
    """Add what pydantic keeps and does not write, of a model and of the models and lists of models in it."""
    for name, field in type(model).model_fields.items():
        value, key = getattr(model, name), field.alias or name
        if isinstance(value, BaseModel):
            if inner := _with_unknown(value, told.get(key) or {}):
                told[key] = inner
        elif isinstance(value, list) and key in told:
            for item, one in zip(value, told[key], strict=True):
                if isinstance(item, BaseModel):
                    _with_unknown(item, one)
    told.update(model.__pydantic_extra__ or {})
    return told


M = TypeVar("M", bound=BaseModel)


def without_order(model: M) -> M:
    """Return a value with the lists in it sorted that are sets: equal ones are the same then."""
    update: dict[str, Any] = {}
    for name, field in type(model).model_fields.items():
        value, extra = getattr(model, name), field.json_schema_extra
        if isinstance(value, BaseModel):
            update[name] = without_order(value)
        elif isinstance(value, list) and isinstance(extra, dict) and extra.get("x-kubernetes-list-type") == "set":
            update[name] = sorted(value)
    return model.model_copy(update=update)


class Received(Model):
    """What the other side says: another version may say more, so unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore")


def speaks(version: object, contract: str) -> bool:
    """Tell whether a version is that of a contract: the same, or one of its minor versions (`.../v1.2`).

    Minor versions only add: fields that one may ignore to what the trainer says, and to what it is told such that are
    written only where they matter. Where old words come to mean something else, the version becomes `v2`.
    """
    return isinstance(version, str) and (version == contract or version.startswith(contract + "."))


def rules(*pairs: Rule) -> dict[str, Any]:
    """Return the schema extension that carries CEL rules, each with its message."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]}

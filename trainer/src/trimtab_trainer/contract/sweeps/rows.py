"""What the trials of a search are measured on: the fields that decide it, and whether a parameter changes them.

A loss of each token is of one unit only where the tokens are the same; a loss of held-out rows is of one quantity only
where these rows are the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ..digest import canonical_json
from ..methods import Method
from ..model import Model
from .settings import Dimension, value_at, with_parameters

OF_THE_TOKENS: Mapping[str, str] = {"baseModel": "base model", "dataset.chatTemplate": "chat template"}
_OF_THE_ROWS = ("format", "ignoreKeys", "splitSeed", "groupBy", "stratifyBy", "cleaning", "test")
"""Fields of `dataset` that decide which rows are held out, and what they say."""


def fields_of_rows(side: str, *, part_of_training: bool) -> list[str]:
    """Return the fields that decide which rows the `validation` or the `test` split has, and what of them counts."""
    fields = [f"dataset.{name}" for name in _OF_THE_ROWS]
    if part_of_training:
        fields.append("dataset.training")
    if side == "validation":
        fields.append("training.lossOn")
    return fields


def fields_of_loss(template: Mapping[str, Any]) -> list[str]:
    """Return the fields that decide what a loss is, whatever the rows: the method, its shape, what it compares with."""
    training = template.get("training")
    method = training.get("method") if isinstance(training, Mapping) else None
    compares = method in [each.value for each in Method if each.needs_reference]
    return ["training.method", "training.preference", *(["lora.initialAdapter"] if compares else [])]


def differ(model: type[Model], dimension: Dimension, template: Mapping[str, Any], path: str) -> bool:
    """Tell whether the values of a parameter make values of a field of a model that differ."""
    values = dimension.values if dimension.values is not None else (dimension.low, dimension.high)
    if not (path == dimension.name or path.startswith(f"{dimension.name}.") or dimension.name.startswith(f"{path}.")):
        return False
    found = {_at(model, with_parameters(template, {dimension.name: value}), path) for value in values}
    return len(found) > 1


def _at(model: type[Model], spec: Mapping[str, Any], path: str) -> bytes:
    """Return the value of a field as it counts, its defaults filled in; Secrets are not of it."""
    try:
        value: Any = model.model_validate(spec, extra="ignore").to_json()
    except ValidationError:
        value = json.loads(json.dumps(spec))  # that it is invalid is said where that is checked
    value = value_at(value, path)
    if isinstance(value, dict):
        value = {key: each for key, each in value.items() if key != "secretName"}
    return canonical_json(value)

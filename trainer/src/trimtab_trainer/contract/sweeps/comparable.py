"""Whether the values of trials can be compared: what is searched must leave alone what they are measured on.

A loss of each token is of one unit only where the tokens are the same; a loss of held-out rows is of one quantity only
where these rows are the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from ..digest import canonical_json
from ..methods import Method
from ..model import Model, without_order
from .settings import Dimension, Direction, Unsearchable, value_at, with_parameters

OF_THE_TOKENS: Mapping[str, str] = {"baseModel": "base model", "dataset.chatTemplate": "chat template"}
_OF_THE_ROWS = ("format", "ignoreKeys", "splitSeed", "groupBy", "stratifyBy", "cleaning", "test")
"""Fields of `dataset` that decide which rows are held out, and what they say."""
_NOT_OF_THE_RESULT = frozenset({"secretName", "credentials", "microBatchSize"})


def check_direction(where: str, metric: str, better: Direction | None, chosen: Direction) -> None:
    """Refuse a direction that is not the one in which a metric gets better."""
    if better is not None and chosen is not better:
        word = "less" if better is Direction.MINIMIZE else "more"
        raise Unsearchable(f"{where}: of {metric} {word} is better; set direction: {better.value}")


def check_tokens(model: type[Model], dimensions: Iterable[Dimension], template: Mapping[str, Any]) -> None:
    """Refuse parameters that make other tokens, where trials are judged by the loss of each of them."""
    if found := _changed(model, dimensions, template, OF_THE_TOKENS):
        name, path = found
        raise Unsearchable(
            f"parameter {name}: validationLoss is a loss of each token, and another {OF_THE_TOKENS[path]} has other "
            "tokens, so values could not be compared; set objective.metric: bitsPerByte, or objective.evaluation"
        )


def check_loss(model: type[Model], dimensions: Iterable[Dimension], template: Mapping[str, Any]) -> None:
    """Refuse parameters that make the loss another quantity: the method, its shape, what it compares with."""
    method = value_at(template, "training.method")
    compares = method in [each.value for each in Method if each.needs_reference]
    fields = ["training.method", "training.preference", *(["lora.initialAdapter"] if compares else [])]
    if found := _changed(model, dimensions, template, fields):
        name, path = found
        raise Unsearchable(
            f"parameter {name}: {path} decides what the validation loss is, so values could not be compared; judge by "
            "objective.evaluation, with a task of type Preference"
        )


def check_rows(
    model: type[Model], dimensions: Iterable[Dimension], template: Mapping[str, Any], side: str, folds: int | None
) -> None:
    """Refuse parameters that change the rows of the `validation` or the `test` split, or leave it out."""
    dimensions, split = tuple(dimensions), f"dataset.{side}"
    fields = [f"dataset.{name}" for name in _OF_THE_ROWS]
    if folds is not None or value_at(template, f"{split}.uri") is None:
        fields.append("dataset.training")  # they are a part of it
    if side == "validation":
        fields.append("training.lossOn")
    if side == "test" or folds is None:
        fields.append(split)
        if found := _lacking(dimensions, template, split):
            name, value = found
            raise Unsearchable(
                f"parameter {name}: {json.dumps(value)} has no {side}, which trials are judged by; add it"
            )
    if found := _changed(model, dimensions, template, fields):
        name, path = found
        raise Unsearchable(
            f"parameter {name}: {path} decides which rows the {side} split has, or what of them counts, so values "
            "could not be compared; judge by an evaluation of rows with a uri of their own"
        )


def counted(model: type[Model], spec: Mapping[str, Any], path: str) -> bytes:
    """Return the value of a field as it counts, its defaults filled in, without what changes no result."""
    try:
        value: Any = without_order(model.model_validate(spec, extra="ignore")).to_json()
    except ValidationError:
        value = json.loads(json.dumps(spec))  # that it is invalid is said where that is checked
    value = value_at(value, path)
    if isinstance(value, dict):
        value = {key: each for key, each in value.items() if key not in _NOT_OF_THE_RESULT}
    return canonical_json(_with_one_zero(value))


def _with_one_zero(value: Any) -> Any:
    """Return a JSON value in which 0.0 and -0.0 are written alike."""
    if isinstance(value, Mapping):
        return {key: _with_one_zero(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_with_one_zero(each) for each in value]
    return 0.0 if isinstance(value, float) and value == 0 else value


def _changed(
    model: type[Model], dimensions: Iterable[Dimension], template: Mapping[str, Any], paths: Iterable[str]
) -> tuple[str, str] | None:
    """Return the first parameter whose values make one of some fields differ, and that field."""
    fields = tuple(paths)
    pairs = ((each, path) for each in dimensions for path in fields)
    return next(((each.name, path) for each, path in pairs if _differ(model, each, template, path)), None)


def _differ(model: type[Model], dimension: Dimension, template: Mapping[str, Any], path: str) -> bool:
    values = dimension.values if dimension.values is not None else (dimension.low, dimension.high)
    if not (f"{path}.".startswith(f"{dimension.name}.") or dimension.name.startswith(f"{path}.")):
        return False
    return len({counted(model, with_parameters(template, {dimension.name: value}), path) for value in values}) > 1


def _lacking(dimensions: Iterable[Dimension], template: Mapping[str, Any], path: str) -> tuple[str, Any] | None:
    """Return the first parameter with a value that leaves out a field which the template has."""
    if value_at(template, path) is None:
        return None
    for each in dimensions:
        for value in each.values or ():
            if value_at(with_parameters(template, {each.name: value}), path) is None:
                return each.name, value
    return None

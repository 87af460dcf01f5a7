"""Whether a search can be carried out: what is refused by name before anything is begun, in a cluster and alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError

from ..digest import canonical_json
from ..model import Model
from ..settings import LoraType
from .comparable import counted
from .settings import MAXIMUM_TRIALS, AlgorithmType, Dimension, Unsearchable, size_of, value_at, with_parameters

NOTHING_OF_LORA = (
    "template.spec.lora.type is None: all weights are trained, so there is nothing of lora to search; remove these "
    "parameters, or leave lora.type out of the template"
)
ADAPTERS_JUDGED = (
    "objective.evaluation and final judge adapters, and with template.spec.lora.type: None there are none; remove "
    "them, or leave lora.type out of the template"
)
_OF_ANOTHER_TYPE = "its field has values of another type; write numbers, true and false without quotes, words with"


def check_search(
    dimensions: tuple[Dimension, ...], algorithm: AlgorithmType, model: type[Model], template: Mapping[str, Any]
) -> None:
    """Refuse a space that cannot be searched, and values that their field cannot have, whatever the others are.

    Args:
        dimensions: that are searched.
        algorithm: that shall search them.
        model: of the template.
        template: spec that every trial begins with, as JSON.

    Raises:
        Unsearchable: with the parameter and the reason.
    """
    size = size_of(dimensions)
    if algorithm is AlgorithmType.GRID and size > MAXIMUM_TRIALS:
        raise Unsearchable(
            f"a grid of {size:,.0f} points, and a sweep has {MAXIMUM_TRIALS} trials at most; list fewer values, or "
            "take TPE"
        )
    if value_at(template, "lora.type") == LoraType.NONE and any(
        each.name.startswith("lora.") and each.name != "lora.type" for each in dimensions
    ):
        raise Unsearchable(NOTHING_OF_LORA)
    for dimension in dimensions:
        name, known = dimension.name, dict[bytes, Any]()
        for value in dimension.values or ():
            _check_value(name, value, model, template)
            result = counted(model, with_parameters(template, {name: value}), name)
            if result in known:
                raise Unsearchable(
                    f"parameter {name}: {_shown(known[result])} and {_shown(value)} are the same; remove one"
                )
            known[result] = value


def check_test_split(section: str, asked: bool, template: Mapping[str, Any]) -> None:
    """Refuse that the test split is asked for where the data has none.

    Args:
        section: of a sweep whose tasks may ask for it.
        asked: whether one of them does.
        template: spec that every trial begins with, as JSON.

    Raises:
        Unsearchable: with the section and the field.
    """
    if asked and value_at(template, "dataset.test") is None:
        raise Unsearchable(needs_test_split(section))


def needs_test_split(section: str) -> str:
    """Return the words with which the API server says the same."""
    return f"dataset.split of {section} needs template.spec.dataset.test"


def check_template(
    dimensions: tuple[Dimension, ...],
    model: type[Model],
    template: Mapping[str, Any],
    extra: Literal["ignore"] | None = None,
) -> None:
    """Refuse a template that nothing can be made of, whatever is chosen: a field that its parameters need is not there.

    What two settings forbid each other is said of a trial.

    Args:
        dimensions: that are searched.
        model: of the template.
        template: spec that every trial begins with, as JSON.
        extra: what is done about fields of the template that the model does not have; they are refused if absent.

    Raises:
        Unsearchable: with the field and the reason.
    """
    names = [each.name for each in dimensions]
    first = {each.name: each.value(each.low if each.values is None else 0) for each in dimensions}
    for found in errors_of(model, with_parameters(template, first), extra):
        where = ".".join(str(part) for part in found["loc"])
        if found["type"] != "value_error" and not any(f"{where}.".startswith(f"{name}.") for name in names):
            raise Unsearchable(f"template.spec.{where}: {found['msg']}")


def _check_value(name: str, value: Any, model: type[Model], template: Mapping[str, Any]) -> None:
    try:
        canonical_json(value)
    except ValueError:
        raise Unsearchable(f"parameter {name}: {_shown(value)} is no number of JSON; write a finite one") from None
    spec = with_parameters(template, {name: value})
    for found in errors_of(model, spec):
        where = ".".join(str(part) for part in found["loc"])
        if not f"{where}.".startswith(f"{name}.") or found["type"] == "value_error":
            continue  # what is wrong beside it is said of the template; what two settings forbid each other, of a trial
        inside = where[len(name) + 1 :]
        trouble = "is no field" if found["type"] == "extra_forbidden" else found["msg"]
        raise Unsearchable(f"parameter {name}: {_shown(value)} is refused: {f'{inside} {trouble}'.strip()}")
    try:
        read = model.model_validate(spec, extra="ignore")
    except ValidationError:
        return
    if _of_another_type(value, value_at(read.to_json(), name)):
        raise Unsearchable(f"parameter {name}: {_shown(value)} is refused: {_OF_ANOTHER_TYPE}")


def errors_of(model: type[Model], spec: Mapping[str, Any], extra: Literal["ignore"] | None = None) -> list[Any]:
    """Return what is wrong with a spec, as pydantic tells it."""
    try:
        model.model_validate(spec, extra=extra)
    except ValidationError as error:
        return error.errors(include_url=False, include_input=False, include_context=False)
    return []


def _of_another_type(given: Any, read: Any) -> bool:
    """Tell whether a value is text or truth where its field has a number, or the like: the API server takes none.

    Args:
        given: as a user wrote it.
        read: as the field has it.
    """
    if isinstance(given, Mapping) and isinstance(read, Mapping):
        return any(_of_another_type(each, read.get(name)) for name, each in given.items())
    if isinstance(given, list) and isinstance(read, list):
        return any(_of_another_type(one, other) for one, other in zip(given, read, strict=False))
    if given is None or read is None or isinstance(given, Mapping | list):
        return False
    return isinstance(given, bool) != isinstance(read, bool) or isinstance(given, str) != isinstance(read, str)


def _shown(value: Any) -> str:
    """Return a value as a user wrote it."""
    return json.dumps(value, ensure_ascii=False)

"""Searches: the settings a user writes, and what a point of the search space is.

A point is a tuple of coordinates, one for each parameter: the number itself of a range, the position in the list of
values. A trial is known by the hash of its parameters alone, so whoever asks for it again meets the one that is there.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Any, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from ..digest import canonical_json
from ..model import Model, rules

MAXIMUM_PARAMETERS = 16
MAXIMUM_VALUES = 64
MAXIMUM_TRIALS = 200
STEPS = 1000
"""At least so many numbers there are in a range, in equal steps of its scale."""
NAME_DIGITS = 8
NAME_LENGTH = 32
"""Of a sweep. Trials add up to 13 characters to it, and a FineTuneJob's may have 45."""

SEARCHED: Mapping[str, frozenset[str]] = {
    "baseModel": frozenset({"secretName", "credentials"}),
    "dataset": frozenset({"secretName", "credentials", "validation"}),
    "lora": frozenset(),
    "quantization": frozenset(),
    "training": frozenset({"microBatchSize"}),
}
"""The sections of a spec that define its result, each with those of its fields that do not."""

_PATH = "^[a-z][A-Za-z0-9]*([.][a-z][A-Za-z0-9]*)*$"
IS_A_PATH = "name must be the path of a field, such as training.learningRate; lists have no indices"
Point = tuple[float, ...]


class Unsearchable(ValueError):
    """A search cannot be carried out, and never will; the message says why, and what to do."""


class Scale(StrEnum):
    LINEAR = "Linear"
    LOG = "Log"


class AlgorithmType(StrEnum):
    GRID = "Grid"
    RANDOM = "Random"
    TPE = "TPE"


class Direction(StrEnum):
    MINIMIZE = "Minimize"
    MAXIMIZE = "Maximize"


class ParameterRange(Model):
    """Numbers between two bounds, both included."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.minimum < self.maximum", "minimum must be less than maximum"),
            ("!has(self.scale) || self.scale != 'Log' || self.minimum > 0.0", "scale Log needs a minimum above 0"),
        )
    )

    minimum: float = Field(ge=-1e10, le=1e9, description="minimum, included.")
    maximum: float = Field(ge=-1e9, le=1e10, description="maximum, included.")
    scale: Scale | None = Field(
        default=None, description="scale on which numbers are drawn evenly: Linear (the default) or Log."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not (math.isfinite(self.minimum) and math.isfinite(self.maximum)) or self.minimum >= self.maximum:
            raise ValueError("minimum must be less than maximum")
        if self.scale is Scale.LOG and self.minimum <= 0:
            raise ValueError("scale Log needs a minimum above 0")
        return self


ANY_VALUE = Annotated[Any, Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]


class SweepParameter(Model):
    """A setting that is searched: over a range of numbers, or over a list of values."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["range"]}, {"required": ["values"]}],
            **rules((f"self.name.matches('{_PATH}')", IS_A_PATH)),
        }
    )
    """CEL does not see a field of any type, so `oneOf` is no rule with a message of its own."""

    name: str = Field(
        min_length=1,
        max_length=128,
        description="name of the field of the template's spec, as a path: training.learningRate.",
    )
    range: ParameterRange | None = Field(default=None, description="range of numbers.")
    values: list[ANY_VALUE] | None = Field(
        default=None,
        min_length=1,
        max_length=MAXIMUM_VALUES,
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
        description="values to choose from, as the field has them.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if not re.fullmatch(_PATH, self.name):
            raise ValueError(IS_A_PATH)
        if (self.range is None) == (self.values is None):
            raise ValueError("exactly one of range and values must be set")
        return self


class Algorithm(Model):
    """How the next points are chosen."""

    type: AlgorithmType = Field(
        default=AlgorithmType.TPE,
        description="type is Grid (every combination of values, in order), Random, or TPE, which tries what was good "
        "more often (doi 10.1145/3377930.3389817).",
    )
    seed: int = Field(default=17, ge=0, le=2_147_483_647, description="seed of what is drawn.")


@dataclass(frozen=True)
class Dimension:
    """One parameter, resolved.

    Attributes:
        name: the path of its field.
        values: to choose from; None for a range.
        low, high, log, integer: of a range.
    """

    name: str
    values: tuple[Any, ...] | None = None
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    integer: bool = False

    @property
    def size(self) -> float:
        """Return how many coordinates there are; infinity for a range of real numbers."""
        if self.values is not None:
            return len(self.values)
        return self.high - self.low + 1 if self.integer else math.inf

    def value(self, coordinate: float) -> Any:
        """Return the field's value at a coordinate."""
        if self.values is not None:
            return self.values[int(coordinate)]
        return int(coordinate) if self.integer else float(coordinate)

    def rounded(self, coordinate: float) -> float:
        """Return the nearest coordinate that a trial may have: whole, or of few digits and within the bounds."""
        if self.values is not None or self.integer:
            return round(coordinate)
        span = coordinate * (math.log(self.high) - math.log(self.low)) if self.log else self.high - self.low
        step = span / STEPS
        if step <= 0:
            return coordinate
        return min(max(round(coordinate, -math.floor(math.log10(step))), self.low), self.high)

    @property
    def nameless(self) -> Dimension:
        """Return what whoever chooses points has to know of it: positions stand for the values."""
        return replace(self, name="", values=None if self.values is None else tuple(range(len(self.values))))

    def to_json(self) -> dict[str, Any]:
        """Return it without its name and what its values are."""
        if self.values is not None:
            return {"choices": len(self.values)}
        return {"low": self.low, "high": self.high, "log": self.log, "integer": self.integer}


def size_of(space: Iterable[Dimension]) -> float:
    """Return how many points a space has."""
    return math.prod(each.size for each in space)


def all_begun(maximum: int, algorithm: AlgorithmType, space: Iterable[Dimension]) -> str:
    """Return in words that as many trials were begun as may be; of a grid with more points, that it is not all."""
    size = size_of(space)
    left = f" of the {size:,.0f} points of the grid" if algorithm is AlgorithmType.GRID and size > maximum else ""
    return f"maxTrials = {maximum}{left} were begun"


class TrialState(StrEnum):
    COMPLETE = "Complete"
    RUNNING = "Running"
    PAUSED = "Paused"
    """It is not among the best at its rung, and goes on if that changes."""
    PRUNED = "Pruned"
    """It was stopped before its end, for good."""
    BAD = "Bad"
    """It has no value and never will: too large for the accelerator, refused, failed."""

    @property
    def is_over(self) -> bool:
        """Whether it stays what it is."""
        return self not in (TrialState.RUNNING, TrialState.PAUSED)


@dataclass(frozen=True)
class KnownTrial:
    """A trial as far as the choice of the next depends on it.

    Attributes:
        value: of one that is paused or pruned at the rung that it reached last, None before any.
        rung: number of rungs that it reached; 0 for one that was not stopped at any.
    """

    point: Point
    state: TrialState
    value: float | None = None
    rung: int = 0


@dataclass(frozen=True)
class SuggestionRequest:
    """What the next points depend on; `count` of them are asked for. Values have no meaning here, only positions."""

    space: tuple[Dimension, ...]
    algorithm: AlgorithmType
    seed: int
    direction: Direction
    trials: tuple[KnownTrial, ...] = ()
    count: int = 1

    def to_json(self) -> dict[str, Any]:
        return {
            "space": [each.to_json() for each in self.space],
            "algorithm": self.algorithm.value,
            "seed": self.seed,
            "direction": self.direction.value,
            "trials": [
                {"point": list(each.point), "state": each.state.value, "value": each.value, "rung": each.rung}
                for each in self.trials
            ],
            "count": self.count,
        }

    @classmethod
    def of(cls, document: dict[str, Any]) -> SuggestionRequest:
        return cls(
            tuple(
                Dimension(f"p{number}", values=tuple(range(each["choices"])))
                if "choices" in each
                else Dimension(
                    f"p{number}", low=each["low"], high=each["high"], log=each["log"], integer=each["integer"]
                )
                for number, each in enumerate(document["space"])
            ),
            AlgorithmType(document["algorithm"]),
            int(document["seed"]),
            Direction(document["direction"]),
            tuple(
                KnownTrial(tuple(each["point"]), TrialState(each["state"]), each["value"], each["rung"])
                for each in document["trials"]
            ),
            int(document["count"]),
        )


def parameters_at(space: Sequence[Dimension], point: Point) -> dict[str, Any]:
    """Return the values of a point by the paths of their fields."""
    return {each.name: each.value(coordinate) for each, coordinate in zip(space, point, strict=True)}


def trial_id(parameters: Mapping[str, Any]) -> str:
    """Return the digits by which a trial is known: of its parameters, whatever their order."""
    return hashlib.sha256(canonical_json(dict(parameters))).hexdigest()[:NAME_DIGITS]


def with_parameters(spec: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec as JSON with the fields at some paths replaced; sections that are not there are made."""
    made = dict(spec)
    for path, value in parameters.items():
        *sections, name = path.split(".")
        inner = made
        for section in sections:
            inner[section] = dict(inner.get(section) or {})
            inner = inner[section]
        inner[name] = value
    return made


def value_at(spec: Mapping[str, Any], path: str) -> Any:
    """Return what a spec as JSON has at a path, None where it has nothing."""
    value: Any = spec
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


_KEPT: Mapping[str, Callable[[Any, Any], bool]] = {
    "ge": operator.ge,
    "gt": operator.gt,
    "le": operator.le,
    "lt": operator.lt,
}
_WORDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def space_of(
    parameters: Iterable[SweepParameter],
    model: type[BaseModel],
    sections: Mapping[str, frozenset[str]],
    algorithm: AlgorithmType,
) -> tuple[Dimension, ...]:
    """Return the dimensions of a search, typed and bounded by the fields of a model.

    Args:
        parameters: to resolve.
        model: of the spec that the paths lead into.
        sections: the fields of the model that may be searched, each with those of its fields that may not.
        algorithm: that shall search it.

    Raises:
        Unsearchable: one of them names no field, or cannot have a value; the message says which, and what to do.
    """
    found: list[Dimension] = []
    for each in parameters:
        if any(other.name == each.name for other in found):
            raise Unsearchable(f"parameter {each.name} is there twice; remove one")
        for other in found:
            longer, shorter = sorted((other.name, each.name), key=len, reverse=True)
            if longer.startswith(shorter + "."):
                raise Unsearchable(f"parameter {longer} is a part of {shorter}; search one of them")
        found.append(_dimension(each, _field(each.name, model, sections), algorithm))
    return tuple(found)


def _field(path: str, model: type[BaseModel], sections: Mapping[str, frozenset[str]]) -> Any:
    """Return pydantic's description of the field at a path."""
    first, *_ = parts = path.split(".")
    if first not in sections:
        raise Unsearchable(
            f"parameter {path}: {first} does not define the result; search fields of {', '.join(sorted(sections))}"
        )
    if len(parts) > 1 and parts[1] in sections[first]:
        raise Unsearchable(f"parameter {path}: {parts[1]} does not define the result, so there is nothing to search")
    inner: type[BaseModel] | None = model
    field: Any = None
    for number, part in enumerate(parts):
        if inner is None:
            raise Unsearchable(f"parameter {path}: {'.'.join(parts[:number])} has no fields")
        fields = {each.alias or to_camel(name): each for name, each in inner.model_fields.items()}
        if part not in fields:
            near = difflib.get_close_matches(part, fields, 1, 0.5)
            meant = f"; is {'.'.join([*parts[:number], near[0]])} meant?" if near else ""
            raise Unsearchable(f"parameter {path}: there is no field {'.'.join(parts[: number + 1])}{meant}")
        field = fields[part]
        inner = next((each for each in _types(field.annotation) if _is_model(each)), None)
    return field


def _dimension(parameter: SweepParameter, field: Any, algorithm: AlgorithmType) -> Dimension:
    name, types = parameter.name, _types(field.annotation)
    if parameter.values is not None:
        return Dimension(name, values=tuple(parameter.values))
    span = parameter.range
    assert span is not None
    integer = int in types and float not in types
    if bool in types or not (integer or float in types):
        raise Unsearchable(f"parameter {name} is no number, so it has no range; list its values")
    low, high = span.minimum, span.maximum
    if integer and (low != int(low) or high != int(high)):
        raise Unsearchable(f"parameter {name} is a whole number, and its range is from {low:g} to {high:g}")
    for bound, words in _broken(field, low, high):
        raise Unsearchable(f"parameter {name}: its range is from {low:g} to {high:g}, and it must be {words} {bound:g}")
    if algorithm is AlgorithmType.GRID and not integer:
        raise Unsearchable(f"parameter {name}: a grid has no range of real numbers; list its values, or take TPE")
    return Dimension(name, low=low, high=high, log=span.scale is Scale.LOG, integer=integer)


def _broken(field: Any, low: float, high: float) -> Iterable[tuple[float, str]]:
    """Yield the bounds of a field that a range does not keep, each with its words."""
    for constraint in field.metadata:
        bounds = {name: getattr(constraint, name, None) for name in ("ge", "gt", "le", "lt")}
        for name, bound in bounds.items():
            if bound is not None and not _KEPT[name](low if name[0] == "g" else high, bound):
                yield float(bound), _WORDS[name]


def _types(annotation: Any) -> tuple[Any, ...]:
    """Return the types of an annotation, without None and what is written beside them."""
    arguments = get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _types(arguments[0])
    if arguments and type(None) in arguments:
        return tuple(each for argument in arguments if argument is not type(None) for each in _types(argument))
    return (annotation,)


def _is_model(each: Any) -> bool:
    return isinstance(each, type) and issubclass(each, BaseModel)

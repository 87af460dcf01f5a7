"""From what is known of a run to what trackers keep: parameters, tags and series. No I/O."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..contract.parsing import finite
from ..contract.tracking import TrackingRecord

CURVES = {"curve": "training", "evaluations": "validation"}
"""Where metrics.json has which curve."""
OF_POINTS = ("loss", "gradient_norm", "tokens_per_second", "memory")
LIVE = "live"
"""Before the names of what is told while a run goes on."""
NOT_FIGURES = ("curve", "evaluations", "settings", "machine")
POINTS_MAXIMUM = 20_000
PARAMETERS_MAXIMUM = 500
KEY_LENGTH, VALUE_LENGTH = 250, 500
"""What every version of MLflow takes."""


@dataclass(frozen=True)
class Metric:
    """A value of a series, at an optimizer step."""

    key: str
    value: float
    step: int


@dataclass(frozen=True)
class Told:
    """A run as trackers keep one."""

    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: tuple[Metric, ...]


def told_of(record: TrackingRecord, metrics: Mapping[str, Any]) -> Told:
    """Return what is told of a run; `metrics` is metrics.json of its adapter, empty where it has none."""
    settings = metrics.get("settings")
    found = (
        _live(record, record.step)
        if record.step is not None
        else (*_figures(record, metrics), *_points(record, metrics))
    )
    parameters = {**dict(_leaves(settings if isinstance(settings, dict) else {})), **record.parameters}
    tags = {
        "trimtab.uid": record.run.uid,
        "trimtab.namespace": record.run.namespace,
        "trimtab.name": record.run.name,
        "trimtab.reason": record.reason,
        "trimtab.attempts": str(record.attempts),
        "mlflow.note.content": record.message,
        **({"trimtab.adapter": record.adapter} if record.adapter is not None else {}),
    }
    return Told(
        parameters=dict(sorted(_kept(parameters).items())[:PARAMETERS_MAXIMUM]),
        tags={key: value for key, value in _kept(tags).items() if value},
        metrics=tuple(found),
    )


def _live(record: TrackingRecord, step: int) -> Iterator[Metric]:
    """Yield what is known of a run that goes on: series of their own, for the whole curves are told at its end."""
    for key, value in record.figures.items():
        if (number := finite(value)) is not None:
            yield Metric(_key(f"{LIVE}/{key}"), number, step)


def _figures(record: TrackingRecord, metrics: Mapping[str, Any]) -> Iterator[Metric]:
    """Yield the figures of the whole run, at its last step."""
    steps = metrics.get("steps")
    last = steps if isinstance(steps, int) and not isinstance(steps, bool) and steps >= 0 else _last_step(record)
    found = {key: value for key, value in metrics.items() if key not in NOT_FIGURES}
    for key, value in {**record.figures, **dict(_leaves(found))}.items():
        if (number := finite(value)) is not None:
            yield Metric(_key(key), number, last)


def _points(record: TrackingRecord, metrics: Mapping[str, Any]) -> Iterator[Metric]:
    """Yield both curves: all points where the adapter has them, else those of the object's status."""
    found = [
        Metric(f"{name}/{key}", number, point["step"])
        for side, name in CURVES.items()
        for point in _list(metrics.get(side))
        if isinstance(point, dict) and isinstance(point.get("step"), int) and point["step"] >= 0
        for key in OF_POINTS
        if (number := finite(point.get(key))) is not None
    ]
    if not found and record.curve is not None:
        curve = record.curve
        found = [Metric("training/loss", value, step) for step, value in zip(curve.steps, curve.loss, strict=True)]
        pairs = zip(curve.validation_steps, curve.validation_loss, strict=True)
        found += [Metric("validation/loss", value, step) for step, value in pairs]
    yield from found[:POINTS_MAXIMUM]


def _last_step(record: TrackingRecord) -> int:
    return record.curve.steps[-1] if record.curve is not None and record.curve.steps else 0


def _leaves(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, each in value.items():
        where = f"{path}.{key}" if path else str(key)
        if isinstance(each, dict):
            yield from _leaves(each, where)
        elif each is not None:
            yield where, each


def _kept(values: Mapping[str, Any]) -> dict[str, str]:
    return {_key(key): str(value)[:VALUE_LENGTH] for key, value in values.items()}


def _key(name: str) -> str:
    """Return a key that trackers take: letters, digits and a few signs, and as a path one that says nothing twice."""
    key = "".join(c if c.isascii() and (c.isalnum() or c in "_-. /") else "_" for c in name)[:KEY_LENGTH]
    if posixpath.normpath(key) != key or key.startswith(("/", ".")):
        key = f"_{key.replace('/', '_')}"[:KEY_LENGTH]
    return key


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []

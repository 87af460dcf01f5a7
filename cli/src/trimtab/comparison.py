"""How two objects of a kind differ: settings, figures, and where their curves end. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .errors import Invalid
from .objects import CustomObject, Evaluation, FineTuneJob, mapping, number, text
from .paths import leaves
from .views import Shown

IGNORED = ("suspend", "paused", "ttlSecondsAfterFinished", "activeDeadlineSeconds", "retries.")
"""Settings that do not change what comes out."""


@dataclass(frozen=True)
class Setting:
    """A field of the spec that differs; None: it is not set."""

    path: str
    first: Any
    second: Any


@dataclass(frozen=True)
class Figure:
    """A number of both; None: not known. `low` and `high` are the ends of intervals, of the first and the second."""

    name: str
    first: float | None
    second: float | None
    low: tuple[float | None, float | None] = (None, None)
    high: tuple[float | None, float | None] = (None, None)

    @property
    def change(self) -> float | None:
        """Second minus first."""
        return None if self.first is None or self.second is None else self.second - self.first


@dataclass(frozen=True)
class Comparison(Shown):
    """Two objects, what differs between their settings, and their figures."""

    first: CustomObject
    second: CustomObject
    settings: tuple[Setting, ...]
    figures: tuple[Figure, ...]


def compare(first: CustomObject, second: CustomObject) -> Comparison:
    """Return how two objects differ.

    Raises:
        Invalid: they are of different kinds.
    """
    if first.kind != second.kind:
        raise Invalid(
            f"{first.kind.singular}/{first.name} and {second.kind.singular}/{second.name} are of different kinds",
            "compare two of the same",
        )
    figures = tuple(each for each in _figures(first, second) if each.first is not None or each.second is not None)
    return Comparison(first, second, tuple(_settings(first, second)), figures)


def _settings(first: CustomObject, second: CustomObject) -> Iterator[Setting]:
    ours, theirs = leaves(dict(first.spec)), leaves(dict(second.spec))
    for path in dict.fromkeys((*ours, *theirs)):
        if not path.startswith(IGNORED) and ours.get(path) != theirs.get(path):
            yield Setting(path, ours.get(path), theirs.get(path))


def _figures(first: CustomObject, second: CustomObject) -> Iterator[Figure]:
    if isinstance(first, FineTuneJob) and isinstance(second, FineTuneJob):
        yield from _of_runs(first, second)
    if isinstance(first, Evaluation) and isinstance(second, Evaluation):
        yield from _of_evaluations(first, second)
    yield _figure("accelerator seconds", first.told.get("acceleratorSeconds"), second.told.get("acceleratorSeconds"))


def _of_runs(first: FineTuneJob, second: FineTuneJob) -> Iterator[Figure]:
    yield _figure("steps", first.progress.get("step"), second.progress.get("step"))
    ends = [(each.curve.loss[-1:], each.curve.validation_loss[-1:]) for each in (first, second)]
    for place, name in enumerate(("loss", "validation loss")):
        yield _figure(name, *(curves[place][0][1] if curves[place] else None for curves in ends))
    bests = [min((value for _, value in each.curve.validation_loss), default=None) for each in (first, second)]
    yield _figure("best validation loss", *bests)
    artifacts = [mapping(each.told.get("artifact")) for each in (first, second)]
    yield _figure("test loss", *(each.get("testLoss") for each in artifacts))
    yield _figure("test loss of the base model", *(each.get("baseTestLoss") for each in artifacts))
    data = [mapping(each.told.get("dataset")) for each in (first, second)]
    yield _figure("rows", *(each.get("rows") for each in data))
    yield _figure("tokens", *(each.get("tokens") for each in data))


def _of_evaluations(first: Evaluation, second: Evaluation) -> Iterator[Figure]:
    ours, theirs = (
        {f"{text(each.get('task'))}/{text(each.get('metric'))}": each for each in side.results}
        for side in (first, second)
    )
    for name in dict.fromkeys((*ours, *theirs)):
        left, right = ours.get(name, {}), theirs.get(name, {})
        yield Figure(
            name,
            number(left.get("value")),
            number(right.get("value")),
            (number(left.get("low")), number(right.get("low"))),
            (number(left.get("high")), number(right.get("high"))),
        )


def _figure(name: str, first: Any, second: Any) -> Figure:
    return Figure(name, number(first), number(second))

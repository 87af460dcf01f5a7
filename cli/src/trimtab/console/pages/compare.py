"""Runs or Evaluations side by side: curves in one picture, settings that differ, figures with intervals. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ...comparison import compare
from ...objects import CustomObject, FineTuneJob
from ...paths import leaves
from ...text import clean
from ..addresses import object_path
from ..pictures.curve import Plot, plot
from .job import as_data, series_of

MOST = 6
VALUE_LENGTH = 200


@dataclass(frozen=True)
class Column:
    """One of the objects; `hue` is the colour of its curve."""

    name: str
    href: str
    state: str
    hue: int


@dataclass(frozen=True)
class Figure:
    """A number of each object: what is shown, its interval, and which of them is the lowest or highest of all."""

    name: str
    values: tuple[str, ...]
    intervals: tuple[str, ...]
    changes: tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """A field that is not the same in all; the values as they would be written in YAML."""

    path: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class ComparePage:
    """Attributes:
    names: of objects that can be chosen.
    missing: what was asked for and is not there.
    """

    namespace: str
    plural: str
    columns: tuple[Column, ...]
    settings: tuple[Setting, ...]
    figures: tuple[Figure, ...]
    plot: Plot | None
    curve: tuple[dict[str, object], ...]
    names: tuple[str, ...]
    missing: tuple[str, ...]


def compare_page(
    chosen: Sequence[CustomObject], known: Sequence[CustomObject], namespace: str, plural: str, missing: Sequence[str]
) -> ComparePage:
    """Return the chosen beside each other, as many as fit; `missing` are names that nothing has."""
    chosen = chosen[:MOST]
    series = [
        each
        for hue, run in enumerate(chosen)
        if isinstance(run, FineTuneJob)
        for each in series_of(run, hue, named=True)
    ]
    return ComparePage(
        namespace=namespace,
        plural=plural,
        columns=tuple(
            Column(clean(each.name), object_path(each), clean(each.state), hue) for hue, each in enumerate(chosen)
        ),
        settings=_settings(chosen),
        figures=_figures(chosen),
        plot=plot(series),
        curve=as_data(series),
        names=tuple(sorted(each.name for each in known)),
        missing=tuple(map(clean, missing)),
    )


def _settings(chosen: Sequence[CustomObject]) -> tuple[Setting, ...]:
    """Return fields that differ: what differs between any two, differs between the first and another."""
    if len(chosen) < 2:
        return ()
    paths = dict.fromkeys(each.path for other in chosen[1:] for each in compare(chosen[0], other).settings)
    told = [leaves(dict(each.spec)) for each in chosen]
    return tuple(Setting(clean(path), tuple(_written(each.get(path)) for each in told)) for path in paths)


def _written(value: Any) -> str:
    if value is None:
        return "not set"
    flat = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    shown = clean(flat.removesuffix("\n").removesuffix("\n...").strip())
    return shown if len(shown) <= VALUE_LENGTH else shown[:VALUE_LENGTH] + "…"


def _figures(chosen: Sequence[CustomObject]) -> tuple[Figure, ...]:
    if not chosen:
        return ()
    pairs = [compare(chosen[0], other) for other in chosen]
    by_name = [{each.name: each for each in pair.figures} for pair in pairs]
    names = dict.fromkeys(name for found in by_name for name in found)
    figures = []
    for name in names:
        of_name = [found.get(name) for found in by_name]
        figures.append(
            Figure(
                clean(name),
                tuple("–" if each is None else _number(each.second) for each in of_name),
                tuple("" if each is None else _interval(each.low[1], each.high[1]) for each in of_name),
                tuple("" if each is None or not each.change else _signed(each.change) for each in of_name),
            )
        )
    return tuple(figures)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _signed(value: float) -> str:
    return f"{value:+,.0f}" if abs(value) >= 1000 else f"{value:+.3g}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4g} to {high:.4g}"

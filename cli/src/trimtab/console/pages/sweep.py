"""The page of a sweep: the best so far, every trial with its parameters, and slices through what was tried. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ...kinds import lower_is_better
from ...objects import Body, FineTuneSweep, mapping, number, sequence, text
from ...text import clean, duration
from ..addresses import page_path
from ..pictures.scatter import Scatter, scatter
from .head import Fact, Head, head

SLICES = 6


@dataclass(frozen=True)
class Trial:
    """One point of the search."""

    id: str
    href: str
    state: str
    tone: str
    value: str
    error: str
    reason: str
    cost: str
    parameters: tuple[str, ...]
    best: bool


@dataclass(frozen=True)
class SweepPage:
    """Attributes:
    names: of the parameters, in the order of a trial's.
    compare: address of the comparison of the best trials, empty with fewer than two.
    """

    head: Head
    facts: tuple[Fact, ...]
    best: tuple[Fact, ...]
    best_href: str
    names: tuple[str, ...]
    trials: tuple[Trial, ...]
    history: Scatter | None
    slices: tuple[Scatter, ...]
    importance: tuple[tuple[str, int], ...]
    compare: str
    report: str
    live: bool


def sweep_page(about: FineTuneSweep, now: datetime) -> SweepPage:
    """Return the best of a sweep so far, and all its trials by value and by parameter."""
    parameters = [mapping(each) for each in sequence(about.spec.get("parameters"))]
    told = [mapping(each) for each in sequence(about.told.get("trials"))]
    best = text(about.best.get("id"))
    minimize = minimizes(about)
    valued = [(each, value) for each in told if (value := number(each.get("value"))) is not None]
    ranked = sorted(valued, key=lambda pair: pair[1] if minimize else -pair[1])
    names = [f"{about.name}-{text(each.get('id'))}" for each, _ in ranked[:4]]
    job = text(about.best.get("fineTuneJobName"))
    return SweepPage(
        head=head(about, now),
        facts=tuple(_facts(about, told, minimize)),
        best=tuple(
            Fact(clean(str(name)), clean(_word(value))) for name, value in mapping(about.best.get("parameters")).items()
        ),
        best_href=page_path(about.namespace, "finetunejobs", job) if job else "",
        names=tuple(clean(text(each.get("name"))) for each in parameters),
        trials=tuple(_trial(about, each, parameters, best) for each in told),
        history=scatter(
            "Value of each trial, and the best so far",
            [(place + 1, value, text(each.get("id"))) for place, (each, value) in enumerate(valued)],
            best,
            minimize=minimize,
        ),
        slices=tuple(_slices(parameters, valued, best)),
        importance=tuple(
            (clean(str(name)), round(share * 100))
            for name, told_share in sorted(
                mapping(about.told.get("importance")).items(), key=lambda pair: -(number(pair[1]) or 0)
            )
            if (share := number(told_share)) is not None
        ),
        compare=_compare(about, names) if len(names) > 1 else "",
        report=clean(text(about.told.get("reportURI"))),
        live=not about.ended,
    )


def minimizes(about: FineTuneSweep) -> bool:
    """Return whether less of the objective is better."""
    objective = mapping(about.spec.get("objective"))
    if direction := text(objective.get("direction")):
        return direction == "Minimize"
    metric = text(about.told.get("metric")) or text(mapping(objective.get("evaluation")).get("metric"))
    return "/" not in metric or metric.partition("/")[2] in lower_is_better()


def _compare(about: FineTuneSweep, names: Sequence[str]) -> str:
    from ..addresses import compare_path

    return compare_path(about.namespace, "finetunejobs", names)


def _facts(about: FineTuneSweep, told: Sequence[Body], minimize: bool) -> Iterator[Fact]:
    states = [text(each.get("state")) for each in told]
    most = number(about.spec.get("maxTrials"))
    running = states.count("Running")
    yield Fact(
        "Trials",
        f"{len(states) - running}" + (f" of {most:g}" if most else "") + (f", {running} running" if running else ""),
    )
    yield Fact(
        "Objective",
        clean(text(about.told.get("metric")) or "validationLoss"),
        "less is better" if minimize else "more is better",
    )
    if (value := number(about.best.get("value"))) is not None:
        error = number(about.best.get("standardError"))
        yield Fact("Best", f"{value:.4g}" + (f" ± {error:.2g}" if error else ""))
    if spent := number(about.told.get("acceleratorSeconds")):
        yield Fact("Cost", f"{spent / 3600:.2f} accelerator hours", duration(spent))


def _trial(about: FineTuneSweep, told: Body, parameters: Sequence[Body], best: str) -> Trial:
    id_, state = text(told.get("id")), text(told.get("state"))
    value, error, cost = (number(told.get(name)) for name in ("value", "standardError", "acceleratorSeconds"))
    point = [number(each) for each in sequence(told.get("point"))]
    tones = {"Running": "running", "Complete": "done", "Bad": "failed"}
    return Trial(
        id=clean(id_),
        href=page_path(about.namespace, "finetunejobs", f"{about.name}-{id_}"),
        state=clean(state),
        tone=tones.get(state, "waiting"),
        value="" if value is None else f"{value:.4g}",
        error="" if not error else f"± {error:.2g}",
        reason=clean(text(told.get("reason"))),
        cost="" if cost is None else duration(cost),
        parameters=tuple(
            "" if place >= len(point) else clean(_value(parameter, point[place]))
            for place, parameter in enumerate(parameters)
        ),
        best=bool(best) and id_ == best,
    )


def _value(parameter: Body, coordinate: float | None) -> str:
    """Return what a coordinate of a point means: a number, or a place in the list of values."""
    values = sequence(parameter.get("values"))
    if coordinate is None:
        return ""
    if not values:
        return f"{coordinate:.4g}"
    return _word(values[int(coordinate)]) if 0 <= int(coordinate) < len(values) else ""


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{each}" for each in value.values())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _slices(parameters: Sequence[Body], valued: Sequence[tuple[Body, float]], best: str) -> Iterator[Scatter]:
    for place, parameter in enumerate(parameters[:SLICES]):
        points = []
        for each, value in valued:
            point = sequence(each.get("point"))
            at = number(point[place]) if place < len(point) else None
            if at is not None:
                points.append((at, value, text(each.get("id"))))
        values = [clean(_word(each)) for each in sequence(parameter.get("values"))]
        log = text(mapping(parameter.get("range")).get("scale")) == "Log"
        made = scatter(clean(text(parameter.get("name"))), points, best, log=log, names=values)
        if made is not None:
            yield made

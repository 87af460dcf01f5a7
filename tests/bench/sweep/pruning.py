"""What pruning saves: sweeps decided as the operator decides them, over learning curves from a formula.

The curve of a trial is `final + 1.5 (1 + step / slow) ^ -0.8` and noise: the shape of fine-tuning losses, of which the
final one depends on learning rate and rank, and how slowly it is reached on the learning rate. So curves cross: a trial
with a low rate looks worse at a low rung than it is in the end. One step takes one accelerator second.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from random import Random
from statistics import fmean
from typing import Any

from trimtab_trainer.sweep.suggest import suggest

from tests.unit.domain.test_sweep import TEMPLATE, World

STEPS = 600
STATIONS = (25, 75, 225, STEPS)
"""Three rungs, of which the first may be left out, and the end."""
FIRST_RUNG = 75
TRIALS, PARALLEL = 27, 4
NOISE = 0.01
RANKS = (4, 8, 16, 32, 64)


def loss(rate: float, rank: int, step: int) -> float:
    """Return the validation loss in nats without noise."""
    final = 1.8 + 0.15 * math.log10(rate / 3e-4) ** 2 + 0.02 * abs(math.log2(rank / 16))
    slow = 20 * (3e-4 / rate) ** 0.7
    return float(final + 1.5 * (1 + step / slow) ** -0.8)


@dataclass(frozen=True)
class Searched:
    seconds: int
    best: str
    value: float
    """Of the best trial, without noise."""


Course = Callable[[float, int, str], Mapping[int, tuple[float, float]]]
"""Of a learning rate, a rank and a name: the validation loss at each station, and the accelerator seconds up to it."""


@dataclass(frozen=True)
class Searching:
    """A search whose trials are played: so many, together, each validated at stations, the last of which ends it."""

    course: Course
    stations: tuple[int, ...] = STATIONS
    trials: int = TRIALS
    parallel: int = PARALLEL
    ranks: tuple[int, ...] = RANKS
    rates: tuple[float, float] = (1e-5, 1e-2)


class _Played(World):
    choose = staticmethod(suggest)


def searched(searching: Searching, seed: int, first_rung: int | None) -> tuple[int, str]:
    """Search by chance, so that all ways try the same trials, and play their training; None: each to its end.

    Returns:
        The accelerator seconds of all trials, and the name of the best one's FineTuneJob.
    """
    low, high = searching.rates
    stations = searching.stations
    rule = {"type": "SuccessiveHalving", "reductionFactor": 3, "minimumSteps": first_rung}
    parameters = [
        {"name": "training.learningRate", "range": {"minimum": low, "maximum": high, "scale": "Log"}},
        {"name": "lora.rank", "values": list(searching.ranks)},
    ]
    world = _Played(
        template={**TEMPLATE, "training": {"evaluateEverySteps": stations[0], "maxSteps": stations[-1]}},
        parameters=parameters,
        algorithm={"type": "Random", "seed": seed},
        maxTrials=searching.trials,
        parallelTrials=searching.parallel,
        **({"pruning": rule} if first_rung is not None else {}),
    ).settle()
    world.prepared()
    clock, order = 0.0, count()
    arrivals: list[tuple[float, int, str]] = []
    reached: dict[str, int] = {}
    courses: dict[str, Mapping[int, tuple[float, float]]] = {}
    while world.succeeded == "Unknown":
        waiting = {name for _, _, name in arrivals}
        for name in _running(world):
            if name in waiting:
                continue
            if name not in courses:
                spec = world.jobs[name].spec
                courses[name] = searching.course(spec.training.learning_rate, spec.lora.rank, name)
            step = reached.get(name, 0)
            coming = _next(stations, step)
            took = courses[name][coming][1] - (courses[name][step][1] if step else 0.0)
            heapq.heappush(arrivals, (clock + took, next(order), name))
        clock, _, name = heapq.heappop(arrivals)
        reached[name] = _next(stations, reached.get(name, 0))
        _arrives(world, name, reached[name], searching, courses[name])
    best = world.sweep.status.best
    assert best is not None
    return world.sweep.status.accelerator_seconds, best.fine_tune_job_name


def by_formula(seed: int, first_rung: int | None) -> Searched:
    """Search over curves of the formula."""
    settings: dict[str, tuple[float, int]] = {}

    def course(rate: float, rank: int, name: str) -> Mapping[int, tuple[float, float]]:
        settings[name] = rate, rank
        draw = Random(f"{seed} {name}")
        return {step: (loss(rate, rank, step) + draw.gauss(0, NOISE), float(step)) for step in STATIONS}

    seconds, best = searched(Searching(course), seed, first_rung)
    return Searched(seconds, best, loss(*settings[best], STEPS))


def figures(seeds: int, first_rung: int = FIRST_RUNG) -> dict[str, Any]:
    """Return the share of accelerator seconds saved, how often the winner was the same, and what others cost."""
    pairs = [(by_formula(seed, None), by_formula(seed, first_rung)) for seed in range(seeds)]
    return {
        "pruning_saved_ratio": round(1 - fmean(short.seconds / whole.seconds for whole, short in pairs), 3),
        "pruning_same_winner_ratio": round(fmean(whole.best == short.best for whole, short in pairs), 3),
        "pruning_lost_nats": round(fmean(short.value - whole.value for whole, short in pairs), 5),
    }


def _next(stations: tuple[int, ...], step: int) -> int:
    return next(station for station in stations if station > step)


def _running(world: World) -> list[str]:
    return [name for name, job in world.jobs.items() if not job.spec.suspend and not job.status.conditions]


def _arrives(
    world: World, name: str, step: int, searching: Searching, course: Mapping[int, tuple[float, float]]
) -> None:
    there = [station for station in searching.stations if station <= step]
    values, seconds = [course[station][0] for station in there], round(course[step][1])
    world.tells(
        name,
        curve={"validationSteps": there, "validationLoss": values},
        progress={"step": step, "totalSteps": searching.stations[-1], "validationLoss": values[-1]},
        acceleratorSeconds=seconds,
    )
    if step == searching.stations[-1]:
        world.ends(name, values[-1], seconds=seconds)
    world.settle()
    _rest(world)
    world.prepared()


def _rest(world: World) -> None:
    """Let what was told to wait write its checkpoint, and what was let go on run, until nothing more comes of it."""
    said = {"type": "Succeeded", "status": "Unknown", "reason": "Suspended", "message": ""}
    while True:
        changed = False
        for name, job in list(world.jobs.items()):
            state = job.status.conditions[0].reason if job.status.conditions else ""
            if job.spec.suspend and not state:
                world.tells(name, conditions=[{**said, "lastTransitionTime": "2026-01-01T00:00:00Z"}])
                changed = True
            elif not job.spec.suspend and state == "Suspended":
                world.tells(name, conditions=[])
                changed = True
        if not changed:
            return
        world.settle()

"""The next points of a search: a pure function of what is known, chosen by Optuna."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from asyncio.subprocess import Process
from dataclasses import replace
from statistics import fmean
from typing import Any

import optuna
import pytest
from optuna.samplers._tpe import sampler as optuna_sampler
from trimtab_operator.runtime.rounds import suggesting
from trimtab_operator.runtime.rounds.suggesting import Suggesting
from trimtab_operator.runtime.rounds.workqueue import Retry
from trimtab_trainer.contract.sweeps.settings import (
    AlgorithmType,
    Dimension,
    Direction,
    KnownTrial,
    Point,
    SuggestionRequest,
    TrialState,
)
from trimtab_trainer.sweep.suggest import DRAWN_FIRST, study_of, suggest

RATE = Dimension("rate", low=1e-5, high=1e-2, log=True)
RANK = Dimension("rank", values=(0, 1, 2))
STEPS = Dimension("steps", low=1, high=4, integer=True)


def request(*space: Dimension, **changes: Any) -> SuggestionRequest:
    return replace(SuggestionRequest(space or (RATE, RANK), AlgorithmType.TPE, 7, Direction.MINIMIZE), **changes)


def loss(point: Point) -> float:
    return abs(point[0] - 1e-3) * 1e3 + point[1]


def history(number: int, asked: SuggestionRequest) -> SuggestionRequest:
    """Return the request after so many trials, one after the other."""
    for _ in range(number):
        (point,) = suggest(asked)
        asked = replace(asked, trials=(*asked.trials, KnownTrial(point, TrialState.COMPLETE, loss(point))))
    return asked


def test_the_same_history_gives_the_same_points_in_whatever_order_it_came() -> None:
    known = history(15, request())
    wanted = suggest(replace(known, count=2))
    for seed in range(3):
        shuffled = list(known.trials)
        random.Random(seed).shuffle(shuffled)
        assert suggest(replace(known, trials=tuple(shuffled), count=2)) == wanted


def test_another_seed_gives_other_points() -> None:
    assert suggest(request(seed=1)) != suggest(request(seed=2))


@pytest.mark.parametrize("algorithm", AlgorithmType)
@pytest.mark.parametrize("number", [0, DRAWN_FIRST - 2, 12])
@pytest.mark.parametrize("stopped", [False, True])
def test_points_that_are_asked_for_together_are_those_that_are_asked_for_one_by_one(
    algorithm: AlgorithmType, number: int, stopped: bool
) -> None:
    known = history(number, request(RANK, STEPS, STEPS, algorithm=algorithm))
    others = (KnownTrial((2.0, 4.0, 4.0), TrialState.RUNNING), KnownTrial((2.0, 4.0, 3.0), TrialState.BAD))
    paused = (KnownTrial((2.0, 3.0, 4.0), TrialState.PAUSED, 1.0, rung=1),) if stopped else ()
    known = replace(known, trials=(*known.trials, *others, *paused))
    together = suggest(replace(known, count=5))
    one_by_one = []
    for _ in range(5):
        (point,) = suggest(known)
        one_by_one.append(point)
        known = replace(known, trials=(*known.trials, KnownTrial(point, TrialState.RUNNING)))
    assert together == one_by_one
    assert len(set(together)) == 5


def test_it_is_what_plain_optuna_draws_with_the_same_history() -> None:
    known = history(14, request())
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(
        seed=(7 * 1_000_003 + 14) % (1 << 32), constant_liar=True, n_startup_trials=DRAWN_FIRST
    )
    study = optuna.create_study(sampler=sampler)
    distributions = {
        "p0": optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True),
        "p1": optuna.distributions.CategoricalDistribution([0, 1, 2]),
    }
    for trial in sorted(known.trials, key=lambda each: each.point):
        params = {"p0": trial.point[0], "p1": int(trial.point[1])}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=trial.value))
    plain = study.ask(distributions).params
    assert suggest(known) == [(RATE.rounded(plain["p0"]), plain["p1"])]


def test_tpe_learns_where_it_is_good_and_keeps_off_what_is_bad() -> None:
    known = history(30, request())
    chance = history(30, request(algorithm=AlgorithmType.RANDOM))
    assert min(loss(each.point) for each in known.trials) < min(loss(each.point) for each in chance.trials)
    bad = tuple(KnownTrial(each.point, TrialState.BAD) if each.point[1] == 2 else each for each in known.trials)
    asked = [suggest(replace(known, trials=bad, seed=seed))[0] for seed in range(12)]
    assert sum(point[1] == 2 for point in asked) <= 1, "four of them by chance"


def test_what_was_pruned_is_known_to_optuna_by_how_far_it_was_and_by_its_value_there() -> None:
    """Of trials that were pruned the one that got further is better, then the one with the lower value; bad is last."""
    stopped = (
        KnownTrial((1e-4, 0.0), TrialState.PRUNED, 3.0, rung=1),
        KnownTrial((2e-4, 0.0), TrialState.PAUSED, 5.0, rung=2),
        KnownTrial((3e-4, 0.0), TrialState.PAUSED, 2.0, rung=1),
        KnownTrial((4e-4, 0.0), TrialState.BAD),
        KnownTrial((5e-4, 0.0), TrialState.COMPLETE, 9.0),
        KnownTrial((6e-4, 0.0), TrialState.RUNNING),
    )
    study = study_of(request(), list(stopped))
    below, above = optuna_sampler._split_trials(study, study.trials, 4)
    assert [each.params["p0"] for each in below] == [1e-4, 2e-4, 3e-4, 5e-4]
    assert [each.params["p0"] for each in above] == [4e-4, 6e-4]
    below, _ = optuna_sampler._split_trials(study, study.trials, 2)
    assert [each.params["p0"] for each in below] == [2e-4, 5e-4]
    below, _ = optuna_sampler._split_trials(study, study.trials, 3)
    assert [each.params["p0"] for each in below] == [2e-4, 3e-4, 5e-4]


def test_points_keep_off_where_trials_were_stopped() -> None:
    known = history(30, request())
    stopped = tuple(
        KnownTrial(each.point, TrialState.PRUNED, each.value, rung=1) if each.point[1] == 2 else each
        for each in known.trials
    )
    asked = [suggest(replace(known, trials=stopped, seed=seed))[0] for seed in range(12)]
    assert sum(point[1] == 2 for point in asked) <= 1, "four of them by chance"


def test_trials_that_run_are_supposed_to_be_as_good_as_the_mean_until_they_are_known() -> None:
    known = history(8, request())
    running = KnownTrial((2e-3, 0.0), TrialState.RUNNING)
    values = [each.value or 0.0 for each in known.trials]
    study = study_of(known, [*known.trials, running])
    (found,) = [each for each in study.trials if each.params["p0"] == running.point[0]]
    assert found.value == pytest.approx(fmean(values))
    for trials in (known.trials[:3], (*known.trials, KnownTrial((3e-3, 0.0), TrialState.PAUSED, 1.0, rung=1))):
        states = {each.params["p0"]: each.state for each in study_of(known, [*trials, running]).trials}
        assert states[running.point[0]] is optuna.trial.TrialState.RUNNING


def test_a_grid_is_every_combination_in_order_and_then_no_more() -> None:
    asked = request(RANK, STEPS, algorithm=AlgorithmType.GRID, count=100)
    points = suggest(asked)
    assert points == [(rank, steps) for rank in range(3) for steps in range(1, 5)]
    known = tuple(KnownTrial(point, TrialState.RUNNING) for point in points)
    assert suggest(replace(asked, trials=known)) == []
    assert suggest(replace(asked, trials=known[1:])) == [points[0]]


@pytest.mark.parametrize("algorithm", [AlgorithmType.RANDOM, AlgorithmType.TPE])
def test_a_finite_space_is_tried_to_its_end_and_no_point_twice(algorithm: AlgorithmType) -> None:
    points = suggest(request(RANK, STEPS, algorithm=algorithm, count=100))
    assert len(points) == len(set(points)) == 12


@pytest.mark.parametrize("algorithm", [AlgorithmType.RANDOM, AlgorithmType.TPE])
def test_numbers_are_within_their_bounds_and_of_few_digits(algorithm: AlgorithmType) -> None:
    for rate, steps in suggest(request(RATE, STEPS, algorithm=algorithm, count=20)):
        assert RATE.low <= rate <= RATE.high
        assert float(f"{rate:.4g}") == rate
        assert steps in (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [
        (1e-5, 1.0, True),
        (0.99, 0.9999, True),
        (0.0, 0.3, False),
        (0.9, 0.9999, False),
        (0.0, 2e6, False),
        (2.0, 2.0, False),
    ],
)
def test_a_range_has_a_thousand_numbers_however_narrow_it_is(low: float, high: float, log: bool) -> None:
    """Four digits left a handful between 0.9990 and 0.9999."""
    dimension = Dimension("x", low=low, high=high, log=log)
    numbers = {
        dimension.rounded(low * (high / low) ** (n / 4000) if log else low + (high - low) * n / 4000)
        for n in range(4001)
    }
    assert all(low <= each <= high for each in numbers)
    assert len(numbers) == 1 if low == high else len(numbers) >= 1000
    assert all(len(repr(each)) <= 10 for each in numbers)


def test_a_range_of_more_decades_than_a_quotient_may_have_is_searched() -> None:
    widest = Dimension("x", low=1e-310, high=0.1, log=True)
    points = suggest(request(widest, count=3))
    assert len(set(points)) == 3
    assert all(widest.low <= each <= widest.high for (each,) in points)


def test_more_is_better_where_that_is_asked_for() -> None:
    known = history(25, request())
    turned = tuple(replace(each, value=-(each.value or 0)) for each in known.trials)
    assert suggest(replace(known, trials=turned, direction=Direction.MAXIMIZE)) == suggest(known)


def test_a_request_outlives_the_way_into_another_process() -> None:
    known = replace(history(3, request(RATE, RANK)), count=2)
    stopped = KnownTrial((2e-4, 1.0), TrialState.PAUSED, 2.0, rung=1)
    assert SuggestionRequest.of(replace(known, trials=(stopped,)).to_json()).trials == (stopped,)
    assert suggest(SuggestionRequest.of(json.loads(json.dumps(known.to_json())))) == suggest(known)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with much else to do takes its time."""
    monkeypatch.setattr(suggesting, "SECONDS", 600.0)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    """The processes that the operator has started."""
    start, processes = asyncio.create_subprocess_exec, list[Process]()

    async def noted(*arguments: str, **options: Any) -> Process:
        processes.append(await start(*arguments, **options))
        return processes[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)
    return processes


WRONG = request(Dimension("x", low=2, high=1))


async def test_the_operator_asks_a_process_of_its_own_that_ends_when_nobody_asks(started: list[Process]) -> None:
    asking = Suggesting()
    for _ in range(2):
        assert await asking.points(request(count=2)) == tuple(suggest(request(count=2)))
    assert len(started) == 2
    assert all(each.returncode is not None for each in started)


async def test_searches_that_ask_at_the_same_time_share_a_process_and_get_what_each_gets_alone(
    started: list[Process],
) -> None:
    asked = [
        replace(history(number, request(algorithm=algorithm, seed=number)), count=number + 1)
        for number, algorithm in enumerate([*AlgorithmType] * 4)
        if algorithm is not AlgorithmType.GRID
    ]
    asking = Suggesting()
    found = await asyncio.gather(*(asking.points(each) for each in asked))
    assert found == [tuple(suggest(each)) for each in asked]
    assert len(started) == 1
    assert started[0].returncode is not None


async def test_a_process_that_fails_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Retry, match="no next points: ValueError"):
        await Suggesting().points(WRONG)
    monkeypatch.setattr(suggesting, "SECONDS", 0.01)
    with pytest.raises(Retry, match="within"):
        await Suggesting().points(request())


async def test_a_process_that_warns_at_length_is_heard_all_the_same(
    monkeypatch: pytest.MonkeyPatch, started: list[Process]
) -> None:
    warn = "import runpy, sys; sys.stderr.write('too many warnings' * 100_000 + '\\n'); "
    start = asyncio.create_subprocess_exec

    async def warning(python: str, _: str, module: str, **options: Any) -> Process:
        return await start(python, "-c", f"{warn}runpy.run_module('{module}', run_name='__main__')", **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", warning)
    assert await Suggesting().points(request()) == tuple(suggest(request()))
    with pytest.raises(Retry, match=r"^no next points: ValueError"):
        await Suggesting().points(WRONG)
    assert all(each.returncode is not None for each in started)


async def test_what_a_process_fails_at_is_in_nobody_elses_way(started: list[Process]) -> None:
    asking = Suggesting()
    first, wrong, last = await asyncio.gather(
        asking.points(request(seed=1)), asking.points(WRONG), asking.points(request(seed=2)), return_exceptions=True
    )
    assert (first, last) == (tuple(suggest(request(seed=1))), tuple(suggest(request(seed=2))))
    assert isinstance(wrong, Retry)
    assert len(started) == 2


async def test_who_asks_for_many_points_holds_up_nobody_and_gets_what_is_there(started: list[Process]) -> None:
    asking, ended = Suggesting(), list[str]()

    async def points(name: str, asked: SuggestionRequest) -> tuple[Point, ...]:
        found = await asking.points(asked)
        ended.append(name)
        return found

    many, few = request(RANK, STEPS, STEPS, count=40), request()
    found = list(await asyncio.gather(points("many", many), points("few", few), points("as few", few)))
    assert found == [tuple(suggest(many)), tuple(suggest(few)), tuple(suggest(few))]
    assert ended == ["few", "as few", "many"]
    assert len(started) == 1
    all_there_are = request(RANK, STEPS, count=20)
    assert len(await asking.points(all_there_are)) == 12


async def test_who_no_longer_waits_for_an_answer_leaves_it_to_nobody_else(started: list[Process]) -> None:
    asking = Suggesting()
    gone = asyncio.create_task(asking.points(request(seed=1)))
    waiting = asyncio.create_task(asking.points(request(seed=2)))
    while not started:
        await asyncio.sleep(0)
    gone.cancel()
    assert await waiting == tuple(suggest(request(seed=2)))
    assert gone.cancelled()
    assert all(each.returncode is not None for each in started)


def test_optuna_is_not_loaded_by_the_operator() -> None:
    code = "import sys, trimtab_operator.__main__; print('optuna' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"

"""Which parameters matter: a pure function of the trials, and silent where they are too few."""

from __future__ import annotations

import io
import json
import math
import random
from dataclasses import replace

import pytest
from trimtab_operator.runtime.rounds import suggesting
from trimtab_operator.runtime.rounds.suggesting import Suggesting
from trimtab_trainer.contract.sweeps.settings import (
    AlgorithmType,
    Dimension,
    Direction,
    KnownTrial,
    SuggestionRequest,
    TrialState,
)
from trimtab_trainer.sweep.importance import LEAST_TRIALS, importance, main, named

SPACE = (
    Dimension("rate", low=1e-5, high=1e-2, log=True),
    Dimension("rank", values=(0, 1, 2)),
    Dimension("noise", low=0, high=1),
)


def searched(number: int, seed: int = 0, sign: int = 1) -> SuggestionRequest:
    """Return a search in which the learning rate matters most, the rank a little and the third nothing."""
    draw = random.Random(seed)
    trials = []
    for _ in range(number):
        point = (10 ** draw.uniform(-5, -2), float(draw.randrange(3)), draw.random())
        loss = (math.log10(point[0]) + 3.3) ** 2 + 0.15 * point[1]
        trials.append(KnownTrial(point, TrialState.COMPLETE, sign * loss))
    direction = Direction.MINIMIZE if sign == 1 else Direction.MAXIMIZE
    return SuggestionRequest(SPACE, AlgorithmType.TPE, 7, direction, tuple(trials))


@pytest.mark.parametrize("seed", range(8))
def test_what_matters_comes_first(seed: int) -> None:
    found = importance(searched(30, seed))
    assert max(found, key=lambda position: found[position]) == 0
    assert sum(found.values()) == pytest.approx(1, abs=0.002)


def test_it_depends_on_the_trials_alone_in_whatever_order_they_came() -> None:
    made = searched(20)
    shuffled = list(made.trials)
    random.Random(3).shuffle(shuffled)
    assert importance(replace(made, trials=tuple(shuffled))) == importance(made) != {}
    assert importance(replace(made, seed=1)) == importance(made), "nothing is drawn"


def test_more_is_better_where_that_is_asked_for() -> None:
    assert importance(searched(20, sign=-1)) == importance(searched(20))


def test_what_cannot_be_told_is_absent() -> None:
    assert importance(searched(LEAST_TRIALS - 1)) == {}
    assert importance(searched(LEAST_TRIALS)) != {}
    made = searched(20)
    bad = tuple(replace(each, state=TrialState.BAD, value=None) for each in made.trials[:10])
    assert importance(replace(made, trials=(*bad, *made.trials[10:]))) == {}
    equal = tuple(replace(each, value=1.0) for each in made.trials)
    assert importance(replace(made, trials=equal)) == {}
    alone = tuple(replace(each, point=(each.point[0], 1.0, 0.5)) for each in made.trials)
    assert importance(replace(made, trials=alone)) == {}, "one parameter has all of it, which says nothing"
    fixed = tuple(replace(each, point=(each.point[0], 1.0, each.point[2])) for each in made.trials)
    assert set(importance(replace(made, trials=fixed))) == {0, 2}


def test_names_come_with_the_largest_first() -> None:
    assert list(named({0: 0.1, 1: 0.7, 2: 0.2}, ["a", "b", "c"])) == ["b", "c", "a"]


def test_a_process_answers_what_the_function_does() -> None:
    target, asked = io.StringIO(), [searched(20), searched(3)]
    main(io.StringIO("".join(json.dumps(each.to_json()) + "\n" for each in asked)), target)
    told = [json.loads(line)["importance"] for line in target.getvalue().splitlines()]
    assert [{int(n): share for n, share in each.items()} for each in told] == [importance(each) for each in asked]


async def test_the_operator_asks_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suggesting, "SECONDS", 600.0)  # what a machine with much else to do takes
    assert await Suggesting().importance(searched(20)) == importance(searched(20))
    assert await Suggesting().importance(searched(3)) == {}

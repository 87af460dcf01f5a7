"""Canaries whose requests are drawn at random, looked at every second as the operator does, by the analysis itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from trimtab_agent.documents import Revision
from trimtab_operator.api.adapterrollout import CountMark, Phase, RolloutStep
from trimtab_operator.domain.adapterrollout import AgentTruth, Observed, ServingPod
from trimtab_operator.domain.adapterrollout.canary.analysis import compare
from trimtab_operator.domain.adapterrollout.canary.counts import Counts, Times

from tests.unit.domain.rollout.world import T0, artifact, revision, rollout, sha

Sums = NDArray[np.float64]

NEW, OLD = (Revision(name=revision(letter), uri=f"s3://adapters/{letter}", digest=sha(letter)) for letter in "ba")
SECONDS = 60
"""The canary's time, the default."""
ROLLOUT = rollout({"artifact": artifact("b")}, strategy={"canarySeconds": SECONDS})
NOTHING = {"instance": "i", "requests": 0, "errors": 0, "times": [0.0] * 12}
STEP = RolloutStep(
    digest=NEW.digest,
    uri=NEW.uri,
    phase=Phase.CANARY,
    since=T0.isoformat(),
    canaries=["new"],
    marks=[
        CountMark.model_validate({"pod": "new", "revision": NEW.name, **NOTHING}),
        CountMark.model_validate({"pod": "old", "revision": OLD.name, **NOTHING}),
    ],
)


@dataclass(frozen=True)
class Side:
    """What requests to one revision meet: `median` and `spread` (of the logarithm) of times, in seconds."""

    requests: int
    errors: float = 0.0
    median: float = 2.0
    spread: float = 0.3
    hang: float = 0.0
    leave: float = 0.0


@dataclass(frozen=True)
class Ending:
    """How a canary ended, at which second: taken back for a reason, "Held" or "Promoted"."""

    word: str
    second: int


def play(new: Side, old: Side, dice: np.random.Generator) -> Ending:
    """Let both sides' requests come, evenly over the canary's time, and return what the analysis makes of them."""
    fresh, known = _counts(new, dice), _counts(old, dice)
    step = STEP
    for second in range(1, SECONDS + 1):
        pods = (_pod("new", NEW.name, fresh[second]), _pod("old", OLD.name, known[second]))
        found = compare(Observed(ROLLOUT, pods=pods), step, NEW, OLD, seconds=second)
        if found.worse is not None:
            return Ending(str(found.worse), second)
        if found.look is not None:
            step = step.model_copy(update={"look": found.look})
    return Ending("Held" if found.held is not None else "Promoted", SECONDS)


def rate(words: str, new: Side, old: Side, *, times: int, seed: int) -> float:
    """Return how often canaries end with one of some words."""
    dice = np.random.default_rng(seed)
    return sum(play(new, old, dice).word in words.split() for _ in range(times)) / times


def _pod(uid: str, name: str, counts: Counts) -> ServingPod:
    return ServingPod(uid, uid, truth=AgentTruth(instance="i", counts={name: counts}))


def _counts(side: Side, dice: np.random.Generator) -> list[Counts]:
    """Return what the guard has counted at every second, from 0 on."""
    came = np.sort(dice.uniform(0, SECONDS, side.requests))
    fate = dice.random(side.requests)
    hangs = fate < side.hang
    leaves = ~hangs & (fate < side.hang + side.leave)
    fails = ~hangs & ~leaves & (dice.random(side.requests) < side.errors)
    answered = ~hangs & ~leaves & ~fails
    first = np.log(side.median / 10) + side.spread * dice.standard_normal(side.requests)
    chunk = np.log(side.median / 100) + side.spread * dice.standard_normal(side.requests)
    at = np.searchsorted(came, np.arange(SECONDS + 1))
    sums = [
        _until(at, each) for each in (answered, fails, leaves, hangs, *_logs(first, answered), *_logs(chunk, answered))
    ]
    return [
        Counts(
            requests=int(answers + errors),
            errors=int(errors),
            disconnected=int(left),
            running=int(running),
            first=Times(int(answers), float(first_sum), float(first_squares)),
            chunk=Times(int(answers), float(chunk_sum), float(chunk_squares)),
        )
        for answers, errors, left, running, first_sum, first_squares, chunk_sum, chunk_squares in zip(
            *sums, strict=True
        )
    ]


def _logs(values: Sums, answered: NDArray[np.bool_]) -> tuple[Sums, Sums]:
    return np.where(answered, values, 0.0), np.where(answered, values**2, 0.0)


def _until(at: NDArray[np.int64], values: NDArray[np.generic]) -> Sums:
    return np.concatenate(([0.0], np.cumsum(values.astype(np.float64))))[at]

"""One life of a FineTuneSweep: the real rounds over an API server that goes wrong, with an operator that dies and a
cache that lags; its trials are played. What must hold is looked at after every write, and it ends as in peace.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import product
from random import Random
from typing import Any

from trimtab_operator.api import FineTuneSweepStatus
from trimtab_operator.domain.cluster import Key
from trimtab_operator.domain.kinds import KINDS
from trimtab_operator.domain.views import format_time
from trimtab_operator.runtime.kube import OWN, Body
from trimtab_operator.runtime.rounds.gate import has_ended, summary_of
from trimtab_trainer.contract.sweeps.settings import Point, SuggestionRequest, TrialState

from tests.unit.lives.faults import FaultyApi
from tests.unit.lives.life import OneObject
from tests.unit.lives.trials import RATES, RULE, Trials, holds, trial_of
from tests.unit.runtime.objects import NAMESPACE, finetunejob

T0 = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
KEY = Key("FineTuneSweep", NAMESPACE, "guide")
KIND = KINDS["FineTuneSweep"]
RESOURCE = OWN["FineTuneSweep"]


async def in_order(request: SuggestionRequest) -> tuple[Point, ...]:
    """Choose as a grid does, in an order that follows from the seed: what is known of trials makes no difference."""
    every = list(product(*(range(int(each.size)) for each in request.space)))
    Random(request.seed).shuffle(every)
    known = {each.point for each in request.trials}
    return tuple(tuple(map(float, point)) for point in every if point not in known)[: request.count]


async def all_alike(request: SuggestionRequest) -> dict[int, float]:
    """Take all parameters for equally important."""
    return {position: round(1 / len(request.space), 3) for position in range(len(request.space))}


@dataclass(frozen=True)
class Shape:
    """What is drawn of a sweep."""

    pruned: bool
    folded: bool
    parallel: int
    trials: int
    seed: int
    retain: str

    @classmethod
    def of(cls, random: Random) -> Shape:
        return cls(
            pruned=random.random() < 0.7,
            folded=random.random() < 0.2,
            parallel=random.choice((1, 2, 3)),
            trials=random.choice((3, 4)),
            seed=random.choice((1, 2)),
            retain=random.choice(("All", "Best")),
        )

    @property
    def body(self) -> Body:
        template = finetunejob()["spec"]
        template["training"] = {"evaluateEverySteps": 10, "maxSteps": 40}
        if not self.folded:
            template["dataset"]["validation"] = {"fraction": 0.1}
        return {
            "apiVersion": "trimtab.dev/v1alpha1",
            "kind": "FineTuneSweep",
            "metadata": {"namespace": NAMESPACE, "name": "guide", "uid": "fts-1", "generation": 1},
            "spec": {
                "template": {"spec": template},
                "parameters": [{"name": "training.learningRate", "values": RATES}],
                "algorithm": {"seed": self.seed},
                "maxTrials": self.trials,
                "parallelTrials": self.parallel,
                "retainTrials": self.retain,
                **({"pruning": RULE} if self.pruned else {}),
                **({"folds": 2} if self.folded else {}),
            },
            "status": {},
        }


class Life(OneObject):
    """Everything that happens follows from the seed."""

    def __init__(self, shape: Shape, random: Random) -> None:
        self.random = random
        self.key = KEY
        self.shape = shape
        self.now = T0
        self.api = FaultyApi(random, lambda: self.now)
        self.api.wrote = self._look_at
        self.trials = Trials(self.api, random)
        self.story: list[str] = [str(shape)]
        self.created, self.deleted = Counter[str](), Counter[str]()
        self.operator = self._new_operator()
        self.api.put(RESOURCE, shape.body)

    @property
    def sweep(self) -> Body:
        return self.api.objects[RESOURCE.plural, NAMESPACE, "guide"]

    @property
    def status(self) -> FineTuneSweepStatus:
        return FineTuneSweepStatus.model_validate(self.sweep["status"])

    # what must hold, after every write

    def _look_at(self, before: Body | None, after: Body | None) -> None:
        written = after or before or {}
        if written["kind"] == "FineTuneSweep":
            assert before is None or after is not None, self.story
            if before is not None and after is not None:
                self._what_is_over_stays_as_it_is(before, after)
        if written["kind"] != "FineTuneJob":
            return
        name = written["metadata"]["name"]
        self.created[name] += before is None
        self.deleted[name] += after is None
        assert self.created[name] <= self.deleted[name] + 1, (self.story, name, "twice at once")
        known = {each["id"] for each in self.sweep["status"].get("trials", ())}
        assert trial_of(written) in known, (self.story, name, "was not written down before")
        under_way = {trial_of(job) for job in self.trials.all if holds(job)}
        assert len(under_way) <= self.shape.parallel, (self.story, under_way)

    def _what_is_over_stays_as_it_is(self, before: Body, after: Body) -> None:
        if has_ended(KIND, before):
            assert summary_of(KIND, after) == summary_of(KIND, before), self.story
            assert after["status"]["completionTime"], self.story
        now = {each["id"]: each for each in after["status"].get("trials", ())}
        for was in before["status"].get("trials", ()):
            assert was["id"] in now, self.story
            if TrialState(was["state"]).is_over:
                assert now[was["id"]] == was, self.story
            rungs = was.get("rungValues") or []
            assert (now[was["id"]].get("rungValues") or [])[: len(rungs)] == rungs, self.story

    # the cluster and its people

    def somebody_deletes_a_trial(self) -> None:
        self.trials.one_is_deleted()

    def the_user_suspends(self) -> None:
        self._edit(suspend=self.random.random() < 0.5)

    def _edit(self, **spec: Any) -> None:
        found = self.sweep
        metadata = {**found["metadata"], "generation": found["metadata"]["generation"] + 1}
        self.api.put(RESOURCE, {**found, "metadata": metadata, "spec": {**found["spec"], **spec}})

    def time_goes_by(self) -> None:
        self.now += timedelta(seconds=self.random.choice((1, 10, 100)))

    # the whole

    async def live(self, steps: int) -> FineTuneSweepStatus:
        """Live for some steps, then in peace until it ends."""
        happenings: tuple[Callable[[], None], ...] = (
            *(self.trials.one_gets_on,) * 7,
            self.somebody_deletes_a_trial,
            self.the_user_suspends,
            self.time_goes_by,
            self.the_operator_dies,
        )
        await self.go_through(happenings, steps)
        await self._rest()
        return self.status

    async def _rest(self) -> None:
        if self.sweep["spec"].get("suspend"):
            self._edit(suspend=False)
        for _ in range(120):
            if has_ended(KIND, self.sweep) and self._is_tidy():
                return
            self.story.append(f"peace: {summary_of(KIND, self.sweep).get('message')}")
            for job in self.trials.live:
                self.trials.gets_on_by_far(job, to_a_station=self.shape.pruned)
            self._deliver(self.operator, share=1.0)
            await self.operate(6)
            self.now += timedelta(seconds=61)
        raise AssertionError((self.story, format_time(self.now)))

    def _is_tidy(self) -> bool:
        """Tell whether nothing runs any more, and what shall not be kept is gone."""
        best = self.status.best
        kept = all(best is not None and trial_of(job) == best.id for job in self.trials.all)
        return not any(holds(job) for job in self.trials.all) and (kept or self.shape.retain == "All")


@cache
def in_peace(shape: Shape) -> tuple[frozenset[str], str]:
    """Return the trials, by id, and the winner of a sweep to which nothing happens."""
    status = asyncio.run(Life(shape, Random(0)).live(0))
    assert status.best is not None
    return frozenset(each.id for each in status.trials), status.best.id


def live(seed: int, steps: int) -> None:
    """Play one life."""
    random = Random(f"FineTuneSweep {seed}")
    life = Life(Shape.of(random), random)
    status = asyncio.run(life.live(steps))
    trials, winner = in_peace(replace(life.shape, retain="All"))
    assert {each.id for each in status.trials} == trials, life.story
    assert status.best is not None
    assert status.best.id == winner, (life.story, status.trials)
    assert all(each.state.is_over for each in status.trials), life.story

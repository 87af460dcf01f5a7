"""One life of a FineTuneSweep: the real rounds over an API server that goes wrong, with an operator that dies and a
cache that lags; its trials and its final are played, and what may be edited is. What must hold is looked at after every
write, and it ends as in peace.
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
from statistics import fmean
from typing import Any

from trimtab_operator.api import FineTuneSweepStatus
from trimtab_operator.api.sweep_judging import FinalState
from trimtab_operator.domain.cluster import Key
from trimtab_operator.domain.kinds import KINDS
from trimtab_operator.domain.views import format_time
from trimtab_operator.runtime.kube import OWN, Body
from trimtab_operator.runtime.rounds.gate import has_ended, summary_of
from trimtab_trainer.contract.sweeps.settings import Point, SuggestionRequest, TrialState

from tests.unit.lives.faults import FaultyApi
from tests.unit.lives.finals import FINAL, Finals
from tests.unit.lives.life import OneObject
from tests.unit.lives.trials import RATES, RULE, Trials, holds, trial_of
from tests.unit.runtime.objects import NAMESPACE, finetunejob

T0 = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
KEY = Key("FineTuneSweep", NAMESPACE, "guide")
KIND = KINDS["FineTuneSweep"]
RESOURCE = OWN["FineTuneSweep"]
BUDGETS = (30, 90, 130, 170)
"""Accelerator seconds; a trial without folds takes 40 of them."""


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
    """What is drawn of a sweep. `finalists`: 0 for one without a final; `budget`: None for one without a limit."""

    pruned: bool
    folded: bool
    parallel: int
    trials: int
    seed: int
    retain: str
    finalists: int
    budget: int | None

    @classmethod
    def of(cls, random: Random) -> Shape:
        return cls(
            pruned=random.random() < 0.7,
            folded=random.random() < 0.2,
            parallel=random.choice((1, 2, 3)),
            trials=random.choice((3, 4)),
            seed=random.choice((1, 2)),
            retain=random.choice(("All", "Best")),
            finalists=random.choice((0, 1, 2, 3)),
            budget=random.choice((None, None, *BUDGETS)),
        )

    @property
    def body(self) -> Body:
        template = finetunejob()["spec"]
        template["training"] = {"evaluateEverySteps": 10, "maxSteps": 40}
        if not self.folded:
            template["dataset"]["validation"] = {"fraction": 0.1}
        if self.finalists:
            template["dataset"]["test"] = {"fraction": 0.1}
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
                **({"final": {"topTrials": self.finalists, **FINAL}} if self.finalists else {}),
                **({"budget": {"acceleratorSeconds": self.budget}} if self.budget is not None else {}),
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
        self.finals = Finals(self.api, monotone=shape.pruned)
        self.story: list[str] = [str(shape)]
        self.created, self.deleted = Counter[str](), Counter[str]()
        self.dropped_after_the_end = set[str]()
        self.most_parallel = max(shape.parallel, shape.finalists)
        self.had_budget = shape.budget is not None
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
                self._what_is_begun_may_be(before, after)
        if written["kind"] not in ("FineTuneJob", "Evaluation"):
            return
        name = f"{written['kind']} {written['metadata']['name']}"
        self.created[name] += before is None
        self.deleted[name] += after is None
        if after is None and has_ended(KIND, self.sweep):
            self.dropped_after_the_end.add(name)
        assert self.created[name] <= self.deleted[name] + 1, (self.story, name, "twice at once")
        told = self.sweep["status"]
        if written["kind"] == "Evaluation":
            assert trial_of(written) in {each["id"] for each in told["final"]}, (self.story, name, "of no finalist")
            return
        known = {each["id"] for each in told.get("trials", ())}
        assert trial_of(written) in known, (self.story, name, "was not written down before")
        under_way = {trial_of(job) for job in self.trials.all if holds(job)}
        assert len(under_way) <= self.most_parallel, (self.story, under_way)

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
        if finalists := before["status"].get("final"):
            entries = after["status"]["final"]
            assert [each["id"] for each in entries] == [each["id"] for each in finalists], self.story
            for was, entry in zip(finalists, entries, strict=True):
                assert was == entry or FinalState(was["state"]) is FinalState.RUNNING, self.story
            assert len(now) == len(before["status"]["trials"]), (self.story, "begun after the end of the search")

    def _what_is_begun_may_be(self, before: Body, after: Body) -> None:
        """Compare trials that are begun, or go on, with the limits as they are now."""
        there = {each["id"]: each for each in before["status"].get("trials", ())}
        trials, spec = after["status"].get("trials", []), after["spec"]
        running = [each for each in trials if each["state"] == TrialState.RUNNING]
        fresh = [each for each in trials if each["id"] not in there]
        goes_on = [each for each in running if there.get(each["id"], each)["state"] == TrialState.PAUSED]
        if fresh:
            assert len(trials) <= spec["maxTrials"], self.story
        if fresh or goes_on:
            assert not spec.get("suspend"), self.story
            assert len(running) <= spec["parallelTrials"], self.story
        budget = (spec.get("budget") or {}).get("acceleratorSeconds")
        known = [each for each in trials if each["id"] in there]
        costs = [_seconds(each) for each in known if _seconds(each) and _is_judged(each)]
        if fresh and budget is not None and costs:
            one = fmean(costs)
            held = sum(max(_seconds(each), one) for each in known if each["state"] == TrialState.RUNNING)
            spent = sum(_seconds(each) for each in known if each["state"] != TrialState.RUNNING)
            assert spent + held + one * len(fresh) <= budget, (self.story, spent, held, one, budget)

    # the cluster and its people

    def one_gets_on(self) -> None:
        if judged := self.finals.live:
            self.finals.gets_on(self.random.choice(judged))
        self.trials.one_gets_on()

    def somebody_deletes_a_trial(self) -> None:
        if self.finals.all and self.random.random() < 0.5:
            self.finals.drop(self.random.choice(self.finals.all))
        else:
            self.trials.one_is_deleted()

    def the_user_suspends(self) -> None:
        self._edit(suspend=self.random.random() < 0.5)

    def the_user_edits_a_limit(self) -> None:
        """Raise one, or lower it."""
        field = self.random.choice(("maxTrials", "parallelTrials", "budget"))
        number = self.random.choice((1, 2, 3, 4, 5, 6, 7))
        self.story.append(f"  {field}: {number}")
        if field == "maxTrials":
            self._edit(maxTrials=number)
        elif field == "parallelTrials":
            self.most_parallel = max(self.most_parallel, number)
            self._edit(parallelTrials=number)
        elif number > len(BUDGETS):
            self._edit(budget=None)
        else:
            self.had_budget = True
            self._edit(budget={"acceleratorSeconds": BUDGETS[number - 1]})

    def _edit(self, **spec: Any) -> None:
        found = self.sweep
        metadata = {**found["metadata"], "generation": found["metadata"]["generation"] + 1}
        made = {key: value for key, value in {**found["spec"], **spec}.items() if value is not None}
        self.api.put(RESOURCE, {**found, "metadata": metadata, "spec": made})

    def time_goes_by(self) -> None:
        self.now += timedelta(seconds=self.random.choice((1, 10, 100)))

    # the whole

    async def live(self, steps: int) -> FineTuneSweepStatus:
        """Live for some steps, then in peace until it ends."""
        happenings: tuple[Callable[[], None], ...] = (
            *(self.one_gets_on,) * 8,
            self.somebody_deletes_a_trial,
            self.the_user_suspends,
            self.the_user_edits_a_limit,
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
            for evaluation in self.finals.live:
                self.finals.gets_on(evaluation)
            self._deliver(self.operator, share=1.0)
            await self.operate(6)
            self.now += timedelta(seconds=61)
        raise AssertionError((self.story, format_time(self.now)))

    def _is_tidy(self) -> bool:
        """Tell whether nothing runs any more, and what shall not be kept is gone."""
        best, children = self.status.best, [*self.trials.all, *self.finals.all]
        kept = best is None or all(trial_of(each) == best.id for each in children)
        runs = any(holds(job) for job in self.trials.all) or any(self.finals.live)
        return not runs and (kept or self.shape.retain == "All")


def _seconds(trial: Body) -> int:
    return int(trial.get("acceleratorSeconds") or 0)


def _is_judged(trial: Body) -> bool:
    stopped = trial["state"] != TrialState.RUNNING and bool(trial.get("rungValues"))
    return trial.get("value") is not None or stopped


@dataclass(frozen=True)
class End:
    """What became of a sweep. Which trials are trained to their end beside the best may depend on who was faster."""

    trials: frozenset[str]
    reason: str
    winner: str | None
    final: tuple[tuple[str, FinalState, float | None], ...]

    @classmethod
    def of(cls, life: Life, status: FineTuneSweepStatus) -> End:
        entries = status.final if not life.shape.pruned else ()
        return cls(
            frozenset(each.id for each in status.trials),
            summary_of(KIND, life.sweep)["reason"],
            status.best.id if status.best is not None else None,
            tuple((each.id, each.state, each.value) for each in entries),
        )


@cache
def in_peace(shape: Shape) -> End:
    """Return the end of a sweep to which nothing happens."""
    life = Life(shape, Random(0))
    return End.of(life, asyncio.run(life.live(0)))


def live(seed: int, steps: int) -> None:
    """Play one life. It ends as one that was to have as many trials from the start, and may cost what it wants."""
    random = Random(f"FineTuneSweep {seed}")
    life = Life(Shape.of(random), random)
    status = asyncio.run(life.live(steps))
    end = End.of(life, status)
    peace = in_peace(replace(life.shape, trials=len(status.trials), retain="All", budget=None))
    if life.had_budget and life.shape.pruned:  # those that wait at a rung may not go on
        values = {each.id: each.value for each in status.trials if each.value is not None}
        assert end.winner == min(values, key=values.__getitem__, default=None), (life.story, status.trials)
        assert end.trials == peace.trials, life.story
    else:
        assert end == peace, (life.story, status.trials)
    assert all(each.state.is_over for each in status.trials), life.story
    if life.shape.finalists and end.reason == "Completed":
        there = life.created["Evaluation guide"] > life.deleted["Evaluation guide"]
        assert there or "Evaluation guide" in life.dropped_after_the_end, (life.story, "the winner has no Evaluation")

"""What has ended is not deleted by its TTL before those who wait for it have read it, however short that is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from trimtab_operator.domain.cluster import Key
from trimtab_operator.domain.views import SWEEP_LABEL
from trimtab_operator.runtime.kube import OWN, Body

from tests.component.operator.test_sweep import sweep
from tests.unit.domain.makers import adapterrollout, finished, sha
from tests.unit.runtime.objects import NAMESPACE, adapterexport, evaluation, finetunejob
from tests.unit.runtime.rounds import Rounds

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
ENDED = "2026-01-05T11:00:00Z"
SUCCEEDED: Body = {
    "type": "Succeeded",
    "status": "True",
    "reason": "Completed",
    "message": "",
    "lastTransitionTime": ENDED,
}


class World:
    """A cluster of objects of our kinds, an hour after one of them was to be deleted."""

    def __init__(self, *bodies: Body) -> None:
        self.now = NOW
        self.rounds = Rounds(lambda: self.now)
        for body in bodies:
            self.has(body)

    def has(self, body: Body) -> None:
        resource = OWN[body["kind"]]
        self.rounds.cache.owners[body["kind"]].put(self.rounds.api.put(resource, body))

    def body(self, kind: str, name: str = "demo") -> Body | None:
        return self.rounds.api.objects.get((OWN[kind].plural, NAMESPACE, name))

    async def look(self, kind: str, name: str = "demo") -> float | None:
        """Do rounds about an object until nothing is left to do; return in how many seconds it is looked at again."""
        for _ in range(10):
            if (again := await self.rounds.round(Key(kind, NAMESPACE, name))) != 0:
                return again
        raise AssertionError("the rounds never end")


def ended(body: Body, **status: Any) -> Body:
    spec = {**body["spec"], "ttlSecondsAfterFinished": 0}
    conditions = [SUCCEEDED, *status.pop("conditions", [])]
    status = {"observedGeneration": 1, "completionTime": ENDED, **status, "conditions": conditions}
    return {**body, "spec": spec, "status": status}


def trained() -> Body:
    told = finished().status.to_json()
    return ended(finetunejob(), **{name: told[name] for name in told if name not in ("conditions", "completionTime")})


def passed(reason: str = "Passed") -> Body:
    verdict = {**SUCCEEDED, "type": "Passed", "reason": reason}
    target = {"uri": "s3://adapters/demo/adapters/a", "digest": sha("a")}
    body = ended(evaluation(), conditions=[verdict], target=target)
    return {**body, "metadata": {**body["metadata"], "labels": {"app": "guide"}}}


def rollout(source: Body, **status: Any) -> Body:
    body = adapterrollout().to_json()
    metadata = {**body["metadata"], "uid": "arl-1", "resourceVersion": "1", "generation": 1}
    spec = {**body["spec"], "source": source}
    return {**body, "kind": "AdapterRollout", "metadata": metadata, "spec": spec, "status": status}


FOLLOWS: Body = {"follow": {"selector": {"matchLabels": {"app": "guide"}}}}


@pytest.mark.parametrize("reader", [evaluation(), adapterexport()], ids=lambda body: str(body["kind"]))
async def test_a_finetunejob_outlives_its_ttl_until_who_waits_for_it_has_read_it(reader: Body) -> None:
    world = World(trained(), reader)
    assert await world.look("FineTuneJob") == 30
    assert world.body("FineTuneJob") is not None
    await world.look(reader["kind"])
    found = world.body(reader["kind"])
    assert found is not None
    assert "resolved" in found["status"]
    world.now += timedelta(seconds=30)
    await world.look("FineTuneJob")
    assert world.body("FineTuneJob") is None
    await world.look(reader["kind"])
    (condition, *_) = (world.body(reader["kind"]) or {})["status"]["conditions"]
    assert condition["status"] == "Unknown", "it goes on without"


async def test_nobody_keeps_a_finetunejob_who_waits_for_another_or_has_ended() -> None:
    world = World(
        trained(), evaluation("x", "ftev-x", waits_for="other"), evaluation("y", "ftev-y", conditions=[SUCCEEDED])
    )
    await world.look("FineTuneJob")
    assert world.body("FineTuneJob") is None


STAYS: dict[str, Body] = {
    "the source of a rollout": rollout({"evaluationName": "demo"}),
    "to be taken by one that follows": rollout(FOLLOWS),
    "newer than what was taken": rollout(
        FOLLOWS, served={"uri": "s3://x", "digest": sha("b"), "passedTime": "2026-01-05T10:59:59Z"}
    ),
    "exported": {**adapterexport(), "spec": {**adapterexport()["spec"], "source": {"evaluationName": "demo"}}},
}


@pytest.mark.parametrize("reader", STAYS.values(), ids=STAYS)
async def test_an_evaluation_outlives_its_ttl_as_long_as_somebody_needs_it(reader: Body) -> None:
    world = World(passed(), reader)
    assert await world.look("Evaluation") == 30
    assert world.body("Evaluation") is not None


NAMES, FOLLOWER = rollout({"evaluationName": "demo"}), rollout(FOLLOWS)
GOES: dict[str, tuple[str, Body]] = {
    "taken by the one that follows": (
        "Passed",
        rollout(FOLLOWS, served={"uri": "s3://x", "digest": sha("a"), "passedTime": ENDED}),
    ),
    "of what is served since another one": (
        "Passed",
        rollout(FOLLOWS, served={"uri": "s3://x", "digest": sha("a"), "passedTime": "2026-01-05T10:00:00Z"}),
    ),
    "overtaken by a newer one": (
        "Passed",
        rollout(FOLLOWS, step={"uri": "s3://x", "digest": sha("b"), "passedTime": "2026-01-05T11:30:00Z"}),
    ),
    "taken back": (
        "Passed",
        rollout(FOLLOWS, rejected=[{"digest": sha("a"), "generation": 1, "reason": "ErrorRatio", "message": "worse"}]),
    ),
    "without thresholds": ("NoThresholds", rollout(FOLLOWS)),
    "by one that is being deleted": (
        "Passed",
        {**NAMES, "metadata": {**NAMES["metadata"], "deletionTimestamp": ENDED, "finalizers": ["x/y"]}},
    ),
    "followed by one that is being deleted": (
        "Passed",
        {**FOLLOWER, "metadata": {**FOLLOWER["metadata"], "deletionTimestamp": ENDED, "finalizers": ["x/y"]}},
    ),
    "of other labels": ("Passed", rollout({"follow": {"selector": {"matchLabels": {"app": "other"}}}})),
}


@pytest.mark.parametrize(("reason", "reader"), GOES.values(), ids=GOES)
async def test_an_evaluation_goes_once_nobody_needs_it(reason: str, reader: Body) -> None:
    world = World(passed(reason), reader)
    await world.look("Evaluation")
    assert world.body("Evaluation") is None


def searched(*bodies: Body, **spec: Any) -> World:
    """Return a search that has ended, with what it made and those who read that."""
    search = ended(sweep(NAMESPACE, **spec))
    search["metadata"] |= {"uid": "uid-guide", "generation": 1, "resourceVersion": "1"}
    return World(search, *bodies)


def of_the_sweep(body: Body) -> Body:
    labels = {**body["metadata"].get("labels", {}), SWEEP_LABEL: "guide"}
    owners = [{"kind": "FineTuneSweep", "name": "guide", "uid": "uid-guide", "controller": True}]
    return {**body, "metadata": {**body["metadata"], "labels": labels, "ownerReferences": owners}}


TRIAL = finetunejob("guide-1234abcd", conditions=[SUCCEEDED])
UNENDED = finetunejob("guide-1234abcd")
READER = evaluation(waits_for="guide-1234abcd")
GOING = {**READER["metadata"], "deletionTimestamp": ENDED}
OF_A_SWEEP: dict[str, tuple[bool, tuple[Body, ...]]] = {
    "an Evaluation waits for a trial": (True, (of_the_sweep(TRIAL), READER)),
    "one of its own, which never began": (False, (of_the_sweep(TRIAL), of_the_sweep(READER))),
    "one that is being deleted": (False, (of_the_sweep(TRIAL), {**READER, "metadata": GOING})),
    "one waits for a trial that was pruned": (False, (of_the_sweep(UNENDED), READER)),
    "one waits for what only says that it is a trial": (
        False,
        ({**TRIAL, "metadata": {**TRIAL["metadata"], "labels": {SWEEP_LABEL: "guide"}}}, READER),
    ),
    "a rollout follows the winner": (True, (of_the_sweep(passed()), rollout(FOLLOWS))),
    "a rollout names the winner's Evaluation": (True, (of_the_sweep(passed()), rollout({"evaluationName": "demo"}))),
    "nobody reads the winner": (False, (of_the_sweep(passed()),)),
}


async def test_an_evaluation_goes_that_no_rollout_can_take() -> None:
    """It was compared with what is not served any more, or is about a whole model."""
    served = {"uri": "s3://x", "digest": sha("b"), "passedTime": "2026-01-05T10:59:59Z"}
    body, model = passed(), trained()
    body["status"]["baseline"] = {"uri": "s3://x", "digest": sha("c")}
    world = World(body, rollout(FOLLOWS, served=served))
    await world.look("Evaluation")
    assert world.body("Evaluation") is None
    del model["status"]["artifact"]["rank"]
    model["status"]["artifact"]["digest"] = sha("a")
    world = World(passed(), model, rollout(FOLLOWS))
    await world.look("Evaluation")
    assert world.body("Evaluation") is None


@pytest.mark.parametrize(("stays", "bodies"), OF_A_SWEEP.values(), ids=OF_A_SWEEP)
async def test_a_sweep_outlives_its_ttl_until_who_waits_for_what_it_made_has_read_it(
    bodies: tuple[Body, ...], *, stays: bool
) -> None:
    world = searched(*bodies)
    again = await world.look("FineTuneSweep", "guide")
    assert (world.body("FineTuneSweep", "guide") is not None) == stays
    assert not stays or again == 30


def events(world: World) -> list[str]:
    return [body["note"] for place, body in world.rounds.api.objects.items() if place[0] == "events"]


def posted(world: World) -> int:
    return sum(call[:2] == ("create", "events") for call in world.rounds.api.calls)


def waits(who: str) -> str:
    what = "its ttlSecondsAfterFinished is over, and it is deleted once it is read by those that wait for it"
    return f"{what}: {who}; let them go on, name another, or delete them"


OUTLIVES: dict[str, tuple[str, str, Callable[[], World]]] = {
    "a FineTuneJob": ("FineTuneJob", "Evaluation demo", lambda: World(trained(), evaluation())),
    "an Evaluation": ("Evaluation", "AdapterRollout guide", lambda: World(passed(), rollout(FOLLOWS))),
    "an Evaluation that a rollout names": (
        "Evaluation",
        "AdapterExport demo, AdapterRollout guide (as long as it names Evaluation demo)",
        lambda: World(passed(), STAYS["exported"], NAMES),
    ),
    "a sweep": ("FineTuneSweep", "Evaluation demo", lambda: searched(of_the_sweep(TRIAL), READER)),
    "of many": (
        "FineTuneJob",
        "Evaluation e0, Evaluation e1, Evaluation e2, Evaluation e3, Evaluation e4 and 2 more",
        lambda: World(trained(), *(evaluation(f"e{number}", f"uid-{number}") for number in range(7))),
    ),
}


@pytest.mark.parametrize(("kind", "who", "made"), OUTLIVES.values(), ids=OUTLIVES)
async def test_who_is_waited_for_is_told_once_an_hour_as_long_as_they_are_the_same(
    kind: str, who: str, made: Callable[[], World]
) -> None:
    name, world = "guide" if kind == "FineTuneSweep" else "demo", made()
    for _ in range(3):
        await world.look(kind, name)
        world.now += timedelta(seconds=30)
    assert events(world) == [waits(who)]
    assert posted(world) == 1
    world.now += timedelta(hours=1)
    await world.look(kind, name)
    assert posted(world) == 2


async def test_who_else_is_waited_for_is_told_after_ten_minutes() -> None:
    world = World(trained(), evaluation())
    await world.look("FineTuneJob")
    world.has(evaluation("more", "ftev-2"))
    for minutes in (9, 1):
        assert events(world) == [waits("Evaluation demo")]
        world.now += timedelta(minutes=minutes)
        await world.look("FineTuneJob")
    assert events(world) == [waits("Evaluation demo"), waits("Evaluation demo, Evaluation more")]


async def test_a_sweep_that_is_kept_asks_nobody_again_and_again() -> None:
    world = searched(of_the_sweep(TRIAL), READER)
    body = world.body("FineTuneSweep", "guide") or {}
    del body["spec"]["ttlSecondsAfterFinished"]
    world.has(body)
    assert await world.look("FineTuneSweep", "guide") is None
    world.has({**body, "spec": {**body["spec"], "ttlSecondsAfterFinished": 3610}})
    assert await world.look("FineTuneSweep", "guide") == 10
    world.has({**body, "spec": {**body["spec"], "retainTrials": "Best"}})
    assert await world.look("FineTuneSweep", "guide") == 30

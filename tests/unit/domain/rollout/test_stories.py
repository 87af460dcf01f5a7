"""AdapterRollouts told as stories: what every pod serves, what the status says, and what is never sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from trimtab_operator.api.adapterrollout import AdapterRollout, AdapterRolloutStatus, Phase, RevisionState
from trimtab_operator.domain.adapterrollout import plan
from trimtab_operator.domain.adapterrollout.claims import Claim
from trimtab_operator.domain.adapterrollout.delivery.documents import retired
from trimtab_operator.domain.adapterrollout.observed import Refusal
from trimtab_operator.domain.adapterrollout.status import fitted

from tests.unit.domain.rollout.world import NAME, Counted, World, artifact, evaluation, revision, sha

A, B, C = revision("a"), revision("b"), revision("c")
FOLLOW = {"follow": {"selector": {"matchLabels": {"app": "guide"}}}}
LABELS = {"app": "guide"}


def serving(letter: str = "a", pods: int = 3, **spec: Any) -> World:
    """Return a world at rest, in which every pod serves one adapter."""
    world = World({"artifact": artifact(letter)}, pods, **spec).after(5)
    world.after(100)
    assert world.condition() == ("True", "Serving")
    return world


def second(world: World, letter: str = "b") -> World:
    """Ask for another adapter, and let it come to its canary."""
    world.edit(source={"artifact": artifact(letter)}).after(2)
    return world


def rejected(world: World) -> list[tuple[str, str, int]]:
    return [(each.digest[7], each.reason, each.generation) for each in world.rollout.status.rejected]


def test_the_first_rollout_proves_it_on_one_pod_then_everywhere_and_only_then_moves_the_alias() -> None:
    world = World({"artifact": artifact("a")})
    world.operate()
    assert [sorted(world.held(agent)) for agent in world.agents] == [[A], [], []]
    assert world.condition() == ("False", "Loading")
    world.agents[0].step()
    world.operate()
    assert [sorted(world.held(agent)) for agent in world.agents] == [[A], [A], [A]]
    assert world.aliases == [{}, {}, {}]
    world.after(3)
    assert world.aliases == [{A: 100}] * 3
    assert world.condition() == ("True", "Serving")
    assert world.condition("Verified")[0] == "True"
    assert world.rollout.status.pods.to_json() == {"desired": 3, "updated": 3, "ready": 3}
    assert world.events == ["Loading", "Serving"]


def test_at_rest_nothing_is_written_or_sent_and_a_change_or_a_minute_calls_for_the_next_look() -> None:
    world = serving()
    writes, made = world.writes, plan(world.observed(), world.now)
    assert (made.documents, made.mounted, made.look_again_seconds) == ((), None, 60.0)
    world.after(1000)
    assert world.writes == writes


def test_while_what_was_served_drains_nothing_is_looked_at_before_its_time_is_over() -> None:
    """Thousands of rollouts that have just moved were looked at each second, to find that half a minute is not over."""
    world = World({"artifact": artifact("a")}, strategy={"canarySeconds": 0, "drainSeconds": 40}).after(5)
    assert world.condition() == ("True", "Serving")
    step = world.rollout.status.step
    assert step is not None
    assert step.phase is Phase.DRAINING
    looks = 0
    while world.rollout.status.step is not None:
        wait = plan(world.observed(), world.now).look_again_seconds
        assert wait is not None
        world.now += timedelta(seconds=wait)
        world.operate()
        looks += 1
    assert looks == 1
    assert plan(world.observed(), world.now).look_again_seconds == 60.0


@pytest.mark.parametrize("draining", [False, True])
def test_a_document_that_was_refused_is_tried_again_in_its_time_and_not_after_a_minute(draining: bool) -> None:
    strategy = {"canarySeconds": 0, "drainSeconds": 300 if draining else 0}
    world = World({"artifact": artifact("a")}, strategy=strategy).after(5)
    assert (world.condition(), world.rollout.status.step is not None) == (("True", "Serving"), draining)
    agent, share = world.agents[0], world.agents[0].shares[NAME]
    left = share.revisions[0].model_copy(update={"name": C, "digest": sha("c")})
    agent.shares[NAME] = share.model_copy(update={"revisions": (*share.revisions, left)})
    sent = next(each.share for each in plan(world.observed(), world.now).documents if each.uid == agent.uid)
    agent.refusal = Refusal("Unreachable", "no answer", sent, world.now + timedelta(seconds=8))
    made = plan(world.observed(), world.now)
    assert (made.documents, made.look_again_seconds) == ((), 8.0)
    world.now += timedelta(seconds=8)
    assert [each.uid for each in plan(world.observed(), world.now).documents] == [agent.uid]


def test_a_second_revision_takes_canary_traffic_for_its_time_and_then_everything() -> None:
    world = second(serving())
    assert world.condition() == ("False", "Canary")
    assert world.aliases == [{B: 100}, {A: 100}, {A: 100}]
    world.after(50)
    assert world.aliases == [{B: 100}, {A: 100}, {A: 100}]
    world.after(20)
    assert world.aliases == [{B: 100}] * 3
    assert world.condition() == ("True", "Serving")
    assert all(world.held(agent) == {A, B} for agent in world.agents)


def test_the_alias_moves_only_on_answers_of_this_moment() -> None:
    world = serving()
    world.edit(source={"artifact": artifact("b")})
    confirmed = []
    for _ in range(4):
        made = plan(world.observed(), world.now)
        confirmed.append((made.confirm, any(document.moves for document in made.documents)))
        world.operate()
        for agent in world.agents:
            agent.step()
    assert confirmed[0] == (False, False)
    assert (True, True) in confirmed
    assert all(confirm == moves for confirm, moves in confirmed)


def test_the_canary_shares_the_requests_by_weight() -> None:
    world = second(serving(strategy={"canaryWeight": 25}))
    assert world.aliases == [{B: 25, A: 75}, {A: 100}, {A: 100}]


def test_a_third_revision_drops_the_one_before_the_last_after_its_drain() -> None:
    world = second(serving()).after(80)
    world.after(60)
    second(world, "c").after(62)
    assert all(world.held(agent) == {A, B, C} for agent in world.agents), "A drains"
    world.after(60)
    assert all(world.held(agent) == {B, C} for agent in world.agents)
    states = [(each.name, each.state.value, each.pods) for each in world.rollout.status.revisions]
    assert states == [(C, "Serving", 3), (B, "Previous", 3), (A, "Retired", 0)]
    assert max(agent.held_at_most for agent in world.agents) == 3


def test_the_history_has_its_limit() -> None:
    world = serving(revisionHistoryLimit=1, strategy={"canarySeconds": 0})
    for letter in "bcdef":
        second(world, letter).after(60)
    assert [each.name[-1] for each in world.rollout.status.revisions] == ["f", "e", "d"]


def test_a_canary_that_fails_its_probe_is_taken_back_before_any_other_pod_loads_it() -> None:
    world = serving()
    for agent in world.agents:
        agent.fails[sha("b")] = ("ProbeFailed", True)
    world.edit(source={"artifact": artifact("b")}).after(5)
    assert world.condition() == ("False", "RolledBack")
    assert world.condition("Progressing") == ("False", "RolledBack")
    assert rejected(world) == [("b", "ProbeFailed", 2)]
    assert world.aliases == [{A: 100}] * 3
    assert all(B not in agent.engine for agent in world.agents)
    assert all(agent.held_at_most == 1 for agent in world.agents[1:])


def test_harm_to_an_engine_is_enough_wherever_it_is_seen() -> None:
    world = serving()
    world.agents[2].fails[sha("b")] = ("NeighbourHarmed", True)
    second(world)
    assert rejected(world) == [("b", "NeighbourHarmed", 2)]
    assert world.aliases == [{A: 100}] * 3


def test_a_failure_of_the_pod_makes_another_pod_the_canary_and_blames_no_adapter() -> None:
    world = serving()
    world.agents[0].fails[sha("b")] = ("VolumeNotShared", True)
    second(world)
    assert world.aliases == [{A: 100}, {B: 100}, {A: 100}]
    world.after(70)
    assert world.aliases == [{A: 100}, {B: 100}, {B: 100}]
    assert world.condition() == ("False", "PodNotUpdated")
    (reason,) = world.rollout.status.pod_reasons
    assert (reason.pod, reason.reason) == ("pod-0", "VolumeNotShared")
    assert rejected(world) == []


def test_the_first_adapter_of_all_that_fails_leaves_nothing_behind() -> None:
    world = World({"artifact": artifact("a")})
    world.agents[0].fails[sha("a")] = ("NotFinite", True)
    world.after(5)
    assert world.condition() == ("False", "RolledBack")
    assert world.rollout.status.served is None
    assert world.aliases == [{}, {}, {}]
    assert world.mounted is None


@dataclass(frozen=True)
class Window:
    """What guards count while a canary runs, of new and old revision, and what comes of it."""

    new: tuple[int, int, float]
    old: tuple[int, int, float]
    want: str | None
    pods: int = 3
    weight: int = 100
    too_few: bool = False


WINDOWS = {
    "errors that rise take it back": Window((90, 10, 1.0), (100, 0, 1.0), "ErrorRatio"),
    "errors that both have are not the new one's": Window((90, 10, 1.0), (45, 5, 1.0), None),
    "an answer that takes twice as long takes it back": Window((100, 0, 2.0), (100, 0, 1.0), "Latency"),
    "a little slower is allowed": Window((100, 0, 1.4), (100, 0, 1.0), None),
    "slower than fifty answers can show is no reason": Window((50, 0, 2.0), (100, 0, 1.0), None),
    "one error in forty requests is chance": Window((39, 1, 1.0), (400, 0, 1.0), None),
    "two in forty against none of the others may be": Window((38, 2, 1.0), (80, 0, 1.0), None),
    "what is more than chance and within the margin is allowed": Window((9_870, 130, 1.0), (10_000, 0, 1.0), None),
    "three milliseconds instead of one are the machine's": Window((100, 0, 0.003), (100, 0, 0.001), None),
    "too few requests to the new one are decided by the probe": Window((10, 9, 9.0), (100, 0, 1.0), None, too_few=True),
    "too few requests to the old one are decided by the probe": Window((50, 50, 9.0), (4, 0, 1.0), None, too_few=True),
    "on one pod with a weight, both are seen in one window": Window(
        (50, 50, 1.0), (100, 0, 1.0), "ErrorRatio", pods=1, weight=50
    ),
}


@pytest.mark.parametrize("case", WINDOWS.values(), ids=WINDOWS)
def test_the_canary_is_held_against_the_old_revision(case: Window) -> None:
    world = serving(pods=case.pods, strategy={"canaryWeight": case.weight})
    world.asked(A, 1000, 500)  # before the window: says nothing about it
    second(world)
    world.asked(B, *case.new[:2], seconds=case.new[2]).asked(A, *case.old[:2], seconds=case.old[2])
    world.after(5)
    if case.want is not None:
        assert rejected(world) == [("b", case.want, 2)]
        assert world.aliases == [{A: 100}] * case.pods
        return
    assert rejected(world) == []
    world.after(70)
    assert world.condition() == ("True", "Serving")
    assert world.aliases == [{B: 100}] * case.pods
    assert world.rollout.status.served is not None
    told = world.rollout.status.served.canary or ""
    assert ("decided by the probe" in told) == case.too_few
    assert str(case.new[0] + case.new[1]) in told
    assert told in next(each.message for each in world.rollout.status.conditions if each.type == "Ready")


@pytest.mark.parametrize("way", ["running", "left"])
def test_requests_that_end_nowhere_hold_the_canary_until_their_part_is_no_larger(way: str) -> None:
    world = second(serving())
    world.asked(B, 10, **{way: 190}).asked(A, 400, **{way: 4}).after(100)
    writes = world.writes
    assert world.condition() == ("False", "Canary")
    message = next(each.message for each in world.rollout.status.conditions if each.type == "Ready")
    assert "190 of 200 requests" in message
    world.asked(B, 1, **{way: 190 if way == "running" else 0}).after(100)
    assert world.aliases == [{B: 100}, {A: 100}, {A: 100}]
    assert world.writes == writes, "what it is held for is told once, not with the numbers of every second"
    world.asked(B, 40_000, running=0).after(1)
    assert world.condition() == ("True", "Serving")
    assert rejected(world) == []


def test_where_the_old_revision_is_seen_before_the_move_what_runs_is_compared_with_what_ran() -> None:
    world = serving(pods=1)
    world.asked(A, 100_000, running=8)
    second(world).asked(B, 190, running=10).after(70)
    assert world.condition() == ("True", "Serving")
    world = serving(pods=1)
    world.asked(A, 100_000, running=8)
    second(world).asked(B, 150, running=50).after(70)
    assert world.condition() == ("False", "Canary")


def test_guards_of_an_earlier_version_leave_it_to_the_probe_and_the_status_says_so() -> None:
    world = serving()
    for agent in world.agents:
        agent.counts = {name: Counted(answers=5, old_guard=True) for name in (A, B)}
    second(world).asked(B, 50, 50).asked(A, 100).after(70)
    assert world.condition() == ("True", "Serving")
    assert world.rollout.status.served is not None
    assert "guards of an earlier version" in (world.rollout.status.served.canary or "")


def test_guards_that_are_replaced_during_a_canary_leave_it_to_the_probe() -> None:
    world = serving()
    for agent in world.agents:
        agent.counts = {name: Counted(answers=5, old_guard=True) for name in (A, B)}
    second(world)
    for agent in world.agents:
        agent.counts = {name: Counted(answers=5) for name in (A, B)}
    world.asked(B, 50, 50).asked(A, 100).after(70)
    assert world.condition() == ("True", "Serving")


def test_looks_are_few_and_another_operator_goes_on_with_what_they_have_spent() -> None:
    world = second(serving(strategy={"canarySeconds": 600}))
    before, looks = world.writes, []
    for _ in range(600):
        world.asked(B, 5).asked(A, 5)
        world.now += timedelta(seconds=1)
        world.operate()
        step = world.rollout.status.step
        if step is not None and step.look is not None and step.look not in looks:
            looks.append(step.look)
    assert world.writes - before <= 11
    assert [each.requests for each in looks] == [20, 40, 80, 160, 320, 640, 1280, 2560]
    assert world.condition() == ("True", "Serving") or world.after(2).condition() == ("True", "Serving")


def test_what_no_canary_told_is_not_said() -> None:
    world = serving()
    assert world.rollout.status.served is not None
    assert world.rollout.status.served.canary is None


def test_on_one_pod_the_old_revision_is_seen_before_the_move() -> None:
    world = serving(pods=1)
    world.asked(A, 100, 0)
    second(world)
    world.asked(B, 50, 10).after(5)
    assert rejected(world) == [], "so early a look may find only what is far beyond chance"
    world.after(60)
    assert rejected(world) == [("b", "ErrorRatio", 2)]
    assert world.aliases == [{A: 100}]


def test_an_engine_that_starts_again_counts_from_zero() -> None:
    world = serving()
    world.asked(A, 100)
    second(world)
    world.agents[1].engine_restarts()
    world.after(1).asked(A, 30).asked(B, 30, 0).after(5)
    assert rejected(world) == []
    world.asked(B, 0, 60).after(1)
    assert rejected(world) == [("b", "ErrorRatio", 2)]


def test_a_pod_that_restarts_mid_wave_is_waited_for_and_moved_when_it_is_back() -> None:
    world = second(serving())
    world.agents[2].engine_up = False
    world.agents[2].engine_restarts()
    world.after(70)
    assert world.aliases[:2] == [{B: 100}] * 2
    assert world.condition() == ("False", "PodNotUpdated")
    world.agents[2].engine_up = True
    world.after(3)
    assert world.aliases == [{B: 100}] * 3
    assert world.condition() == ("True", "Serving")


def test_a_canary_whose_engine_restarts_stays_the_canary_and_is_proven_again_before_the_others_move() -> None:
    world = second(serving())
    world.agents[0].engine_up = False
    world.agents[0].engine_restarts()
    world.after(80)
    assert world.aliases[1:] == [{A: 100}] * 2
    world.agents[0].engine_up = True
    world.after(3)
    assert world.aliases == [{B: 100}] * 3


def test_a_pod_that_starts_during_the_canary_serves_the_old_revision_first() -> None:
    world = second(serving())
    agent = world.scale_up("pod-3")
    agent.step()
    assert world.alias(agent) == {A: 100}
    world.after(5)
    assert world.alias(agent) == {A: 100}
    assert B in agent.engine
    world.after(70)
    assert world.aliases == [{B: 100}] * 4


def test_a_pod_that_starts_while_the_operator_is_down_has_its_adapters() -> None:
    world = second(serving()).after(80)
    agent = world.scale_up("pod-3")
    agent.step()
    assert world.alias(agent) == {B: 100}


def test_an_agent_that_is_silent_delays_no_other_and_keeps_the_rollout_from_being_ready() -> None:
    world = serving()
    world.agents[0].up, world.agents[0].since = False, world.now
    second(world)
    assert world.aliases == [{A: 100}, {B: 100}, {A: 100}]
    world.after(70)
    assert world.aliases == [{A: 100}, {B: 100}, {B: 100}]
    assert world.condition() == ("False", "PodNotUpdated")
    assert world.rollout.status.pod_reasons[0].reason == "Unreachable"
    world.agents[0].up = True
    world.after(3)
    assert world.condition() == ("True", "Serving")


def test_pods_load_at_most_so_many_at_once_and_one_that_hangs_lets_the_next_begin() -> None:
    world = serving(pods=6, strategy={"maxPodsAtOnce": 1})
    world.agents[1].hangs = True
    most = 0
    world.edit(source={"artifact": artifact("b")})
    for _ in range(20):
        world.operate()
        most = max(most, sum(B in world.held(agent) - agent.proven for agent in world.agents[1:]))
        for agent in world.agents:
            agent.step()
    assert most == 1
    assert [B in world.held(agent) for agent in world.agents] == [True, True, False, False, False, False]
    world.after(60)
    world.after(70)
    world.after(70)
    assert [alias == {B: 100} for alias in world.aliases] == [True, False, True, True, True, True]
    world.agents[1].hangs = False
    world.after(3)
    assert world.condition() == ("True", "Serving")


def test_paused_begins_nothing_and_moves_nothing_on_but_takes_back() -> None:
    world = serving()
    world.edit(paused=True, source={"artifact": artifact("b")}).after(100)
    assert world.condition() == ("False", "Paused")
    assert all(world.held(agent) == {A} for agent in world.agents)
    world.edit(paused=False).after(2)
    world.edit(paused=True).after(200)
    assert world.aliases == [{B: 100}, {A: 100}, {A: 100}]
    assert world.condition() == ("False", "Paused")
    world.asked(B, 0, 50).asked(A, 50).after(2)
    assert world.aliases == [{A: 100}] * 3


def test_a_rollback_by_the_spec_needs_no_canary_and_no_load() -> None:
    world = second(serving()).after(80)
    world.edit(source={"artifact": artifact("a")})
    world.operate()
    assert world.aliases == [{A: 100}] * 3
    world.after(2)
    assert world.condition() == ("True", "Serving")
    states = [(each.name, each.state.value) for each in world.rollout.status.revisions]
    assert states == [(A, "Serving"), (B, "Previous")]


def test_a_spec_that_changes_mid_way_takes_the_canary_back_first() -> None:
    world = second(serving())
    world.edit(source={"artifact": artifact("c")}).after(2)
    assert world.aliases == [{C: 100}, {A: 100}, {A: 100}]
    assert all(world.held(agent) == {A, C} for agent in world.agents)
    assert max(agent.held_at_most for agent in world.agents) <= 3


def test_a_canary_that_cannot_go_back_yet_keeps_its_alias_and_makes_no_fourth_revision() -> None:
    world = second(serving("d"), "a").after(80)
    world.after(60)
    second(world, "b")
    agent = world.agents[0]
    agent.engine.discard(A)
    agent.fails[sha("a")] = ("EngineFailed", False)
    world.edit(source={"artifact": artifact("c")}).operate()
    assert world.alias(agent) == {B: 100}, "what answers stays until what it goes back to does"
    assert world.held(agent) == {A, B, C}
    world.after(2)
    assert world.alias(agent) == {C: 100}
    assert agent.held_at_most == 3
    agent.fails.clear()
    world.after(80)
    assert world.aliases == [{C: 100}] * 3


def test_what_was_rejected_is_tried_again_when_the_generation_changes() -> None:
    world = serving()
    world.agents[0].fails[sha("b")] = ("ProbeFailed", True)
    second(world).after(300)
    assert world.condition() == ("False", "RolledBack")
    world.agents[0].fails.clear()
    world.after(300)
    assert world.condition() == ("False", "RolledBack"), "waiting alone changes nothing"
    world.edit(probe={"prompt": "What is a Pod?"}).after(5)
    assert rejected(world) == []
    world.after(70)
    assert world.aliases == [{B: 100}] * 3


GATES: dict[str, tuple[Any, str]] = {
    "no Evaluation of the name": ((), "EvaluationNotFound"),
    "no verdict yet": ((evaluation("e", "b", "Unknown"),), "WaitingForSource"),
    "not passed": ((evaluation("e", "b", "False"),), "EvaluationNotPassed"),
    "compared with what is not served any more": ((evaluation("e", "b", baseline="c"),), "BaselineChanged"),
    "passed, compared with what is served": ((evaluation("e", "b", baseline="a"),), "Canary"),
    "passed without a baseline": ((evaluation("e", "b"),), "Canary"),
    "passed, compared with what the rollout serves": (
        (evaluation("e", "b", baseline="a", against_served=True),),
        "Canary",
    ),
    "passed against the base model, because nothing was served then": (
        (evaluation("e", "b", against_served=True),),
        "BaselineChanged",
    ),
}


@pytest.mark.parametrize(("there", "want"), GATES.values(), ids=GATES)
def test_the_gate(there: Any, want: str) -> None:
    world = serving()
    world.evaluations = there
    world.edit(source={"evaluationName": "e"}).after(3)
    assert world.condition() == ("False", want)
    assert any(B in agent.engine for agent in world.agents) == (want == "Canary")


def test_an_evaluation_that_answers_about_another_digest_than_it_was_asked_about_opens_nothing() -> None:
    world = serving()
    asked = evaluation("e", "b")
    answered = asked.status.model_copy(update={"target": evaluation("x", "c").status.target})
    world.evaluations = (asked.model_copy(update={"status": answered}),)
    world.edit(source={"evaluationName": "e"}).after(3)
    assert world.condition() == ("False", "DigestMismatch")


def test_an_evaluation_that_had_nothing_to_compare_with_what_is_served_leaves_it_served() -> None:
    world = serving()
    again = evaluation("e", "a", "False", baseline="a", against_served=True)
    ended = again.status.conditions[0].model_copy(update={"type": "Succeeded", "reason": "NothingToCompare"})
    status = again.status.model_copy(update={"conditions": [ended, *again.status.conditions]})
    world.evaluations = (again.model_copy(update={"status": status}),)
    world.edit(source={"evaluationName": "e"}).after(3)
    assert world.condition() == ("True", "Serving")
    second(world).after(100)
    assert world.aliases == [{B: 100}] * 3
    world.edit(source={"evaluationName": "e"}).after(3)
    assert world.condition() == ("False", "EvaluationNotPassed"), "it says nothing of what is served now"


def test_an_evaluation_that_is_deleted_after_it_was_taken_changes_nothing() -> None:
    world = serving()
    world.evaluations = (evaluation("e", "b"),)
    world.edit(source={"evaluationName": "e"}).after(3)
    world.evaluations = ()
    world.after(70)
    assert world.aliases == [{B: 100}] * 3
    assert world.condition() == ("True", "Serving")


def test_a_rollback_to_an_evaluation_of_former_days_is_not_a_changed_baseline() -> None:
    world = World({"evaluationName": "one"})
    world.evaluations = (evaluation("one", "a", baseline="d"), evaluation("two", "b", baseline="a"))
    world.after(3).edit(source={"evaluationName": "two"}).after(5)
    world.after(70).edit(source={"evaluationName": "one"}).after(3)
    assert world.aliases == [{A: 100}] * 3
    assert world.condition() == ("True", "Serving")


def test_follow_takes_the_passed_evaluation_that_completed_last() -> None:
    world = World(FOLLOW, strategy={"canarySeconds": 0})
    world.after(3)
    assert world.condition() == ("False", "NothingPassed")
    world.evaluations = (
        evaluation("one", "a", completed=1, labels=LABELS),
        evaluation("two", "b", "False", completed=2, labels=LABELS),
        evaluation("other", "c", completed=9, labels={"app": "other"}),
    )
    world.after(3)
    assert world.aliases == [{A: 100}] * 3
    world.evaluations += (evaluation("three", "d", completed=3, labels=LABELS, baseline="a"),)
    world.after(5)
    assert world.aliases == [{revision("d"): 100}] * 3
    assert world.condition() == ("True", "Serving")


def test_follow_takes_no_evaluation_that_judged_nothing_unless_it_is_told_to() -> None:
    """Whoever may create Evaluations would otherwise decide what is served, with one that has no thresholds."""
    world = World(FOLLOW, strategy={"canarySeconds": 0})
    judged, empty = (
        evaluation(name, name[0], completed=at, labels=LABELS) for name, at in (("a-good", 1), ("b-any", 2))
    )
    condition = empty.status.conditions[0]
    for word in ("NoThresholds", "AWordOfALaterOperator"):
        said = [condition.model_copy(update={"reason": word})]
        empty = empty.model_copy(update={"status": empty.status.model_copy(update={"conditions": said})})
        world.evaluations = (empty,)
        world.after(3)
        assert world.condition() == ("False", "NothingPassed")
    world.evaluations = (judged, empty)
    world.after(3)
    assert world.aliases == [{A: 100}] * 3
    world.edit(source={"follow": {**FOLLOW["follow"], "requireThresholds": False}}).after(5)
    assert world.aliases == [{B: 100}] * 3


def test_follow_passes_over_what_was_taken_back_until_something_newer_passes() -> None:
    world = World(FOLLOW, strategy={"canarySeconds": 0})
    world.evaluations = (evaluation("one", "a", completed=1, labels=LABELS),)
    world.after(3)
    world.agents[0].fails[sha("b")] = ("ProbeFailed", True)
    world.evaluations += (evaluation("two", "b", completed=2, labels=LABELS),)
    world.after(200)
    assert world.condition() == ("False", "RolledBack")
    assert world.aliases == [{A: 100}] * 3
    world.evaluations += (evaluation("three", "c", completed=3, labels=LABELS, baseline="a"),)
    world.after(5)
    assert world.aliases == [{C: 100}] * 3
    assert world.condition() == ("True", "Serving")


def following(*letters: str) -> World:
    """Return a world that follows, in which the adapters passed one after another and the last is served."""
    world = World(FOLLOW, strategy={"canarySeconds": 0})
    for number, letter in enumerate(letters):
        world.evaluations += (evaluation(letter, letter, completed=number, labels=LABELS),)
        world.after(5)
    assert world.aliases == [{revision(letters[-1]): 100}] * 3
    return world


def test_follow_does_not_go_back_when_the_newest_evaluation_is_gone() -> None:
    world = following("a", "b")
    world.evaluations = world.evaluations[:1]
    world.after(100).edit(strategy={"canarySeconds": 0, "drainSeconds": 1}).after(100)
    assert world.aliases == [{B: 100}] * 3
    assert world.condition() == ("True", "Serving")
    world.evaluations = ()
    world.after(100)
    assert world.condition() == ("True", "Serving")
    world.evaluations = (evaluation("three", "c", completed=3, labels=LABELS),)
    world.after(5)
    assert world.aliases == [{C: 100}] * 3


def test_follow_goes_on_with_what_it_began_when_its_evaluation_is_gone() -> None:
    world = World(FOLLOW)
    world.evaluations = (evaluation("one", "a", completed=1, labels=LABELS),)
    world.after(5)
    world.evaluations += (evaluation("two", "b", completed=2, labels=LABELS),)
    world.after(3)
    assert world.condition() == ("False", "Canary")
    world.evaluations = world.evaluations[:1]
    world.after(100)
    assert world.aliases == [{B: 100}] * 3
    assert world.condition() == ("True", "Serving")


def test_follow_goes_back_to_an_adapter_that_passes_again_and_where_the_spec_names_it() -> None:
    world = following("a", "b")
    world.evaluations = (*world.evaluations[:1], evaluation("again", "a", completed=5, labels=LABELS))
    world.after(5)
    assert world.aliases == [{A: 100}] * 3
    world.edit(source={"artifact": artifact("b")}).after(5)
    assert world.aliases == [{B: 100}] * 3
    world.edit(source=FOLLOW).after(5)
    assert world.aliases == [{A: 100}] * 3, "the newest that passed, as told anew"


def other(created: str, labels: dict[str, str]) -> Claim:
    return Claim(uid="uid-2", name="other", created=created, adapter_name="guide", match_labels=labels)


@pytest.mark.parametrize("phase", [Phase.LOADING, Phase.CANARY])
def test_a_leader_that_has_heard_no_agent_yet_lets_the_canary_go_on(phase: Phase) -> None:
    world = serving()
    world.edit(source={"artifact": artifact("b")}).operate()
    if phase is Phase.CANARY:
        world.after(2)
    step = world.rollout.status.step
    assert step is not None
    assert step.phase is phase
    seen = world.observed()
    made = plan(replace(seen, pods=tuple(replace(pod, truth=None) for pod in seen.pods)), world.now)
    assert made.status is not None
    assert made.documents == ()
    after = AdapterRolloutStatus.model_validate(made.status)
    assert after.step == step, "others would begin anew"
    assert after.rejected == []


OTHERS: dict[str, tuple[Claim, str]] = {
    "the older one keeps the name": (other("2026-01-05T10:00:00Z", {"app": "vllm"}), "AdapterNameConflict"),
    "a younger one is no matter": (other("2026-01-05T11:30:00Z", {"app": "vllm"}), "Serving"),
    "an older one may yet meet these pods": (other("2026-01-05T10:00:00Z", {"tier": "gpu"}), "AdapterNameConflict"),
    "an older one on other pods is no matter": (other("2026-01-05T10:00:00Z", {"app": "tgi"}), "Serving"),
}


def test_what_a_deleted_rollout_left_is_taken_away_by_one_of_its_name_that_may_not_serve() -> None:
    """It would keep the alias from the older rollout for ever, because the name is not gone."""
    world = World({"artifact": artifact("a")}).after(5)
    assert world.aliases == [{revision("a"): 100}] * 3
    again = World({"artifact": artifact("a")})
    metadata = again.rollout.metadata.model_copy(update={"uid": "uid-of-the-next"})
    again.rollout = again.rollout.model_copy(update={"metadata": metadata})
    again.agents, again.now = world.agents, world.now
    again.others = (other("2026-01-05T10:00:00Z", {"app": "vllm"}),)
    again.after(5)
    assert again.condition() == ("False", "AdapterNameConflict")
    assert again.aliases == [{}, {}, {}]
    assert plan(again.observed(), again.now).documents == ()


@pytest.mark.parametrize(("there", "want"), OTHERS.values(), ids=OTHERS)
def test_two_rollouts_of_one_name(there: Claim, want: str) -> None:
    world = World({"artifact": artifact("a")})
    world.others = (there,)
    world.after(3)
    assert world.condition()[1] == want
    assert bool(world.agents[0].shares) == (want == "Serving")


def too_few_slots(world: World) -> None:
    world.agents[1].slots = 1


def too_low_rank(world: World) -> None:
    world.ranks[sha("b")] = 32


def base_model_of_the_name(world: World) -> None:
    world.agents[1].base_models = [NAME]


def same_first_digits(world: World) -> None:
    (known,) = world.rollout.status.revisions
    clash = known.model_copy(update={"name": B, "digest": "sha256:" + "b" * 8 + "0" * 56})
    clash = clash.model_copy(update={"state": RevisionState.RETIRED})
    status = world.rollout.status.to_json()
    status["revisions"].append(clash.to_json())
    world.rollout = AdapterRollout.parse(
        {**world.rollout.model_dump(mode="json", by_alias=True, exclude_none=True), "status": status}
    )


LIMITS: dict[str, tuple[Callable[[World], None], str]] = {
    "current and incoming do not fit": (too_few_slots, "DoesNotFit"),
    "the rank is too high": (too_low_rank, "RankTooHigh"),
    "the name is the base model's": (base_model_of_the_name, "NameIsBaseModel"),
    "two digests begin alike": (same_first_digits, "NameTaken"),
}


@pytest.mark.parametrize(("change", "want"), LIMITS.values(), ids=LIMITS)
def test_what_cannot_be_is_refused_before_any_pod_is_touched(change: Callable[[World], None], want: str) -> None:
    world = serving()
    change(world)
    world.edit(source={"artifact": artifact("b")}).after(5)
    assert world.condition() == ("False", want)
    assert all(B not in world.held(agent) for agent in world.agents)
    assert world.aliases == [{A: 100}] * 3


def test_where_two_fit_and_three_do_not_the_previous_one_makes_room() -> None:
    world = serving(strategy={"canarySeconds": 0})
    for agent in world.agents:
        agent.slots = 2
    for letter in "bcd":
        second(world, letter).after(10)
        assert world.condition() == ("True", "Serving")
    assert all(agent.refusal is None and agent.held_at_most == 2 for agent in world.agents)


def test_a_list_that_does_not_hold_the_revision_is_believed_over_the_work() -> None:
    world = serving()
    world.agents[0].lies.add(B)
    second(world).after(70)
    assert world.aliases == [{A: 100}] * 3
    assert world.condition() == ("False", "Loading")


def test_without_pods_it_waits_and_says_so() -> None:
    world = World({"artifact": artifact("a")}, pods=0)
    world.after(3)
    assert world.condition() == ("False", "NoPods")
    world.scale_up("pod-0")
    world.after(3)
    assert world.condition() == ("True", "Serving")


def test_an_object_of_the_same_name_as_a_deleted_one_is_heard() -> None:
    world = serving()
    made = retired(NAME, "team", world.observed().pods, (0, 1))
    assert len(made) == 3
    for document, agent in zip(made, world.agents, strict=True):
        agent.take(document.share)
    assert world.aliases == [{}, {}, {}]
    again = World({"artifact": artifact("b")})
    again.agents, again.now = world.agents, world.now
    again.after(5)
    assert again.condition() == ("True", "Serving")


def test_documents_of_a_new_leader_are_above_those_of_any_former_one() -> None:
    world = serving()
    before = world.agents[0].shares[NAME].sequence
    world.lease = 7
    world.edit(source={"artifact": artifact("b")})
    made = plan(world.observed(), world.now)
    assert made.documents[0].share.sequence > before
    assert made.documents[0].share.sequence[0] == 7


def test_the_status_stays_below_ten_kilobytes() -> None:
    uri, digest = "s3://" + "u" * 507, sha("a")
    status = AdapterRolloutStatus.model_validate(
        {
            "conditions": [
                {
                    "type": kind,
                    "status": "False",
                    "reason": "RolledBack",
                    "message": "m" * 400,
                    "lastTransitionTime": "2026-01-05T12:00:00Z",
                }
                for kind in ("Ready", "Progressing", "Verified")
            ],
            "served": {"digest": digest, "uri": uri},
            "step": {
                "digest": digest,
                "uri": uri,
                "phase": Phase.CANARY,
                "since": "2026-01-05T12:00:00Z",
                "canaries": [f"{number:036}" for number in range(8)],
                "marks": [
                    {
                        "pod": f"{number:036}",
                        "instance": "i" * 36,
                        "revision": B if number < 8 else A,
                        "requests": 10**6,
                        "errors": 10**6,
                        "disconnected": 10**6,
                        "running": 10**3,
                        "times": [10**6, -123456.78, 1234567.89] * 4,
                    }
                    for number in range(12)
                ],
            },
            "revisions": [
                {"name": f"guide@{number:08x}", "uri": uri, "digest": digest, "state": state}
                for number, state in enumerate(["Incoming", "Serving", "Previous", *["Retired"] * 10])
            ],
            "podReasons": [
                {"pod": f"{number}" + "p" * 60, "reason": "Unreachable", "message": "m" * 160} for number in range(8)
            ],
            "rejected": [
                {"digest": sha(letter), "reason": "ProbeFailed", "generation": 1, "message": "m" * 160}
                for letter in "abcd"
            ],
        }
    )
    small = fitted(status)
    assert len(json.dumps(small.to_json())) < 10_000
    assert [each.state.value for each in small.revisions][:3] == ["Incoming", "Serving", "Previous"]
    assert len(small.rejected) == 4
    assert small.step is not None
    assert [mark.revision for mark in small.step.marks] == [B] * 3 + [A] * 4, "both are still counted"
    assert small.pod_reasons_omitted + len(small.pod_reasons) == 8


def test_a_pod_that_is_wanted_again_hears_so_in_place_of_that_the_rollout_is_gone() -> None:
    """Its label went and came again while the document by which the rollout goes from it waited."""
    world = serving(pods=1)
    observed = world.observed()
    assert plan(observed, world.now).documents == ()
    (pod,) = observed.matching
    (waiting,) = retired(NAME, "team", (pod,), (9, 1))
    pods = (replace(pod, pending=waiting.share),)
    (document,) = plan(replace(observed, pods=pods), world.now).documents
    assert not document.share.retired
    assert [each.name for each in document.share.revisions][:1] == [A]

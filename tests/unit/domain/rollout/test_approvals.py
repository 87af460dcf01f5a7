"""Approvals told as stories: what waits for whom, what counts, and what is served meanwhile."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from trimtab_operator.api.adapterrollout import AdapterRollout
from trimtab_operator.api.review import Review
from trimtab_operator.domain.adapterrollout import plan
from trimtab_operator.domain.adapterrollout.approvals import REVIEWS_AT_MOST, latest
from trimtab_operator.domain.adapterrollout.observed import Maker
from trimtab_operator.domain.plan import Inquiry, PolicyInForce
from trimtab_operator.domain.review.policies import Force, Policy

from tests.unit.domain.rollout.world import NAME, T0, World, artifact, review, revision, sha

A, B = revision("a"), revision("b")


def asking(**approvals: Any) -> World:
    """Return a world that serves `a`, asks for approvals since, and wants `b`."""
    world = World({"artifact": artifact("a")}).after(5).after(100)
    assert world.condition() == ("True", "Serving")
    world.edit(strategy={"canarySeconds": 60, "approvals": approvals}, source={"artifact": artifact("b")})
    return world.after(3)


def waiting(**approvals: Any) -> World:
    """Return one whose canary was good."""
    world = asking(**approvals).after(80)
    assert world.condition() == ("False", "AwaitingApproval"), world.rollout.status
    return world


def message(world: World) -> str:
    return next(each.message for each in world.rollout.status.conditions if each.type == "Ready")


def again(world: World) -> World:
    """Let another operator go on, which knows nothing but the objects."""
    body = world.rollout.model_dump(mode="json", by_alias=True, exclude_none=True)
    world.rollout = AdapterRollout.parse(body)
    return world


def served(world: World, name: str) -> bool:
    return world.condition() == ("True", "Serving") and world.aliases == [{name: 100}] * 3


def test_a_good_canary_waits_for_its_approval_and_goes_on_meanwhile() -> None:
    world = waiting(required=1)
    assert world.aliases == [{B: 100}, {A: 100}, {A: 100}]
    assert world.condition("Progressing") == ("False", "AwaitingApproval")
    status = world.rollout.status.approval
    assert status is not None
    assert (status.digest, status.required, status.approved_by) == (sha("b"), 1, [])
    assert f"kubectl trimtab approve adapterrollout/{NAME} -n team --digest {sha('b')}" in message(world)
    writes, since = world.writes, status.since
    world.after(86_400)
    assert world.writes == writes, "waiting writes nothing"
    assert again(world).after().rollout.status.approval == status
    assert since is not None
    world.reviewed("Approve", "alice", "b")
    world.after(2)
    assert served(world, B)
    assert world.rollout.status.approval is None
    assert world.rollout.status.revisions[0].approved_by == ["alice"]
    assert world.events[-2:] == ["AwaitingApproval", "Serving"]


def test_what_is_approved_while_the_canary_takes_requests_does_not_wait() -> None:
    world = asking(required=1)
    assert "0 of 1 approvals" in message(world)
    world.reviewed("Approve", "alice", "b")
    world.after(3)
    assert world.condition() == ("False", "Canary")
    assert "AwaitingApproval" not in world.after(70).events
    assert served(world, B)


def test_a_regression_while_it_waits_takes_it_back_and_an_approval_changes_nothing() -> None:
    world = waiting(required=1)
    for _ in range(3):
        world.asked(A, 100).asked(B, 40, errors=60).after(2)
    assert world.condition() == ("False", "RolledBack")
    assert world.aliases == [{A: 100}] * 3
    assert world.rollout.status.approval is None
    world.reviewed("Approve", "alice", "b")
    assert world.after(100).condition() == ("False", "RolledBack")


def test_before_the_canary_nothing_is_loaded_without_approval() -> None:
    world = asking(required=2, before="Canary")
    assert world.condition() == ("False", "AwaitingApproval")
    assert all(world.held(agent) == {A} for agent in world.agents)
    assert world.rollout.status.step is None
    world.reviewed("Approve", "alice", "b")
    world.after()
    assert "has 1 of 2 approvals;" in message(world)
    assert "approved by alice" in message(world)
    world.reviewed("Approve", "alice", "b")
    assert world.after().condition() == ("False", "AwaitingApproval"), "two of one person are one"
    world.reviewed("Approve", "bob", "b")
    world.after(3)
    assert world.condition() == ("False", "Canary")
    assert served(world.after(80), B)
    assert world.rollout.status.revisions[0].approved_by == ["alice", "bob"]


def test_an_approval_that_is_deleted_during_the_canary_is_lacking_afterwards() -> None:
    world = asking(required=1, before="Canary")
    world.reviewed("Approve", "alice", "b")
    assert world.after(3).condition() == ("False", "Canary")
    world.reviews.clear()
    assert world.after(80).condition() == ("False", "AwaitingApproval")


def deleted(review: Review) -> Review:
    """Return a Review that a finalizer keeps."""
    metadata = review.metadata.model_copy(update={"deletion_timestamp": "2026-11-28T12:00:00Z"})
    return review.model_copy(update={"metadata": metadata})


@pytest.mark.parametrize(("decision", "state"), [("Approve", "AwaitingApproval"), ("Reject", "Serving")])
def test_what_its_author_has_deleted_counts_no_more_though_a_finalizer_keeps_it(decision: str, state: str) -> None:
    world = waiting(required=1)
    world.reviewed(decision, "alice", "b")
    world.reviews[0] = deleted(world.reviews[0])
    if decision == "Reject":
        world.reviewed("Approve", "bob", "b")
    assert world.after(3).condition()[1] == state


def test_the_first_adapter_is_loaded_and_proven_but_nobody_is_served_before_it_is_approved() -> None:
    strategy = {"canarySeconds": 60, "approvals": {"required": 1}}
    world = World({"artifact": artifact("a")}, strategy=strategy).after(20)
    assert world.condition() == ("False", "AwaitingApproval")
    assert world.condition("Verified")[0] == "True"
    assert world.aliases == [{}] * 3
    assert world.mounted is None
    world.reviewed("Approve", "alice", "a")
    assert served(world.after(3), A)


@pytest.mark.parametrize(
    ("author", "letter", "decision"),
    [("alice", "c", "Approve"), ("alice", "b", "Comment")],
    ids=["another digest", "a comment"],
)
def test_counts_for_nothing(author: str, letter: str, decision: str) -> None:
    world = waiting(required=1)
    world.reviewed(decision, author, letter, message="well")
    assert world.after(5).condition() == ("False", "AwaitingApproval")
    status = world.rollout.status.approval
    assert status is not None
    assert status.approved_by == []


def test_only_those_of_the_groups_count_and_a_message_says_of_whom_not() -> None:
    world = waiting(required=1, **{"from": {"groups": ["leads", "safety"]}})
    world.reviewed("Approve", "carol", "b", "interns")
    world.after(2)
    assert world.condition() == ("False", "AwaitingApproval")
    assert "0 of 1 approvals;" in message(world)
    assert "asked are leads or safety; that of carol names none of the groups" in message(world)
    world.reviewed("Reject", "dave", "b")
    world.after(2)
    assert world.condition() == ("False", "AwaitingApproval")
    assert "the rejection of dave names none of the groups" in message(world), "who believes to have stopped it is told"
    world.reviewed("Approve", "erin", "b", "safety", "others")
    assert served(world.after(2), B)


def test_a_rejection_takes_the_canary_back_whoever_approves_and_its_withdrawal_begins_anew() -> None:
    world = waiting(required=1)
    world.reviewed("Reject", "bob", "b", message="it swears")
    world.reviewed("Approve", "alice", "b")
    world.after(3)
    assert world.condition() == ("False", "Rejected")
    assert "bob rejects it: it swears" in message(world)
    assert world.aliases == [{A: 100}] * 3
    assert world.rollout.status.step is None
    assert again(world).after(100).condition() == ("False", "Rejected")
    world.reviewed("Approve", "bob", "b")
    assert world.after(3).condition() == ("False", "Canary")
    assert served(world.after(80), B)
    assert world.rollout.status.revisions[0].approved_by == ["alice", "bob"]


def test_a_newer_rejection_by_the_same_author_withdraws_the_approval() -> None:
    world = asking(required=1)
    world.reviewed("Approve", "alice", "b")
    world.reviewed("Reject", "alice", "b")
    assert world.after(3).condition() == ("False", "Rejected")


def test_what_is_rejected_does_not_begin() -> None:
    world = World({"artifact": artifact("a")}, strategy={"approvals": {"required": 1}})
    world.reviewed("Reject", "bob", "a")
    world.after(5)
    assert world.condition() == ("False", "Rejected")
    assert all(agent.held_at_most == 0 for agent in world.agents)


def test_what_is_served_is_served_on_whatever_is_decided_about_it_later() -> None:
    world = waiting(required=1)
    world.reviewed("Approve", "alice", "b")
    world.after(3)
    world.reviewed("Reject", "alice", "b")
    assert served(world.after(100), B)


def test_going_back_to_what_was_approved_needs_nobody_and_to_what_was_not_somebody() -> None:
    world = waiting(required=1)
    world.reviewed("Approve", "alice", "b")
    world.after(50)
    world.edit(source={"artifact": artifact("a")})
    assert world.after(5).condition() == ("False", "AwaitingApproval"), "a was served before approvals were asked for"
    world.reviewed("Approve", "alice", "a")
    assert served(world.after(50), A)
    world.edit(source={"artifact": artifact("b")})
    assert served(world.after(5), B)


def test_nothing_counts_where_nothing_binds_the_author() -> None:
    world = asking(required=1)
    world.forces[Policy.REVIEWS] = Force(why="there is no ValidatingAdmissionPolicy x")
    world.reviewed("Approve", "alice", "b")
    world.after(80)
    assert world.condition() == ("False", "AuthorsNotBound")
    assert "there is no ValidatingAdmissionPolicy x" in message(world)
    world.forces[Policy.REVIEWS] = Force(world.now + timedelta(seconds=10))
    assert world.after(3).condition() == ("False", "AwaitingApproval")
    assert "that of alice is from before the admission policy" in message(world)
    world.after(20)
    world.reviewed("Approve", "alice", "b")
    assert served(world.after(3), B)


@pytest.mark.parametrize("why", ["job", "policy", "annotation", "before the policy"])
def test_who_made_the_job_must_be_certain(why: str) -> None:
    world = waiting(required=1, notByAuthorOfTheJob=True)
    maker = Maker("train-b", "bob", "2026-01-05T10:00:00Z")
    world.makers = {sha("b"): (maker,)}
    if why == "job":
        world.makers = {}
    elif why == "policy":
        world.forces[Policy.AUTHORS] = Force(why="gone")
    elif why == "annotation":
        world.makers = {sha("b"): (maker, replace(maker, job="other", author=""))}
    else:
        world.makers = {sha("b"): (replace(maker, created="2025-01-05T10:00:00Z"),)}
    world.reviewed("Approve", "alice", "b")
    world.after(5)
    assert world.condition() == ("False", "AwaitingApproval")
    assert "who made" in message(world)
    world.makers = {sha("b"): (maker,)}
    world.forces[Policy.AUTHORS] = Force(T0 - timedelta(days=1))
    assert served(world.after(3), B)


def test_who_made_the_job_does_not_approve_it_but_may_reject_it() -> None:
    world = waiting(required=1, notByAuthorOfTheJob=True)
    maker = Maker("train-b", "bob", "2026-01-05T10:00:00Z")
    world.makers = {sha("b"): (maker, replace(maker, job="again", author="eve"))}
    world.reviewed("Approve", "bob", "b")
    world.reviewed("Approve", "eve", "b")
    world.after(3)
    assert world.condition() == ("False", "AwaitingApproval")
    assert "bob made the FineTuneJob" in message(world)
    world.reviewed("Reject", "bob", "b")
    assert world.after(3).condition() == ("False", "Rejected")


def test_more_decisions_than_are_read_count_for_nothing_at_all() -> None:
    world = waiting(required=1)
    world.reviews = [
        review(f"r{n}", "Approve", f"user-{n}", "b", created=world.now) for n in range(REVIEWS_AT_MOST + 1)
    ]
    assert world.after(3).condition() == ("False", "AuthorsNotBound")
    world.reviews[0] = deleted(world.reviews[0])
    assert world.after(3).condition() == ("False", "AuthorsNotBound"), "others may have been left out for it"
    world.reviews.pop()
    assert served(world.after(3), B)


def test_of_one_second_the_rejection_stands() -> None:
    names = [("a", "Reject"), ("z", "Approve"), ("m", "Comment")]
    made: list[Review] = [review(name, decision, "alice", "b", message="x") for name, decision in names]
    for order in (made, made[::-1]):
        assert [each.spec.decision.value for each in latest(order)] == ["Reject"]


def test_nobody_is_asked_where_no_approvals_are_required() -> None:
    world = World({"artifact": artifact("a")})
    observed = world.observed()
    answers: dict[Inquiry, object] = {
        key: value for key, value in observed.answers.items() if not isinstance(key, PolicyInForce)
    }
    assert plan(replace(observed, answers=answers), world.now).inquiries == ()


def test_paused_it_says_that_it_is_paused() -> None:
    world = waiting(required=1)
    world.edit(paused=True)
    world.reviewed("Approve", "alice", "b")
    assert world.after(5).condition() == ("False", "Paused")
    world.edit(paused=False)
    assert served(world.after(5), B)


def test_what_replaces_it_waits_for_an_approval_of_its_own() -> None:
    world = waiting(required=1)
    world.reviewed("Approve", "alice", "c")
    before = world.rollout.status.approval
    world.edit(source={"artifact": artifact("d")}).after(100)
    after = world.rollout.status.approval
    assert before is not None
    assert after is not None
    assert after.digest == sha("d")
    assert after.since is not None
    assert before.since is not None
    assert after.since > before.since


def test_what_to_type_is_told_whatever_names_there_are() -> None:
    groups = [f"{letter}{'x' * 200}" for letter in "abc"]
    world = waiting(required=2, **{"from": {"groups": groups}})
    world.reviewed("Approve", "u" * 300, "b", groups[0])
    world.after(3)
    assert f"approve adapterrollout/{NAME} -n team --digest {sha('b')};" in message(world)
    assert len(message(world)) <= 400

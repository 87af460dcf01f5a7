"""The order of documents over leaders, Leases that are made anew, and pods that tell what is not true."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from trimtab_agent.contract import Share, ShareAnswer
from trimtab_operator.domain.adapterrollout import plan
from trimtab_operator.domain.adapterrollout.delivery.documents import retired
from trimtab_operator.domain.adapterrollout.delivery.sequence import CREDIBLE, Sequence, beyond, of_an_operator

from tests.unit.domain.rollout.world import NAME, World, artifact, revision

NUMBER = 1_767_600_000_000


@dataclass(frozen=True)
class Case:
    term: int
    seen: tuple[Sequence, ...]
    want: Sequence


CASES = {
    "the first document of all": Case(1, (), (1, NUMBER)),
    "a later leader's are above every former one's": Case(5, ((4, NUMBER + 99),), (5, NUMBER)),
    "one leader's numbers grow, whatever its clock does": Case(4, ((4, NUMBER + 99),), (4, NUMBER + 100)),
    "a Lease that was made anew begins a term above all that is seen": Case(1, ((4, 9), (7, 2)), (8, NUMBER)),
    "of the same term only its own number counts": Case(4, ((4, 9), (3, NUMBER + 99)), (4, NUMBER)),
    "numbers that cannot grow any more give way to a term": Case(4, ((4, CREDIBLE),), (5, NUMBER)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_sequence_is_above_all_that_was_seen(case: str) -> None:
    given = CASES[case]
    found = beyond(given.term, given.seen, NUMBER)
    assert found == given.want
    assert all(found > seen for seen in given.seen)


@pytest.mark.parametrize("told", [(2**62 - 1, 0), (1, 2**62 - 1), (2**62 - 1, 2**62 - 1)])
def test_above_whatever_an_answer_may_tell_there_is_a_document(told: Sequence) -> None:
    share = ShareAnswer(rollout=NAME, uid="uid-1", sequence=told)
    above = beyond(1, (share.sequence,), NUMBER)
    assert Share(namespace="team", rollout=NAME, uid="uid-1", sequence=above, adapter_name=NAME).sequence > told


def test_what_was_sent_by_hand_is_known_by_its_sequence() -> None:
    assert [of_an_operator(each) for each in ((0, 0), (0, 1), (7, 7), (1, NUMBER))] == [False, False, False, True]


def led(transitions: int) -> World:
    """Return a world at rest whose leaders were many."""
    world = World({"artifact": artifact("a")})
    world.lease = transitions
    world.after(5)
    world.after(100)
    assert world.condition() == ("True", "Serving")
    return world


def anew(world: World) -> World:
    """Install the operator in another namespace: its Lease counts from one, and its process knows nothing."""
    world.lease, world.term = 1, 0
    return world


def test_a_lease_made_anew_freezes_no_rollout_and_no_rollback() -> None:
    world = anew(led(7))
    world.edit(source={"artifact": artifact("b")}).after(5)
    world.after(100)
    assert world.condition() == ("True", "Serving")
    assert world.aliases == [{revision("b"): 100}] * 3
    world.edit(source={"artifact": artifact("a")}).after(5)
    world.after(100)
    assert world.aliases == [{revision("a"): 100}] * 3
    assert {agent.shares[NAME].sequence[0] for agent in world.agents} == {8}, "one new term, not one a document"


def test_status_and_configmap_may_be_lost_too() -> None:
    world = led(7)
    body = world.rollout.model_dump(mode="json", by_alias=True, exclude_none=True)
    del body["status"]
    world.rollout, world.mounted = type(world.rollout).model_validate(body), None
    anew(world).edit(source={"artifact": artifact("b")}).after(5)
    world.after(100)
    assert world.condition() == ("True", "Serving")
    assert world.aliases == [{revision("b"): 100}] * 3


def test_a_lease_made_anew_retires_what_is_gone() -> None:
    world = anew(led(7))
    for document in retired(NAME, "team", world.observed().pods, (1, NUMBER)):
        agent = next(each for each in world.agents if each.uid == document.uid)
        agent.take(document.share)
        assert agent.refusal is None
    assert world.aliases == [{}, {}, {}]


def test_an_object_of_the_name_of_a_retired_one_is_heard_after_a_lease_made_anew() -> None:
    """Nobody tells the mark of its sequence but the highest that the pod ever took."""
    world = led(7)
    for document, agent in zip(retired(NAME, "team", world.observed().pods, (7, NUMBER)), world.agents, strict=True):
        agent.take(document.share)
    again = anew(World({"artifact": artifact("b")}))
    again.agents, again.now = world.agents, world.now
    again.after(5)
    assert again.condition() == ("True", "Serving")


def test_a_former_leader_is_refused() -> None:
    world = led(7)
    world.edit(source={"artifact": artifact("b")})
    late = plan(world.observed(), world.now)  # decided, and then its process stood still
    world.lease, world.term = 8, 0
    world.after(5)
    for document in late.documents:
        agent = next(each for each in world.agents if each.uid == document.uid)
        before = agent.shares[NAME]
        agent.take(document.share)
        assert agent.refusal is not None
        assert (agent.refusal.reason, agent.shares[NAME]) == ("SequenceOld", before)


def test_a_pod_that_tells_of_a_sequence_that_cannot_be_concerns_itself_alone() -> None:
    world = led(7)
    liar = world.agents[0]
    liar.shares[NAME] = liar.shares[NAME].model_copy(update={"sequence": (2**60, 2**60)})
    world.edit(source={"artifact": artifact("b")}).after(5)
    world.after(100)
    assert world.condition() == ("True", "Serving")
    assert world.rollout.status.sequence is not None
    assert world.rollout.status.sequence[0] == 7
    assert [agent.shares[NAME].sequence[0] for agent in world.agents[1:]] == [7, 7]
    assert liar.shares[NAME].sequence[0] > 2**60


BEYOND_ALL = 2**63 - 1
"""What a field of the API holds at most."""


@pytest.mark.parametrize("sequence", [[BEYOND_ALL, BEYOND_ALL], [7, BEYOND_ALL], [BEYOND_ALL, 0]])
def test_a_status_that_tells_of_a_sequence_that_cannot_be_freezes_nothing(sequence: list[int]) -> None:
    """As somebody wrote it, or a tool that restores what it does not understand."""
    world = led(7)
    body = world.rollout.model_dump(mode="json", by_alias=True, exclude_none=True)
    world.rollout = type(world.rollout).parse({**body, "status": {**body["status"], "sequence": sequence}})
    world.edit(source={"artifact": artifact("b")}).after(5)
    world.after(100)
    assert world.condition() == ("True", "Serving")
    assert world.aliases == [{revision("b"): 100}] * 3
    assert world.rollout.status.sequence is not None
    assert world.rollout.status.sequence[0] == 7

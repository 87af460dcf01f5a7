"""Random lives of agents, with an operator that dies between any two writes: what must hold in all of them.

Adapters: `a` and `b` are good, `c` fails its probe, `d` passes it and fails one request in two.
"""

from __future__ import annotations

from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from trimtab_operator.domain.adapterrollout import plan

from tests.unit.domain.rollout.world import Agent, World, artifact, revision, sha

GOOD, REFUSED, WORSE = "ab", "c", "d"
PASSING = ("EngineFailed", False)
OF_THE_POD = ("VolumeNotShared", True)
NUMBER = st.integers(0, 9)


class Life(RuleBasedStateMachine):
    """Events of pods, engines and users, in any order, between rounds of an operator that may die in them."""

    @initialize(pods=st.integers(1, 4), at_once=st.integers(0, 2), weight=st.sampled_from((100, 30)))
    def begin(self, pods: int, at_once: int, weight: int) -> None:
        strategy = {"canarySeconds": 20, "maxPodsAtOnce": at_once, "canaryWeight": weight, "drainSeconds": 5}
        self.world = World({"artifact": artifact("a")}, pods, strategy=strategy)
        self.letter = "a"
        self.started = pods
        self.answered: set[str] = set()
        for agent in self.world.agents:
            agent.fails[sha(REFUSED)] = ("ProbeFailed", True)

    def one(self, number: int) -> Agent:
        return self.world.agents[number % len(self.world.agents)]

    def ask(self) -> None:
        """Let requests come in, by the alias."""
        for letter in GOOD:
            self.world.asked(revision(letter), 30)
        self.world.asked(revision(WORSE), 15, 15)

    @rule(writes=st.integers(0, 6))
    def operate_and_die(self, writes: int) -> None:
        self.world.operate(writes)

    @rule()
    def the_operator_is_installed_anew(self) -> None:
        """Its Lease counts from one."""
        self.world.lease, self.world.term = 1, 0

    @rule(rounds=st.integers(1, 4))
    def all_goes_well(self, rounds: int) -> None:
        for _ in range(rounds):
            for agent in self.world.agents:
                agent.step()
            self.world.operate()
            self.ask()

    @rule(seconds=st.integers(1, 60))
    def wait(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)
        self.ask()

    @rule(number=NUMBER)
    def an_agent_makes_a_round(self, number: int) -> None:
        self.one(number).step()

    @rule(number=NUMBER)
    def an_agent_answers_late(self, number: int) -> None:
        agent = self.one(number)
        agent.late = agent.answer()

    @rule(number=NUMBER)
    def an_agent_is_silent_or_back(self, number: int) -> None:
        agent = self.one(number)
        agent.up, agent.since = not agent.up, self.world.now

    @rule(number=NUMBER)
    def an_engine_is_killed_or_back(self, number: int) -> None:
        agent = self.one(number)
        if agent.engine_up:
            agent.engine_restarts()
        agent.engine_up = not agent.engine_up

    @rule(number=NUMBER)
    def an_engine_restarts_at_once(self, number: int) -> None:
        self.one(number).engine_restarts()

    @rule(number=NUMBER, letter=st.sampled_from(GOOD), why=st.sampled_from((None, PASSING, OF_THE_POD)))
    def a_pod_cannot_load_or_can_again(self, number: int, letter: str, why: tuple[str, bool] | None) -> None:
        agent = self.one(number)
        agent.fails.pop(sha(letter), None)
        if why is not None:
            agent.fails[sha(letter)] = why

    @rule(number=NUMBER, letter=st.sampled_from(GOOD))
    def an_engine_lies_or_is_honest(self, number: int, letter: str) -> None:
        self.one(number).lies ^= {revision(letter)}

    @rule(number=NUMBER)
    def a_pod_hangs_or_goes_on(self, number: int) -> None:
        self.one(number).hangs ^= True

    @precondition(lambda self: len(self.world.agents) < 6)
    @rule()
    def a_pod_starts(self) -> None:
        agent = self.world.scale_up(f"pod-{self.started}")
        agent.fails[sha(REFUSED)] = ("ProbeFailed", True)
        self.started += 1

    @precondition(lambda self: len(self.world.agents) > 1)
    @rule(number=NUMBER)
    def a_pod_is_deleted(self, number: int) -> None:
        self.world.agents.remove(self.one(number))

    @rule(letter=st.sampled_from((*GOOD, *GOOD, REFUSED, WORSE)))
    def the_user_wants_another(self, letter: str) -> None:
        self.letter = letter
        self.world.edit(source={"artifact": artifact(letter)})

    @rule()
    def the_user_pauses_or_goes_on(self) -> None:
        self.world.edit(paused=not self.world.rollout.spec.paused)

    @invariant()
    def no_alias_is_sent_to_what_its_pod_has_not_proven(self) -> None:
        for agent in self.world.agents:
            assert agent.too_early == []
            assert revision(REFUSED) not in self.world.alias(agent)

    @invariant()
    def an_alias_that_answered_is_never_taken_away(self) -> None:
        now = {agent.name for agent in self.world.agents if self.world.alias(agent)}
        here = {agent.name for agent in self.world.agents}
        assert not (self.answered & here) - now
        self.answered = now

    @invariant()
    def three_revisions_at_most(self) -> None:
        assert all(agent.held_at_most <= 3 for agent in self.world.agents)

    @invariant()
    def ready_is_what_every_pod_answers(self) -> None:
        """Whenever it would be said now, of answers of now."""
        world = self.world
        made = plan(world.observed(), world.now)
        assert made.status is not None
        ready = next(each for each in made.status["conditions"] if each["type"] == "Ready")
        assert made.status["pods"]["desired"] == len(world.agents)
        if ready["status"] == "True":
            wanted = revision(self.letter)
            assert all(alias == {wanted: 100} for alias in world.aliases)
            assert all(agent.up and agent.serves(wanted) for agent in world.agents)

    def teardown(self) -> None:
        """All that is broken is repaired, and time goes by."""
        if not hasattr(self, "world"):
            return
        world = self.world
        if world.rollout.spec.paused:
            world.edit(paused=False)
        for agent in world.agents:
            agent.up = agent.engine_up = True
            agent.hangs, agent.late = False, None
            agent.lies.clear()
            agent.fails = {sha(REFUSED): ("ProbeFailed", True)}
        for _ in range(40):
            for agent in world.agents:
                agent.step()
            world.operate()
            world.now += timedelta(seconds=3)
            self.ask()
        status = world.rollout.status
        served = revision(status.served.digest[7]) if status.served is not None else None
        assert all(alias == ({served: 100} if served else {}) for alias in world.aliases)
        if served == revision(self.letter):
            assert world.condition() == ("True", "Serving")
            assert self.letter != REFUSED
        else:
            assert world.condition() == ("False", "RolledBack")
            assert self.letter not in GOOD
        assert all(revision(REFUSED) not in world.held(agent) for agent in world.agents)
        writes = world.writes
        world.after(300)
        assert world.writes == writes, "at rest nothing is written"


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)

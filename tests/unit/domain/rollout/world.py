"""A small world of agents and an operator, for stories; random lives (`tests.unit.lives`) have the agents too.

The agents keep the rules of `trimtab_agent`: they refuse lower sequences and aliases to what is not proven, bring in
what is wanted, and tell what is true in the words of `GET /v1/rollouts`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from trimtab_agent.contract import PodAnswer, Share
from trimtab_operator.api import Evaluation
from trimtab_operator.api.adapterrollout import ADAPTERROLLOUT, AdapterRollout, AdapterRolloutStatus
from trimtab_operator.api.review import Review
from trimtab_operator.domain.adapterrollout import AgentTruth, Observed, ServingPod
from trimtab_operator.domain.adapterrollout import plan as decide
from trimtab_operator.domain.adapterrollout.claims import Claim
from trimtab_operator.domain.adapterrollout.observed import Maker, Refusal
from trimtab_operator.domain.plan import AgentsOf, MountedShare, Plan, PolicyInForce
from trimtab_operator.domain.review.policies import Force, Policy
from trimtab_operator.domain.views import format_time

T0 = datetime(2026, 1, 5, 12, 0, 0, tzinfo=UTC)
NAME = "guide"
WHEN = {"True": "succeeded", "False": "failed", "Unknown": "active"}


def sha(letter: str) -> str:
    return "sha256:" + letter * 64


def revision(letter: str, name: str = NAME) -> str:
    """Return the name that the adapter with a digest of one letter has in the engines."""
    return f"{name}@{letter * 8}"


def artifact(letter: str) -> dict[str, Any]:
    return {"uri": f"s3://adapters/guide/adapters/{letter}", "digest": sha(letter)}


def rollout(source: Mapping[str, Any], **spec: Any) -> AdapterRollout:
    given = {
        "adapterName": NAME,
        "source": source,
        "serving": {"selector": {"matchLabels": {"app": "vllm"}}},
        "strategy": {"canarySeconds": 60},
    }
    metadata = {"name": NAME, "namespace": "team", "uid": "uid-1", "creationTimestamp": "2026-01-05T11:00:00Z"}
    return AdapterRollout.parse({"metadata": metadata, "spec": {**given, **spec}})


def evaluation(
    name: str,
    letter: str,
    passed: str = "True",
    *,
    baseline: str | None = None,
    against_served: bool = False,
    completed: int = 0,
    labels: Mapping[str, str] | None = None,
) -> Evaluation:
    """Return an Evaluation of the adapter with a letter, compared with another one if that is given.

    `against_served`: it asked for what the rollout serves, which was that other one, or nothing yet.
    """
    condition = {
        "type": "Passed",
        "status": passed,
        "reason": {"True": "Passed", "False": "Regressed", "Unknown": "NotYet"}[passed],
        "message": "rougeL is worse" if passed == "False" else "",
        "lastTransitionTime": "2026-01-05T11:30:00Z",
    }
    status: dict[str, Any] = {"conditions": [condition], "target": artifact(letter)}
    if passed != "Unknown":
        status["completionTime"] = f"2026-01-05T11:{30 + completed}:00Z"
    spec: dict[str, Any] = {
        "target": {"artifact": artifact(letter)},
        "baseModel": {"uri": "s3://models/tiny"},
        "output": {"uri": "s3://results/x"},
        "tasks": [{"name": "heldout", "type": "Perplexity", "dataset": {"uri": "s3://data/x"}}],
    }
    if baseline is not None or against_served:
        spec["baseline"] = {"rolloutName": NAME} if against_served else {"artifact": artifact(baseline or "")}
        status["baseline"] = artifact(baseline) if baseline is not None else {}
    metadata = {"name": name, "namespace": "team", "uid": f"e-{name}", "labels": dict(labels or {})}
    return Evaluation.parse({"metadata": metadata, "spec": spec, "status": status})


def review(
    name: str, decision: str, author: str, letter: str, *groups: str, created: datetime = T0, message: str = ""
) -> Review:
    """Return a Review of the rollout about the adapter with a letter."""
    metadata = {"name": name, "namespace": "team", "uid": f"r-{name}", "creationTimestamp": format_time(created)}
    subject = {"kind": "AdapterRollout", "name": NAME, "digest": sha(letter)}
    spec = {
        "subject": subject, "decision": decision, "author": author, "authorGroups": list(groups), "message": message
    }  # fmt: skip
    return Review.parse({"metadata": metadata, "spec": spec})


@dataclass
class Counted:
    """What a guard counts for one revision."""

    answers: int = 0
    errors: int = 0
    disconnected: int = 0
    running: int = 0
    seconds: float = 0.0
    logs: dict[str, Any] = field(default_factory=lambda: {"n": 0, "sum": 0.0, "squares": 0.0})
    """Sums of the logarithms of seconds."""
    old_guard: bool = False

    def requests(self, answers: int, errors: int = 0, seconds: float = 1.0) -> None:
        """Count some more; their times are spread a little, as times are: by up to a fifth either way."""
        self.answers += answers
        self.errors += errors
        times = [seconds * 1.2 ** (at % 5 / 2 - 1) for at in range(answers)]
        logs = [math.log(each) for each in times]
        self.seconds += sum(times)
        self.logs = {
            "n": self.logs["n"] + answers,
            "sum": self.logs["sum"] + sum(logs),
            "squares": self.logs["squares"] + sum(log * log for log in logs),
        }


@dataclass
class Agent:
    """One pod. `engine`: revisions that its process holds and that were probed there."""

    name: str
    up: bool = True
    engine_up: bool = True
    starts: int = 0
    hangs: bool = False
    slots: int | None = 4
    rank: int | None = 16
    base_models: list[str] = field(default_factory=lambda: ["smol"])
    fails: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """By digest, how a revision fails here: reason, and whether for good."""
    lies: set[str] = field(default_factory=set)
    """Names that the work says are loaded, and the engine's list does not hold."""
    engine: set[str] = field(default_factory=set)
    proven: set[str] = field(default_factory=set)
    failures: dict[str, tuple[str, bool]] = field(default_factory=dict)
    shares: dict[str, Share] = field(default_factory=dict)
    table: dict[str, dict[str, int]] = field(default_factory=dict)
    counts: dict[str, Counted] = field(default_factory=dict)
    refusal: Refusal | None = None
    held_at_most: int = 0
    since: datetime | None = None

    @property
    def uid(self) -> str:
        return f"uid-of-{self.name}"

    def serves(self, name: str) -> bool:
        return self.engine_up and name in self.engine and name in self.proven and name not in self.lies

    def take(self, share: Share, *, mounted: bool = False) -> None:
        """PUT, or a mounted document."""
        self.refusal = self._why_not(share, mounted=mounted)
        if self.refusal is None:
            self.shares[share.rollout] = share
            self.held_at_most = max(self.held_at_most, len(share.revisions))
            self.step(bring=False)

    def _why_not(self, share: Share, *, mounted: bool) -> Refusal | None:
        held = self.shares.get(share.rollout)
        if held is not None and share.sequence <= held.sequence and share != held:
            reason = "SequenceReused" if share.sequence == held.sequence else "SequenceOld"
            return Refusal(reason, f"{share.sequence} against {held.sequence}")
        others = [each for name, each in self.shares.items() if name != share.rollout and not each.retired]
        if any(set(share.aliases) & set(each.aliases) for each in others):
            return Refusal("AliasHeld", "another rollout holds it")
        names = {each.name for other in [share, *others] for each in other.revisions}
        if self.slots is not None and len(names) > self.slots:
            return Refusal("DoesNotFit", f"{len(names)} of {self.slots}")
        for alias, weights in share.aliases.items():
            if mounted or (held is not None and held.aliases.get(alias) == weights):
                continue
            if self.table.get(alias) == {}:  # pending
                continue
            if any(weight and not self.serves(name) for name, weight in weights.items()):
                return Refusal("NotVerified", f"{alias}: not proven here")
        return None

    def step(self, *, bring: bool = True) -> None:
        """A round: what is wanted is brought in, what is not is unloaded, the table follows."""
        wanted = {each.name: each for share in self.shares.values() for each in share.revisions}
        if bring and self.engine_up and not self.hangs:
            for name, each in wanted.items():
                if each.digest in self.fails:
                    if name not in self.engine or name not in self.proven:
                        self.failures[name] = self.fails[each.digest]
                    continue
                self.engine.add(name)
                self.proven.add(name)
                self.failures.pop(name, None)
        for share in self.shares.values():
            for alias, weights in share.aliases.items():
                if all(name in self.proven for name, weight in weights.items() if weight):
                    self.table[alias] = dict(weights)
                else:
                    self.table.setdefault(alias, {})
        aliases = {alias for share in self.shares.values() for alias in share.aliases}
        self.table = {alias: to for alias, to in self.table.items() if alias in aliases}
        needed = set(wanted) | {name for to in self.table.values() for name in to}
        self.engine &= needed
        self.failures = {name: why for name, why in self.failures.items() if name in wanted}

    def engine_restarts(self) -> None:
        """The engine forgets everything; the proof of its former process stays with the agent, as in `Work`."""
        self.engine.clear()
        self.counts.clear()
        self.starts += 1

    def answer(self) -> dict[str, Any]:
        """GET /v1/rollouts."""
        bounds = {name: self._count(counted) for name, counted in self.counts.items()}
        counts = {"instance": f"{self.name}-{self.starts}", "revisions": bounds} if self.engine_up else None
        return {**self.news(), "counts": counts}

    def news(self) -> dict[str, Any]:
        """Return the part of the answer of which a change is told at once."""
        return {
            "engine": {
                "answers": self.engine_up,
                "error": None if self.engine_up else "connection refused",
                "instance": f"{self.name}-{self.starts}",
                "harmed": None,
                "limits": {"maxLoras": 2, "maxLoraRank": self.rank, "maxCpuLoras": self.slots}
                if self.engine_up
                else None,
                "baseModels": self.base_models if self.engine_up else [],
                "adapters": [{"name": name, "root": "/x"} for name in sorted(self.engine - self.lies)]
                if self.engine_up
                else [],
            },
            "sequence": list(max((share.sequence for share in self.shares.values()), default=(0, 0))),
            "rollouts": [self.truth(share) for share in self.shares.values() if not share.retired],
        }

    @staticmethod
    def _count(counted: Counted) -> dict[str, Any]:
        nothing = {"n": 0, "sum": 0.0, "squares": 0.0}
        ended = {
            "requests": counted.answers + counted.errors + counted.disconnected + counted.running,
            "answers": counted.answers,
            "errors": counted.errors,
            "rejected": 0,
            "disconnected": counted.disconnected,
            "running": counted.running,
        }
        old = {**ended, "total": {"sum": counted.seconds, "buckets": [counted.answers, 0]}}
        by_alias = {**ended, "first": counted.logs, "chunk": nothing, "token": nothing, "whole": nothing}
        return old if counted.old_guard else {**old, "byAlias": by_alias}

    def truth(self, share: Share) -> dict[str, Any]:
        """Return what is true of one share, which is the answer to a document too."""
        return {
            "rollout": share.rollout,
            "uid": share.uid,
            "sequence": list(share.sequence),
            "aliases": {
                alias: {"to": self.table[alias]} if self.table.get(alias) else {"pending": "being brought in"}
                for alias in share.aliases
            },
            "revisions": [
                {
                    "name": each.name,
                    "digest": each.digest,
                    "uri": each.uri,
                    "verified": each.name in self.proven,
                    "loaded": self.engine_up and each.name in self.engine,
                    "probed": each.name in self.proven,
                    "failed": {"reason": why[0], "message": "as the test wants it", "permanent": why[1]}
                    if (why := self.failures.get(each.name))
                    else None,
                }
                for each in share.revisions
            ],
        }


def read(answer: Mapping[str, Any]) -> AgentTruth:
    """Return what the operator makes of an answer."""
    return AgentTruth.of(PodAnswer.model_validate({"version": 1, **answer}))


def explained(status: AdapterRolloutStatus) -> None:
    """What a status says is what docs/api.md explains: each reason with the status that it is explained for."""
    for condition in status.conditions:
        _, explanations = ADAPTERROLLOUT.reasons[condition.type]
        assert explanations[condition.reason].when == WHEN[condition.status], condition
    _, of_pods = ADAPTERROLLOUT.reasons["podReasons"]
    told = {each.reason for each in status.pod_reasons} | {each.reason for each in status.rejected}
    assert told <= set(of_pods)


class World:
    """Pods, the object, and the operator."""

    def __init__(self, source: Mapping[str, Any], pods: int = 3, **spec: Any) -> None:
        self.now = T0
        self.rollout = rollout(source, **spec)
        self.agents = [Agent(f"pod-{number}") for number in range(pods)]
        self.evaluations: tuple[Evaluation, ...] = ()
        self.others: tuple[Claim, ...] = ()
        self.ranks: dict[str, int | None] = {}
        self.reviews: list[Review] = []
        self.makers: dict[str, tuple[Maker, ...]] = {}
        self.forces = {policy: Force(T0 - timedelta(days=1)) for policy in Policy}
        self.mounted: Share | None = None
        self.lease = 0
        self.term = 0
        """Of this process, which grows above what it sees."""
        self.writes = 0
        self.events: list[str] = []

    # The operator

    def observed(self) -> Observed:
        """Return what the operator sees."""
        pods = tuple(
            ServingPod(
                name=agent.name,
                uid=agent.uid,
                address="10.0.0.1",
                ready=agent.engine_up,
                truth=read(agent.answer()) if agent.up else None,
                unreachable_since=None if agent.up else agent.since,
                refusal=agent.refusal,
            )
            for agent in self.agents
        )
        metadata = self.rollout.metadata
        canaries = [mark.pod for mark in step.marks] if (step := self.rollout.status.step) is not None else []
        return Observed(
            rollout=self.rollout,
            evaluations=self.evaluations,
            others=self.others,
            pods=pods,
            lease_transitions=max(self.lease, self.term),
            ranks=dict(self.ranks),
            reviews=tuple(self.reviews),
            makers=dict(self.makers),
            answers={
                **{PolicyInForce(policy): force for policy, force in self.forces.items()},
                MountedShare(metadata.namespace, metadata.name): self.mounted,
                AgentsOf(tuple(pod.uid for pod in sorted(pods, key=lambda p: p.name) if pod.uid in canaries)): True,
            },
        )

    def operate(self) -> Plan:
        """One round of the operator: the status, then each document."""
        made = decide(self.observed(), self.now)
        if made.status != self.rollout.status.to_json():
            self.writes += 1
            body = {**self.rollout.model_dump(by_alias=True, exclude={"status"}, exclude_none=True)}
            self.rollout = AdapterRollout.parse({**body, "status": made.status})
            self.events += [note.reason for note in made.notes]
            explained(self.rollout.status)
        self.term = max(self.term, made.sequence[0] if made.sequence is not None else 0)
        for document in made.documents:
            agent = next(each for each in self.agents if each.uid == document.uid)
            if agent.up:
                agent.take(Share.model_validate_json(document.share.to_bytes()))
        if made.mounted is not None:
            assert isinstance(made.mounted, Share)
            self.mounted = made.mounted
        return made

    def after(self, seconds: float = 1) -> Self:
        """Let time go by, a round of everyone each second at most, ten rounds at least."""
        for _ in range(10):
            self.now += timedelta(seconds=seconds / 10)
            for agent in self.agents:
                agent.step()
            self.operate()
        return self

    # The user and the cluster

    def edit(self, **spec: Any) -> Self:
        """Change the spec: the generation grows."""
        body = self.rollout.model_dump(mode="json", by_alias=True, exclude_none=True)
        body["metadata"]["generation"] += 1
        body["spec"] = {**body["spec"], **spec}
        self.rollout = AdapterRollout.parse(body)
        return self

    def reviewed(self, decision: str, author: str, letter: str, *groups: str, message: str = "") -> Review:
        """Let somebody decide about an adapter, a second later."""
        self.now += timedelta(seconds=1)
        made = review(f"r{len(self.reviews)}", decision, author, letter, *groups, created=self.now, message=message)
        self.reviews.append(made)
        return made

    def scale_up(self, name: str) -> Agent:
        """Start a pod, which takes the mounted document first."""
        agent = Agent(name)
        self.agents.append(agent)
        if self.mounted is not None:
            agent.take(self.mounted, mounted=True)
        return agent

    def asked(
        self, name: str, answers: int, errors: int = 0, *, seconds: float = 1.0, left: int = 0, running: int = 0
    ) -> Self:
        """Let every pod whose alias points at a revision have counted requests to it; `running` is what runs now."""
        for agent in self.agents:
            if self.alias(agent).get(name):
                counted = agent.counts.setdefault(name, Counted())
                counted.requests(answers, errors, seconds)
                counted.disconnected += left
                counted.running = running
        return self

    def alias(self, agent: Agent) -> dict[str, int]:
        return {name: weight for name, weight in agent.table.get(NAME, {}).items() if weight}

    @property
    def aliases(self) -> list[dict[str, int]]:
        return [self.alias(agent) for agent in self.agents]

    def held(self, agent: Agent) -> set[str]:
        share = agent.shares.get(NAME)
        return {each.name for each in share.revisions} if share is not None else set()

    def condition(self, kind: str = "Ready") -> tuple[str, str]:
        found = next(each for each in self.rollout.status.conditions if each.type == kind)
        return found.status, found.reason

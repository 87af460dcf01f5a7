"""What a decision about an AdapterRollout sees: the object, what it refers to, its pods, and what each agent tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from trimtab_agent.documents import Share

from trimtab_operator.api import Evaluation
from trimtab_operator.api.adapterrollout import AdapterRollout

from ..plan import Inquiry, MountedShare
from .claims import Claim

Sequence = tuple[int, int]
"""[leaseTransitions, n]."""


@dataclass(frozen=True)
class Counts:
    """Requests of one revision since its engine started. `requests` have ended; `seconds` is the sum over answers."""

    requests: int = 0
    errors: int = 0
    answers: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """Return the guard's count of one revision; who left or still waits says nothing of the revision."""
        answers = sum(body["total"]["buckets"])
        requests = answers + int(body["errors"]) + int(body["rejected"])
        return cls(requests, int(body["errors"]), answers, float(body["total"]["sum"]))

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.requests + other.requests,
            self.errors + other.errors,
            self.answers + other.answers,
            self.seconds + other.seconds,
        )

    def __sub__(self, other: Counts) -> Counts:
        return Counts(
            max(0, self.requests - other.requests),
            max(0, self.errors - other.errors),
            max(0, self.answers - other.answers),
            max(0.0, self.seconds - other.seconds),
        )


@dataclass(frozen=True)
class Failure:
    """Why a revision does not serve in a pod: the agent's reason."""

    reason: str
    message: str
    permanent: bool


@dataclass(frozen=True)
class RevisionTruth:
    """One revision in one pod."""

    name: str
    digest: str
    uri: str
    verified: bool = False
    loaded: bool = False
    probed: bool = False
    failure: Failure | None = None


@dataclass(frozen=True)
class ShareTruth:
    """What a pod holds of one rollout. `aliases`: revisions by weight, empty while the alias answers 503."""

    rollout: str
    uid: str
    sequence: Sequence
    aliases: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    revisions: tuple[RevisionTruth, ...] = ()

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """Return the typed form of what an agent tells of one share.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is none of an agent of this version.
        """
        lease, number = body["sequence"]
        return cls(
            rollout=body["rollout"],
            uid=body["uid"],
            sequence=(int(lease), int(number)),
            aliases={name: dict(entry.get("to", {})) for name, entry in body["aliases"].items()},
            revisions=tuple(_revision(each) for each in body["revisions"]),
        )


@dataclass(frozen=True)
class AgentTruth:
    """An agent's answer to `GET /v1/rollouts`: what it read back from its engine. None where it does not know."""

    instance: str = ""
    engine_answers: bool = True
    engine_error: str = ""
    harmed: str | None = None
    max_lora_rank: int | None = None
    max_cpu_loras: int | None = None
    base_models: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    shares: tuple[ShareTruth, ...] = ()
    counts: Mapping[str, Counts] = field(default_factory=dict)

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """Return the typed form of an answer.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is none of an agent of this version.
        """
        engine, counts = body["engine"], body["counts"] or {"revisions": {}}
        limits = engine["limits"] or {}
        return cls(
            instance=engine["instance"] or "",
            engine_answers=bool(engine["answers"]),
            engine_error=engine["error"] or "",
            harmed=engine["harmed"],
            max_lora_rank=limits.get("maxLoraRank"),
            max_cpu_loras=limits.get("maxCpuLoras"),
            base_models=tuple(engine["baseModels"]),
            adapters=tuple(each["name"] for each in engine["adapters"]),
            shares=tuple(ShareTruth.of(each) for each in body["rollouts"]),
            # Counts of another start of the engine than the one that was seen would be compared with the wrong zero.
            counts={name: Counts.of(each) for name, each in counts["revisions"].items()}
            if counts.get("instance", engine["instance"]) == engine["instance"]
            else {},
        )


def _revision(body: Mapping[str, Any]) -> RevisionTruth:
    failed = body["failed"]
    return RevisionTruth(
        name=body["name"],
        digest=body["digest"],
        uri=body["uri"],
        verified=body["verified"],
        loaded=body["loaded"],
        probed=body["probed"],
        failure=Failure(failed["reason"], failed["message"], failed["permanent"]) if failed else None,
    )


@dataclass(frozen=True)
class Refusal:
    """The agent's answer to the newest document, where it was none of success: 409 and its kin, or none at all.

    `share` is what was refused, `again` when it is worth another try as it is.
    """

    reason: str
    message: str
    share: Share | None = None
    again: datetime | None = None

    def stands(self, share: Share, now: datetime) -> bool:
        """Tell whether a share would be refused again: the same but for its sequence, and it is too early."""
        if self.share is None or self.again is None or now >= self.again:
            return False
        return self.share.model_copy(update={"sequence": share.sequence}) == share


@dataclass(frozen=True)
class ServingPod:
    """A pod that matches the selector, with the newest answer of its agent.

    `truth` is None if the agent never answered, or not since `unreachable_since`: what it said before is no truth.
    """

    name: str
    uid: str
    address: str = ""
    ready: bool = False
    deleting: bool = False
    truth: AgentTruth | None = None
    unreachable_since: datetime | None = None
    unreachable_why: str = ""
    refusal: Refusal | None = None

    def share(self, rollout: str) -> ShareTruth | None:
        """Return what the pod holds of a rollout."""
        shares = self.truth.shares if self.truth is not None else ()
        return next((share for share in shares if share.rollout == rollout), None)

    def revision(self, rollout: str, name: str) -> RevisionTruth | None:
        """Return what is true of a revision here."""
        share = self.share(rollout)
        return next((each for each in share.revisions if each.name == name), None) if share is not None else None

    def proves(self, rollout: str, name: str) -> bool:
        """Tell whether a revision may take traffic here: probed, and in the engine's list now."""
        revision = self.revision(rollout, name)
        if revision is None or self.truth is None or not self.answers:
            return False
        return revision.loaded and revision.probed and name in self.truth.adapters

    @property
    def answers(self) -> bool:
        """Whether agent and engine answer, and the engine is sound."""
        return self.truth is not None and self.truth.engine_answers and self.truth.harmed is None


@dataclass(frozen=True)
class Observed:
    """Everything about one AdapterRollout at one moment.

    Attributes:
        evaluations: those of the namespace that the source may refer to.
        others: what other AdapterRollouts claim its name.
        pods: those that match the selector, in any order.
        unselected: the other serving pods of the namespace: what they hold of it they are to give back.
        lease_transitions: of the leader's Lease; a document of an earlier leader is refused by the agents.
        can_sign: whether there is a key to sign documents with.
        ranks: of adapters by digest, where a FineTuneJob tells it.
        answers: to inquiries of this round.
    """

    rollout: AdapterRollout
    evaluations: tuple[Evaluation, ...] = ()
    others: tuple[Claim, ...] = ()
    pods: tuple[ServingPod, ...] = ()
    unselected: tuple[ServingPod, ...] = ()
    lease_transitions: int = 0
    can_sign: bool = True
    ranks: Mapping[str, int] = field(default_factory=dict)
    answers: Mapping[Inquiry, object] = field(default_factory=dict)

    @property
    def mounted(self) -> Share | None:
        """The document that the ConfigMap for new pods holds, None if it holds none."""
        metadata = self.rollout.metadata
        found = self.answers.get(MountedShare(metadata.namespace, metadata.name))
        return found if isinstance(found, Share) else None

    @property
    def matching(self) -> tuple[ServingPod, ...]:
        """The pods that count, by name: one that is being deleted gets nothing and delays nothing."""
        return tuple(sorted((pod for pod in self.pods if not pod.deleting), key=lambda pod: pod.name))

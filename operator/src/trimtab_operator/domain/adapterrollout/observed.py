"""What a decision about an AdapterRollout sees: the object, what it refers to, its pods, and what each agent tells."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from re import fullmatch
from typing import Self

from pydantic import ValidationError
from trimtab_agent.contract import EngineLimits, PodAnswer, Revision, RevisionAnswer, Share, ShareAnswer

from trimtab_operator.api import Evaluation
from trimtab_operator.api.adapterrollout import AdapterRollout
from trimtab_operator.api.review import Review

from ..plan import Inquiry, MountedShare
from .canary.counts import Counts
from .claims import Claim
from .delivery.sequence import Sequence, of_an_operator

OBJECT_NAME = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
NAME_LENGTH, UID_LENGTH = 63, 64
REVISIONS_KNOWN = 4096
"""Of which it is kept whether they have the form of one; with the longest names and uris that is 6 MiB."""


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
    def of(cls, answer: ShareAnswer) -> Self:
        """Return what decisions need of an agent's answer about one share."""
        return cls(
            rollout=answer.rollout,
            uid=answer.uid,
            sequence=answer.sequence,
            aliases={name: dict(entry.to) for name, entry in answer.aliases.items()},
            revisions=tuple(_revision(each) for each in answer.revisions if _could_be_sent(each)),
        )

    @property
    def ours(self) -> bool:
        """Whether an operator may have sent it: an agent takes signed documents only, but a pod may say anything.

        What a person signed, with a sequence of their own, is theirs to retire.
        """
        named = fullmatch(OBJECT_NAME, self.rollout) is not None and len(self.rollout) <= NAME_LENGTH
        return named and 0 < len(self.uid) <= UID_LENGTH and of_an_operator(self.sequence)


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
    sequence: Sequence = (0, 0)
    """The highest that it ever took, of rollouts that are retired too."""
    counts: Mapping[str, Counts] = field(default_factory=dict)

    @classmethod
    def of(cls, answer: PodAnswer) -> Self:
        """Return what decisions need of an agent's answer."""
        engine, limits = answer.engine, answer.engine.limits or EngineLimits()
        return cls(
            instance=engine.instance or "",
            engine_answers=engine.answers,
            engine_error=engine.error or "",
            harmed=engine.harmed,
            max_lora_rank=limits.max_lora_rank,
            max_cpu_loras=limits.max_cpu_loras,
            base_models=engine.base_models,
            adapters=tuple(each.name for each in engine.adapters),
            shares=tuple(ShareTruth.of(each) for each in answer.rollouts),
            sequence=answer.sequence,
            counts=_counts(answer),
        )


def _could_be_sent(answer: RevisionAnswer) -> bool:
    """Tell whether a revision has the form of one: others are in no document, and no document may repeat them."""
    return _is_a_revision(answer.name, answer.uri, answer.digest)


@lru_cache(maxsize=REVISIONS_KNOWN)
def _is_a_revision(name: str, uri: str, digest: str) -> bool:
    """Tell whether this is the form of one: every pod tells of the same ones again and again."""
    try:
        Revision(name=name, uri=uri, digest=digest)
    except ValidationError:
        return False
    return True


def _counts(answer: PodAnswer) -> dict[str, Counts]:
    """Return the counts by revision; those of another start of the engine than the one that was seen are compared with
    the wrong zero, and those that are none are left out.
    """
    told, found = answer.counts, dict[str, Counts]()
    if told is None or (told.instance or answer.engine.instance) != answer.engine.instance:
        return found
    for name, body in told.revisions.items():
        with suppress(KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
            found[name] = Counts.of(body)
    return found


def _revision(answer: RevisionAnswer) -> RevisionTruth:
    why = answer.failed
    return RevisionTruth(
        name=answer.name,
        digest=answer.digest,
        uri=answer.uri,
        verified=answer.verified,
        loaded=answer.loaded,
        probed=answer.probed,
        failure=Failure(why.reason, why.message, why.permanent) if why is not None else None,
    )


OUTBID = frozenset({"SequenceOld", "SequenceReused"})
"""The agent's words for a document that is not above what it holds."""


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
        if self.reason in OUTBID and share.sequence[0] > self.share.sequence[0]:
            return False  # a later term is the answer to it
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
    pending: Share | None = None
    """The document that is on its way to it, not answered yet."""
    port: int | None = None
    """Where its agent was asked; None while that is what the rollout says."""

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
class Maker:
    """Who made a FineTuneJob that published an adapter: `author` as it says, empty where it does not."""

    job: str
    author: str
    created: str


@dataclass(frozen=True)
class Observed:
    """Everything about one AdapterRollout at one moment.

    Attributes:
        evaluations: those of the namespace that the source may refer to.
        others: what other AdapterRollouts claim its name.
        pods: those that match the selector, in any order.
        unselected: the other serving pods of the namespace: what they hold of it they are to give back.
        lease_transitions: of the leader's Lease, or the later term that this leader had to begin; agents refuse a
            document of an earlier one.
        can_sign: whether there is a key to sign documents with.
        ranks: of adapters by digest, where a FineTuneJob tells it; None of what is a whole model.
        reviews: decisions about adapters that it may want; none where it asks for no approvals.
        makers: of adapters by digest, where it matters.
        answers: to inquiries of this round.
    """

    rollout: AdapterRollout
    evaluations: tuple[Evaluation, ...] = ()
    others: tuple[Claim, ...] = ()
    pods: tuple[ServingPod, ...] = ()
    unselected: tuple[ServingPod, ...] = ()
    lease_transitions: int = 0
    can_sign: bool = True
    ranks: Mapping[str, int | None] = field(default_factory=dict)
    reviews: tuple[Review, ...] = ()
    makers: Mapping[str, tuple[Maker, ...]] = field(default_factory=dict)
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

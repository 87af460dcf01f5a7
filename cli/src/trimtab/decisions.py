"""What a person decides about an adapter, as a Review: which digest is meant, and who decides. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from .errors import Invalid
from .objects import AdapterRollout, CustomObject, Evaluation, FineTuneJob, mapping, sequence, text
from .views import Shown

Word = Literal["Approve", "Reject", "Comment"]
VERBS: Mapping[str, str] = {"Approve": "approves", "Reject": "rejects", "Comment": "comments on"}
MESSAGE_LENGTH = 1024
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
PART = re.compile(r"(?:sha256:)?([0-9a-f]{8,64})")
"""Of a digest: its first digits, as a list shows them."""
SECOND = 1.0
"""What times of objects are whole numbers of: decisions of one second have no order."""


@dataclass(frozen=True)
class User:
    """Who asks, as the API server knows them."""

    name: str
    groups: tuple[str, ...] = ()

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self:
        """Return the user of a SelfSubjectReview.

        Raises:
            Invalid: the API server names none.
        """
        told = mapping(mapping(answer.get("status")).get("userInfo"))
        if not (name := text(told.get("username"))):
            raise Invalid("the API server does not say who you are", "see kubectl auth whoami")
        return cls(name, tuple(each for each in sequence(told.get("groups")) if isinstance(each, str)))


@dataclass(frozen=True)
class Decided(Shown):
    """A decision: the Review as it was stored, what it is about, and which adapter."""

    review: CustomObject
    about: CustomObject
    digest: str

    @property
    def sentence(self) -> str:
        spec = self.review.spec
        verb = VERBS.get(text(spec.get("decision")), "decides about")
        return f"{text(spec.get('author'))} {verb} {self.digest} of {self.about.kind.singular}/{self.about.name}"

    @property
    def waits_for(self) -> str:
        """The digest that the rollout waits for, where that is another one: then this changes nothing there yet."""
        wanted = waiting(self.about)
        return wanted if wanted != self.digest else ""

    @property
    def is_followed(self) -> bool:
        """Whether anything follows from it: of a rollout that asks for no approvals nothing does."""
        asked = not isinstance(self.about, AdapterRollout) or mapping(self.about.spec.get("strategy")).get("approvals")
        return bool(asked) or self.review.spec.get("decision") == "Comment"


def outdone(approval: Mapping[str, Any], reviews: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether a stored approval counts for nothing: its author rejected the adapter in the same second."""
    return any(
        mapping(each.get("spec")).get("decision") == "Reject" and _of_one_moment(each) == _of_one_moment(approval)
        for each in reviews
    )


def _of_one_moment(review: Mapping[str, Any]) -> tuple[Any, ...]:
    spec, metadata = mapping(review.get("spec")), mapping(review.get("metadata"))
    return (metadata.get("creationTimestamp"), spec.get("author"), mapping(spec.get("subject")))


def who_am_i() -> dict[str, Any]:
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}


def waiting(about: CustomObject) -> str:
    """Return the digest that is to be approved, or is on its way; empty where nothing is."""
    step = mapping(about.told.get("step"))
    coming = "" if step.get("phase") == "Draining" else text(step.get("digest"))
    return text(mapping(about.told.get("approval")).get("digest")) or coming


def digest_of(about: CustomObject, decision: Word, given: str | None) -> str:
    """Return the digest that is meant: what waits, what the object published or judged, or what was given.

    Raises:
        Invalid: it has none, or what was given is no digest or the beginning of none that the object knows.
    """
    if not isinstance(about, AdapterRollout | Evaluation | FineTuneJob):
        raise Invalid(f"a {about.kind.name} has no adapter to decide about", "name an AdapterRollout")
    known = _known(about)
    if given is not None:
        return _whole(given, known)
    if isinstance(about, AdapterRollout):
        found = waiting(about) or (about.served_digest if decision == "Comment" else "")
        why = "no adapter of it waits"
    else:
        found, why = next(iter(known), ""), "it has no adapter yet"
    if not found:
        raise Invalid(f"{about.kind.singular}/{about.name}: {why}", "say which one with --digest")
    return found


def _known(about: CustomObject) -> list[str]:
    told = about.told
    if isinstance(about, FineTuneJob):
        found = [about.adapter_digest]
    elif isinstance(about, Evaluation):
        found = [text(mapping(told.get("target")).get("digest"))]
    else:
        revisions = [text(mapping(each).get("digest")) for each in sequence(told.get("revisions"))]
        found = [waiting(about), text(mapping(told.get("served")).get("digest")), *revisions]
    return list(dict.fromkeys(filter(None, found)))


def _whole(given: str, known: list[str]) -> str:
    if DIGEST.fullmatch(given):
        return given
    part = PART.fullmatch(given)
    found = [each for each in known if part is not None and each.startswith(f"sha256:{part[1]}")]
    if len(found) != 1:
        raise Invalid(f"{given} is no digest", "write sha256: and 64 digits, or the first 8 or more of one it shows")
    return found[0]


def review(about: CustomObject, decision: str, digest: str, message: str, user: User) -> dict[str, Any]:
    """Return the Review of a decision; its name is the API server's to choose.

    Raises:
        Invalid: it is no decision, a comment without words, too long, or would count for nothing, for the rollout asks
            others.
    """
    message = message.strip()
    if decision not in VERBS:
        raise Invalid(f"{decision!r} is no decision", f"choose {', '.join(VERBS)}")
    if decision == "Comment" and not message:
        raise Invalid("a comment needs words", "say what you think of it")
    if len(message) > MESSAGE_LENGTH:
        raise Invalid(f"the message has {len(message):,} characters", f"write at most {MESSAGE_LENGTH:,}")
    approvals = mapping(mapping(about.spec.get("strategy")).get("approvals"))
    asked = [each for each in sequence(mapping(approvals.get("from")).get("groups")) if isinstance(each, str)]
    groups = [group for group in user.groups if group in asked]
    if asked and not groups and decision != "Comment":
        raise Invalid(
            f"{user.name} is in none of the groups {', '.join(asked)}",
            "ask one of them; a comment says something without deciding",
        )
    spec = {
        "subject": {"kind": about.kind.name, "name": about.name, "digest": digest},
        "decision": decision,
        **({"message": message} if message else {}),
        "author": user.name,
        **({"authorGroups": groups} if groups else {}),
    }
    begin = about.name[:40].rstrip("-.")  # of which a name with an end of its own may be made
    metadata = {"generateName": f"{begin}-{decision.lower()}-", "namespace": about.namespace}
    return {"apiVersion": about.kind.api_version, "kind": "Review", "metadata": metadata, "spec": spec}

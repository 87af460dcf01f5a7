"""The page of decisions: which adapters could be decided about, and what was decided. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ...decisions import waiting
from ...objects import AdapterRollout, Body, CustomObject, Evaluation, mapping, number, sequence, text
from ...text import age, clean
from ..addresses import object_path
from .rows import row, short

TONES = {"Approve": "done", "Reject": "failed", "Comment": ""}


@dataclass(frozen=True)
class Said:
    """One Review.

    Attributes:
        counts: False where the operator says that nothing made sure who wrote it, or where it is deleted.
    """

    namespace: str
    name: str
    subject_kind: str
    subject: str
    digest: str
    full_digest: str
    counts: bool
    decision: str
    tone: str
    message: str
    author: str
    age: str


@dataclass(frozen=True)
class Candidate:
    """An adapter that can be decided about, and what was said of it.

    Attributes:
        awaited: whether a rollout waits for it; `progress` says how many of the approvals are there.
        standing: the last decision of each author, of two in the same second the rejection, as the operator has it;
            without those that count for nothing.
    """

    kind: str
    namespace: str
    name: str
    href: str
    state: str
    tone: str
    digest: str
    full_digest: str
    awaited: bool
    progress: str
    standing: tuple[Said, ...]


@dataclass(frozen=True)
class ApprovalsPage:
    """`served` is False where the cluster does not know Reviews."""

    namespace: str
    served: bool
    candidates: tuple[Candidate, ...]
    said: tuple[Said, ...]


def approvals_page(
    reviews: Sequence[Body] | None, objects: Sequence[CustomObject], namespace: str, now: datetime
) -> ApprovalsPage:
    """Return what could be decided about, and what was; `reviews` is None where the cluster knows none."""
    if reviews is None:
        return ApprovalsPage(namespace, False, (), ())
    said = sorted((_said(each, now) for each in reviews), key=lambda pair: pair[0], reverse=True)
    return ApprovalsPage(
        namespace, True, tuple(_candidates(objects, [each for _, each in said], now)), tuple(each for _, each in said)
    )


def _said(body: Body, now: datetime) -> tuple[tuple[str, bool, str], Said]:
    """Return a Review, and by what it is ordered."""
    metadata, spec = mapping(body.get("metadata")), mapping(body.get("spec"))
    subject, born = mapping(spec.get("subject")), text(metadata.get("creationTimestamp"))
    decision, digest = text(spec.get("decision")), clean(text(subject.get("digest")))
    conditions = map(mapping, sequence(mapping(body.get("status")).get("conditions")))
    recorded = next((each for each in conditions if each.get("type") == "Recorded"), {})
    return (born, decision == "Reject", text(metadata.get("name"))), Said(
        namespace=clean(text(metadata.get("namespace"))),
        name=clean(text(metadata.get("name"))),
        subject_kind=clean(text(subject.get("kind"))),
        subject=clean(text(subject.get("name"))),
        digest=short(digest),
        full_digest=digest,
        counts=recorded.get("status") != "False" and not metadata.get("deletionTimestamp"),
        decision=clean(decision),
        tone=TONES.get(decision, ""),
        message=clean(text(spec.get("message"))),
        author=clean(text(spec.get("author"))),
        age=age(born, now),
    )


def _candidates(objects: Iterable[CustomObject], said: Sequence[Said], now: datetime) -> Iterator[Candidate]:
    """Yield what waits for approvals first, then what is judged or on its way, each adapter once."""
    found = []
    stands: dict[tuple[str, ...], dict[str, Said]] = {}
    for each in said:  # the newest first; a comment decides nothing
        if each.decision != "Comment" and each.counts:
            key = (each.namespace, each.subject_kind, each.subject, each.full_digest)
            stands.setdefault(key, {}).setdefault(each.author, each)
    for about in objects:
        for digest in _digests(about):
            told = row(about, now)
            approval = mapping(about.told.get("approval"))
            awaited = digest == approval.get("digest")
            standing = stands.get((clean(about.namespace), about.kind.name, clean(about.name), clean(digest)), {})
            found.append(
                Candidate(
                    about.kind.name,
                    clean(about.namespace),
                    clean(about.name),
                    object_path(about),
                    told.state,
                    told.tone,
                    short(digest),
                    digest,
                    awaited,
                    _progress(approval) if awaited else "",
                    tuple(standing.values()),
                )
            )
    yield from sorted(found, key=lambda each: (not each.awaited, each.kind, each.namespace, each.name))


def _progress(approval: Body) -> str:
    there, required = len(sequence(approval.get("approvedBy"))), number(approval.get("required"))
    return f"{there} of {required:g} approvals" if required else ""


def _digests(about: CustomObject) -> Iterator[str]:
    if isinstance(about, AdapterRollout):
        incoming = [
            text(each.get("digest"))
            for each in map(mapping, sequence(about.told.get("revisions")))
            if each.get("state") == "Incoming"
        ]
        yield from dict.fromkeys(each for each in (waiting(about), *incoming) if each and each != about.served_digest)
    elif isinstance(about, Evaluation) and about.passed is not None:
        digest = text(mapping(about.told.get("target")).get("digest"))
        yield from (digest,) if digest else ()

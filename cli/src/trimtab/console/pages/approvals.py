"""The page of decisions: which adapters could be decided about, and what was decided. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ...errors import Invalid
from ...objects import AdapterRollout, Body, CustomObject, Evaluation, mapping, number, sequence, text
from ...text import clean
from ..addresses import object_path
from .rows import row, short, since

DECISIONS = ("Approve", "Reject", "Comment")
MESSAGE_LENGTH = 1024
TONES = {"Approve": "done", "Reject": "failed", "Comment": ""}


@dataclass(frozen=True)
class Said:
    """One Review."""

    name: str
    subject_kind: str
    subject: str
    digest: str
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
        standing: the last decision of each author.
    """

    kind: str
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
    if reviews is None:
        return ApprovalsPage(namespace, False, (), ())
    said = sorted((_said(each, now) for each in reviews), key=lambda pair: pair[0], reverse=True)
    return ApprovalsPage(
        namespace, True, tuple(_candidates(objects, [each for _, each in said], now)), tuple(each for _, each in said)
    )


@dataclass(frozen=True)
class Author:
    """A user, as the API server knows them."""

    name: str
    groups: tuple[str, ...] = ()


def review(about: CustomObject, digest: str, decision: str, message: str, author: Author) -> dict[str, Any]:
    """Return a Review to be made; its name is the API server's to choose. Where a rollout asks for groups, it is
    in the name of those that the author is in.

    Raises:
        Invalid: it is no decision, or a comment without words.
    """
    if decision not in DECISIONS:
        raise Invalid(f"{decision!r} is no decision", f"choose {', '.join(DECISIONS)}")
    if decision == "Comment" and not message.strip():
        raise Invalid("the comment is empty", "write what you want to say")
    if len(message) > MESSAGE_LENGTH:
        raise Invalid(f"the message has {len(message):,} characters", f"write at most {MESSAGE_LENGTH:,}")
    approvals = mapping(mapping(about.spec.get("strategy")).get("approvals"))
    asked = sequence(mapping(approvals.get("from")).get("groups"))
    groups = [group for group in author.groups if group in asked]
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "Review",
        "metadata": {"generateName": f"{about.name[:40]}-{decision.lower()}-"},
        "spec": {
            "subject": {"kind": about.kind.name, "name": about.name, "digest": digest},
            "decision": decision,
            "message": message.strip(),
            "author": author.name,
            **({"authorGroups": groups} if groups else {}),
        },
    }


def _said(body: Body, now: datetime) -> tuple[str, Said]:
    metadata, spec = mapping(body.get("metadata")), mapping(body.get("spec"))
    subject, born = mapping(spec.get("subject")), text(metadata.get("creationTimestamp"))
    decision = text(spec.get("decision"))
    return born, Said(
        name=clean(text(metadata.get("name"))),
        subject_kind=clean(text(subject.get("kind"))),
        subject=clean(text(subject.get("name"))),
        digest=short(clean(text(subject.get("digest")))),
        decision=clean(decision),
        tone=TONES.get(decision, ""),
        message=clean(text(spec.get("message"))),
        author=clean(text(spec.get("author"))),
        age=since(born, now),
    )


def _candidates(objects: Iterable[CustomObject], said: Sequence[Said], now: datetime) -> Iterator[Candidate]:
    """Yield what waits for approvals first, then what is judged or on its way, each adapter once."""
    found = []
    for about in objects:
        for digest in _digests(about):
            told = row(about, now)
            approval = mapping(about.told.get("approval"))
            awaited = digest == approval.get("digest")
            key = (about.kind.name, clean(about.name), short(digest))
            ours = [each for each in said if (each.subject_kind, each.subject, each.digest) == key]
            latest: dict[str, Said] = {}
            for each in ours:  # the newest first; a comment decides nothing
                if each.decision != "Comment":
                    latest.setdefault(each.author, each)
            found.append(
                Candidate(
                    about.kind.name,
                    clean(about.name),
                    object_path(about),
                    told.state,
                    told.tone,
                    short(digest),
                    digest,
                    awaited,
                    _progress(approval) if awaited else "",
                    tuple(latest.values()),
                )
            )
    yield from sorted(found, key=lambda each: (not each.awaited, each.kind, each.name))


def _progress(approval: Body) -> str:
    there, required = len(sequence(approval.get("approvedBy"))), number(approval.get("required"))
    return f"{there} of {required:g} approvals" if required else ""


def _digests(about: CustomObject) -> Iterator[str]:
    if isinstance(about, AdapterRollout):
        step = text(mapping(about.told.get("step")).get("digest"))
        incoming = [
            text(each.get("digest"))
            for each in map(mapping, sequence(about.told.get("revisions")))
            if each.get("state") == "Incoming"
        ]
        asked = text(mapping(about.told.get("approval")).get("digest"))
        yield from dict.fromkeys(each for each in (asked, step, *incoming) if each and each != about.served_digest)
    elif isinstance(about, Evaluation) and about.passed is not None:
        digest = text(mapping(about.told.get("target")).get("digest"))
        yield from (digest,) if digest else ()

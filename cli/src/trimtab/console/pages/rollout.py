"""The page of a rollout: how far it is, on which pods, what the canary saw, what was served before. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ...errors import Invalid
from ...objects import AdapterRollout, Body, CustomObject, mapping, number, sequence, text
from ...text import age, clean
from ..addresses import object_path
from .head import Fact, Head, head
from .lineage import Stage, lineage
from .rows import short

PHASES = (("Loading", "Load and prove"), ("Canary", "Canary"), ("Moving", "Everywhere"), ("Serving", "Serving"))


@dataclass(frozen=True)
class Phase:
    """A step of the way: done, now, or ahead."""

    word: str
    at: str


@dataclass(frozen=True)
class Revision:
    """A line of the history; `back` is the address of the way back to it, empty for what is served."""

    name: str
    digest: str
    full_digest: str
    uri: str
    state: str
    tone: str
    pods: int
    back: str


@dataclass(frozen=True)
class PodLine:
    """Why a pod is behind."""

    pod: str
    reason: str
    message: str


@dataclass(frozen=True)
class RolloutPage:
    """Attributes:
    ready, updated, desired: pods that answer with it, that have proven it, and all that match.
    canary: what is known of the canary, in words.
    """

    head: Head
    phases: tuple[Phase, ...]
    ready: int
    updated: int
    desired: int
    facts: tuple[Fact, ...]
    canary: tuple[str, ...]
    revisions: tuple[Revision, ...]
    rejected: tuple[PodLine, ...]
    pods: tuple[PodLine, ...]
    more_pods: int
    lineage: tuple[Stage, ...]


def rollout_page(about: AdapterRollout, others: Sequence[CustomObject], now: datetime) -> RolloutPage:
    """Return the phase of a rollout, its pods, what its canary saw, and the revisions to go back to."""
    counts = mapping(about.told.get("pods"))
    ready, updated, desired = (int(number(counts.get(name)) or 0) for name in ("ready", "updated", "desired"))
    return RolloutPage(
        head=head(about, now),
        phases=_phases(about),
        ready=ready,
        updated=updated,
        desired=desired,
        facts=tuple(_facts(about, now)),
        canary=tuple(_canary(about, now)),
        revisions=tuple(_revision(about, mapping(each)) for each in sequence(about.told.get("revisions"))),
        rejected=tuple(
            PodLine(short(text(each.get("digest"))), clean(text(each.get("reason"))), clean(text(each.get("message"))))
            for each in map(mapping, sequence(about.told.get("rejected")))
        ),
        pods=tuple(
            PodLine(*(clean(text(each.get(name))) for name in ("pod", "reason", "message")))
            for each in map(mapping, sequence(about.told.get("podReasons")))
        ),
        more_pods=int(number(about.told.get("podReasonsOmitted")) or 0),
        lineage=lineage(about, others, now),
    )


def _phases(about: AdapterRollout) -> tuple[Phase, ...]:
    state = "Serving" if about.status == "True" else about.state
    names = [name for name, _ in PHASES]
    if state not in names:
        state = text(mapping(about.told.get("step")).get("phase"))
    here = names.index(state) if state in names else -1
    return tuple(
        Phase(word, "now" if place == here else "done" if place < here else "ahead")
        for place, (_, word) in enumerate(PHASES)
    )


def _facts(about: AdapterRollout, now: datetime) -> Iterator[Fact]:
    yield Fact("Model", clean(text(about.spec.get("adapterName"))), "what clients ask for")
    if about.served_digest:
        yield Fact("Served", short(about.served_digest), about.served_digest)
        if ago := age(mapping(about.told.get("served")).get("sinceTime"), now):
            yield Fact("Since", f"{ago} ago")
    source = mapping(about.spec.get("source"))
    if name := text(source.get("evaluationName")):
        yield Fact("Source", f"Evaluation {clean(name)}", "gated by its verdict")
    elif "follow" in source:
        yield Fact("Source", "newest passed Evaluation", "of those with the labels of spec.source.follow")
    elif digest := text(mapping(source.get("artifact")).get("digest")):
        yield Fact("Source", f"artifact {short(digest)}", "named explicitly, without a gate")


def _canary(about: AdapterRollout, now: datetime) -> Iterator[str]:
    step = mapping(about.told.get("step"))
    if step:
        ago = age(step.get("sinceTime"), now)
        yield f"{short(text(step.get('digest')))} is in the phase {clean(text(step.get('phase')))}" + (
            f" since {ago}" if ago else ""
        )
        requests = number(mapping(step.get("look")).get("requests"))
        if requests is not None:
            yield f"{requests:,} requests to the new revision were looked at last"
        if held := text(step.get("held")):
            yield clean(held)
    if told := text(mapping(about.told.get("served")).get("canary")):
        yield f"of what is served: {clean(told)}"


def _revision(about: AdapterRollout, told: Body) -> Revision:
    digest, state = text(told.get("digest")), text(told.get("state"))
    return Revision(
        name=clean(text(told.get("name"))),
        digest=short(digest),
        full_digest=clean(digest),
        uri=clean(text(told.get("uri"))),
        state=clean(state),
        tone={"Serving": "done", "Incoming": "running"}.get(state, ""),
        pods=int(number(told.get("pods")) or 0),
        back=""
        if digest == about.served_digest or state == "Incoming"
        else f"{object_path(about, 'back')}?to={digest}",
    )


def way_back(about: AdapterRollout, digest: str) -> dict[str, Any]:
    """Return the change of the spec that serves a revision of the history again.

    Raises:
        Invalid: it is not in the history, or is what is served.
    """
    found = next(
        (each for each in map(mapping, sequence(about.told.get("revisions"))) if each.get("digest") == digest), None
    )
    if found is None or not text(found.get("uri")):
        raise Invalid(f"{about.name} has no revision {short(digest)} in its history", "choose one of those on its page")
    if digest == about.served_digest and "artifact" in mapping(about.spec.get("source")):
        raise Invalid(f"{short(digest)} is what {about.name} serves", "there is nothing to go back to")
    artifact = {"uri": text(found.get("uri")), "digest": digest}
    return {"spec": {"source": {"artifact": artifact, "evaluationName": None, "follow": None}}}

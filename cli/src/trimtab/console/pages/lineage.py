"""Where an adapter comes from and where it goes: data and base model, the run, what judged it, what serves it. Pure.

Objects find each other by digests where there are any, and by names before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ...objects import AdapterRollout, CustomObject, Evaluation, FineTuneJob, mapping, sequence, text
from ...text import clean
from ..addresses import object_path, page_path
from .rows import row, short

URI = 64
"""Characters of an address that are shown."""
NODES = 6
"""Of one stage; the others are counted."""


@dataclass(frozen=True)
class Node:
    """One thing on the way; without `href` there is no page of it."""

    title: str
    digest: str = ""
    note: str = ""
    href: str = ""
    tone: str = ""
    here: bool = False


@dataclass(frozen=True)
class Stage:
    """What is at the same point of the way; `more` counts what is not shown."""

    heading: str
    nodes: tuple[Node, ...]
    more: int = 0


def lineage(about: CustomObject, others: Sequence[CustomObject], now: datetime) -> tuple[Stage, ...]:
    """Return the way of the adapter of an object, from data to what serves it."""
    jobs = [each for each in others if isinstance(each, FineTuneJob) and each.namespace == about.namespace]
    job = about if isinstance(about, FineTuneJob) else _job_of(about, jobs)
    digest = job.adapter_digest if job is not None else _digest_of(about)
    evaluations = [
        each
        for each in others
        if isinstance(each, Evaluation) and each.namespace == about.namespace and _judges(each, job, digest)
    ]
    names = {each.name for each in evaluations}
    rollouts = [
        each
        for each in others
        if isinstance(each, AdapterRollout) and each.namespace == about.namespace and _serves(each, digest, names)
    ]
    stages = [_sources(job, about), _runs(job, about, now)]
    if digest:
        uri, made = (job.adapter_uri, job.made) if job is not None else ("", "adapter")
        stages.append(Stage(made.capitalize(), (Node(_cut(uri.rsplit(f"/{made}s/", 1)[0]) or made, short(digest)),)))
    stages += [_stage("Judged by", evaluations, about, now), _stage("Served as", rollouts, about, now)]
    return tuple(each for each in stages if each.nodes)


def _sources(job: FineTuneJob | None, about: CustomObject) -> Stage:
    spec, status = (job.spec, job.told) if job is not None else (about.spec, about.told)
    base, data = mapping(spec.get("baseModel")), mapping(spec.get("dataset"))
    nodes = []
    if uri := text(base.get("uri")):
        nodes.append(Node(_cut(uri), short(text(status.get("baseModelDigest"))), "base model"))
    if uri := text(mapping(data.get("training")).get("uri")):
        told = mapping(status.get("dataset"))
        nodes.append(Node(_cut(uri), short(text(told.get("digest"))), "data"))
    return Stage("From", tuple(nodes))


def _runs(job: FineTuneJob | None, about: CustomObject, now: datetime) -> Stage:
    if job is None:
        return Stage("Run", ())
    nodes = []
    for owner in map(mapping, sequence(job.metadata.get("ownerReferences"))):
        if owner.get("kind") == "FineTuneSweep" and (name := text(owner.get("name"))):
            nodes.append(Node(clean(name), "", "sweep", page_path(job.namespace, "finetunesweeps", name)))
    nodes.append(_node(job, about, now, short(text(job.told.get("runDigest")))))
    return Stage("Run", tuple(nodes))


def _stage(heading: str, objects: Iterable[CustomObject], about: CustomObject, now: datetime) -> Stage:
    nodes = [_node(each, about, now) for each in sorted(objects, key=lambda each: (each.name != about.name, each.name))]
    return Stage(heading, tuple(nodes[:NODES]), len(nodes[NODES:]))


def _node(each: CustomObject, about: CustomObject, now: datetime, digest: str = "") -> Node:
    told = row(each, now)
    here = each.kind == about.kind and each.name == about.name
    return Node(clean(each.name), digest, told.state, object_path(each), told.tone, here)


def _job_of(about: CustomObject, jobs: Sequence[FineTuneJob]) -> FineTuneJob | None:
    name = text(mapping(about.spec.get("target")).get("fineTuneJobName"))
    digest = _digest_of(about)
    return next(
        (each for each in jobs if (each.name == name if name else bool(digest) and each.adapter_digest == digest)), None
    )


def _digest_of(about: CustomObject) -> str:
    if isinstance(about, AdapterRollout):
        return about.served_digest or text(mapping(about.told.get("step")).get("digest"))
    if isinstance(about, Evaluation):
        return text(mapping(about.told.get("target")).get("digest"))
    return ""


def _judges(each: Evaluation, job: FineTuneJob | None, digest: str) -> bool:
    named = text(mapping(each.spec.get("target")).get("fineTuneJobName"))
    found = text(mapping(each.told.get("target")).get("digest"))
    return found == digest if found and digest else job is not None and named == job.name


def _serves(each: AdapterRollout, digest: str, evaluations: set[str]) -> bool:
    known = {each.served_digest, text(mapping(each.told.get("step")).get("digest"))}
    known |= {text(mapping(revision).get("digest")) for revision in sequence(each.told.get("revisions"))}
    if digest and digest in known:
        return True
    return text(mapping(each.spec.get("source")).get("evaluationName")) in evaluations


def _cut(uri: str) -> str:
    cleaned = clean(uri)
    return cleaned if len(cleaned) <= URI else "…" + cleaned[-URI:]

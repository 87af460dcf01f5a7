"""The head of an object's page: what it is doing, why, what to do next, and what may be done from here. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ...kinds import Kind
from ...objects import CustomObject
from ...story import story
from ...text import age, clean
from ..addresses import object_path
from .rows import row, tone_of

NOUNS = {
    "FineTuneJob": "Run",
    "FineTuneSweep": "Sweep",
    "Evaluation": "Evaluation",
    "AdapterRollout": "Rollout",
    "Review": "Review",
}


@dataclass(frozen=True)
class Fact:
    """A label and its value; `hint` is told where a person points at it."""

    label: str
    value: str
    hint: str = ""


@dataclass(frozen=True)
class Head:
    """What every page of an object begins with.

    Attributes:
        why, next_steps: sentences; the first of `why` is the most important.
        stop: the word of the button that holds it up or lets it go on, empty where there is nothing to do.
        kept_by: the mark of a tool that keeps it as it is in git, empty without one.
        uid: of the object, which a write is bound to.
    """

    noun: str
    kind: str
    plural: str
    singular: str
    name: str
    namespace: str
    href: str
    state: str
    tone: str
    doing: str
    why: tuple[str, ...]
    next_steps: tuple[str, ...]
    born: str
    stop: str
    stop_word: str
    kept_by: str
    uid: str


def head(about: CustomObject, now: datetime) -> Head:
    """Return what stands above every page of an object: what it is, why, what to do next, and what may be pressed."""
    told, told_row = story(about, now), row(about, now)
    doing = next(iter(told.section("What")), "")
    return Head(
        noun=noun(about.kind),
        kind=about.kind.name,
        plural=about.kind.plural,
        singular=about.kind.singular,
        name=about.name,
        namespace=about.namespace,
        href=object_path(about),
        state=told_row.state,
        tone=tone_of(about),
        doing=clean(doing.partition(": ")[2]),
        why=tuple(map(clean, told.section("Why"))),
        next_steps=tuple(clean(each) for each in told.section("Next") if each != "Nothing."),
        born=age(about.metadata.get("creationTimestamp"), now),
        stop="" if about.ended or not about.kind.stop else "resume" if about.stopped else "suspend",
        stop_word="Resume" if about.stopped else "Pause" if about.kind.stop == "paused" else "Suspend",
        kept_by=about.kept_by,
        uid=str(about.metadata.get("uid") or ""),
    )


def noun(kind: Kind) -> str:
    return NOUNS.get(kind.name, kind.name)

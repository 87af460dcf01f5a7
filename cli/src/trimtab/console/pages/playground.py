"""The page on which models answer side by side: whom of a rollout's engines can be asked. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...objects import AdapterRollout, CustomObject, mapping, sequence, text
from ...text import clean
from ..addresses import object_path
from .rows import short, tone_of

MODELS, QUESTION_LENGTH, TOKENS = 6, 32_000, 4096
"""At most, of one question."""
REVISIONS, NAME_LENGTH = 64, 512
"""That are offered: whose engine it is chooses how many it lists."""
WORDS = {"Incoming": "candidate", "Serving": "current", "Previous": "before", "Retired": "older"}
"""What a revision is, by its state."""


@dataclass(frozen=True)
class Choice:
    """A model that can be asked.

    Attributes:
        name: as the engine calls it, which is what is asked for; `word` is what it is.
        chosen: whether it is asked where the person says nothing.
    """

    name: str
    word: str
    tone: str
    digest: str
    chosen: bool


@dataclass(frozen=True)
class Place:
    """A rollout of the namespace."""

    name: str
    state: str
    tone: str
    chosen: bool


@dataclass(frozen=True)
class Storing:
    """Where preferences go, in a console that has keys for it.

    Attributes:
        pairs, labels: addresses in the object storage of rows of the two formats.
        action: address that they are sent to, empty where the person may not give any.
    """

    pairs: str
    labels: str
    action: str


@dataclass(frozen=True)
class PlaygroundPage:
    """Attributes:
    places: the rollouts that there are; `name` is the one whose models are asked, empty without one.
    href: of the rollout, and `answers` where the question goes.
    problem, next_step: why nobody can be asked.
    storing: None where this console stores no preferences.
    """

    places: tuple[Place, ...]
    name: str
    href: str
    answers: str
    choices: tuple[Choice, ...]
    most: int
    question_length: int
    tokens: int
    problem: str
    next_step: str
    storing: Storing | None


def playground_page(
    rollouts: Sequence[CustomObject],
    about: AdapterRollout | None,
    choices: Sequence[Choice],
    problem: str = "",
    next_step: str = "",
    *,
    storing: Storing | None = None,
) -> PlaygroundPage:
    """Return what can be asked side by side; `problem` says why nothing can."""
    return PlaygroundPage(
        places=tuple(
            Place(each.name, clean(each.state), tone_of(each), about is not None and each.name == about.name)
            for each in sorted(rollouts, key=lambda each: each.name)
        ),
        name="" if about is None else about.name,
        href="" if about is None else object_path(about),
        answers="" if about is None else object_path(about, "answers"),
        choices=tuple(choices),
        most=MODELS,
        question_length=QUESTION_LENGTH,
        tokens=TOKENS,
        problem=clean(problem),
        next_step=clean(next_step),
        storing=storing,
    )


def choices_of(about: AdapterRollout, adapter: str, base: str, names: Sequence[str]) -> tuple[Choice, ...]:
    """Return whom of an engine's models a person of this rollout asks: the base, what is served, revisions.

    Args:
        names: of all models that its engines serve; other rollouts' are left out.
    """
    told = {text(each.get("name")): each for each in map(mapping, sequence(about.told.get("revisions")))}
    found = [Choice(base, "base", "", "", True)] if base else []
    if adapter in names:
        found.append(Choice(adapter, "served", "done", short(about.served_digest), True))
    ours = [name for name in dict.fromkeys(names) if name.startswith(f"{adapter}@") and len(name) <= NAME_LENGTH]
    revisions = sorted(ours, key=lambda name: _order(told, name))[:REVISIONS]
    return (*found, *(_revision(name, told.get(name, {})) for name in revisions))


def _revision(name: str, told: Mapping[str, object]) -> Choice:
    state = text(told.get("state"))
    incoming = state == "Incoming"
    word = WORDS.get(state, "loaded")
    return Choice(name, word, "running" if incoming else "", short(text(told.get("digest"))), incoming)


def _order(told: Mapping[str, Mapping[str, object]], name: str) -> tuple[int, str]:
    """Return where a revision stands: the candidate first, then as the history has them."""
    state = text(told.get(name, {}).get("state"))
    return (list(WORDS).index(state) if state in WORDS else len(WORDS), name)

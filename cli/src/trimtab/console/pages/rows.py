"""An object in a line: its state in a word and a tone, how far it is, and what it says. Pure; a clock is given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ...objects import (
    AdapterRollout,
    CustomObject,
    Evaluation,
    FineTuneJob,
    FineTuneSweep,
    mapping,
    number,
    sequence,
    text,
)
from ...text import age, clean, duration
from ..addresses import Selection, object_path

WAITING = frozenset(
    {
        "AwaitingApproval", "NoPods", "NotYet", "NothingPassed", "Paused", "Pending", "Queued", "Suspended",
        "WaitingForSource",
    }
)  # fmt: skip
"""States in which nothing is computed."""
SPARKS = 32
SHORT_DIGEST = 12


@dataclass(frozen=True)
class Row:
    """One object.

    Attributes:
        tone: running, waiting, failed or done; what a person looks for first.
        percent: of the work, None where that is not known.
        spark: losses, thinned; empty without a curve.
        figure: the number that matters, such as a loss; empty without one.
    """

    kind: str
    name: str
    namespace: str
    href: str
    state: str
    tone: str
    message: str
    percent: int | None
    spark: tuple[float, ...]
    figure: str
    note: str
    age: str
    born: str


def tone_of(about: CustomObject) -> str:
    """Return what a person looks for first: running, waiting, failed or done."""
    if not about.conditions or about.state in WAITING or about.stopped:
        return "waiting" if not about.ended else "done" if about.status == "True" else "failed"
    if about.status == "True":
        verdict = about.passed if isinstance(about, Evaluation) else None
        return "failed" if verdict is False else "done"
    if isinstance(about, AdapterRollout):
        progressing = about.condition("Progressing")
        return "running" if progressing is not None and progressing.status == "True" else "failed"
    return "failed" if about.status == "False" else "running"


@dataclass(frozen=True)
class Brief:
    """What objects are searched, counted and ordered by: little, because there may be thousands."""

    about: CustomObject
    state: str
    tone: str
    message: str
    born: str

    @property
    def loss(self) -> float | None:
        return number(mapping(self.about.told.get("progress")).get("loss"))


def brief(about: CustomObject) -> Brief:
    born = text(about.metadata.get("creationTimestamp"))
    return Brief(about, _state(about), tone_of(about), _message(about), born)


def row(about: CustomObject, now: datetime) -> Row:
    """Return an object as a line of a table."""
    told, known = mapping(about.told.get("progress")), brief(about)
    percent = number(told.get("percent"))
    figure, note = _figure(about)
    return Row(
        kind=about.kind.name,
        name=about.name,
        namespace=about.namespace,
        href=object_path(about),
        state=clean(known.state),
        tone=known.tone,
        message=clean(known.message),
        percent=None if percent is None or about.ended else min(100, max(0, int(percent))),
        spark=thinned([value for _, value in about.curve.loss], SPARKS),
        figure=figure,
        note=note,
        age=age(known.born, now),
        born=known.born,
    )


def _state(about: CustomObject) -> str:
    if not about.conditions:
        return "New"
    verdict = about.condition("Passed") if isinstance(about, Evaluation) and about.ended else None
    if verdict is not None and verdict.status != "Unknown":
        return "Passed" if verdict.status == "True" else verdict.reason or "Failed"
    return about.state or "New"


def _message(about: CustomObject) -> str:
    """Return why it is so; of an Evaluation that has judged, why that is the verdict."""
    verdict = about.condition("Passed")
    judged = isinstance(about, Evaluation) and about.passed is False and verdict is not None
    return verdict.message if judged and verdict is not None else about.message


def _figure(about: CustomObject) -> tuple[str, str]:
    """Return the number that matters of an object, and what it is."""
    summary = mapping(about.told.get("summary"))
    if isinstance(about, FineTuneJob):
        loss = number(about.progress.get("loss"))
        eta = number(about.progress.get("etaSeconds"))
        note = f"{duration(eta)} to go" if eta and not about.ended else text(summary.get("step"))
        return ("" if loss is None else f"{loss:.3f}"), note
    if isinstance(about, Evaluation):
        return text(summary.get("value")), clean(text(summary.get("metric")))
    if isinstance(about, AdapterRollout):
        return text(summary.get("pods")), short(about.served_digest)
    if isinstance(about, FineTuneSweep):
        return text(summary.get("best")), text(summary.get("trials"))
    return "", ""


def short(digest: str) -> str:
    """Return a digest as people compare it: its first 12 characters."""
    return digest.removeprefix("sha256:")[:SHORT_DIGEST]


def thinned(values: Sequence[float], most: int) -> tuple[float, ...]:
    """Return at most so many values, evenly taken, the last among them."""
    if len(values) <= most:
        return tuple(values)
    return tuple(values[(place + 1) * len(values) // most - 1] for place in range(most))


def selected(objects: Iterable[Brief], selection: Selection) -> list[Brief]:
    """Return what a selection means, in its order; of all its pages."""
    wanted = selection.text.lower()
    found = [
        each
        for each in objects
        if (not selection.state or each.tone == selection.state) and (not wanted or wanted in _searched(each))
    ]
    backwards, by = selection.order.startswith("-"), selection.order.lstrip("-")
    found.sort(key=lambda each: each.about.name, reverse=backwards and by == "name")
    match by:
        case "age":  # the youngest first by default: "-age" is from the largest time of birth
            found.sort(key=lambda each: each.born, reverse=backwards)
        case "state":
            found.sort(key=lambda each: (each.tone, each.state))
        case "loss":
            found.sort(key=lambda each: _by_loss(each.loss, backwards))
    return found


def _searched(each: Brief) -> str:
    return f"{each.about.name} {each.state} {each.about.namespace} {each.message}".lower()


def _by_loss(loss: float | None, backwards: bool) -> tuple[bool, float]:
    """Return where a loss stands; what has none is last, whatever the order."""
    return loss is None, 0.0 if loss is None else -loss if backwards else loss


def accelerators(about: CustomObject) -> int:
    """Return how many accelerators its attempts hold now."""
    held = (
        number(mapping(each).get("accelerators")) or 0
        for each in sequence(about.told.get("attempts"))
        if not mapping(each).get("reason")
    )
    return int(sum(held))

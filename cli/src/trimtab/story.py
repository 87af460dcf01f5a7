"""The story of an object in words: what it is doing, why, and what a person does next. Pure; a clock is given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from .objects import (
    AdapterRollout,
    Attempt,
    CustomObject,
    Evaluation,
    FineTuneJob,
    FineTuneSweep,
    mapping,
    number,
    text,
)
from .objects import sequence as listed
from .text import age, duration
from .views import Shown

RESULTS = 12
"""Figures of an Evaluation that are told; the others are in its report."""


@dataclass(frozen=True)
class Section:
    """A heading, and lines that may be wrapped."""

    heading: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Story(Shown):
    """Title and sections, and the object they are about."""

    title: str
    sections: tuple[Section, ...]
    object: CustomObject

    def section(self, heading: str) -> tuple[str, ...]:
        """Return the lines under a heading, none if there is none."""
        return next((each.lines for each in self.sections if each.heading == heading), ())


def story(about: CustomObject, now: datetime) -> Story:
    """Return the story of an object."""
    born = age(about.metadata.get("creationTimestamp"), now)
    title = f"{about.kind.name} {about.name} in {about.namespace}" + (f", created {born} ago" if born else "")
    told = (
        ("What", tuple(_what(about))),
        ("Why", tuple(_why(about))),
        ("Next", tuple(_next(about))),
        ("Attempts", tuple(_attempt(each, now) for each in about.attempts)),
        ("Data", tuple(_data(about))),
        ("Results", tuple(_results(about))),
        ("Model" if isinstance(about, FineTuneJob) and about.made == "model" else "Adapter", tuple(_adapter(about))),
        ("Trials", tuple(_trials(about))),
        ("Approval", tuple(_approval(about, now))),
        ("Decision", tuple(_decision(about))),
        ("Pods", tuple(_pods(about))),
        ("Cost", tuple(_cost(about))),
    )
    return Story(title, tuple(Section(heading, lines) for heading, lines in told if lines), about)


def _what(about: CustomObject) -> Iterator[str]:
    if not about.conditions:
        yield "The operator has not looked at it yet."
        return
    yield about.state + _progress(about)
    if about.stopped and about.state not in ("Suspended", "Paused"):
        yield f"spec.{about.kind.stop} is true."
    if isinstance(about, Evaluation) and (verdict := about.condition("Passed")) and about.passed is not None:
        yield f"Verdict: {verdict.reason}"


def _progress(about: CustomObject) -> str:
    told = mapping(about.told.get("progress"))
    if about.ended or not told:
        return ""
    parts = []
    if number(told.get("step")) is not None:
        total = number(told.get("totalSteps"))
        parts.append(f"step {told['step']}" + (f" of {total}" if total else ""))
    if number(told.get("tasks")) is not None:
        parts.append(f"{told.get('tasksDone', 0)} of {told['tasks']} tasks")
    if number(told.get("percent")) is not None:
        parts.append(f"{told['percent']} %")
    if (loss := number(told.get("loss"))) is not None:
        parts.append(f"loss {loss:.3f}")
    if (loss := number(told.get("validationLoss"))) is not None:
        parts.append(f"validation loss {loss:.3f}")
    if (speed := number(told.get("tokensPerSecond"))) is not None:
        parts.append(f"{speed:,.0f} tokens/s")
    if eta := number(told.get("etaSeconds")):
        parts.append(f"about {duration(eta)} to go")
    return f": {', '.join(parts)}" if parts else ""


def _why(about: CustomObject) -> Iterator[str]:
    if not about.conditions:
        yield "It was just created, or no operator runs that watches this namespace."
        return
    seen = set()
    for condition in sorted(about.conditions, key=lambda each: each.type != about.kind.summary):
        explained = about.kind.explained(condition.type, condition.reason)
        prefix = "" if condition.type == about.kind.summary else f"{condition.type}, {condition.reason}: "
        told = condition.message or (explained.meaning if explained else "")
        if told and told not in seen:
            yield prefix + told
        seen.add(told)
        if explained and condition.message and condition.type == about.kind.summary:
            yield f"{condition.reason} means: {explained.meaning}"


def _next(about: CustomObject) -> Iterator[str]:
    if not about.conditions:
        yield "kubectl get pods -A -l app.kubernetes.io/name=trimtab says whether one runs."
    seen = set()
    for condition in sorted(about.conditions, key=lambda each: each.type != about.kind.summary):
        explained = about.kind.explained(condition.type, condition.reason)
        step = explained.next_step if explained else ""
        if step and step not in seen and (step != "Nothing." or condition.type == about.kind.summary):
            yield step
        seen.add(step)


def _attempt(attempt: Attempt, now: datetime) -> str:
    what = f"{attempt.number} {attempt.stage}: "
    if not attempt.reason:
        since = age(attempt.start_time, now)
        return what + (f"runs since {since}" if since else "its pod has not started")
    what += attempt.reason
    if attempt.active_seconds is not None:
        what += f" after {duration(attempt.active_seconds)}"
    if attempt.end_step is not None:
        what += f", steps {attempt.start_step or 0} to {attempt.end_step}"
    if attempt.charged_to:
        what += f", charged to {attempt.charged_to}"
    return what + (f": {attempt.message}" if attempt.message else "")


def _data(about: CustomObject) -> Iterator[str]:
    told = mapping(about.told.get("dataset"))
    names = (("rows", "rows"), ("tokens", "tokens"), ("validationRows", "held out for validation"),
             ("testRows", "for the test"), ("dropped", "dropped"))  # fmt: skip
    parts = [f"{count:,} {word}" for name, word in names if (count := number(told.get(name))) is not None]
    if parts:
        yield ", ".join(parts)


def _results(about: CustomObject) -> Iterator[str]:
    if not isinstance(about, Evaluation):
        return
    for each in about.results[:RESULTS]:
        value, low, high = (number(each.get(name)) for name in ("value", "low", "high"))
        line = f"{text(each.get('task'))}/{text(each.get('metric'))} " + (
            "not known" if value is None else f"{value:.4g}"
        )
        if low is not None and high is not None:
            line += f" ({low:.4g} to {high:.4g})"
        if (baseline := number(each.get("baseline"))) is not None:
            line += f", baseline {baseline:.4g}"
        if (anchor := number(each.get("anchor"))) is not None:
            line += f", anchor {anchor:.4g}"
        if isinstance(each.get("passed"), bool):
            line += ", kept" if each["passed"] else ", not kept"
        yield line
    if len(about.results) > RESULTS:
        yield f"and {len(about.results) - RESULTS} more"
    if report := text(about.told.get("reportURI")):
        yield f"report: {report}"


def _adapter(about: CustomObject) -> Iterator[str]:
    if isinstance(about, FineTuneJob) and about.adapter_uri:
        told = mapping(about.told.get("artifact"))
        yield about.adapter_uri
        yield about.adapter_digest
        losses = [
            (word, number(told.get(name))) for word, name in ((about.made, "testLoss"), ("base model", "baseTestLoss"))
        ]
        known = [f"{word} {loss:.3f}" for word, loss in losses if loss is not None]
        if known:
            yield f"test loss: {', '.join(known)}"
    if isinstance(about, AdapterRollout) and about.served_digest:
        yield f"served: {about.served_digest}"
        yield text(mapping(about.told.get("served")).get("uri"))


def _trials(about: CustomObject) -> Iterator[str]:
    if isinstance(about, FineTuneSweep) and about.best:
        value, job = number(about.best.get("value")), text(about.best.get("fineTuneJobName"))
        yield f"best: {job}" + ("" if value is None else f" with {value:.4g}")
        yield ", ".join(f"{name} {value}" for name, value in mapping(about.best.get("parameters")).items())


def _approval(about: CustomObject, now: datetime) -> Iterator[str]:
    told = mapping(about.told.get("approval"))
    if not isinstance(about, AdapterRollout) or not told:
        return
    names = [each for each in listed(told.get("approvedBy")) if isinstance(each, str)]
    since = age(told.get("sinceTime"), now)
    by = f" ({', '.join(names)})" if names else ""
    waits = f", waited for since {since}" if since else ""
    yield f"{len(names)} of {told.get('required')} approvals{by}{waits}"
    yield text(told.get("digest"))


def _decision(about: CustomObject) -> Iterator[str]:
    if about.kind.name != "Review":
        return
    subject = mapping(about.spec.get("subject"))
    yield f"{text(about.spec.get('decision'))} by {text(about.spec.get('author'))}"
    yield f"{text(subject.get('kind'))} {text(subject.get('name'))}, {text(subject.get('digest'))}"
    if message := text(about.spec.get("message")):
        yield message


def _pods(about: CustomObject) -> Iterator[str]:
    if not isinstance(about, AdapterRollout):
        return
    counts = mapping(about.told.get("pods"))
    if counts:
        yield f"{counts.get('ready', 0)} of {counts.get('desired', 0)} answer with the wanted adapter"
    for each in map(mapping, listed(about.told.get("podReasons"))):
        yield ": ".join(part for name in ("pod", "reason", "message") if (part := text(each.get(name))))


def _cost(about: CustomObject) -> Iterator[str]:
    spent, lost = (number(about.told.get(name)) for name in ("acceleratorSeconds", "lostAcceleratorSeconds"))
    if spent:
        yield f"{duration(spent)} of accelerators" + (f", {duration(lost)} of it lost" if lost else "")

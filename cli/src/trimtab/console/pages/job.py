"""The page of a run: its curve, its attempts in time, its figures, data, cost, and where its adapter goes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ...objects import Attempt, CustomObject, FineTuneJob, mapping, number, text
from ...text import clean, duration, time_of
from ..pictures.curve import Plot, Series, plot
from .head import Fact, Head, head
from .lineage import Stage, lineage
from .rows import short

BAR = 600
"""Pixels of the whole time of a timeline."""


@dataclass(frozen=True)
class Bar:
    """An attempt: `x` and `width` are pixels of its time in the timeline, 0 where no time is known."""

    number: int
    stage: str
    reason: str
    message: str
    tone: str
    took: str
    steps: str
    charged_to: str
    job_name: str
    x: float
    width: float


@dataclass(frozen=True)
class JobPage:
    """Attributes:
    curve: as the live picture reads it: a list of {name, role, hue, points}.
    live: whether it may still change.
    """

    head: Head
    percent: int | None
    progress: str
    facts: tuple[Fact, ...]
    data: tuple[Fact, ...]
    bars: tuple[Bar, ...]
    plot: Plot | None
    curve: tuple[dict[str, object], ...]
    lineage: tuple[Stage, ...]
    report: str
    data_report: str
    live: bool


def job_page(about: FineTuneJob, others: Sequence[CustomObject], now: datetime) -> JobPage:
    """Return how far a run is, its curve, attempts, figures, data and cost."""
    series = series_of(about)
    percent = number(about.progress.get("percent"))
    step, total = number(about.progress.get("step")), number(about.progress.get("totalSteps"))
    return JobPage(
        head=head(about, now),
        percent=None if percent is None else min(100, max(0, int(percent))),
        progress="" if step is None else f"step {step:,}" + (f" of {total:,}" if total else ""),
        facts=tuple(_facts(about)),
        data=tuple(_data(about)),
        bars=bars(about.attempts, now),
        plot=plot(series),
        curve=as_data(series),
        lineage=lineage(about, others, now),
        report=clean(text(mapping(about.told.get("artifact")).get("reportURI"))),
        data_report=clean(text(mapping(about.told.get("dataset")).get("reportURI"))),
        live=not about.ended,
    )


def series_of(about: FineTuneJob, hue: int = 0, *, named: bool = False) -> tuple[Series, ...]:
    """Return both curves of a run; the newest progress is the end of the loss."""
    name = clean(about.name)
    loss = list(about.curve.loss)
    step, newest = number(about.progress.get("step")), number(about.progress.get("loss"))
    if step is not None and newest is not None and (not loss or step > loss[-1][0]):
        loss.append((int(step), newest))
    found = (
        Series(name if named else "loss", tuple(loss), "loss", hue),
        Series(f"{name} (validation)" if named else "validation loss", about.curve.validation_loss, "validation", hue),
    )
    return tuple(each for each in found if each.points)


def as_data(series: Sequence[Series]) -> tuple[dict[str, object], ...]:
    return tuple({"name": each.name, "role": each.role, "hue": each.hue, "points": each.points} for each in series)


def bars(attempts: Sequence[Attempt], now: datetime) -> tuple[Bar, ...]:
    """Return attempts on a common time line, from the first start to the last end or now."""
    times = [
        (time_of(each.start_time), time_of(each.end_time) or (now if not each.reason else None)) for each in attempts
    ]
    known = [time for pair in times for time in pair if time is not None]
    first, last = (min(known), max(known)) if known else (now, now)
    whole = max((last - first).total_seconds(), 1.0)
    return tuple(_bar(each, *pair, first, whole) for each, pair in zip(attempts, times, strict=True))


def _bar(each: Attempt, start: datetime | None, end: datetime | None, first: datetime, whole: float) -> Bar:
    if start is None and end is not None and each.active_seconds is not None and each.reason:
        start = end - timedelta(seconds=each.active_seconds)
    x = width = 0.0
    if start is not None and end is not None:
        x = max(0.0, (start - first).total_seconds() / whole * BAR)
        width = min(BAR - x, max(3.0, (end - start).total_seconds() / whole * BAR))
    seconds = each.active_seconds
    if seconds is None and start is not None and end is not None:
        seconds = int((end - start).total_seconds())
    return Bar(
        number=each.number,
        stage=clean(each.stage),
        reason=clean(each.reason) or "running",
        message=clean(each.message),
        tone="running" if not each.reason else "done" if each.reason == "Completed" else _end_tone(each),
        took="" if seconds is None else duration(seconds),
        steps="" if each.end_step is None else f"steps {each.start_step or 0:,} to {each.end_step:,}",
        charged_to=clean(each.charged_to),
        job_name=each.job_name,
        x=round(x, 1),
        width=round(width, 1),
    )


def _end_tone(each: Attempt) -> str:
    return "waiting" if each.charged_to == "disruptions" or each.reason == "Suspended" else "failed"


def _facts(about: FineTuneJob) -> Iterator[Fact]:
    told = about.progress
    for label, name in (("Loss", "loss"), ("Validation loss", "validationLoss")):
        if (value := number(told.get(name))) is not None:
            yield Fact(label, f"{value:.3f}", "nats per supervised token")
    bests = [value for _, value in about.curve.validation_loss]
    if bests:
        yield Fact("Best validation", f"{min(bests):.3f}", "lowest of all evaluations so far")
    artifact = mapping(about.told.get("artifact"))
    if (value := number(artifact.get("testLoss"))) is not None:
        base = number(artifact.get("baseTestLoss"))
        yield Fact("Test loss", f"{value:.3f}" + ("" if base is None else f" (base {base:.3f})"))
    if (speed := number(told.get("tokensPerSecond"))) is not None:
        yield Fact("Throughput", f"{speed:,.0f} tokens/s")
    if (eta := number(told.get("etaSeconds"))) and not about.ended:
        yield Fact("To go", duration(eta))
    spent, lost = (number(about.told.get(name)) for name in ("acceleratorSeconds", "lostAcceleratorSeconds"))
    if spent:
        hint = f"{duration(lost)} of it was done again, or for nothing" if lost else "nothing of it was lost"
        yield Fact("Cost", f"{spent / 3600:.2f} accelerator hours", hint)
    if digest := about.adapter_digest:
        yield Fact(about.made.capitalize(), short(digest), digest)


def _data(about: FineTuneJob) -> Iterator[Fact]:
    told = mapping(about.told.get("dataset"))
    names = (("Rows", "rows"), ("Validation", "validationRows"), ("Test", "testRows"), ("Dropped", "dropped"),
             ("Tokens per epoch", "tokens"), ("Supervised tokens", "supervisedTokens"))  # fmt: skip
    for label, name in names:
        if (count := number(told.get(name))) is not None:
            yield Fact(label, f"{count:,}")

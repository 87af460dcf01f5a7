"""The page of an Evaluation: the verdict in a sentence, each figure with its interval against thresholds. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ...kinds import lower_is_better
from ...objects import Body, CustomObject, Evaluation, mapping, number, sequence, text
from ...text import clean, duration
from ..pictures.intervals import Bound, Span, span
from .head import Fact, Head, head
from .job import Bar, bars
from .lineage import Stage, lineage
from .rows import short


@dataclass(frozen=True)
class Result:
    """A figure: in words, as a picture, and what its thresholds say of it."""

    name: str
    value: str
    interval: str
    baseline: str
    change: str
    better: str
    anchor: str
    anchor_change: str
    rows: str
    verdict: str
    tone: str
    limits: tuple[str, ...]
    missed: tuple[str, ...]
    span: Span | None


@dataclass(frozen=True)
class EvaluationPage:
    """Attributes:
    verdict: a sentence; `verdict_tone` is done, failed or waiting.
    omitted: figures that are in the report alone.
    """

    head: Head
    verdict: str
    verdict_word: str
    verdict_tone: str
    facts: tuple[Fact, ...]
    results: tuple[Result, ...]
    omitted: int
    bars: tuple[Bar, ...]
    lineage: tuple[Stage, ...]
    report: str
    percent: int | None
    live: bool


def evaluation_page(about: Evaluation, others: Sequence[CustomObject], now: datetime) -> EvaluationPage:
    """Return the verdict, every figure against its thresholds, and the way from data to serving."""
    verdict = about.condition("Passed")
    thresholds = [mapping(each) for each in sequence(about.spec.get("thresholds"))]
    percent = number(mapping(about.told.get("progress")).get("percent"))
    decided = verdict is not None and verdict.status in ("True", "False")
    return EvaluationPage(
        head=head(about, now),
        verdict=clean(verdict.message) if verdict is not None and verdict.message else "There is no verdict yet.",
        verdict_word=clean(verdict.reason) if verdict is not None else "NotYet",
        verdict_tone="waiting" if not decided else "done" if about.passed else "failed",
        facts=tuple(_facts(about)),
        results=tuple(_result(each, thresholds) for each in about.results),
        omitted=int(number(about.told.get("resultsOmitted")) or 0),
        bars=bars(about.attempts, now),
        lineage=lineage(about, others, now),
        report=clean(text(about.told.get("reportURI"))),
        percent=None if percent is None or about.ended else int(percent),
        live=not about.ended,
    )


def _facts(about: Evaluation) -> Iterator[Fact]:
    for label, name in (("Target", "target"), ("Baseline", "baseline"), ("Anchor", "anchor")):
        told = mapping(about.told.get(name))
        if told:
            digest = text(told.get("digest"))
            yield Fact(label, short(digest) or "base model alone", clean(text(told.get("uri"))))
    if (rows := number(about.told.get("rows"))) is not None:
        yield Fact("Rows", f"{rows:,}")
    if spent := number(about.told.get("acceleratorSeconds")):
        yield Fact("Cost", f"{spent / 3600:.2f} accelerator hours", duration(spent))


def _result(told: Body, thresholds: Sequence[Body]) -> Result:
    metric = text(told.get("metric"))
    name = f"{text(told.get('task'))}/{metric}"
    value, low, high, baseline = (number(told.get(each)) for each in ("value", "low", "high", "baseline"))
    change, passed = number(told.get("change")), told.get("passed")
    anchor, anchor_change = number(told.get("anchor")), number(told.get("anchorChange"))
    lower = metric in lower_is_better()
    own = [each for each in thresholds if each.get("metric") == name]
    bounds = tuple(bound for each in own for bound in _bounds(each, baseline, anchor, lower))
    gaps = tuple(
        f"{what} at most {gap:g} apart"
        for each in own
        for bound, what in (("maximumGroupGap", "groups"), ("maximumOddsGap", "groups' odds"))
        if (gap := number(each.get(bound))) is not None
    )
    return Result(
        name=clean(name),
        value="not known" if value is None else f"{value:.4g}",
        interval="" if low is None or high is None else f"{low:.4g} to {high:.4g}",
        baseline="" if baseline is None else f"{baseline:.4g}",
        change="" if change is None else f"{change:+.3g}",
        better="" if not change else "better" if (change < 0) == lower else "worse",
        anchor="" if anchor is None else f"{anchor:.4g}",
        anchor_change="" if anchor_change is None else f"{anchor_change:+.3g}",
        rows=f"{int(number(told.get('count')) or 0):,}",
        verdict="no threshold" if not isinstance(passed, bool) else "kept" if passed else "not kept",
        tone="" if not isinstance(passed, bool) else "done" if passed else "failed",
        limits=tuple(each.word for each in bounds) + gaps,
        missed=tuple(_missed(mapping(each)) for each in sequence(told.get("failed"))),
        span=span(value, low, high, baseline, bounds),
    )


def _bounds(threshold: Body, baseline: float | None, anchor: float | None, lower: bool) -> Iterator[Bound]:
    """Yield what a threshold allows, on the scale of the figure; a regression is in the worse direction."""
    if (limit := number(threshold.get("minimum"))) is not None:
        yield Bound(limit, False, f"at least {limit:g}")
    if (limit := number(threshold.get("maximum"))) is not None:
        yield Bound(limit, True, f"at most {limit:g}")
    sign, against = 1 if lower else -1, text(threshold.get("against"))
    for name, other in (("baseline", baseline), ("anchor", anchor)):
        if other is None or against.lower() not in ("", name):
            continue
        if (limit := number(threshold.get("maximumRegression"))) is not None:
            yield Bound(other + sign * limit, lower, f"at most {limit:g} worse than the {name}")
        if (limit := number(threshold.get("maximumRelativeRegression"))) is not None:
            yield Bound(other + sign * abs(other) * limit, lower, f"at most {limit * 100:.3g} % worse than the {name}")


def _missed(told: Body) -> str:
    """Return what a threshold was not kept by; of regressions the estimate is how much worse it is."""
    limit, estimate, rows = (number(told.get(name)) for name in ("limit", "estimate", "rowsNeeded"))
    bound, against = text(told.get("bound")), text(told.get("against")).lower() or "baseline"
    scale, unit = (100, " %") if "Relative" in bound else (1, "")
    word = "worse" if estimate is None or estimate >= 0 else "better"
    said = text(told.get("reason"))
    if estimate is not None and "Regression" in bound:
        said += f": {abs(estimate) * scale:.4g}{unit} {word} than the {against}"
    elif estimate is not None:
        said += f": {estimate:.4g}"
    if limit is not None:
        said += f", at {'least' if bound == 'minimum' else 'most'} {limit * scale:.4g}{unit} was asked"
    if rows:
        clusters = number(told.get("clustersNeeded"))
        said += (
            f"; {f'{clusters:,.0f} clusters ({rows:,.0f} rows)' if clusters else f'{rows:,.0f} rows'} would decide it"
        )
    return clean(said)

"""Pictures of a search, as inline SVG: what each trial is says itself when somebody points at it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, quantiles

import numpy as np
from markupsafe import Markup

from ..contract.curve import Points
from ..contract.sweeps.record import RecordedTrial, SweepRecord
from ..contract.sweeps.settings import Direction
from ..pages.drawing import PAD, TEXT, Scale, path, picture, pixel, scale_of, shortened_label, titled
from ..pages.wording import figure, percent, visible
from ..reporting.curves import FOOT, LEFT, grid
from .axes import Axis, label, whole

WIDTH, HEIGHT = 560, 260
"""Two stand side by side on a desk."""
SLICE_WIDTH, SLICE_HEIGHT = 360, 200
PARALLEL_WIDTH, LEAST_AXIS, LARGEST_AXIS, PARALLEL_HEIGHT, HEAD = 1120, 150, 220, 260, 30
BAR_WIDTH, BAR_ROW, BAR_LABELS = 360, 24, 150
FAR = 3.0
"""Values that are worse than the third quartile by so many distances of the quartiles stand at the edge."""
GOOD_SHARE = 4
"""One in so many trials is among the good ones, whose lines are coloured."""
LINEAR_POINTS, SQUARE_POINTS = 5, 8
LINEAR_PLACES, SQUARE_PLACES = 3, 6
"""Trials, and different values, that it takes to draw a line or a parabola through."""


@dataclass(frozen=True)
class Judged:
    """The trials of a search in their order, and how good each is.

    Attributes:
        number: of each trial that has a value, counted from 1 in the order in which they were begun.
        good: ids of the best ones, the best first.
    """

    record: SweepRecord
    number: dict[str, int]
    good: tuple[str, ...]

    @classmethod
    def of(cls, record: SweepRecord) -> Judged:
        number = {each.id: count for count, each in enumerate(record.trials, 1)}
        ranked = [each.id for each in record.ranked if not each.pruned]
        return cls(record, number, tuple(ranked[: max(1, math.ceil(len(ranked) / GOOD_SHARE))]) if ranked else ())

    @property
    def best(self) -> RecordedTrial | None:
        return next((each for each in self.record.ranked if each.id in self.good), None)

    def kind(self, trial: RecordedTrial) -> str:
        """Return the class of a trial in the style sheet."""
        if trial.pruned or trial.value is None:
            return "is-pruned"
        if self.good and trial.id == self.good[0]:
            return "is-best"
        return "is-good" if trial.id in self.good else "is-other"

    def words(self, trial: RecordedTrial) -> str:
        """Return a trial in words."""
        value = f"{self.record.objective.metric} {figure(trial.value)}" if trial.value is not None else "no value"
        error = f" (standard error {figure(trial.standard_error)})" if trial.standard_error is not None else ""
        state = f", {trial.reason or trial.state}" if trial.pruned or trial.value is None else ""
        settings = "; ".join(f"{name} {whole(each)}" for name, each in trial.parameters.items())
        return f"Trial {self.number[trial.id]}, {trial.id}: {value}{error}{state}; {settings}"

    @property
    def drawn(self) -> list[RecordedTrial]:
        """The trials with a value in the order in which they are drawn: the best last, above all others."""
        order = {"is-pruned": 0, "is-other": 1, "is-good": 2, "is-best": 3}
        return sorted(
            (each for each in self.record.trials if each.value is not None), key=lambda each: order[self.kind(each)]
        )


def value_scale(record: SweepRecord, start: float, stop: float) -> tuple[Scale, int] | None:
    """Return a scale of the values, and how many of them stand at its edge because they are far worse than most."""
    values = [each.value for each in record.trials if each.value is not None]
    sign = 1 if record.objective.direction is Direction.MINIMIZE else -1
    kept = values
    if len(values) >= 4:
        first, _, third = quantiles([sign * each for each in values], method="inclusive")
        kept = [each for each in values if sign * each <= third + FAR * (third - first)] or values
    scale = scale_of(kept, start, stop)
    return (scale, len(values) - len(kept)) if scale is not None else None


def value_chart(judged: Judged) -> Markup:
    """Draw the value of each trial in their order, with its standard error, and the best so far."""
    record = judged.record
    found = value_scale(record, HEIGHT - FOOT, PAD + 4)
    if found is None:
        return Markup("")
    y, x = found[0], Scale(0, len(record.trials) + 1, LEFT, WIDTH - PAD)
    body = grid(x, y, lambda value: value == int(value) and 0 < value <= len(record.trials))
    better = min if record.objective.direction is Direction.MINIMIZE else max
    line, so_far = "", None
    for trial in record.trials:
        if trial.value is None or trial.pruned:
            continue
        best = trial.value if so_far is None else better(so_far, trial.value)
        at = x(judged.number[trial.id])
        line += f"H{at}V{y(best)}" if line else f"M{at} {y(best)}"
        so_far = best
    if line:
        body += path("line is-so-far", f"{line}H{pixel(x.stop)}")
    for trial in judged.drawn:
        value, at, kind = trial.value or 0.0, x(judged.number[trial.id]), judged.kind(trial)
        if trial.standard_error:
            body += path(f"error {kind}", f"M{at} {y(value - trial.standard_error)}V{y(value + trial.standard_error)}")
        body += titled(f"point {kind}", f"M{at} {y(value)}h0", judged.words(trial))
    for trial in record.trials:
        if trial.value is None and not (trial.running or trial.pruned):
            at = x(judged.number[trial.id])
            body += titled("cross", f"M{at} {HEIGHT - FOOT - 4}m-3 -3l6 6m0 -6l-6 6", judged.words(trial))
    last = f"the best is {figure(so_far)}" if so_far is not None else "none has a value that counts"
    title = f"{record.objective.metric} of {len(record.trials)} trials in the order {record.order}; {last}"
    return picture("values", WIDTH, HEIGHT, title, body)


def parallel_chart(judged: Judged, axes: Sequence[Axis]) -> Markup:
    """Draw each trial as a line over one upright axis for each parameter, and one for the value at the right."""
    record, bottom = judged.record, PARALLEL_HEIGHT - 14
    found = value_scale(record, bottom, HEAD)
    if found is None or not axes:
        return Markup("")
    y = found[0]
    apart = max(LEAST_AXIS, min(LARGEST_AXIS, PARALLEL_WIDTH // (len(axes) + 1)))
    places = [apart * index + 16 for index in range(len(axes) + 1)]
    body, texts = Markup(""), Markup("")
    for at, axis in zip(places, axes, strict=False):
        body += path("axis", f"M{at} {HEAD}V{bottom}")
        texts += _named(at, axis.name, apart)
        for share, words, full in _apart(axis.marks, 13 / (bottom - HEAD)):
            up = pixel(bottom - share * (bottom - HEAD) + 4)
            texts += Markup('<text x="{}" y="{}" class="halo">{}<title>{}</title></text>').format(
                at + 6, up, visible(words), visible(full)
            )
    body += path("axis", f"M{places[-1]} {HEAD}V{bottom}")
    texts += _named(places[-1], record.objective.metric, apart)
    for value in (y.low, (y.low + y.high) / 2, y.high):
        texts += Markup('<text x="{}" y="{}" class="halo">{}</text>').format(
            places[-1] + 6, f"{float(y(value)) + 4:.1f}", figure(value)
        )
    for trial in judged.drawn:
        shares = [axis.at(trial.parameters[axis.name]) if axis.name in trial.parameters else None for axis in axes]
        points = [
            f"{at} {pixel(bottom - share * (bottom - HEAD))}"
            for at, share in zip(places, shares, strict=False)
            if share is not None
        ]
        points.append(f"{places[-1]} {y(trial.value or 0.0)}")
        body += titled(f"trial {judged.kind(trial)}", "M" + "L".join(points), judged.words(trial))
    title = f"{len(judged.drawn)} trials over {len(axes)} parameters and {record.objective.metric}"
    return picture("parallel", apart * len(places), PARALLEL_HEIGHT, title, body + texts)


def _named(at: int, name: str, room: int) -> Markup:
    return Markup('<text x="{}" y="{}" class="name">{}<title>{}</title></text>').format(
        max(0, at - 8), HEAD - 14, visible(_last(name, room // 7)), visible(name)
    )


def _last(name: str, limit: int) -> str:
    """Return the part of a path that tells it apart, its end."""
    return name if len(name) <= limit else shortened_label(name.rpartition(".")[2], limit)


def _apart(marks: Sequence[tuple[float, str, str]], least: float) -> list[tuple[float, str, str]]:
    """Return those marks that do not stand upon each other; the ends stay."""
    kept: list[tuple[float, str, str]] = []
    for number, each in enumerate(sorted(marks)):
        last = number == len(marks) - 1
        while last and kept and each[0] - kept[-1][0] < least:
            kept.pop()
        if not kept or each[0] - kept[-1][0] >= least:
            kept.append(each)
    return kept


def slice_chart(judged: Judged, axis: Axis) -> Markup:
    """Draw the value of each trial over one parameter, and what a line through them says of it alone."""
    record = judged.record
    found = value_scale(record, SLICE_HEIGHT - FOOT, PAD + 4)
    if found is None:
        return Markup("")
    y, far = found
    left, right = LEFT + 10, SLICE_WIDTH - PAD - 10

    def across(share: float) -> str:
        return pixel(left + share * (right - left))

    body = grid(Scale(0, 1, LEFT, SLICE_WIDTH - PAD), y, lambda value: False)
    for share, words, full in _apart(axis.marks, 44 / (right - left)):
        kind = "end" if share > 0.85 else "start" if share < 0.15 else "tick"
        place = SLICE_WIDTH - PAD if kind == "end" else LEFT if kind == "start" else across(share)
        body += Markup('<text x="{}" y="{}" class="{}">{}<title>{}</title></text>').format(
            place, SLICE_HEIGHT - 6, kind, visible(words), visible(full)
        )
    known: list[tuple[float, float]] = []
    dots = Markup("")
    for trial in judged.drawn:
        at = axis.at(trial.parameters[axis.name]) if axis.name in trial.parameters else None
        if at is None or trial.value is None:
            continue
        dots += titled(f"point {judged.kind(trial)}", f"M{across(at)} {y(trial.value)}h0", judged.words(trial))
        if not trial.pruned and (not far or y.low <= trial.value <= y.high):
            known.append((at, trial.value))
    if not dots:
        return Markup("")
    said, drawn = _trend(axis, known, across, y)
    title = f"{record.objective.metric} by {axis.name}: {len(known)} trials; {said}"
    return picture("slice", SLICE_WIDTH, SLICE_HEIGHT, title, body + drawn + dots)


def _trend(
    axis: Axis, known: Sequence[tuple[float, float]], across: Callable[[float], str], y: Scale
) -> tuple[str, Markup]:
    """Return what is fitted through (place, value), in words and drawn: means of places, or a line or parabola."""
    places = sorted({at for at, _ in known})
    if axis.places is not None:
        means = [(at, fmean(value for other, value in known if other == at)) for at in places]
        said = ", ".join(
            f"{label(whole_at)} {figure(mean)}"
            for at, mean in means
            for share, whole_at, _ in axis.marks
            if share == at
        )
        bars = "".join(f"M{across(at)} {y(mean)}m-11 0h22" for at, mean in means)
        return f"means {said}", path("trend", bars)
    order = 2 if len(known) >= SQUARE_POINTS and len(places) >= SQUARE_PLACES else 1
    if len(known) < LINEAR_POINTS or len(places) < LINEAR_PLACES:
        return "too few for a trend", Markup("")
    fitted = np.polynomial.Polynomial.fit([at for at, _ in known], [value for _, value in known], order)
    shares = np.linspace(places[0], places[-1], 33)
    line = "L".join(f"{across(float(at))} {y(float(value))}" for at, value in zip(shares, fitted(shares), strict=True))
    return f"a {'parabola' if order == 2 else 'straight line'} is drawn through them", path("trend", f"M{line}")


def importance_chart(importance: dict[str, float]) -> Markup:
    """Draw the share of each parameter, the largest first."""
    if not importance:
        return Markup("")
    ordered = sorted(importance.items(), key=lambda each: (-each[1], each[0]))
    x = Scale(0, 1, BAR_LABELS, BAR_WIDTH - 44)
    body = Markup("")
    for row, (name, share) in enumerate(ordered):
        top = BAR_ROW * row
        body += Markup('<text x="{}" y="{}" class="end">{}<title>{}</title></text>').format(
            BAR_LABELS - 8, top + 16, visible(_last(name, 22)), visible(name)
        )
        body += path("share", f"M{BAR_LABELS} {top + 4}H{x(share)}v16H{BAR_LABELS}z")
        body += TEXT.format(f"{float(x(share)) + 6:.1f}", top + 16, "start", percent(share, 0))
    words = ", ".join(f"{name} {percent(share, 0)}" for name, share in ordered)
    return picture("importance", BAR_WIDTH, BAR_ROW * len(ordered) + PAD, f"Importance: {words}", body)


def curves_chart(judged: Judged, called: str, points_of: Callable[[RecordedTrial], Points]) -> Markup:
    """Draw one curve of every trial over its steps; those of trials that were pruned are grey."""
    known = {each.id: points_of(each) for each in judged.record.trials}
    known = {name: points for name, points in known.items() if points}
    values = [value for points in known.values() for _, value in points]
    if len(values) >= 4:
        # The first steps of all and a few trials that diverge would leave nothing to be seen of the others.
        first, _, third = quantiles(values, method="inclusive")
        values = [value for value in values if value <= third + FAR * (third - first)] or values
    y = scale_of(values, HEIGHT - FOOT, PAD + 4)
    steps = [step for points in known.values() for step, _ in points]
    if y is None:
        return Markup("")
    x = Scale(0, max(1, *steps), LEFT, WIDTH - PAD)
    body = grid(x, y)
    order = ["is-pruned", "is-other", "is-good", "is-best"]
    for trial in sorted(judged.record.trials, key=lambda each: order.index(judged.kind(each))):
        if trial.id in known:
            line = "L".join(f"{x(step)} {y(value)}" for step, value in known[trial.id])
            kind = "is-other" if trial.running else judged.kind(trial)
            mark, end = ("trial", "") if "L" in line else ("point", "h0")  # a line of one point is a dot
            body += titled(f"{mark} {kind}", f"M{line}{end}", judged.words(trial))
    over = f"{len(known)} trials over their steps" if len(known) > 1 else "1 trial over its steps"
    return picture("curves", WIDTH, HEIGHT, f"{called} of {over}", body)

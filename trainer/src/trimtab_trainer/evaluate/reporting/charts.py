"""Pictures of an evaluation's figures, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from ...contract import Result
from ...pages.drawing import PAD, Scale, path, picture, pixel, scale_of, shortened_label, upright_lines
from ...pages.wording import decimals, figure, interval, measured, visible
from ..results import GroupFigure, Histogram, MetricByGroup

BAR_WIDTH, BAR_HEIGHT = 150, 22
PLOT_WIDTH, PLOT_LABELS, PLOT_FIGURES, PLOT_ROW, PLOT_FOOT = 640, 190, 60, 20, 26
HISTOGRAM_WIDTH, HISTOGRAM_HEIGHT, HISTOGRAM_FOOT = 340, 150, 22
WINS_WIDTH, WINS_HEIGHT = 340, 16


def interval_bar(result: Result) -> Markup:
    """Draw a figure as a dot on its 95 % interval, and the baseline as an upright mark."""
    scale = scale_of((result.value, result.low, result.high, result.baseline), PAD, BAR_WIDTH - PAD)
    if scale is None:
        return Markup("")
    words = f"{result.task}/{result.metric}: {figure(result.value)}, 95 % interval {interval(result.low, result.high)}"
    if measured(result.baseline):
        words += f", baseline {figure(result.baseline)}"
    middle = BAR_HEIGHT // 2
    body = path("axis", f"M{PAD} {middle}H{BAR_WIDTH - PAD}")
    body += _intervals([(middle, result.low, result.high)], scale)
    body += _marks([(middle, result.baseline)], scale, 7)
    body += _dots([(middle, result.value)], scale)
    return picture("bar", BAR_WIDTH, BAR_HEIGHT, words, body)


def _intervals(rows: Iterable[tuple[int, float | None, float | None]], scale: Scale) -> Markup:
    lines = (
        f"M{scale(low)} {y}H{scale(high)}"
        for y, low, high in rows
        if low is not None and high is not None and math.isfinite(low) and math.isfinite(high)
    )
    return path("interval", "".join(lines))


def _marks(rows: Iterable[tuple[int, float | None]], scale: Scale, half: int) -> Markup:
    """Draw upright marks of the baseline."""
    lines = (f"M{scale(v)} {y - half}v{2 * half}" for y, v in rows if v is not None and math.isfinite(v))
    return path("mark", "".join(lines))


def _dots(rows: Iterable[tuple[int, float | None]], scale: Scale) -> Markup:
    # A line of no length with round ends is a dot, in a few characters.
    return path("dot", "".join(f"M{scale(v)} {y}h0" for y, v in rows if v is not None and math.isfinite(v)))


def dot_plot(groups: MetricByGroup, shown: Sequence[GroupFigure], overall: float | None) -> Markup:
    """Draw one row a group: its figure with its interval, the baseline's mark, and a line for all rows together."""
    values = [v for each in shown for v in (each.value, each.low, each.high, each.baseline)]
    scale = scale_of([*values, overall], PLOT_LABELS + PAD, PLOT_WIDTH - PLOT_FIGURES - PAD)
    if scale is None:
        return Markup("")
    bottom = PLOT_ROW * len(shown) + PAD
    ys = [PAD + PLOT_ROW * index + PLOT_ROW // 2 for index in range(len(shown))]
    body = upright_lines(scale, bottom)
    if overall is not None and math.isfinite(overall):
        body += path("overall", f"M{scale(overall)} {PAD}V{bottom}")
    body += _intervals(((y, each.low, each.high) for y, each in zip(ys, shown, strict=True)), scale)
    body += _marks(((y, each.baseline) for y, each in zip(ys, shown, strict=True)), scale, 6)
    body += _dots(((y, each.value) for y, each in zip(ys, shown, strict=True)), scale)
    label = Markup('<text x="{}" y="{}" class="{}">{}</text>')
    for y, each in zip(ys, shown, strict=True):
        kind = "worst" if each.name == groups.worst else "best" if each.name == groups.best else ""
        name = shortened_label(each.name, 22 if kind else 28) + (f" · {kind}" if kind else "")
        body += label.format(PLOT_LABELS - PAD, y + 4, f"end {kind}".strip(), visible(name))
        body += label.format(PLOT_WIDTH - PAD, y + 4, "end", figure(each.value) if measured(each.value) else "–")
    words = f"{groups.metric} by group, from worst to best, with 95 % intervals"
    return picture("plot", PLOT_WIDTH, bottom + PLOT_FOOT, words, body)


def histogram(counts: Histogram) -> Markup:
    """Draw the target's counts as filled columns and the baseline's as a line over them."""
    edges, target, baseline = counts.edges, counts.target, counts.baseline
    if len(edges) != len(target) + 1 or not all(map(math.isfinite, edges)) or not sum(target):
        return Markup("")
    x = Scale(edges[0], edges[-1], PAD, HISTOGRAM_WIDTH - PAD)
    if not x.drawable:
        return Markup("")
    floor = HISTOGRAM_HEIGHT - HISTOGRAM_FOOT
    y = Scale(0, max(*target, *(baseline or ()), 1), floor, PAD + 10)
    columns = "".join(
        f"M{x(left)} {floor}V{y(count)}H{x(right)}V{floor}z"
        for left, right, count in zip(edges, edges[1:], target, strict=False)
        if count
    )
    body = path("columns", columns)
    if baseline is not None and len(baseline) == len(target):
        line = "".join(f"V{y(count)}H{x(right)}" for right, count in zip(edges[1:], baseline, strict=True))
        body += path("outline", f"M{x(edges[0])} {floor}{line}V{floor}")
    body += path("axis", f"M{PAD} {floor}H{HISTOGRAM_WIDTH - PAD}")
    places = max(0, decimals(edges[0], edges[-1]) - 1)
    text = Markup('<text x="{}" y="{}" class="{}">{}</text>')
    places_of_text = (
        (PAD, "start", edges[0]),
        (HISTOGRAM_WIDTH // 2, "tick", edges[0] / 2 + edges[-1] / 2),
        (HISTOGRAM_WIDTH - PAD, "end", edges[-1]),
    )
    for at, kind, value in places_of_text:
        body += text.format(at, HISTOGRAM_HEIGHT - 6, kind, figure(value, places))
    body += text.format(PAD, PAD + 5, "start", f"{max(*target, *(baseline or ()), 1):,} rows")
    peak = max(range(len(target)), key=target.__getitem__)
    words = (
        f"{counts.figure} of {sum(target):,} rows, {figure(edges[0], places)} to {figure(edges[-1], places)}; "
        f"most often between {figure(edges[peak], places)} and {figure(edges[peak + 1], places)}"
    )
    return picture("histogram", HISTOGRAM_WIDTH, HISTOGRAM_HEIGHT, words, body)


def wins_bar(wins: int, ties: int, losses: int) -> Markup:
    """Draw three shares of one bar."""
    total = wins + ties + losses
    if not total:
        return Markup("")
    first, second = WINS_WIDTH * wins / total, WINS_WIDTH * (wins + ties) / total
    part = Markup('<rect class="{}" x="{}" y="0" width="{}" height="{}"/>')
    body = Markup("").join(
        part.format(kind, pixel(start), pixel(stop - start), WINS_HEIGHT)
        for kind, start, stop in (("won", 0.0, first), ("tied", first, second), ("lost", second, float(WINS_WIDTH)))
        if stop > start
    )
    words = f"better in {wins:,} rows, equal in {ties:,}, worse in {losses:,}"
    return picture("wins", WINS_WIDTH, WINS_HEIGHT, words, body)

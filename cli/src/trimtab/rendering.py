"""How values look: rich tables and text. Every cell and line is cleaned here, and none is ever read as markup."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from .comparison import Comparison, Figure
from .costs import Estimate, lines
from .drawing import Series, plot
from .objects import Curve, CustomObject
from .replies import Replies, Reply, title_of
from .story import Story, story
from .tables import GAP, Listing, Table, tables
from .text import clean, duration

STYLES = {"True": "green", "False": "red", "Unknown": "cyan"}
"""Of a state, by the status of its condition."""
PALETTE = ("cyan", "magenta", "green", "yellow")
HTML_WIDTH = 100
GIB = 1 << 30
LONG = frozenset({"NAME", "MESSAGE", "METRIC", "SETTING", "REPORT"})
"""Columns that are folded where a terminal is too narrow, before others are cut, which then end with an ellipsis."""


def rendered(value: Any) -> RenderableType:
    """Return the picture of a value that is shown in a terminal or a notebook."""
    now = datetime.now(UTC)
    match value:
        case Listing():
            return listing(value, now)
        case Story():
            return story_of(value)
        case Estimate():
            return estimate(value)
        case Replies():
            return replies(value)
        case Reply():
            return replies([value])
        case Curve():
            return curves([value])
        case Comparison():
            return comparison(value)
        case CustomObject():
            parts: list[RenderableType] = [*listing_tables(tables([value], now)), story_of(story(value, now))]
            return Group(*parts, *([curves([value.curve])] if value.curve else []))
        case _:
            return line(repr(value))


def as_html(value: Any) -> str:
    """Return the same as HTML for a notebook; rich escapes what is in it."""
    console = Console(record=True, width=HTML_WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(rendered(value))
    return console.export_html(inline_styles=True, code_format='<pre style="line-height:1.2">{code}</pre>')


def line(text: str, style: str = "") -> Text:
    return Text(clean(text), style=style)


def listing(objects: Sequence[CustomObject], now: datetime, **columns: bool) -> RenderableType:
    return listing_of(tables(objects, now, **columns))


def listing_of(made: Iterable[Table]) -> RenderableType:
    return Group(*listing_tables(made))


def listing_tables(made: Iterable[Table]) -> list[RenderableType]:
    """Return a table for each kind, an empty line between them."""
    parts: list[RenderableType] = []
    for table in made:
        parts += [Text(""), _grid(table)] if parts else [_grid(table)]
    return parts


def _grid(table: Table) -> Grid:
    grid = _plain(table.headings)
    for row, status in zip(table.rows, table.statuses, strict=True):
        grid.add_row(
            *(line(cell, STYLES.get(status, "") if place == table.state else "") for place, cell in enumerate(row))
        )
    return grid


def _plain(headings: Sequence[str]) -> Grid:
    grid = Grid(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold", collapse_padding=True)
    for heading in headings:
        long = heading in LONG
        grid.add_column(Text(clean(heading)), no_wrap=not long, overflow="fold" if long else "ellipsis")
    return grid


def story_of(told: Story) -> RenderableType:
    """Return headings to the left of what is told under them."""
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for section in told.sections:
        for place, each in enumerate(section.lines):
            style = STYLES.get(told.object.status, "") if section.heading == "What" and place == 0 else ""
            grid.add_row(line("" if place else section.heading, "bold"), line(each, style))
    return Group(line(told.title, "bold"), grid)


def curves(drawn: Sequence[Curve], width: int = 72) -> RenderableType:
    """Return the curves in one picture, with a legend; a run's loss and validation loss."""
    sides = [(curve, part) for curve in drawn for part in ("loss", "validation_loss") if getattr(curve, part)]
    series = [
        Series(f"{curve.name}: {part.replace('_', ' ')}", getattr(curve, part), PALETTE[number % len(PALETTE)])
        for number, (curve, part) in enumerate(sides)
    ]
    if not series:
        return line("There is no curve yet: it comes with the first steps of training.")
    picture = Text()
    for row in plot(series, width):
        for number, cells in itertools.groupby(row, key=lambda cell: cell.series):
            style = series[number].style if number is not None else "dim"
            picture.append("".join(cell.character for cell in cells), style)
        picture.append("\n")
    for each in series:
        picture.append("━━ ", each.style)
        picture.append(clean(f"{each.name}, {each.points[-1][1]:.4g} at step {each.points[-1][0]:g}") + "\n")
    picture.append("nats per supervised token over steps", "dim")
    return picture


def replies(told: Sequence[Reply]) -> RenderableType:
    """Return answers side by side, each under the name that was asked and the revision that answered."""
    grid = Grid(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold", expand=True)
    for each in told:
        grid.add_column(Text(clean(title_of(each))), overflow="fold", ratio=1)
    grid.add_row(*(_lines(each.text) for each in told))
    if any(each.problem for each in told):
        grid.add_row(*(line(each.problem, "red") for each in told))
    return grid


def estimate(value: Estimate, price: float | None = None) -> RenderableType:
    """Return what a run takes: by its status, and on each type of accelerator."""
    parts: list[RenderableType] = []
    if told := lines(value, price):
        grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
        for heading, words in told:
            grid.add_row(line(heading, "bold"), line(words))
        parts.append(grid)
    if value.devices:
        costs = price is not None and any(each.seconds is not None for each in value.devices)
        grid = _plain(
            ("ACCELERATOR", "FITS", "PEAK", "OF", "MICRO-BATCH", "TOKENS/S", "TIME", *(("COST",) if costs else ()))
        )
        for each in value.devices:
            cells = [
                each.accelerator,
                ("yes" if each.fits else "no") + (", divided" if each.divided_among > 1 else ""),
                f"{each.peak / GIB:.1f}",
                f"{each.memory / GIB:.1f}",
            ]
            cells += [f"{each.micro_batch}{' twice' if each.recomputed else ''}", f"{each.tokens_per_second:,.0f}"]
            cells += ["" if each.seconds is None else duration(each.seconds)]
            cells += [f"{(each.accelerator_seconds or 0) / 3600 * (price or 0):,.2f}"] if costs else []
            grid.add_row(*map(line, cells))
        about = f"{value.weights / 1e9:.2f} billion weights; sizes in GiB; twice: activations are computed twice"
        if (count := max(each.accelerators for each in value.devices)) > 1:
            about += f"; {count} accelerators train together, sizes are of each"
        if any(each.divided_among > 1 for each in value.devices):
            about += "; divided: each holds its part of the base model"
        parts += [*([Text("")] if parts else []), line(about), Text(""), grid]
    return Group(*parts)


def _lines(text: str) -> Text:
    return Text("\n".join(clean(each) for each in text.strip().splitlines()))


def comparison(value: Comparison, width: int = 72) -> RenderableType:
    """Return settings that differ, figures with their change, and the curves."""
    names = (value.first.name, value.second.name)
    parts: list[RenderableType] = []
    if value.settings:
        grid = _plain(("SETTING", *names))
        for each in value.settings:
            grid.add_row(line(each.path), line(_setting(each.first)), line(_setting(each.second)))
        parts.append(grid)
    else:
        parts.append(line("Their settings do not differ."))
    if value.figures:
        grid = _plain(("FIGURE", *names, "CHANGE"))
        for figure in value.figures:
            change = "" if figure.change is None else f"{figure.change:+.4g}"
            grid.add_row(line(figure.name), line(_figure(figure, 0)), line(_figure(figure, 1)), line(change))
        parts += [Text(""), grid]
    drawn = [each.curve for each in (value.first, value.second) if each.curve]
    return Group(*parts, *([Text(""), curves(drawn, width)] if drawn else []))


def _setting(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _figure(figure: Figure, side: int) -> str:
    value = (figure.first, figure.second)[side]
    if value is None:
        return ""
    low, high = figure.low[side], figure.high[side]
    return _number(value) + ("" if low is None or high is None else f" ({low:.4g} to {high:.4g})")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.4g}"

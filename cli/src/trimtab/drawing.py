"""Curves in a terminal: a sparkline of one row, and a plot of braille dots with axes. Pure functions of numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

BARS = "▁▂▃▄▅▆▇█"
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""Bits of a braille character (Unicode, section 21.1), by column and row of its dots."""
EMPTY = 0x2800
Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Values over steps; `style` is rich's."""

    name: str
    points: tuple[Point, ...]
    style: str


@dataclass(frozen=True)
class Cell:
    """A character of a plot, and the series whose dots are on top in it; None: it belongs to the axes."""

    character: str
    series: int | None = None


def sparkline(values: Sequence[float], width: int = 12) -> str:
    """Return values as bars between the lowest and the highest; of more than `width`, means of neighbours."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return ""
    count = min(width, len(known))
    cuts = [place * len(known) // count for place in range(count + 1)]
    means = [sum(known[low:high]) / (high - low) for low, high in itertools.pairwise(cuts)]
    low, high = min(means), max(means)
    if high == low:
        return BARS[3] * count
    return "".join(BARS[round((value - low) / (high - low) * (len(BARS) - 1))] for value in means)


def plot(series: Sequence[Series], width: int = 72, height: int = 14) -> list[list[Cell]]:
    """Return the lines of a plot: `height` rows of dots and two of the axis of steps, `width` characters at most.

    Points that are not finite are left out. Nothing to draw gives no lines.
    """
    drawn = [[(x, y) for x, y in each.points if math.isfinite(x) and math.isfinite(y)] for each in series]
    points = [point for each in drawn for point in each]
    if not points:
        return []
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    if high == low:
        low, high = low - 0.5, high + 0.5
    labels = [f"{high - (high - low) * row / (height - 1):.3g}" for row in range(height)]
    margin = max(map(len, labels))
    columns = max(8, width - margin - 2)
    grid = _dots(drawn, (left, max(right, left + 1)), (low, high), columns, height)
    lines = []
    for row in range(height):
        label = labels[row] if row % 3 == 0 or row == height - 1 else ""
        lines.append([*map(Cell, f"{label:>{margin}} {'┤' if label else '│'}"), *grid[row]])
    first, last = f"{left:.0f}", f"{right:.0f}"
    ends = first + last.rjust(columns - len(first)) if len(first) + len(last) < columns else last[:columns]
    lines.append([*map(Cell, " " * (margin + 1) + "└" + "─" * columns)])
    lines.append([*map(Cell, " " * (margin + 2) + ends)])
    return lines


def _dots(
    drawn: Sequence[Sequence[Point]], x_range: Point, y_range: Point, columns: int, rows: int
) -> list[list[Cell]]:
    """Return the rows of braille characters, points of a series joined by straight lines."""
    bits = [[0] * columns for _ in range(rows)]
    owner: list[list[int | None]] = [[None] * columns for _ in range(rows)]

    def place(x: float, y: float) -> tuple[int, int]:
        across = (x - x_range[0]) / (x_range[1] - x_range[0]) * (columns * 2 - 1)
        down = (y_range[1] - y) / (y_range[1] - y_range[0]) * (rows * 4 - 1)
        return round(across), round(down)

    for number, points in enumerate(drawn):
        placed = [place(x, y) for x, y in points]
        for (x0, y0), (x1, y1) in zip(placed, placed[1:] or placed, strict=False):
            steps = max(abs(x1 - x0), abs(y1 - y0), 1)
            for step in range(steps + 1):
                x, y = round(x0 + (x1 - x0) * step / steps), round(y0 + (y1 - y0) * step / steps)
                bits[y // 4][x // 2] |= DOTS[x % 2][y % 4]
                owner[y // 4][x // 2] = number
    return [
        [Cell(chr(EMPTY + bit) if bit else " ", owner[row][column]) for column, bit in enumerate(line)]
        for row, line in enumerate(bits)
    ]

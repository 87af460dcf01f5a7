"""A confusion matrix as a table that fits a page: with many labels the frequent ones, and the rest together."""

from __future__ import annotations

from dataclasses import dataclass

LABELS = 20
"""Labels that are shown apart."""
CONFUSIONS = 8
NO_LABEL = "no label"


@dataclass(frozen=True)
class Cell:
    """How many rows of a true label were given a label, and their share of the true label's rows."""

    count: int
    share: float | None
    right: bool


@dataclass(frozen=True)
class Line:
    label: str
    rows: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Matrix:
    """Lines by true label, columns by predicted label; the last column is of answers that are no label."""

    columns: tuple[str, ...]
    lines: tuple[Line, ...]


def matrix_of(labels: list[str], counts: list[list[int]]) -> Matrix:
    """Return the table of `counts[true][predicted]`, which has one column more than there are labels."""
    kept = _frequent(counts)
    rest = [index for index in range(len(labels)) if index not in kept]
    parts = [(labels[index], [index]) for index in kept]
    if rest:
        parts.append((f"{len(rest)} other labels", rest))
    columns = [*parts, (NO_LABEL, [len(labels)])]
    lines = []
    for label, members in parts:
        rows = sum(sum(counts[index]) for index in members)
        sums = [sum(counts[true][predicted] for true in members for predicted in column) for _, column in columns]
        cells = tuple(
            # Pooled labels can be confused with each other, so that their cell says nothing of being right.
            Cell(count, count / rows if rows else None, column == members and len(members) == 1)
            for count, (_, column) in zip(sums, columns, strict=True)
        )
        lines.append(Line(label, rows, cells))
    return Matrix(tuple(name for name, _ in columns), tuple(lines))


def _frequent(counts: list[list[int]]) -> list[int]:
    """Return the labels with the most rows, in their own order."""
    if len(counts) <= LABELS + 1:  # one label is not pooled alone
        return [*range(len(counts))]
    return sorted(sorted(range(len(counts)), key=lambda index: (-sum(counts[index]), index))[:LABELS])


def confusions(labels: list[str], counts: list[list[int]]) -> tuple[tuple[str, str, int], ...]:
    """Return the most frequent mistakes: true label, what was said instead, rows."""
    names = [*labels, NO_LABEL]
    mistakes = [
        (-count, true, predicted)
        for true, line in enumerate(counts)
        for predicted, count in enumerate(line)
        if count and true != predicted
    ]
    return tuple((names[true], names[predicted], -count) for count, true, predicted in sorted(mistakes)[:CONFUSIONS])

"""Objects as rows of a table: the columns of `kubectl get`, and the curve. Pure; a clock is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.cells import cell_len

from .drawing import sparkline
from .kinds import Kind
from .objects import CustomObject
from .paths import value_at
from .text import age, clean
from .views import Shown

GAP = 3
"""Spaces between columns, as kubectl has them."""


class Listing(tuple[CustomObject, ...], Shown):
    """Objects in the order of kinds and names.

    Attributes:
        not_shown: kinds that the user may not list, with the API server's words.
    """

    not_shown: tuple[str, ...] = ()

    @classmethod
    def of(cls, objects: Iterable[CustomObject], kinds: Sequence[Kind], not_shown: Iterable[str] = ()) -> Listing:
        order = {kind.name: place for place, kind in enumerate(kinds)}
        listing = cls(sorted(objects, key=lambda each: (order[each.kind.name], each.namespace, each.name)))
        listing.not_shown = tuple(not_shown)
        return listing


@dataclass(frozen=True)
class Table:
    """Cells as they are shown, but for what `clean` does with them; the state stands in column `state`."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    statuses: tuple[str, ...]
    state: int


def tables(
    objects: Sequence[CustomObject],
    now: datetime,
    *,
    wide: bool = False,
    namespaces: bool = False,
    curves: bool = False,
) -> list[Table]:
    """Return a table for each kind that there is of the objects, in their order.

    Args:
        wide: the columns of `kubectl get -o wide` too.
        namespaces: a column with the namespace.
        curves: a column with the loss as a sparkline, where any object has one.
    """
    kinds = list(dict.fromkeys(each.kind for each in objects))
    shape = {"wide": wide, "namespaces": namespaces, "curves": curves, "qualified": len(kinds) > 1}
    return [_table([each for each in objects if each.kind == kind], kind, now, **shape) for kind in kinds]


def plain(made: Iterable[Table]) -> Iterator[str]:
    """Yield the lines of tables for a pipe: aligned, cleaned, an empty line between two tables.

    rich makes the same of them for a terminal, and takes half a millisecond a row.
    """
    for number, table in enumerate(made):
        if number:
            yield ""
        rows = [[clean(cell) for cell in row] for row in (table.headings, *table.rows)]
        widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
            yield (" " * GAP).join(padded).rstrip()


def _table(
    objects: Sequence[CustomObject],
    kind: Kind,
    now: datetime,
    *,
    wide: bool,
    namespaces: bool,
    curves: bool,
    qualified: bool,
) -> Table:
    columns = (*kind.columns, *(kind.wide_columns if wide else ()))
    drawn = curves and any(each.curve for each in objects)
    before = (("NAMESPACE",) if namespaces else ()) + ("NAME",)
    rows = []
    for each in objects:
        name = f"{kind.singular}/{each.name}" if qualified else each.name
        cells = [_cell(value_at(each.body, column.path), column.type, now) for column in columns]
        curve = (sparkline([value for _, value in each.curve.loss]),) if drawn else ()
        rows.append((*((each.namespace,) if namespaces else ()), name, *cells, *curve))
    return Table(
        headings=(*before, *(column.name.upper() for column in columns), *(("CURVE",) if drawn else ())),
        rows=tuple(rows),
        statuses=tuple(each.status for each in objects),
        state=len(before),
    )


def _cell(value: Any, kind: str, now: datetime) -> str:
    if value is None:
        return ""
    return age(value, now) if kind == "date" else str(value)

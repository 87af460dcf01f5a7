"""The first page: what runs, what waits, what failed, what is served, and what of the accelerators is used. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from ...kinds import Kind
from ...objects import AdapterRollout, CustomObject
from ..addresses import ROWS, STATES, Selection
from .head import noun
from .rows import Brief, Row, accelerators, brief, row, selected

ACTIVE, FAILED, DONE, SERVED = 20, 6, 6, 12
"""Rows that are shown of each; the lists have the others."""
FIGURES = {"FineTuneJob": "Loss", "Evaluation": "Headline", "AdapterRollout": "Pods", "FineTuneSweep": "Best"}
"""What the number of a row is, by kind."""


@dataclass(frozen=True)
class Count:
    """How many objects are so."""

    word: str
    value: int
    tone: str
    href: str


@dataclass(frozen=True)
class Overview:
    """Attributes:
    active: what runs, then what waits.
    more: how many rows of each were left out, by the names of the attributes.
    not_shown: kinds that the user may not see, in words.
    """

    namespace: str
    counts: tuple[Count, ...]
    in_use: int
    queued: int
    active: tuple[Row, ...]
    failed: tuple[Row, ...]
    done: tuple[Row, ...]
    served: tuple[Row, ...]
    more: dict[str, int]
    not_shown: tuple[str, ...]

    @property
    def empty(self) -> bool:
        return not (self.active or self.failed or self.done or self.served)


def overview(objects: Sequence[CustomObject], namespace: str, now: datetime, not_shown: Sequence[str] = ()) -> Overview:
    """Return what runs, waits and failed lately, and what is served; `not_shown` are kinds that may not be listed."""
    work = [brief(each) for each in objects if not isinstance(each, AdapterRollout)]
    rollouts = [each for each in objects if isinstance(each, AdapterRollout)]
    by_tone = {tone: selected(work, Selection(state=tone)) for tone in STATES}
    active = by_tone["running"] + by_tone["waiting"]

    def rows(found: Sequence[Brief], most: int) -> tuple[Row, ...]:
        return tuple(row(each.about, now) for each in found[:most])

    return Overview(
        namespace=namespace,
        counts=tuple(
            Count(word, len(by_tone[tone]), tone, f"#{part}")
            for word, tone, part in (
                ("Running", "running", "now"),
                ("Waiting", "waiting", "now"),
                ("Failed", "failed", "failed"),
                ("Done", "done", "done"),
            )
        ),
        in_use=sum(accelerators(each.about) for each in by_tone["running"]),
        queued=sum(each.state == "Queued" for each in work),
        active=rows(active, ACTIVE),
        failed=rows(by_tone["failed"], FAILED),
        done=rows(by_tone["done"], DONE),
        served=tuple(row(each, now) for each in rollouts[:SERVED]),
        more={
            "active": len(active[ACTIVE:]),
            "failed": len(by_tone["failed"][FAILED:]),
            "done": len(by_tone["done"][DONE:]),
            "served": len(rollouts[SERVED:]),
        },
        not_shown=tuple(not_shown),
    )


@dataclass(frozen=True)
class Listing:
    """A table of one kind; `rows` are those of the selection's page, `found` counts all of them."""

    namespace: str
    kind: str
    plural: str
    noun: str
    rows: tuple[Row, ...]
    found: int
    all: int
    pages: int
    selection: Selection
    comparable: bool
    figure: str


def listing(
    objects: Sequence[CustomObject], kind: Kind, namespace: str, selection: Selection, now: datetime
) -> Listing:
    """Return one page of the objects of a kind that a selection leaves, in its order."""
    found = selected(map(brief, objects), selection)
    pages = max(1, -(-len(found) // ROWS))
    page = min(selection.page, pages)
    return Listing(
        namespace=namespace,
        kind=kind.name,
        plural=kind.plural,
        noun=noun(kind),
        rows=tuple(row(each.about, now) for each in found[(page - 1) * ROWS : page * ROWS]),
        found=len(found),
        all=len(objects),
        pages=pages,
        selection=replace(selection, page=page),
        comparable=kind.name in ("FineTuneJob", "Evaluation"),
        figure=FIGURES.get(kind.name, "Figure"),
    )

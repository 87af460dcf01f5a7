"""data.html: what became of the rows, as one page that a team looks at before anything is trained. No torch.

One file without scripts, fonts or pictures from elsewhere. Whatever comes from data is escaped by the template; the
same rows of the same files give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from ..contract.settings import LossOn
from ..pages.drawing import path, picture, pixel
from ..pages.environment import environment, leaves
from .choosing.figures import by_file, used
from .choosing.linked import text_of
from .choosing.notices import CLEANED, DECIDED, rows_read
from .choosing.selection import NEAR, SIDES, TOO_LONG, Selection
from .fitting import learned
from .request import Request
from .rows import Rows

LEARNED_EXAMPLES, DROPPED_EXAMPLES = 8, 5
SHOWN_TOKENS, SHOWN_CHARACTERS = 400, 600
GROUP_ROWS = 60
WIDTH, HEIGHT, FOOT, PAD = 640, 160, 22, 6
WORDS = CLEANED | DECIDED | {TOO_LONG: "are longer than a sequence"}


@dataclass(frozen=True)
class Piece:
    """A stretch of a row's text, all of it learned or none."""

    text: str
    learned: bool


@dataclass(frozen=True)
class LearnedRow:
    """A row as it is trained on."""

    place: str
    tokens: int
    pieces: tuple[Piece, ...]
    cut: bool


@dataclass(frozen=True)
class DroppedRow:
    """A row that is not used, and the one that it nearly repeats, if that is why."""

    place: str
    tokens: int
    text: str
    twin_place: str | None = None
    twin: str = ""


@dataclass(frozen=True)
class Reason:
    """Why rows are dropped: how many, where the first stand, and some of them as they are."""

    words: str
    rows: int
    places: tuple[str, ...]
    examples: tuple[DroppedRow, ...] = ()


def render(audit: dict[str, Any], findings: dict[str, Any], rows: Rows, selection: Selection, request: Request) -> str:
    """Return the page of an audit; `findings` is audit.json of the rows."""
    answers = request.training.method.answers
    reasons = [*_cleaned(findings, request), *_decided(rows, selection, answers)]
    groups = {name: each[:GROUP_ROWS] for name, each in audit["groups"].items()}
    return _ENVIRONMENT.get_template("data.html.jinja").render(
        audit=audit,
        dropped=sum(reason.rows for reason in reasons),
        read=rows_read(rows, audit["rowsRead"], request),
        reasons=sorted((reason for reason in reasons if reason.rows), key=lambda reason: -reason.rows),
        groups=groups,
        left_out={name: max(0, len(each) - GROUP_ROWS) for name, each in audit["groups"].items()},
        files=by_file(rows, selection, answers)[:GROUP_ROWS],
        histogram=histogram(audit["lengths"], audit["maxSequenceLength"]),
        examples=[*_learned(rows, selection, request)],
        settings=[*leaves(request.choices)],
    )


def histogram(lengths: dict[str, Any], limit: int) -> Markup:
    """Draw how many rows have how many tokens, in equal steps from 0 to the limit."""
    counts, step = lengths["counts"], lengths["step"]
    most = max(counts)
    if not most:
        return Markup("")
    width = (WIDTH - 2 * PAD) / len(counts)
    bars = "".join(
        f"M{pixel(PAD + index * width)} {HEIGHT}v-{pixel((HEIGHT - PAD) * count / most)}h{pixel(width)}V{HEIGHT}z"
        for index, count in enumerate(counts)
        if count
    )
    body = path("columns", bars) + path("axis", f"M{PAD} {HEIGHT}H{WIDTH - PAD}")
    for index in range(0, len(counts), 10):
        words = f"{index * step:,}"
        body += Markup('<text class="{}" x="{}" y="{}">{}</text>').format(
            "tick" if index else "start", pixel(PAD + index * width), HEIGHT + 15, words
        )
    title = f"Rows by their tokens, in steps of {step:,} up to {limit:,}; most in one step: {most:,}"
    return picture("histogram", WIDTH, HEIGHT + FOOT, title, body)


def _cleaned(findings: dict[str, Any], request: Request) -> Iterator[Reason]:
    for name, words in CLEANED.items():
        if name == "invalid" and request.cleaning.invalid_text.value != "Drop":
            continue
        found = [source[name] for source in findings.values() if name in source]
        places = tuple(place for each in found for place in each["examples"])[:DROPPED_EXAMPLES]
        yield Reason(words, sum(each["count"] for each in found), places)


def _decided(rows: Rows, selection: Selection, answers: int) -> Iterator[Reason]:
    for reason, numbers in selection.dropped.items():
        shown = rows.heads(numbers)[:DROPPED_EXAMPLES] if len(numbers) else numbers
        examples = tuple(_dropped(rows, selection, int(row), reason) for row in shown)
        yield Reason(WORDS[reason], len(numbers) // answers, tuple(each.place for each in examples), examples)


def _dropped(rows: Rows, selection: Selection, row: int, reason: str) -> DroppedRow:
    text = text_of(rows.line(row))
    if reason == NEAR and selection.alike is not None:
        others = np.flatnonzero(selection.alike == selection.alike[row])
        kept = np.intersect1d(others, used(selection))
        if len(kept):
            twin = int(kept[0])
            return DroppedRow(rows.place(row), int(rows.lengths[row]), text, rows.place(twin), text_of(rows.line(twin)))
    return DroppedRow(rows.place(row), int(rows.lengths[row]), text)


def _learned(rows: Rows, selection: Selection, request: Request) -> Iterator[LearnedRow]:
    side = selection.sides[SIDES[0]]
    if not len(side.rows):
        return
    tokenizer = request.tokenizer()
    spread = np.linspace(0, len(side.rows) - 1, min(LEARNED_EXAMPLES, len(side.rows))).astype(np.int64)
    for place in np.unique(spread).tolist():
        row, length = int(side.rows[place]), int(side.lengths[place])
        shown = min(length, SHOWN_TOKENS)
        tokens, kinds = rows.tokens(np.array([row]), np.array([shown]))
        mask = learned(kinds, LossOn(request.training.loss_on))
        mask[0] = False
        borders = np.flatnonzero(np.diff(mask)) + 1
        pieces = tuple(
            Piece(tokenizer.text(part), bool(mask[start]))
            for start, part in zip([0, *borders.tolist()], np.split(tokens, borders), strict=True)
        )
        yield LearnedRow(rows.place(row), length, pieces, shown < length)


_ENVIRONMENT = environment("trimtab_trainer.data")
_ENVIRONMENT.globals.update(characters=SHOWN_CHARACTERS)

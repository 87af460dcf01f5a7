"""What is taken out before anything is learned from it, and the audit that says how much and where."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..contract import Reason
from ..errors import DataInvalid
from .formats import Detected, Row, conform
from .readers import Record

IGNORED, CONTROL, PARTED, FORMAT, VOCABULARY = (
    "ignoredColumns",
    "controlTokens",
    "oneSequenceATurn",
    "format",
    "vocabulary",
)
"""Of audits and of views' summaries."""
EXAMPLES = 5
MOST_COLUMNS = 64
"""Rows without a schema may have any number of columns; those beyond are counted together."""
OTHER_COLUMNS = "(others)"


@dataclass
class Finding:
    """How many rows have some trouble, and where the first of them stand."""

    count: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.places) < EXAMPLES:
            self.places.append(place)

    def to_json(self) -> dict[str, Any]:
        """Return the finding as it stands in audit.json."""
        return {"count": self.count, "examples": self.places}


@dataclass
class Audit:
    """Findings of one source's rows."""

    read: int = 0
    blank: Finding = field(default_factory=Finding)
    duplicate: Finding = field(default_factory=Finding)
    unsupervised: Finding = field(default_factory=Finding)
    control: Finding = field(default_factory=Finding)
    parted: Finding = field(default_factory=Finding)
    ignored: dict[str, Finding] = field(default_factory=dict)

    def ignore(self, columns: Iterable[str], place: str) -> None:
        """Count the columns of a row that are not used."""
        for column in columns:
            known = column in self.ignored or len(self.ignored) < MOST_COLUMNS
            self.ignored.setdefault(column if known else OTHER_COLUMNS, Finding()).add(place)

    @property
    def dropped(self) -> int:
        """Rows that were read and not kept."""
        return self.blank.count + self.duplicate.count + self.unsupervised.count

    def to_json(self) -> dict[str, Any]:
        """Return the audit as it stands in audit.json."""
        return {
            "rowsRead": self.read,
            "rowsKept": self.read - self.dropped,
            "blank": self.blank.to_json(),
            "duplicate": self.duplicate.to_json(),
            "unsupervised": self.unsupervised.to_json(),
            CONTROL: self.control.to_json(),
            PARTED: self.parted.to_json(),
            IGNORED: {name: finding.to_json() for name, finding in sorted(self.ignored.items())},
        }


def clean(
    records: Iterable[Record], detected: Detected, audit: Audit, uri: str, ignore: Collection[str] = ()
) -> Iterator[Row]:
    """Yield the rows that are worth learning from: conforming, not blank, not there already.

    `ignore` are keys that are left out whatever they mean.

    All records are read before rows without an assistant turn are refused, so that their number can be told.

    Raises:
        DataInvalid: DATASET_EMPTY, DATASET_MALFORMED, FORMAT_UNKNOWN or NO_ASSISTANT_TURN.
    """
    seen: set[bytes] = set()
    speechless = Finding()
    for record in records:
        audit.read += 1
        row = conform(record, detected.format, guessed=detected.guessed, ignore=ignore)
        audit.ignore(row.ignored, row.place)
        if not row.has_assistant_turn:
            speechless.add(row.place)
            continue
        if not row.is_learned:
            audit.unsupervised.add(row.place)
            continue
        if not row.answer.strip():
            audit.blank.add(row.place)
            continue
        identity = hashlib.sha256(row.to_json()).digest()
        if identity in seen:
            audit.duplicate.add(row.place)
            continue
        seen.add(identity)
        if not speechless.count:
            yield row
    if speechless.count:
        raise DataInvalid(
            f"{speechless.count} of {audit.read} rows have no assistant turn, the first is {speechless.places[0]}; "
            "remove them, or add the answers",
            Reason.NO_ASSISTANT_TURN,
        )
    if not seen:
        what = "no rows" if not audit.read else f"{audit.read} rows, all of them blank or of weight 0"
        raise DataInvalid(f"{uri} holds {what}; upload the data", Reason.DATASET_EMPTY)

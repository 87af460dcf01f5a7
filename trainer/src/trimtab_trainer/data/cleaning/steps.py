"""What is taken out before anything is learned from it, row by row, and the audit that says how much and where.

What is decided on all rows together is in other files: near duplicates, overlap, length.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from ...contract import Cleaning, DatasetFormat, Handling, InvalidText, Reason
from ...contract.parsing import Unreadable, whole_number
from ...errors import DataInvalid
from ...invisible import is_blank
from ..reading.formats import Detected, Row, conform
from ..reading.keys import as_written, is_absent
from ..reading.messages import is_learned, text
from ..reading.messages import spoken as said
from ..reading.readers import Record
from .shingles import texts_of

IGNORED, CONTROL, NAMES, PARTED, UNLIKE_PROMPTS, OVERSIZED, FORMAT, VOCABULARY = (
    "ignoredColumns",
    "controlTokens",
    "controlTokensInNames",
    "oneSequenceATurn",
    "unlikePrompts",
    "oversized",
    "format",
    "vocabulary",
)
"""Of audits and of views' summaries."""
EXAMPLES = 5
MOST_COLUMNS = 64
"""Rows without a schema may have any number of columns; those beyond are counted together."""
OTHER_COLUMNS = "(others)"
IDENTITY_BYTES = 16
MOST_CHARACTERS = 4 << 20
"""Of a row as it is stored: four for each token of the longest sequence that there can be. Each takes up to 400 bytes
of memory where it is tokenised, so longer rows are too long without that."""
INVALID = re.compile("[\ufffd\ufffe\uffff\x00-\x08\x0b\x0e-\x1f\x7f]")
"""Bytes that were lost in a decoding, and control characters but for tabs, line and page ends."""


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

    def extend(self, later: Finding) -> None:
        """Count what was found behind this."""
        self.count += later.count
        self.places = (self.places + later.places)[:EXAMPLES]

    def to_json(self) -> dict[str, Any]:
        """Return the finding as it stands in audit.json."""
        return {"count": self.count, "examples": self.places}

    @classmethod
    def of(cls, value: Any) -> Self:
        """Return the finding that `to_json` was called on.

        Raises:
            Unreadable: it is none.
        """
        examples = value.get("examples") if isinstance(value, dict) else None
        if not isinstance(examples, list) or not all(isinstance(each, str) for each in examples):
            raise Unreadable("a finding of its audit is none")
        return cls(whole_number(value.get("count"), "the count of a finding"), examples)


@dataclass
class Audit:
    """Findings of one source's rows; `invalid` rows are dropped only where `invalidText` says so."""

    read: int = 0
    dropped: int = 0
    blank: Finding = field(default_factory=Finding)
    duplicate: Finding = field(default_factory=Finding)
    invalid: Finding = field(default_factory=Finding)
    unsupervised: Finding = field(default_factory=Finding)
    control: Finding = field(default_factory=Finding)
    parted: Finding = field(default_factory=Finding)
    unlike: Finding = field(default_factory=Finding)
    """Pairs whose prompt has other tokens on each side."""
    names: Finding = field(default_factory=Finding)
    """Of `control` those with names of arguments that hold control tokens."""
    oversized: Finding = field(default_factory=Finding)
    ignored: dict[str, Finding] = field(default_factory=dict)

    def drop(self, finding: Finding, place: str) -> None:
        """Count a row that is not kept."""
        finding.add(place)
        self.dropped += 1

    def ignore(self, columns: Iterable[str], place: str) -> None:
        """Count the columns of a row that are not used."""
        for column in columns:
            known = column in self.ignored or len(self.ignored) < MOST_COLUMNS
            self.ignored.setdefault(column if known else OTHER_COLUMNS, Finding()).add(place)

    def extend(self, later: Audit) -> None:
        """Count what was found in the rows behind these."""
        self.read += later.read
        self.dropped += later.dropped
        for name in FINDINGS:
            getattr(self, name).extend(getattr(later, name))
        for name in RARE:
            getattr(self, name).extend(getattr(later, name))
        for column, finding in later.ignored.items():
            known = column in self.ignored or len(self.ignored) < MOST_COLUMNS
            self.ignored.setdefault(column if known else OTHER_COLUMNS, Finding()).extend(finding)

    def to_json(self) -> dict[str, Any]:
        """Return the audit as it stands in audit.json."""
        return {
            "rowsRead": self.read,
            "rowsKept": self.read - self.dropped,
            **{key: getattr(self, name).to_json() for name, key in FINDINGS.items()},
            **{key: getattr(self, name).to_json() for name, key in RARE.items() if getattr(self, name).count},
            IGNORED: {name: finding.to_json() for name, finding in sorted(self.ignored.items())},
        }

    @classmethod
    def of(cls, value: Any) -> Self:
        """Return the audit that `to_json` was called on.

        Raises:
            Unreadable: it is none.
        """
        ignored = value.get(IGNORED) if isinstance(value, dict) else None
        if not isinstance(ignored, dict):
            raise Unreadable("its audit is none")
        read = whole_number(value.get("rowsRead"), "the count of rows")
        return cls(
            read,
            read - whole_number(value.get("rowsKept"), "the count of rows that are kept", most=read),
            **{name: Finding.of(value.get(key)) for name, key in FINDINGS.items()},
            **{name: Finding.of(value[key]) for name, key in RARE.items() if key in value},
            ignored={name: Finding.of(finding) for name, finding in ignored.items()},
        )


RARE = {"unlike": UNLIKE_PROMPTS, "names": NAMES, "oversized": OVERSIZED}
"""Findings that are told only where there are such; and their names in audit.json."""
FINDINGS = {each.name: each.name for each in fields(Audit) if each.type == "Finding" and each.name not in RARE} | {
    "control": CONTROL,
    "parted": PARTED,
}
"""Attributes of an audit, and their names in audit.json."""


@dataclass(frozen=True)
class Kept:
    """A row that is worth learning from, with the hash of all of it that is used and the values of named columns."""

    row: Row
    identity: bytes
    values: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Columns:
    """Columns that settings name: `group` keeps rows together, the others are counted by."""

    group: str | None = None
    counted: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """All of them."""
        return frozenset((*self.counted, *filter(None, [self.group])))

    def group_of(self, value: dict[str, Any], row: Row) -> Row:
        """Return the row with its group by the named column."""
        return row if self.group is None else replace(row, group=_value(value, self.group, row.place))

    def values(self, value: dict[str, Any], place: str) -> tuple[str | None, ...]:
        """Return what a row has in the columns that are counted by."""
        return tuple(_value(value, column, place) for column in self.counted)

    def unused(self, columns: Iterable[str]) -> Iterator[str]:
        """Yield those of a row's ignored columns that are not named."""
        return (column for column in columns if column not in self.names)


class Cleaner:
    """Tells the rows of one source that are worth learning from: conforming, not blank, not there already."""

    def __init__(
        self,
        detected: Detected,
        cleaning: Cleaning | None = None,
        columns: Columns | None = None,
        ignore: Collection[str] = (),
        *,
        seen: Iterable[bytes] = (),
        read: int = 0,
    ) -> None:
        """Begin behind `read` rows, those kept of the identities `seen`; keys in `ignore` are left out."""
        self._detected, self._cleaning, self._columns = detected, cleaning or Cleaning(), columns or Columns()
        self._ignore, self._named = frozenset(ignore), self._columns.names
        self._seen = set(seen)
        self._kept = len(self._seen)
        self._read = read
        self._speechless = Finding()

    @property
    def refuses(self) -> bool:
        """Tell whether there was a row for which `check` refuses the source."""
        return self._speechless.count > 0

    def clean(self, records: Iterable[Record], audit: Audit) -> Iterator[Kept]:
        """Yield the rows that are kept, and count the others.

        Rows without an assistant turn are refused by `check`, so that their number can be told.

        Raises:
            DataInvalid: DATASET_MALFORMED or FORMAT_UNKNOWN.
        """
        for record in records:
            audit.read += 1
            self._read += 1
            row = conform(
                record,
                self._detected.format,
                guessed=self._detected.guessed,
                ignore=self._ignore,
                named=self._named,
            )
            row = self._columns.group_of(record.value, row)
            audit.ignore(self._columns.unused(row.ignored), row.place)
            if not row.has_assistant_turn:
                self._speechless.add(row.place)
                continue
            if not row.is_learned or row.is_tied:
                audit.drop(audit.unsupervised, row.place)
                continue
            if self._cleaning.blank_turns is Handling.DROP and has_blank_turn(row):
                audit.drop(audit.blank, row.place)
                continue
            written = row.canonical()
            decoded = written.decode()
            if len(decoded) > MOST_CHARACTERS:
                audit.drop(audit.oversized, row.place)
                continue
            if not self._valid(decoded, row, audit):
                continue
            values = self._columns.values(record.value, row.place)
            identity = _identity(written, values)
            if self._cleaning.exact_duplicates is Handling.DROP:
                if identity in self._seen:
                    audit.drop(audit.duplicate, row.place)
                    continue
                self._seen.add(identity)
            self._kept += 1
            if not self.refuses:
                yield Kept(row, identity, values)

    def check(self, audit: Audit, uri: str) -> None:
        """Refuse a source, once all of it was read.

        Raises:
            DataInvalid: NO_ASSISTANT_TURN or DATASET_EMPTY.
        """
        if self.refuses:
            speechless = self._speechless
            raise DataInvalid(
                f"{speechless.count} of {self._read} rows have no assistant turn, the first is "
                f"{speechless.places[0]}; remove them, or add the answers",
                Reason.NO_ASSISTANT_TURN,
            )
        if not self._kept:
            tied = ", of two equal answers" if self._detected.format is DatasetFormat.PREFERENCE else ""
            long = f", of more than {MOST_CHARACTERS:,} characters" if audit.oversized.count else ""
            why = f"blank{tied}, of invalid text{long} or of weight 0"
            found = (audit.unsupervised, audit.blank, audit.invalid, audit.oversized)
            first = next((each.places[0] for each in found if each.places), "")
            what = f"{audit.read} rows, all of them {why}, such as {first}" if audit.read else "no rows"
            raise DataInvalid(f"{uri} holds {what}; upload the data", Reason.DATASET_EMPTY)

    def _valid(self, written: str, row: Row, audit: Audit) -> bool:
        # JSON writes control characters as escapes, which may as well be text that looks like one.
        if not (INVALID.search(written) or (("\\u00" in written or "\\b" in written) and _has_control(row))):
            return True
        if self._cleaning.invalid_text is InvalidText.REFUSE:
            raise DataInvalid(
                f"{row.place} has replacement or control characters; correct or remove it, or set "
                "dataset.cleaning.invalidText to Drop or Keep",
                Reason.DATASET_MALFORMED,
            )
        if self._cleaning.invalid_text is InvalidText.DROP:
            audit.drop(audit.invalid, row.place)
            return False
        audit.invalid.add(row.place)
        return True


def clean(
    records: Iterable[Record], detected: Detected, audit: Audit, uri: str, ignore: Collection[str] = ()
) -> Iterator[Row]:
    """Yield the rows of a whole source that are kept, with all steps of the cleaning.

    Raises:
        DataInvalid: DATASET_EMPTY, DATASET_MALFORMED, FORMAT_UNKNOWN or NO_ASSISTANT_TURN.
    """
    cleaner = Cleaner(detected, ignore=ignore)
    yield from (kept.row for kept in cleaner.clean(records, audit))
    cleaner.check(audit, uri)


def has_blank_turn(row: Row) -> bool:
    """Tell whether an answer that would be learned says nothing."""
    if row.answers:
        return any(map(has_blank_turn, row.answers))
    if row.messages:
        return any(is_blank(said(message)) for message in row.messages if is_learned(message))
    return is_blank(row.answer)


def _has_control(row: Row) -> bool:
    return any(INVALID.search(text) for text in texts_of(json.loads(row.to_json())))


def _identity(written: bytes, values: tuple[str | None, ...]) -> bytes:
    hashed = hashlib.sha256(written)
    for value in values:
        hashed.update(b"\0" if value is None else b"\1" + value.encode() + b"\0")
    return hashed.digest()[:IDENTITY_BYTES]


def _value(row: dict[str, Any], column: str, place: str) -> str | None:
    value = row.get(column)
    if is_absent(value):
        return None
    if isinstance(value, str):
        return text(value, column, place)
    if isinstance(value, bool):
        return "true" if value else "false"
    if (number := as_written(value)) is not None:
        return number
    raise DataInvalid(
        f"{place}: the column {column} is no text or number; name another column, or correct it",
        Reason.DATASET_MALFORMED,
    )

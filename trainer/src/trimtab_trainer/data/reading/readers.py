"""Files of rows, read record by record: JSON lines, JSON, CSV with a header line, Parquet; plain, gzip or zstd.

CSV and JSON lines are read as they stream; a JSON file, which is one list of rows, is held in memory as a whole.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...contract import Reason
from ...contract.parsing import Unreadable, check_levels
from ...errors import DataInvalid

PARQUET_BATCH_ROWS = 1024
FIELD_CHARACTERS = 1 << 30
JSON_BYTES = 4 << 30
LEVELS = 128
"""Most lists and objects within each other, of a row or of a text that is JSON itself."""

_SURPLUS = "\0surplus"


@dataclass(frozen=True)
class Record:
    """One raw row and where it stands, in words for a person: `train/a.jsonl line 12`."""

    value: Any
    place: str


def read(file: Path, name: str) -> Iterator[Record]:
    """Yield the records of a file, in order; `name` says how it is to be read, and names it for people.

    Raises:
        DataInvalid: DATASET_MALFORMED, with the 1-based line, row or item.
    """
    compression = {"gz": "gzip", "zst": "zstd"}.get(name.rpartition(".")[2])
    kind = re.sub(r"\.(gz|zst)$", "", name).rpartition(".")[2]
    if kind == "parquet":
        yield from _parquet(file, name)
        return
    reader = {"csv": _csv, "json": _json}.get(kind, _lines)
    try:
        with pa.input_stream(str(file), compression=compression) as stream:
            yield from reader(stream, name)
    except (OSError, pa.ArrowException) as error:
        raise _malformed(name, f"cannot be decompressed: {error}") from error


def _lines(stream: pa.NativeFile, name: str) -> Iterator[Record]:
    number = 0
    try:
        for number, line in enumerate(_split(stream), 1):
            if line.isspace() or not line:
                continue
            place = f"{name} line {number}"
            try:
                yield Record(_value(line.decode("utf-8-sig" if number == 1 else "utf-8")), place)
            except UnicodeDecodeError as error:
                raise _malformed(place, f"is not UTF-8 (byte {error.start + 1} of the line)") from None
            except json.JSONDecodeError as error:
                raise _malformed(place, f"is not JSON: {error.msg} at column {error.colno}") from None
            except (ValueError, RecursionError) as error:
                raise _malformed(place, _unreadable(error)) from None
    except (OSError, pa.ArrowException) as error:
        raise _malformed(f"{name} after line {number}", f"cannot be decompressed: {error}") from error


def _split(stream: pa.NativeFile) -> Iterator[bytes]:
    rest = b""
    while chunk := stream.read(1 << 20):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _json(stream: pa.NativeFile, name: str) -> Iterator[Record]:
    data = stream.read(JSON_BYTES + 1)
    if len(data) > JSON_BYTES:
        raise _malformed(name, f"is longer than {JSON_BYTES >> 30} GiB; write it as .jsonl")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _malformed(name, f"is not UTF-8 (byte {error.start + 1})") from None
    del data
    try:
        value = _value(text)
    except json.JSONDecodeError as error:
        if _holds_lines(text):
            yield from _lines(pa.BufferReader(text.encode()), name)
            return
        raise _malformed(f"{name} line {error.lineno}", f"is not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise _malformed(name, _unreadable(error)) from None
    if isinstance(value, dict):
        lists = [key for key, each in value.items() if isinstance(each, list)]
        # Else it is JSON lines with one line.
        value = value["data"] if len(value) == 1 and lists == ["data"] else [value]
    if not isinstance(value, list):
        raise _malformed(name, "is no list of rows")
    for number, item in enumerate(value, 1):
        yield Record(item, f"{name} item {number}")


def _holds_lines(text: str) -> bool:
    """Tell whether a file is of JSON lines, whatever it is called: its first line is an object."""
    first = text.lstrip().partition("\n")[0]
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _csv(stream: pa.NativeFile, name: str) -> Iterator[Record]:
    csv.field_size_limit(FIELD_CHARACTERS)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    rows = csv.DictReader(text, restkey=_SURPLUS, strict=True)
    line = 1
    try:
        header = rows.fieldnames or []
        if len(set(header)) != len(header) or not all(each.strip() for each in header):
            raise _malformed(f"{name} line 1", "names a column twice, or not at all")
        for row in rows:
            place = f"{name} line {line + 1}"
            line = rows.line_num
            if _SURPLUS in row:
                raise _malformed(place, f"has more values than the {len(header)} columns of the first line")
            if len([value for value in row.values() if value is not None]) < len(header):
                raise _malformed(place, f"has fewer values than the {len(header)} columns of the first line")
            yield Record(row, place)
    except UnicodeDecodeError as error:
        raise _malformed(f"{name} after line {line}", f"is not UTF-8 ({error.reason})") from None
    except csv.Error as error:
        raise _malformed(f"{name} line {line + 1}", f"is not CSV: {error}") from None


def _parquet(file: Path, name: str) -> Iterator[Record]:
    number = 0
    try:
        with pq.ParquetFile(file) as parquet:
            columns = parquet.schema_arrow.names
            if twice := next((each for each in columns if columns.count(each) > 1), None):
                raise _malformed(name, f"has the column {twice[:100]!r} twice")
            for batch in parquet.iter_batches(PARQUET_BATCH_ROWS):
                for value in batch.to_pylist():
                    number += 1
                    yield Record({key: _present(each) for key, each in value.items()}, f"{name} row {number}")
    except (OSError, pa.ArrowException, ValueError, OverflowError) as error:
        # A damaged file may have strings that are no text, and times and numbers that Python does not have.
        raise _malformed(f"{name} after row {number}", f"is not Parquet that can be read: {error}") from error


def _present(value: Any) -> Any:
    """Return a value without the fields that are null: an object of a table has those of all other rows."""
    if isinstance(value, Mapping):
        return {key: _present(each) for key, each in value.items() if each is not None}
    return [_present(each) for each in value] if isinstance(value, list) else value


class _KeyTwice(ValueError):
    """An object has a key twice: which of its values is meant cannot be known."""


def _value(text: str) -> Any:
    value = json.loads(text, object_pairs_hook=_object)
    if text.count("{") + text.count("[") > LEVELS:
        # What Python bears depends on who calls: others walk these values too.
        try:
            check_levels(value, LEVELS)
        except Unreadable:
            raise RecursionError from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _KeyTwice(f"has the key {twice[:100]!r} twice")
    return found


def _unreadable(error: ValueError | RecursionError) -> str:
    if isinstance(error, _KeyTwice):
        return str(error)
    what = "nested too deeply" if isinstance(error, RecursionError) else "a number has too many digits"
    return f"is not JSON that can be read: {what}"


def _malformed(place: str, trouble: str) -> DataInvalid:
    return DataInvalid(f"{place} {trouble}; correct or remove it", Reason.DATASET_MALFORMED)

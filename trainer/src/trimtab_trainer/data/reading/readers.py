"""Files of rows, read record by record: JSON lines, JSON, CSV and TSV with a header line, Parquet; plain, gzip or zstd.

CSV and JSON lines are read as they stream; a JSON file, which is one list of rows, is held in memory as a whole. That a
file is compressed is told by its first bytes, and that lines are one list by the first of them: names are often wrong.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
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
KINDS = {
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".jl": "lines",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
"""How a file is read, by the ending of its name in small letters."""
COMPRESSIONS = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd"}
LEVELS = 128
"""Most lists and objects within each other, of a row or of a text that is JSON itself."""

_SURPLUS = "\0surplus"
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_SKIPPED = b"\x2a\x4d\x18"
"""Behind the first byte of a frame that zstd skips, with which some writers begin."""
_OTHERS = {
    b"PAR1": "is Parquet; name the file .parquet",
    b"ARROW1": "is an Arrow file; save it as Parquet",
    b"PK\x03\x04": "is a ZIP archive or a workbook; unpack it, or save it as CSV",
    b"BZh": "is packed by bzip2; pack it by gzip or zstd",
    b"\xfd7zXZ": "is packed by xz; pack it by gzip or zstd",
    b"version https://git-lfs": "is a pointer of Git LFS, not the file itself; fetch that (git lfs pull)",
    b"<!doctype html": "is a web page; download the file itself",
    b"<html": "is a web page; download the file itself",
    b"<?xml": "is XML, as storages answer with when they refuse; download the file itself",
    b"%PDF-": "is a PDF; write its text as rows",
    b"SQLite format 3\0": "is a database of SQLite; save its table as CSV",
    b"Obj\x01": "is Avro; save it as Parquet",
    b"\x89HDF": "is HDF5; save it as Parquet",
    b"\x80\x04": "is a pickle, which can run code when it is loaded; save it as JSON lines",
    b"\x80\x05": "is a pickle, which can run code when it is loaded; save it as JSON lines",
}
"""How files begin that are none of ours, in small letters of words, and what of them is to be done."""
_BEGINNING = 32
_HALF = re.compile("[\ud800-\udfff]")
_ZEROS = "it has zero bytes, as UTF-16 has, or a file that was not written to its end"
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


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
    kind, _ = kind_of(name)
    with file.open("rb") as opened:
        begin = opened.read(_BEGINNING)
    if not (kind == "parquet" and begin.startswith(b"PAR1")):
        _check_beginning(begin, name)
    if kind == "parquet":
        yield from _parquet(file, name)
        return
    readers: dict[str | None, Callable[[pa.NativeFile, str], Iterator[Record]]] = {
        "csv": partial(_csv, separator=","),
        "tsv": partial(_csv, separator="\t"),
        "json": _json,
    }
    try:
        with pa.input_stream(str(file), compression=_compression(begin)) as stream:
            yield from readers.get(kind, _lines)(stream, name)
    except (OSError, pa.ArrowException) as error:
        raise _malformed(name, f"cannot be decompressed: {error}") from error


def kind_of(name: str) -> tuple[str | None, str | None]:
    """Return how a file is read, one of KINDS' values or None, and how it is compressed, as its name has it."""
    lower = name.lower()
    end = next((end for end in COMPRESSIONS if lower.endswith(end)), "")
    kind = next((KINDS[each] for each in KINDS if lower.removesuffix(end).endswith(each)), None)
    return (None if end and kind == "parquet" else kind), COMPRESSIONS.get(end)


def _check_beginning(begin: bytes, name: str) -> None:
    """Refuse a file that is something else than rows by its first bytes.

    Raises:
        DataInvalid: DATASET_MALFORMED.
    """
    plain = begin.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    for magic, trouble in _OTHERS.items():
        if begin.startswith(magic) or plain.startswith(magic):
            raise _malformed(name, trouble)


def _compression(begin: bytes) -> str | None:
    """Return how a file is packed; many a download unpacks it, and leaves its name."""
    if begin[1:4] == _SKIPPED:
        return "zstd"
    return next((each for magic, each in _MAGIC.items() if begin.startswith(magic)), None)


def _lines(stream: pa.NativeFile, name: str) -> Iterator[Record]:
    number = 0
    try:
        chunks = _chunks(stream)
        first = next(chunks, b"")
        if first.startswith(tuple(_MAGIC)):
            raise _malformed(name, "is packed twice; pack it once")
        chunks = chain([first], chunks)
        if first.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
            # No row is a list, so this is all of them in one.
            yield from _whole(chunks, name)
            return
        for number, line in enumerate(_split(chunks), 1):
            if line.isspace() or not line:
                continue
            place = f"{name} line {number}"
            try:
                # Files that were put together have a byte order mark at each one's beginning.
                yield Record(json_value(line.decode("utf-8-sig")), place)
            except UnicodeDecodeError as error:
                raise _malformed(place, _no_utf8(error, f"byte {error.start + 1} of the line")) from None
            except json.JSONDecodeError as error:
                raise _malformed(place, _no_json(error, "a row is one line")) from None
            except (ValueError, RecursionError) as error:
                raise _malformed(place, _unreadable(error)) from None
    except (OSError, pa.ArrowException) as error:
        raise _malformed(f"{name} after line {number}", f"cannot be decompressed: {error}") from error


def _chunks(stream: pa.NativeFile) -> Iterator[bytes]:
    while chunk := stream.read(1 << 20):
        yield chunk


def _split(chunks: Iterator[bytes]) -> Iterator[bytes]:
    pieces: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        pieces.append(first)
        for each in others:
            # Joined once: a line may be as long as the whole file.
            yield b"".join(pieces)
            pieces = [each]
    if rest := b"".join(pieces):
        yield rest


def _json(stream: pa.NativeFile, name: str) -> Iterator[Record]:
    yield from _whole(_chunks(stream), name)


def _whole(chunks: Iterator[bytes], name: str) -> Iterator[Record]:
    data = _joined(chunks, name)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _malformed(name, _no_utf8(error, f"byte {error.start + 1}")) from None
    del data
    try:
        value = json_value(text)
    except json.JSONDecodeError as error:
        if _holds_lines(text):
            yield from _lines(pa.BufferReader(text.encode()), name)
            return
        one = "all rows are one list, or each is one line"
        raise _malformed(f"{name} line {error.lineno}", _no_json(error, one)) from None
    except (ValueError, RecursionError) as error:
        raise _malformed(name, _unreadable(error)) from None
    if isinstance(value, dict):
        if _is_by_columns(value):
            raise _malformed(
                name, "is a table by columns; write a row each, as pandas' to_json(orient='records', lines=True) does"
            )
        lists = [key for key, each in value.items() if isinstance(each, list)]
        # Else it is JSON lines with one line.
        value = value["data"] if len(value) == 1 and lists == ["data"] else [value]
    if not isinstance(value, list):
        raise _malformed(name, "is no list of rows")
    for number, item in enumerate(value, 1):
        yield Record(item, f"{name} item {number}")


def _joined(chunks: Iterator[bytes], name: str) -> bytes:
    """Return all of a file, read in pieces: of a damaged one Arrow keeps the memory that it was asked for."""
    pieces, length = [], 0
    for chunk in chunks:
        pieces.append(chunk)
        length += len(chunk)
        if length > JSON_BYTES:
            raise _malformed(name, f"is longer than {JSON_BYTES >> 30} GiB; write it as .jsonl, a row a line")
    return b"".join(pieces)


def _is_by_columns(value: dict[str, Any]) -> bool:
    """Tell whether an object is a whole table: of each column a list of plain values, or these by their number."""
    columns = list(value.values())
    if len(columns) < 2:
        return False
    if all(isinstance(each, dict) and each for each in columns):
        return all(list(each) == [str(number) for number in range(len(columns[0]))] for each in columns)
    return all(
        isinstance(each, list) and len(each) == len(columns[0]) and each and not any(map(_is_nested, each))
        for each in columns
    )


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def _holds_lines(text: str) -> bool:
    """Tell whether a file is of JSON lines, whatever it is called: its first line is an object."""
    first = text.lstrip().partition("\n")[0]
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _csv(stream: pa.NativeFile, name: str, *, separator: str) -> Iterator[Record]:
    csv.field_size_limit(FIELD_CHARACTERS)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    rows = csv.DictReader(text, restkey=_SURPLUS, strict=True, delimiter=separator)
    line = 1
    try:
        # A table's index has no name, and is a column like any other.
        header = [each if each.strip() else f"column {number}" for number, each in enumerate(rows.fieldnames or [], 1)]
        rows.fieldnames = header
        if len(set(header)) != len(header):
            raise _malformed(f"{name} line 1", "names a column twice")
        if len(header) == 1 and (found := next((each for each in _SEPARATORS if each in header[0]), None)):
            ending = (
                "; separate them by commas" if found != "\t" else "; separate them by commas, or name the file .tsv"
            )
            raise _malformed(f"{name} line 1", f"separates columns by {_SEPARATORS[found]}{ending}")
        for row in rows:
            place = f"{name} line {line + 1}"
            line = rows.line_num
            if _SURPLUS in row:
                raise _malformed(place, f"has more values than the {len(header)} columns of the first line")
            if len([value for value in row.values() if value is not None]) < len(header):
                raise _malformed(place, f"has fewer values than the {len(header)} columns of the first line")
            yield Record(row, place)
    except UnicodeDecodeError as error:
        raise _malformed(f"{name} after line {line}", _no_utf8(error, error.reason)) from None
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
                for value in batch.to_pylist(maps_as_pydicts="strict"):
                    number += 1
                    yield Record({key: _present(each) for key, each in value.items()}, f"{name} row {number}")
    except KeyError as error:
        raise _malformed(f"{name} after row {number}", f"has a map with a key twice: {error}") from None
    except (OSError, pa.ArrowException, ValueError, OverflowError) as error:
        # A damaged file may have strings that are no text, and times and numbers that Python does not have.
        raise _malformed(f"{name} after row {number}", f"is not Parquet that can be read: {error}") from error


def _present(value: Any) -> Any:
    """Return a value without the fields that are null: an object of a table has those of all other rows."""
    if isinstance(value, Mapping):
        return {key: _present(each) for key, each in value.items() if each is not None}
    return [_present(each) for each in value] if isinstance(value, list) else value


class UnusableKey(ValueError):
    """An object has a key twice, of which nobody knows which is meant, or one that is no text."""


def json_value(text: str) -> Any:
    """Return what a text that is JSON means.

    Raises:
        ValueError: it is none; a number has too many digits.
        UnusableKey: of an object.
        RecursionError: it is nested too deeply.
    """
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
    if half := next((key for key in found if _HALF.search(key)), None):
        raise UnusableKey(f"has half of a surrogate pair in the key {half[:100]!r}")
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UnusableKey(f"has the key {twice[:100]!r} twice")
    return found


def _no_json(error: json.JSONDecodeError, layout: str) -> str:
    """Return why a text is no JSON, with how rows are laid out where it is not that."""
    rest = error.doc[error.pos :].strip()
    hint = ""
    if "\0" in error.doc:
        hint = f" ({_ZEROS})"
    elif error.msg == "Extra data" and rest == ",":
        hint = " (no comma separates rows)"
    elif error.msg == "Extra data" or not rest:
        hint = f" ({layout})"
    return f"is not JSON: {error.msg} at column {error.colno}{hint}"


def _no_utf8(error: UnicodeDecodeError, where: str) -> str:
    if error.object.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "is UTF-32; save the file as UTF-8"
    if error.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "is UTF-16; save the file as UTF-8"
    return f"is not UTF-8 ({where})" + (f": {_ZEROS}" if b"\0" in error.object else "")


def _unreadable(error: ValueError | RecursionError) -> str:
    if isinstance(error, UnusableKey):
        return str(error)
    what = "nested too deeply" if isinstance(error, RecursionError) else "a number has too many digits"
    return f"is not JSON that can be read: {what}"


def _malformed(place: str, trouble: str) -> DataInvalid:
    return DataInvalid(f"{place} {trouble}; correct or remove it", Reason.DATASET_MALFORMED)

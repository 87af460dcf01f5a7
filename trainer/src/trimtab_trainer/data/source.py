"""Files of a data set: found below a URI, copied to the scratch folder with their hashes, read record by record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from ..contract import Credentials, Reason
from ..errors import DataInvalid
from ..storage import FileEntry, ObjectMissing, open_store

LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
PARQUET = (".parquet",)
PARQUET_BATCH_ROWS = 1024


@dataclass(frozen=True)
class Record:
    """One raw row and where it stands, in words for a person: `train/a.jsonl line 12`."""

    value: Any
    place: str


@dataclass(frozen=True)
class Source:
    """The local copies of one side's files, in the order they are read."""

    uri: str
    folder: Path
    files: tuple[FileEntry, ...]

    def records(self) -> Iterator[Record]:
        """Yield every record of every file, in order.

        Raises:
            DataInvalid: DATASET_MALFORMED, with the file and the 1-based line or row.
        """
        for entry in self.files:
            file = self.folder / entry.path
            yield from _rows(file, entry.path) if entry.path.endswith(PARQUET) else _lines(file, entry.path)


def find(uri: str, credentials: Credentials | None) -> list[tuple[str, int]]:
    """Return (path below the parent folder, size) of the files a URI means: one file, or all below a prefix.

    Raises:
        DataInvalid: DATASET_NOT_FOUND where nothing is there, DATASET_EMPTY where nothing of it can be read.
    """
    root, name = folder_of(uri)
    store = open_store(root, credentials)
    if name:
        found = [info for info in store.list(name) if info.path == name or info.path.startswith(name + "/")]
    else:
        found = store.list()
    if not found:
        raise DataInvalid(f"there is nothing at {uri}; upload the data, or correct the uri", Reason.DATASET_NOT_FOUND)
    readable = [(info.path, info.size) for info in found if info.path.endswith(LINES + PARQUET)]
    if not readable:
        raise DataInvalid(
            f"none of the {len(found)} files at {uri} (such as {found[0].path}) is a .jsonl or .parquet file, plain or "
            ".gz or .zst; convert the data",
            Reason.DATASET_EMPTY,
        )
    if not any(size for _, size in readable):
        raise DataInvalid(f"the files at {uri} are empty; upload them again", Reason.DATASET_EMPTY)
    return readable


def copy(uri: str, credentials: Credentials | None, folder: Path) -> Source:
    """Copy the files a URI means into a folder, hashed while they are read."""
    store = open_store(folder_of(uri)[0], credentials)
    entries = []
    for path, _ in find(uri, credentials):
        try:
            entries.append(store.download(path, folder / path))
        except ObjectMissing as error:
            raise DataInvalid(f"{store.address(path)} vanished while it was read", Reason.DATASET_NOT_FOUND) from error
    return Source(uri, folder, tuple(entries))


def folder_of(uri: str) -> tuple[str, str]:
    """Return the URI of the folder to look in, and the name or the beginning of names there."""
    root, _, name = uri.rpartition("/")
    if root in ("s3:/", "file://"):  # a bucket's name or the root folder alone
        return uri, ""
    return root + "/", unquote(name) if uri.startswith("file:") else name


def _lines(file: Path, name: str) -> Iterator[Record]:
    compression = {"gz": "gzip", "zst": "zstd"}.get(name.rpartition(".")[2])
    number = 0
    try:
        with pa.input_stream(str(file), compression=compression) as stream:
            for number, line in enumerate(_split(stream), 1):
                if line.isspace() or not line:
                    continue
                place = f"{name} line {number}"
                try:
                    yield Record(json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8")), place)
                except UnicodeDecodeError as error:
                    raise _malformed(place, f"is not UTF-8 (byte {error.start + 1} of the line)") from None
                except json.JSONDecodeError as error:
                    raise _malformed(place, f"is not JSON: {error.msg} at column {error.colno}") from None
                except RecursionError:
                    raise _malformed(place, "is not JSON that can be read: nested too deeply") from None
    except (OSError, pa.ArrowException) as error:
        raise _malformed(f"{name} after line {number}", f"cannot be decompressed: {error}") from error


def _split(stream: pa.NativeFile) -> Iterator[bytes]:
    rest = b""
    while chunk := stream.read(1 << 20):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _rows(file: Path, name: str) -> Iterator[Record]:
    number = 0
    try:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(PARQUET_BATCH_ROWS):
                for value in batch.to_pylist():
                    number += 1
                    yield Record(value, f"{name} row {number}")
    except (OSError, pa.ArrowException) as error:
        raise _malformed(f"{name} after row {number}", f"is not Parquet that can be read: {error}") from error


def _malformed(place: str, trouble: str) -> DataInvalid:
    return DataInvalid(f"{place} {trouble}; correct or remove it", Reason.DATASET_MALFORMED)

"""Files as they lie in buckets: odd names, wrong names, other encodings, and files that nobody reads."""

from __future__ import annotations

import csv
import gzip
import io
import json
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from trimtab_trainer.contract import Reason
from trimtab_trainer.data.cleaning.steps import Audit
from trimtab_trainer.data.reading import readers
from trimtab_trainer.data.reading.source import find, unread_warning
from trimtab_trainer.errors import DataInvalid

from tests.trainer.data_bench import DataBench, said
from tests.trainer.test_data_rows import load, refused, rows_of

ROWS: list[dict[str, Any]] = [{"prompt": f"q{n}", "completion": f"a{n} ü"} for n in range(3)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
TABLE = ("prompt,completion\n" + "".join(f"{row['prompt']},{row['completion']}\n" for row in ROWS)).encode()


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


FILES = {
    "A.JSONL": LINES,
    "a.ndjson": LINES,
    "a.jl": LINES,
    "a.jsonl.GZ": gzip.compress(LINES),
    "a.jsonl.gzip": gzip.compress(LINES),
    "a.csv.zstd": zstd(TABLE),
    "a.tsv": TABLE.replace(b",", b"\t"),
    "named without packing.jsonl": gzip.compress(LINES),
    "named after another packing.jsonl.gz": zstd(LINES),
    "a list.jsonl": b"\xef\xbb\xbf\n " + json.dumps(ROWS, indent=1).encode(),
    "crlf.csv": b"\xef\xbb\xbf" + TABLE.replace(b"\n", b"\r\n"),
    "crlf.jsonl": LINES.replace(b"\n", b"\r\n"),
    "parts.jsonl.gz": gzip.compress(LINES[:30]) + gzip.compress(LINES[30:]),
    "unpacked on its way.jsonl.gz": LINES,
    "unpacked on its way.csv.zst": TABLE,
    "a frame to skip first.jsonl.zst": b"\x50\x2a\x4d\x18\x04\0\0\0note" + zstd(LINES),
    "put together.jsonl": b"".join(b"\xef\xbb\xbf" + line for line in LINES.splitlines(keepends=True)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_whatever_its_name_looks_like(tmp_path: Path, name: str) -> None:
    found = rows_of(put(tmp_path / "data", {name: FILES[name]}))
    assert [(row.prompt, row.completion) for row in found] == [(row["prompt"], row["completion"]) for row in ROWS]


def test_what_looks_like_data_and_is_not_read_is_told(tmp_path: Path) -> None:
    """Rows that somebody believes are learned must not be left out without a word."""
    beside = {"README.md": b"x", "dataset_info.json": b"{}", "_SUCCESS": b"", ".part.crc": b"x", "LICENSE": b"x"}
    unread = {"b.jsonl.bz2": b"x", "c.parquet.gz": b"x", "d.arrow": b"x", "part-00000": LINES}
    folder = put(tmp_path / "data", {"a.jsonl": LINES, **beside, **unread})
    found = find(folder.as_uri() + "/", None)
    assert ([name for name, _ in found.files], found.unread) == (["a.jsonl"], tuple(sorted(unread)))
    assert load(folder).unread == found.unread
    assert unread_warning("s3://data/", found.unread) == (
        "4 of the files at s3://data/ are not read: b.jsonl.bz2, c.parquet.gz, d.arrow and 1 more; rows are in a "
        ".jsonl, .json, .csv, .tsv or .parquet file, all but the last plain or .gz or .zst"
    )
    assert unread_warning("s3://data/", ()) is None


def test_prepare_warns_of_files_that_are_not_read(tiny_model: Path, tmp_path: Path) -> None:
    bench = DataBench(tiny_model, tmp_path)
    bench.put("data/a.jsonl", [said(f"question {n}", f"answer {n}") for n in range(4)])
    put(tmp_path / "data", {"b.arrow": b"ARROW1"})
    assert any("1 of the files" in each and "are not read: b.arrow" in each for each in bench.prepare().warnings)


def test_what_systems_and_editors_leave_beside_data_is_no_data(tmp_path: Path) -> None:
    stale = dict.fromkeys((".ipynb_checkpoints/a.jsonl", "._a.jsonl", "__MACOSX/a.jsonl", ".a.jsonl"), LINES)
    folder = put(tmp_path / "data", {"a.jsonl": LINES, **stale})
    assert len(rows_of(folder)) == len(ROWS)
    assert load(folder).unread == ()
    named = load(folder, (folder / ".a.jsonl").as_uri())
    assert len(list(named.records())) == len(ROWS), "unless it is named itself"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.jsonl", LINES.decode().encode("utf-16"), r"a\.jsonl line 1 is UTF-16; save the file as UTF-8"),
        ("a.json", json.dumps(ROWS).encode("utf-16"), r"a\.json is UTF-16; save the file as UTF-8"),
        ("a.csv", TABLE.decode().encode("utf-16"), r"a\.csv after line 1 is UTF-16; save the file as UTF-8"),
        ("a.csv", TABLE.replace(b",", b";"), r"a\.csv line 1 separates columns by semicolons; separate them by commas"),
        ("a.csv", TABLE.replace(b",", b"\t"), r"a\.csv line 1 separates columns by tabs; .*or name the file \.tsv"),
        ("a.jsonl", b'[{"prompt": "q"},', r"a\.jsonl line 1 is not JSON"),
        ("a.jsonl.gz", gzip.compress(LINES)[:-12], r"a\.jsonl\.gz after line \d cannot be decompressed"),
        ("a.jsonl.gz", gzip.compress(LINES) + b"more", r"a\.jsonl\.gz after line 0 cannot be decompressed"),
        ("a.jsonl", b"<?xml version='1.0'?><Error/>", r"a\.jsonl is XML, as storages answer with when they refuse"),
        ("a.csv", b"SQLite format 3\0\x10", r"a\.csv is a database of SQLite; save its table as CSV"),
        ("a.jsonl", b"%PDF-1.7\n", r"a\.jsonl is a PDF"),
        ("a.json", b"\x80\x04\x95\x10", r"a\.json is a pickle, which can run code"),
        ("a.jsonl", b"Obj\x01\x04", r"a\.jsonl is Avro; save it as Parquet"),
        ("a.parquet", b"\x89HDF\r\n", r"a\.parquet is HDF5; save it as Parquet"),
        (
            "a.json",
            b'{"prompt": ["q", "r"], "completion": ["a", "b"]}',
            r"a\.json is a table by columns; write a row each",
        ),
        ("a.json", b'{"prompt": {"0": "q"}, "completion": {"0": "a"}}', r"a\.json is a table by columns; write a row"),
        ("a.parquet", LINES, r"a\.parquet after row 0 is not Parquet"),
    ],
    ids=range(17),
)
def test_a_file_that_is_something_else_says_what(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    refusal = refused(put(tmp_path / "data", {name: data}))
    assert refusal.reason is Reason.DATASET_MALFORMED
    with pytest.raises(DataInvalid, match=words):
        raise refusal


def test_an_object_that_is_a_row_is_no_table_by_columns(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    tools = [{"name": "f"}, {"name": "g"}]
    (found,) = rows_of(put(tmp_path / "data", {"a.json": json.dumps({"messages": messages, "tools": tools}).encode()}))
    assert len(found.messages) == 2


def test_the_index_that_a_table_was_saved_with_is_a_column_to_ignore(tmp_path: Path) -> None:
    audit = Audit()
    found = rows_of(put(tmp_path / "data", {"a.csv": b",prompt,completion\n0,q,a\n1,r,b\n"}), audit=audit)
    assert [row.prompt for row in found] == ["q", "r"]
    assert list(audit.ignored) == ["column 1"]


def test_messages_and_tools_may_be_json_in_columns_of_a_table(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": 'a "quoted",\nline'}, {"role": "assistant", "content": "b"}]
    written = io.StringIO()
    lines = csv.writer(written)
    lines.writerows([["messages", "tools"], [json.dumps(messages), ""]])
    (found,) = rows_of(put(tmp_path / "data", {"a.csv": written.getvalue().encode()}))
    assert list(found.messages) == messages
    assert refused(put(tmp_path / "other", {"a.csv": f'messages\n"{messages!r}"\n'.encode()})).message.startswith(
        "a.csv "
    )


class Piece(bytes):
    """Bytes that were read, which are put together once, and not with all that came before each time."""

    def __add__(self, other: object) -> bytes:
        raise AssertionError("what was read before is copied")

    __radd__ = __add__

    def split(self, *given: Any) -> list[bytes]:
        return list(map(Piece, super().split(*given)))


def test_a_line_as_long_as_the_file_is_put_together_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied with each chunk, the time was as the square of its length."""
    read = readers._chunks
    monkeypatch.setattr(readers, "_chunks", lambda stream: map(Piece, read(stream)))
    row = {"prompt": "q", "completion": "x" * (5 << 20)}
    (record,) = load(put(tmp_path, {"a.jsonl": json.dumps(row).encode()})).records()
    assert record.value == row


@pytest.mark.parametrize("name", ["a.json.zst", "a.jsonl.zst"])
def test_a_list_of_rows_is_read_only_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    read, taken = readers._chunks, list[int]()

    def counted(stream: Any) -> Iterator[bytes]:
        for chunk in read(stream):
            taken.append(len(chunk))
            yield chunk

    monkeypatch.setattr(readers, "_chunks", counted)
    monkeypatch.setattr(readers, "JSON_BYTES", 3 << 20)
    refusal = refused(put(tmp_path / "data", {name: zstd(json.dumps([{"text": "a" * 1000}] * 10_000).encode())}))
    assert f"{name} is longer than" in str(refusal)
    assert 0 < len(taken) <= 4, "of ten, which a file of any length would have"


def test_a_damaged_list_of_rows_keeps_no_memory(tmp_path: Path) -> None:
    """Arrow gave none of the addresses back that it was asked for, and a process with too many cannot fork."""
    folder = put(tmp_path / "data", {"a.json.zst": zstd(json.dumps(ROWS).encode())[:-9]})
    assert "cannot be decompressed" in str(refused(folder))
    before = address_space()
    for _ in range(3):
        refused(folder)
    assert address_space() - before < 1 << 30


def address_space() -> int:
    """Return the bytes that this process has mapped."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE

"""Rows are made in parts: who was killed goes on behind the last one, by any number of processes, to the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trimtab_trainer.contract import StoredDataset, TrainingData, TrainingSettings
from trimtab_trainer.data import making, parts, tokenising
from trimtab_trainer.data.encoding.tokens import RowTokenizer
from trimtab_trainer.data.reading.formats import Row
from trimtab_trainer.data.reading.source import copy
from trimtab_trainer.data.request import Request
from trimtab_trainer.errors import DataInvalid
from trimtab_trainer.report import Report
from trimtab_trainer.storage import FileEntry, Store, open_store

from tests.trainer.data_bench import said
from tests.trainer.made_rows import Made, made_rows, turns
from tests.trainer.tiny import CHATML, write_rows


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_TOKENS", 2000)
    monkeypatch.setattr(tokenising, "BLOCK_RECORDS", 16)
    monkeypatch.setattr(tokenising, "ALONE_RECORDS", 32)


def request(tiny_model: Path, folder: Path, count: int = 300) -> Request:
    rows: list[dict[str, Any]] = [said(f"question {n}", f"the answer is {n % 250}") for n in range(count)]
    rows[40:40] = [rows[3], said("a", " "), rows[7]]
    source = copy(write_rows(folder / "data/a.jsonl", rows).as_uri(), None, folder / "copied")
    return Request(
        {"training": source},
        (FileEntry("tokenizer.json", 1, "0" * 64),),
        partial(RowTokenizer, tiny_model),
        StoredDataset(training=TrainingData(uri=source.uri)),
        TrainingSettings(),
    )


def stored(store: Store) -> dict[str, bytes]:
    return {info.path: store.read(info.path) for info in store.list()}


class Killed(BaseException):
    """The end of a process, for one that goes on."""


def test_who_was_killed_goes_on_behind_the_last_part(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenising, "processes", lambda: 1)
    wanted = request(tiny_model, tmp_path)
    straight = open_store((tmp_path / "straight").as_uri(), None)
    document = making.make_rows(straight, wanted, tmp_path / "made", Report())
    assert len([path for path in stored(straight) if path.endswith(".safetensors")]) > 4

    killed = open_store((tmp_path / "killed").as_uri(), None)
    upload, uploads = killed.upload, 0

    def upload_until_killed(source: Path, path: str) -> FileEntry:
        nonlocal uploads
        if (uploads := uploads + 1) > 10:
            raise Killed
        return upload(source, path)

    monkeypatch.setattr(killed, "upload", upload_until_killed)
    with pytest.raises(Killed):
        making.make_rows(killed, wanted, tmp_path / "first", Report())
    monkeypatch.setattr(killed, "upload", upload)
    tokenised: list[int] = []
    tokenise = tokenising._tokenise

    def counted(tokenizer: RowTokenizer, rows: list[Row]) -> list[parts.TokenisedRow]:
        tokenised.append(len(rows))
        return tokenise(tokenizer, rows)

    monkeypatch.setattr(tokenising, "_tokenise", counted)
    assert making.make_rows(killed, wanted, tmp_path / "second", Report()) == document
    assert stored(killed) == stored(straight)
    assert 0 < sum(tokenised) < 230, "three parts of rows were not made again"


def test_what_is_refused_is_refused_again_for_the_same_rows(tiny_model: Path, tmp_path: Path) -> None:
    """What was stored of rows before the one at fault must not hide it, nor the rows behind it."""
    wanted = request(tiny_model, tmp_path)
    file = tmp_path / "data/a.jsonl"
    lines = file.read_text().splitlines()
    lines[150] = json.dumps({"messages": [{"role": "user", "content": "and?"}]})
    file.write_text("\n".join(lines))
    wanted.sources["training"] = copy(file.as_uri(), None, tmp_path / "copied-again")
    store = open_store((tmp_path / "store").as_uri(), None)
    for attempt in range(3):
        with pytest.raises(DataInvalid) as caught:
            making.make_rows(store, wanted, tmp_path / f"made{attempt}", Report())
        assert caught.value.message.startswith("1 of 303 rows have no assistant turn, the first is a.jsonl line 151;")
    assert [path for path in stored(store) if path.endswith(".safetensors")], "rows before it are not made again"


@pytest.mark.parametrize("processes", [1, 2])
def test_all_rows_that_the_template_refuses_are_counted(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    """In whichever blocks and processes they are."""
    monkeypatch.setattr(tokenising, "processes", lambda: processes)
    wanted = request(tiny_model, tmp_path)
    strict = CHATML.replace(
        "{% if add", "{% if messages|length > 2 %}{{ raise_exception('too many') }}{% endif %}{% if add"
    )
    wanted = replace(wanted, tokenizer=partial(RowTokenizer, tiny_model, strict))
    file = tmp_path / "data/a.jsonl"
    lines = file.read_text().splitlines()
    for number in range(20, 303, 20):
        row = json.loads(lines[number])
        lines[number] = json.dumps({"messages": row["messages"] + row["messages"] + [{"role": "user", "content": "x"}]})
    file.write_text("\n".join(lines))
    wanted.sources["training"] = copy(file.as_uri(), None, tmp_path / "copied-again")
    store = open_store((tmp_path / "store").as_uri(), None)
    for attempt in range(2):
        with pytest.raises(DataInvalid) as caught:
            making.make_rows(store, wanted, tmp_path / f"made{attempt}", Report())
        assert caught.value.message == (
            "a.jsonl line 21: the chat template refuses it: too many; correct or remove it (as 14 more rows are)"
        )


def test_a_part_that_is_damaged_is_made_again(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenising, "processes", lambda: 1)
    wanted = request(tiny_model, tmp_path)
    store = open_store((tmp_path / "store").as_uri(), None)
    document = making.make_rows(store, wanted, tmp_path / "first", Report())
    whole = stored(store)
    (second,) = (path for path in whole if path.endswith("rows-training-00001.safetensors"))
    for damage in (b"", whole[second][:-1] + b"\xff"):
        store.put(second, damage)
        assert making.make_rows(store, wanted, tmp_path / "again", Report()) == document
        assert stored(store) == whole
    (about,) = (path for path in whole if path.endswith("rows-training-00000.json"))
    hostile = json.loads(whole[about])
    hostile["parts"][0]["path"] = "../../elsewhere"
    listed = json.loads(whole[about])
    listed["audit"]["ignoredColumns"] = []
    spoilt = [json.dumps(each).encode() for each in (hostile, listed)]
    for text in (b"{", b"[]", b'{"parts": [], "audit": {}}', *spoilt):
        store.put(about, text)
        assert making.make_rows(store, wanted, tmp_path / "again", Report()) == document
        assert stored(store) == whole


def test_any_number_of_processes_writes_the_same(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = request(tiny_model, tmp_path, count=200)
    found = []
    for count in (1, 2):
        monkeypatch.setattr(tokenising, "processes", lambda count=count: count)
        store = open_store((tmp_path / str(count)).as_uri(), None)
        making.make_rows(store, wanted, tmp_path / f"made{count}", Report())
        found.append(stored(store))
    assert found[0] == found[1]


def test_a_killed_process_leaves_none_behind(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "data/a.jsonl", [said(f"question {n}", f"{n} " * 50) for n in range(6000)])
    config = {
        "baseModel": {"uri": tiny_model.as_uri()},
        "dataset": {"training": {"uri": (tmp_path / "data").as_uri() + "/"}},
        "output": {"uri": (tmp_path / "out").as_uri()},
        "training": {"maxSequenceLength": 512},
    }
    (tmp_path / "run.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "trimtab_trainer", "prepare", "--config", str(tmp_path / "run.json")]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    session = process.pid

    def members() -> list[int]:
        found = []
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and (folder / "stat").read_text().rpartition(")")[2].split()[3] == str(
                    session
                ):
                    found.append(int(folder.name))
            except OSError:  # it ended meanwhile
                continue
        return found

    try:
        wait_for(lambda: len(members()) > 2, 300)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
        wait_for(lambda: not members())
    finally:
        for member in members():
            os.kill(member, signal.SIGKILL)
        process.communicate()


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_tokens_are_read_from_their_places_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_TOKENS", 50)
    made = [Made(turns((2, 1 + n % 5), (3, 2)), answer=f"answer {n}", token=n) for n in range(60)]
    rows = made_rows(tmp_path, made)
    assert len(rows.parts) > 3
    chosen = np.array([59, 0, 17, 17, 30], np.int64)
    lengths = rows.lengths[chosen] - np.array([0, 1, 0, 2, 0])
    tokens, kinds = rows.tokens(chosen, lengths)
    assert tokens.tolist() == [n for row, length in zip(chosen, lengths, strict=True) for n in [row] * length]
    assert kinds.tolist() == [
        kind for row, length in zip(chosen, lengths, strict=True) for kind in made[row].kinds[:length]
    ]
    assert [json.loads(line)["completion"] for _, line in rows.texts(np.array([3, 44]))] == ["answer 3", "answer 44"]
    assert json.loads(rows.line(44))["completion"] == "answer 44"
    assert rows.place(44) == "a.jsonl line 44"
    assert rows.learned.tolist() == [1 + n % 5 + 2 for n in range(60)]

"""Looks at rows are counted by what the rows say, and a final set is opened by one evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
from trimtab_trainer.contract import EvaluationTask, Reason
from trimtab_trainer.errors import DataInvalid
from trimtab_trainer.evaluate.preparing.looks import note_looks, rows_digest
from trimtab_trainer.evaluate.preparing.task_store import PreparedTask, PreparedTasks, rows_file
from trimtab_trainer.evaluate.rows import EvaluationRow, write_lines
from trimtab_trainer.storage import Store, open_store

FIRST, SECOND, THIRD = (f"sha256:{letter * 64}" for letter in "abc")


def task(*, final: bool = False) -> EvaluationTask:
    dataset = {"uri": "file:///data/rows.jsonl", **({"final": True} if final else {})}
    return EvaluationTask.model_validate({"name": "t", "type": "Generation", "dataset": dataset})


def prepared(folder: Path, *prompts: str, trained_on: bool = False) -> PreparedTasks:
    rows = [
        EvaluationRow(number, f"line {number}", number, None, trained_on, prompt, "answer")
        for number, prompt in enumerate(prompts)
    ]
    write_lines(rows_file(folder, "t"), rows)
    return PreparedTasks(folder, [PreparedTask(name="t", digest=FIRST, rows=len(rows))])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "output").as_uri(), None)


def test_each_evaluation_of_the_same_rows_counts_once(tmp_path: Path, store: Store) -> None:
    rows = prepared(tmp_path / "rows", "a", "b")
    seen = [note_looks(store, each, [task()], rows)["t"] for each in (FIRST, SECOND, FIRST, THIRD)]
    assert seen == [1, 2, 2, 3]
    others = prepared(tmp_path / "others", "a", "c")
    assert note_looks(store, THIRD, [task()], others) == {"t": 1}


def test_rows_are_told_by_what_they_say(tmp_path: Path) -> None:
    def digest(folder: str, *prompts: str, trained_on: bool = False) -> str:
        rows = prepared(tmp_path / folder, *prompts, trained_on=trained_on)
        return rows_digest(task(), rows.tasks[0], rows)

    assert digest("one", "a", "b") == digest("turned", "b", "a") == digest("another target", "a", "b", trained_on=True)
    assert digest("one", "a", "b") != digest("more", "a", "b", "c")


def test_a_final_set_is_opened_once_and_again_by_the_same_question(tmp_path: Path, store: Store) -> None:
    rows = prepared(tmp_path / "rows", "a", "b")
    assert note_looks(store, FIRST, [task(final=True)], rows) == {"t": 1}
    assert note_looks(store, FIRST, [task(final=True)], rows) == {"t": 1}, "an attempt that goes on"
    with pytest.raises(DataInvalid, match="final") as caught:
        note_looks(store, SECOND, [task(final=True)], rows)
    assert caught.value.reason is Reason.FINAL_SET_OPENED


def test_rows_that_were_seen_before_are_not_final(tmp_path: Path, store: Store) -> None:
    rows = prepared(tmp_path / "rows", "a", "b")
    note_looks(store, FIRST, [task()], rows)
    with pytest.raises(DataInvalid, match="1 other saw them"):
        note_looks(store, SECOND, [task(final=True)], rows)

"""Harness tasks in the prepare stage: their folder is copied, checked and stored; what it cannot give is refused."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from trimtab_trainer.contract import Reason
from trimtab_trainer.errors import DataInvalid, SettingsInvalid, TrainerError

from tests.trainer.evaluate.bench import EvaluationBench

YAML = b"""\
task: flights
dataset_path: json
dataset_kwargs:
  data_files:
    test: data/test.jsonl
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list:
  - metric: acc
"""
DATA = b'{"question": "What flies?", "choices": ["a stone", "a bird"], "answer": 1}\n'


@pytest.fixture
def asked(bench: EvaluationBench) -> EvaluationBench:
    """A bench with one harness task."""
    bench.store.put("harness/flights.yaml", YAML)
    bench.store.put("harness/data/test.jsonl", DATA)
    bench.document["tasks"] = [
        {
            "name": "flights",
            "type": "Harness",
            "dataset": {"uri": f"{bench.root}/harness/"},
            "harnessTask": "flights",
        }
    ]
    return bench


def task(bench: EvaluationBench) -> dict[str, Any]:
    only: dict[str, Any] = bench.document["tasks"][0]
    return only


def test_the_folder_is_stored_as_it_is(asked: EvaluationBench) -> None:
    tasks = asked.tasks()
    folder = tasks.harness_folder("flights")
    assert (folder / "flights.yaml").read_bytes() == YAML
    assert (folder / "data/test.jsonl").read_bytes() == DATA
    assert (tasks.tasks[0].name, tasks.tasks[0].rows) == ("flights", 0)
    task(asked)["dataset"]["uri"] = f"{asked.root}/harness"
    assert asked.tasks().tasks == tasks.tasks, "with or without a slash it is the same folder"


def test_its_digest_is_of_files_and_of_how_they_are_asked(asked: EvaluationBench) -> None:
    seen = [asked.tasks().tasks[0].digest]
    task(asked)["fewShot"] = 0
    seen.append(asked.tasks().tasks[0].digest)
    task(asked)["dataset"]["limit"] = 1
    seen.append(asked.tasks().tasks[0].digest)
    asked.store.put("harness/data/test.jsonl", DATA * 2)
    seen.append(asked.tasks().tasks[0].digest)
    assert len(set(seen)) == len(seen)


def test_thresholds_may_name_what_the_yaml_gives(asked: EvaluationBench) -> None:
    asked.document["thresholds"] = [{"metric": "flights/acc", "minimum": 0.5}]
    assert asked.prepare().prepared.tasks == 1
    asked.document["thresholds"] = [{"metric": "flights/bleu", "minimum": 0.5}]
    with pytest.raises(SettingsInvalid, match=r"the YAML of flights gives acc.*; name one of them") as caught:
        asked.prepare()
    assert caught.value.reason is Reason.METRIC_NOT_APPLICABLE


REFUSED: dict[str, tuple[dict[str, Any], type[TrainerError], Reason, str]] = {
    "no such folder": (
        {"dataset": {"uri": "file:///nowhere/harness/"}},
        DataInvalid,
        Reason.DATASET_NOT_FOUND,
        "upload the folder",
    ),
    "a column that no document has": (
        {"groupBy": "kind"},
        DataInvalid,
        Reason.GROUP_MISSING,
        "no row has a value in the column kind of groupBy; correct it",
    ),
    "a column of lists": (
        {"groupBy": "choices"},
        DataInvalid,
        Reason.DATASET_MALFORMED,
        "doc 0 has a list in the column choices, where groupBy needs a text",
    ),
    "a task that no file defines": (
        {"harnessTask": "trains"},
        SettingsInvalid,
        Reason.HARNESS_TASK_NOT_FOUND,
        "trains",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_run_is_refused_and_leaves_nothing_behind(asked: EvaluationBench, name: str) -> None:
    changes, kind, reason, words = REFUSED[name]
    task(asked).update(changes)
    with pytest.raises(kind, match=words) as caught:
        asked.prepare()
    assert caught.value.reason is reason
    assert not asked.output.list("evaluations/")


# -- groups ------------------------------------------------------------------------------------------------------------


def lines(*kinds: Any) -> bytes:
    """Return one document of each kind, in JSON lines; None is one without."""
    documents = [
        {"question": f"What is {n}?", "choices": ["a stone", "a bird"], "answer": 1, "kind": kind}
        for n, kind in enumerate(kinds)
    ]
    kept = ({key: value for key, value in each.items() if value is not None} for each in documents)
    return "".join(json.dumps(each) + "\n" for each in kept).encode()


def by_kind(bench: EvaluationBench, data: bytes, *, suffix: str = "jsonl", **threshold: Any) -> None:
    """Group the task by `kind`, over these documents; with a threshold of its gap."""
    bench.store.put(f"harness/data/test.{suffix}", data)
    kind = {"jsonl": "json"}.get(suffix, suffix)
    yaml = YAML.replace(b"dataset_path: json", f"dataset_path: {kind}".encode())
    bench.store.put("harness/flights.yaml", yaml.replace(b"test.jsonl", f"test.{suffix}".encode()))
    task(bench)["groupBy"] = "kind"
    bench.document["thresholds"] = [{"metric": "flights/acc", "maximumGroupGap": 0.1, **threshold}]


UNGROUPED: dict[str, tuple[bytes, str, str]] = {
    "some documents have no value": (
        lines("a", None, "b", "", "a"),
        "jsonl",
        "2 of 5 rows have no value in the column kind of groupBy, the first is doc 1; add it, or remove them",
    ),
    "a value is null in a CSV file of numbers": (
        b"question,choices,answer,kind\nq,c,1,4\nq,c,1,\nq,c,1,5\n",
        "csv",
        "1 of 3 rows .* the first is doc 1",
    ),
    "groups that are all too small": (
        lines(*"a" * 31, *"b" * 20),
        "jsonl",
        r"task flights: .* two groups of at least 30 rows .* a \(31 rows\), b \(20 rows\); add rows",
    ),
}


@pytest.mark.parametrize("name", UNGROUPED)
def test_documents_without_groups_are_refused_before_anything_is_stored(asked: EvaluationBench, name: str) -> None:
    data, suffix, words = UNGROUPED[name]
    by_kind(asked, data, suffix=suffix)
    with pytest.raises(DataInvalid, match=words) as caught:
        asked.prepare()
    assert caught.value.reason is Reason.GROUP_MISSING
    assert not asked.output.list("evaluations/")


def test_groups_of_text_numbers_and_booleans_are_taken(asked: EvaluationBench) -> None:
    for first, second in (("a", "b"), (1, 2), (True, False)):
        by_kind(asked, lines(*[first, second] * 30))
        asked.prepare()
        assert asked.said("groups read")[0]["groups"] == 2
    by_kind(asked, b"question,choices,answer,kind\n" + b"q,c,1,4\nq,c,1,5\n" * 6, suffix="csv", minimumGroupRows=6)
    asked.prepare()
    assert asked.said("groups read")[0]["rows"] == 12


def test_a_group_gap_is_held_against_the_documents_that_a_limit_leaves(asked: EvaluationBench) -> None:
    by_kind(asked, lines(*"ab" * 40))
    task(asked)["dataset"]["limit"] = 79
    asked.prepare()
    assert asked.said("groups read")[0]["rows"] == 79
    task(asked)["dataset"]["limit"] = 59
    with pytest.raises(DataInvalid, match=r"raise dataset\.limit") as caught:
        asked.prepare()
    assert caught.value.reason is Reason.GROUP_MISSING


def test_every_file_of_the_split_that_is_asked_has_the_column_and_no_other_split_needs_it(
    asked: EvaluationBench,
) -> None:
    by_kind(asked, lines(*"ab" * 30))
    files = b"test: [data/test.jsonl, data/more.jsonl]\n    train: data/train.jsonl"
    asked.store.put("harness/flights.yaml", YAML.replace(b"test: data/test.jsonl", files))
    asked.store.put("harness/data/train.jsonl", lines(None, None))
    asked.store.put("harness/data/more.jsonl", lines("c", "a"))
    asked.prepare()
    assert asked.said("groups read")[0]["groups"] == 3
    asked.store.put("harness/data/more.jsonl", lines(None, None))
    with pytest.raises(DataInvalid, match=r"2 of 62 rows .* the first is doc 60"):
        asked.prepare()


def test_data_that_cannot_be_read_are_refused_with_their_trouble(asked: EvaluationBench) -> None:
    by_kind(asked, b'{"question": "no end\n')
    with pytest.raises(SettingsInvalid, match=r"flights cannot be run \(.*JSON") as caught:
        asked.prepare()
    assert caught.value.reason is Reason.HARNESS_TASK_REFUSED
    assert not asked.output.list("evaluations/")


def test_a_file_without_documents_is_refused(asked: EvaluationBench) -> None:
    by_kind(asked, b"")
    with pytest.raises(DataInvalid, match=r"the split \w+ of flights holds no documents; upload its data") as caught:
        asked.prepare()
    assert caught.value.reason is Reason.DATASET_EMPTY


def test_a_blank_is_no_group(asked: EvaluationBench) -> None:
    by_kind(asked, lines("a", " ", "\u200b", "b"))
    with pytest.raises(DataInvalid, match=r"2 of 4 rows have no value in the column kind.* the first is doc 1"):
        asked.prepare()


def test_reading_groups_reaches_no_other_place(asked: EvaluationBench, monkeypatch: pytest.MonkeyPatch) -> None:
    by_kind(asked, lines(*"ab" * 30))
    monkeypatch.setattr("datasets.load_dataset", lambda **_: socket.create_connection(("example.com", 443)))
    with pytest.raises(SettingsInvalid, match=r"flights tried to reach .*example\.com") as caught:
        asked.prepare()
    assert caught.value.reason is Reason.HARNESS_TASK_REFUSED


def test_answers_with_groups_are_stored_apart_from_those_without(asked: EvaluationBench) -> None:
    asked.store.put("harness/data/test.jsonl", lines(*"ab" * 30))
    seen = []
    for column in (None, "kind", "answer"):
        task(asked).pop("groupBy", None)
        task(asked).update({} if column is None else {"groupBy": column})
        seen.append(asked.tasks().tasks[0].digest)
    assert len(set(seen)) == 3


def test_code_in_a_yaml_is_refused_and_leaves_nothing_behind(asked: EvaluationBench) -> None:
    asked.store.put("harness/flights.yaml", YAML.replace(b"doc_to_target: answer", b"doc_to_target: !function a.b"))
    with pytest.raises(SettingsInvalid) as caught:
        asked.prepare()
    assert caught.value.reason is Reason.HARNESS_TASK_REFUSED
    assert not asked.output.list("evaluations/")

"""Harness tasks in the prepare stage: their folder is copied, checked and stored; what it cannot give is refused."""

from __future__ import annotations

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
    "groups": ({"groupBy": "kind"}, SettingsInvalid, Reason.METRIC_NOT_APPLICABLE, "groupBy does not apply"),
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


def test_code_in_a_yaml_is_refused_and_leaves_nothing_behind(asked: EvaluationBench) -> None:
    asked.store.put("harness/flights.yaml", YAML.replace(b"doc_to_target: answer", b"doc_to_target: !function a.b"))
    with pytest.raises(SettingsInvalid) as caught:
        asked.prepare()
    assert caught.value.reason is Reason.HARNESS_TASK_REFUSED
    assert not asked.output.list("evaluations/")

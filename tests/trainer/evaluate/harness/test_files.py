"""Harness tasks as files: what is read, and by which name each thing that could run code or reach out is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pytest
import yaml
from pyarrow import parquet
from trimtab_trainer.contract import Reason
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.evaluate.harness.files import read_task
from trimtab_trainer.evaluate.harness.yaml_files import MAXIMUM_BYTES

from tests.trainer.evaluate.harness_task import CHOICE, GENERATION, LIKELIHOOD, write_task


def text(config: dict[str, Any], *more: str) -> str:
    """Return a configuration as YAML, with lines after it."""
    return yaml.safe_dump(config, sort_keys=False) + "\n".join(more) + "\n"


def without(config: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys}


def data(files: Any, **more: Any) -> dict[str, Any]:
    return {**CHOICE, "dataset_kwargs": {"data_files": files, **more}}


def test_a_task_is_read_with_its_data_and_metrics(tmp_path: Path) -> None:
    task = read_task(write_task(tmp_path, CHOICE), "numbers")
    assert task.name == "numbers"
    assert task.data_files == {"test": ((tmp_path / "test.jsonl").resolve(),)}
    assert task.metrics == {"acc": False, "acc_norm": False}
    assert task.configuration["doc_to_text"] == "{{q}}"
    assert task.evaluated_split == "test"


def test_metrics_that_are_not_named_are_those_of_the_harness(tmp_path: Path) -> None:
    assert list(read_task(write_task(tmp_path, without(CHOICE, "metric_list")), "numbers").metrics) == [
        "acc",
        "acc_norm",
    ]


def test_less_may_be_better(tmp_path: Path) -> None:
    config = {**CHOICE, "metric_list": [{"metric": "acc", "higher_is_better": False}]}
    assert read_task(write_task(tmp_path, config), "numbers").metrics == {"acc": True}


def test_include_takes_keys_from_a_file_of_the_folder(tmp_path: Path) -> None:
    write_task(tmp_path, {"task": "numbers", "include": "shared/base.yaml", "doc_to_text": "Q: {{q}}"})
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "base.yaml").write_text(text({**CHOICE, "task": "base"}))
    task = read_task(tmp_path, "numbers")
    assert (task.configuration["doc_to_text"], task.configuration["output_type"]) == ("Q: {{q}}", "multiple_choice")
    assert "include" not in task.configuration


def test_one_file_for_all_is_the_split_train(tmp_path: Path) -> None:
    folder = write_task(tmp_path, {**data("test.jsonl"), "test_split": "train"})
    assert list(read_task(folder, "numbers").data_files) == ["train"]


def test_parquet_and_csv_are_read(tmp_path: Path) -> None:
    write_task(tmp_path, {**data({"test": "rows.parquet"}), "dataset_path": "parquet"})
    parquet.write_table(pyarrow.table({"q": ["a"], "right": [0]}), tmp_path / "rows.parquet")
    assert read_task(tmp_path, "numbers").data_files["test"][0].name == "rows.parquet"
    write_task(tmp_path, {**data({"test": "rows.csv"}, delimiter=";"), "dataset_path": "csv"})
    (tmp_path / "rows.csv").write_text("q;right\na;0\n")
    assert read_task(tmp_path, "numbers").options == {"delimiter": ";"}


def test_a_file_that_is_not_asked_for_may_hold_what_it_likes(tmp_path: Path) -> None:
    write_task(tmp_path, CHOICE)
    (tmp_path / "other.yaml").write_text("task: other\nprocess_docs: !function utils.f\n")
    (tmp_path / "broken.yaml").write_text("task: [unfinished\n")
    (tmp_path / "utils.py").write_text("raise RuntimeError('it ran')\n")
    assert read_task(tmp_path, "numbers").name == "numbers"


def test_a_task_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    folder = write_task(tmp_path, CHOICE)
    with pytest.raises(SettingsInvalid, match="has task: letters; there are numbers; name one of them") as refusal:
        read_task(folder, "letters")
    assert refusal.value.reason is Reason.HARNESS_TASK_NOT_FOUND
    (folder / "task.yaml").unlink()
    with pytest.raises(SettingsInvalid, match="upload the task's YAML file"):
        read_task(folder, "numbers")


def test_two_files_cannot_be_one_task(tmp_path: Path) -> None:
    write_task(tmp_path, CHOICE)
    (tmp_path / "again.yml").write_text(text(CHOICE))
    with pytest.raises(SettingsInvalid, match=r"again.yml and task.yaml: both say that they are numbers"):
        read_task(tmp_path, "numbers")


LAST = len(text(CHOICE).splitlines())
BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdef", "bcdefg", strict=True)
)
REFUSED: dict[str, tuple[dict[str, Any] | str, str]] = {
    "!function": (
        text(CHOICE, "doc_to_text: !function utils.f"),
        rf"task.yaml line {LAST}: !function utils.f would run",
    ),
    "a Python object": (
        text(CHOICE, "metadata: !!python/object/apply:os.system [id]"),
        "python/object/apply:os.system",
    ),
    "another tag": (text(CHOICE, "metadata: !env HOME"), "!env HOME would run code"),
    "!function in a list": (text(CHOICE, "metric_list:", "- metric: !function utils.f"), "!function utils.f"),
    "class": ({**CHOICE, "class": "tasks.Own"}, "class: it names a Python class"),
    "custom_dataset": ({**CHOICE, "custom_dataset": "load"}, "custom_dataset: it names a Python function"),
    "process_docs": ({**CHOICE, "process_docs": "f"}, "process_docs: it names a Python function"),
    "process_results": ({**CHOICE, "process_results": "f"}, "process_results: it names a Python function"),
    "unsafe_code": ({**CHOICE, "unsafe_code": True}, "unsafe_code: it asks to run code"),
    "use_prompt": ({**CHOICE, "use_prompt": "promptsource:*"}, "use_prompt: it fetches a prompt"),
    "images": ({**CHOICE, "doc_to_image": "image"}, "doc_to_image: it asks for images"),
    "a group": ({"group": "numbers", "task": ["one", "two"]}, "group: it makes it a group of tasks"),
    "an unknown key": ({**CHOICE, "doc_to_txt": "{{q}}"}, "doc_to_txt: an unknown key; the keys are"),
    "include outside": ({**CHOICE, "include": "../other.yaml"}, "include: ../other.yaml is outside"),
    "include absolute": ({**CHOICE, "include": "/etc/hosts"}, "include: /etc/hosts is outside"),
    "include of nothing": ({**CHOICE, "include": "base.yaml"}, "include: base.yaml is not in the task's folder"),
    "include of itself": ({**CHOICE, "include": "task.yaml"}, "task.yaml includes itself"),
    "data outside": (data({"test": "../test.jsonl"}), "data_files.test: ../test.jsonl is outside"),
    "data absolute": (data({"test": "/etc/passwd"}), "/etc/passwd is outside"),
    "data by a URL": (data({"test": "https://example.com/test.jsonl"}), "https://example.com/test.jsonl is outside"),
    "data in an archive": (data({"test": "zip://a.json::test.jsonl"}), "is outside of the task's folder"),
    "data that is not there": (data({"test": "rest.jsonl"}), "rest.jsonl is not in the task's folder; upload it"),
    "data by a pattern": (data({"test": "*.jsonl"}), r"\*.jsonl is not in the task's folder"),
    "data without a name": (data({"test": 7}), "7 is no file name"),
    "data of another kind": (data({"test": "task.yaml"}), "task.yaml is not .json or .jsonl"),
    "no data": (without(CHOICE, "dataset_kwargs"), "data_files is missing; name the data files"),
    "a loader's option": (data({"test": "test.jsonl"}, trust_remote_code=True), "trust_remote_code: an unknown key"),
    "a data set of a hub": ({**CHOICE, "dataset_path": "allenai/ai2_arc"}, "dataset_path: 'allenai/ai2_arc' is not"),
    "a script as data set": ({**CHOICE, "dataset_path": "load.py"}, "write json or csv or parquet"),
    "no dataset_path": (without(CHOICE, "dataset_path"), "dataset_path is missing"),
    "no doc_to_target": (without(CHOICE, "doc_to_target"), "doc_to_target is missing"),
    "no doc_to_text": (without(CHOICE, "doc_to_text"), "doc_to_text is missing"),
    "no choices": (without(CHOICE, "doc_to_choice"), "doc_to_choice is missing"),
    "no split": (without(CHOICE, "test_split"), "neither test_split nor validation_split"),
    "a split without data": ({**CHOICE, "test_split": "exam"}, "test_split: data_files has no split exam, only test"),
    "examples without data": (
        {**CHOICE, "fewshot_config": {"split": "dev"}},
        "fewshot_config.split: data_files has no",
    ),
    "another sampler": ({**CHOICE, "fewshot_config": {"sampler": "own"}}, "sampler: 'own' is not possible"),
    "examples as text": ({**CHOICE, "fewshot_config": {"samples": ["a"]}}, "samples are mappings of columns"),
    "too many examples": ({**CHOICE, "num_fewshot": 65}, "num_fewshot: 65 is not between 0 and 64"),
    "another output": ({**CHOICE, "output_type": "chat"}, "output_type: 'chat' is not possible here"),
    "decontamination": ({**CHOICE, "should_decontaminate": True}, "should_decontaminate: True is not possible"),
    "a metric's function": ({**CHOICE, "metric_list": [{"metric": "acc", "hf_evaluate": True}]}, "hf_evaluate: an unk"),
    "a metric twice": ({**CHOICE, "metric_list": [{"metric": "acc"}] * 2}, "one that was named before"),
    "no metrics": ({**CHOICE, "metric_list": []}, "metric_list: it must be a list that is not empty"),
    "a filter with code": (
        {**GENERATION, "filter_list": [{"name": "a", "filter": [{"function": "custom", "filter_fn": "f"}]}]},
        "custom is no filter that runs here; take regex",
    ),
    "a filter's option": (
        {**GENERATION, "filter_list": [{"name": "a", "filter": [{"function": "take_first", "k": 1}]}]},
        "k: an unknown key",
    ),
    "filters of one name": (
        {**GENERATION, "filter_list": [{"name": "a", "filter": [{"function": "take_first"}]}] * 2},
        "give each a name of its own",
    ),
    "filters of nearly one name": (
        {**GENERATION, "filter_list": [{"name": n, "filter": [{"function": "take_first"}]} for n in ("a-b", "a_b")]},
        "two filters make exact_match_a_b",
    ),
    "generation by code": (
        {**GENERATION, "generation_kwargs": {"custom_generate": "a/b"}},
        "custom_generate: an unknown",
    ),
    "generation without end": ({**GENERATION, "generation_kwargs": {"max_gen_toks": 10**9}}, "is not between 1 and"),
    "a dunder attribute": (
        {**CHOICE, "doc_to_text": "{{ q.__class__ }}"},
        "line 1: __class__ reaches for Python's insides",
    ),
    "a dunder item": ({**CHOICE, "description": "{{ q['__init__'] }}"}, "description line 1: __init__ reaches"),
    "a dunder by a filter": ({**CHOICE, "doc_to_target": "{{ q|attr('__mro__') }}"}, "__mro__ reaches"),
    "a dunder in an example": (
        {**CHOICE, "fewshot_config": {"gen_prefix": "{{ q._x }}"}},
        "gen_prefix line 1: _x reaches",
    ),
    "a template that takes in": ({**CHOICE, "doc_to_text": "{% include 'x' %}"}, "a template cannot take in another"),
    "a broken template": ({**CHOICE, "doc_to_text": "{{ q"}, "this is not a Jinja template"),
    "text that is none": ({**CHOICE, "target_delimiter": 3}, "target_delimiter: 3 is not text; write text"),
    "a date": (text(CHOICE, "metadata: {version: 2024-01-01}"), "metadata.version: datetime.*write it in quotes"),
    "a number as key": (text(CHOICE, "metadata: {1: a}"), "metadata: the key 1 is not a string"),
    "broken YAML": (text(CHOICE, "metadata: {a: 1, a: {b: }}", "task: numbers", "*x"), "not found|upload"),
    "no mapping": ("task: numbers\n--- \n- a\n", "numbers|upload"),
    "values without end": (
        text(CHOICE) + "metadata:\n" + "".join(f"  {line}\n" for line in BOMB.splitlines()),
        "more than 100000 values",
    ),
    "an endless file": (text(CHOICE) + "#" * MAXIMUM_BYTES, "upload"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_run_is_refused_by_name(name: str, tmp_path: Path) -> None:
    config, message = REFUSED[name]
    with pytest.raises(SettingsInvalid, match=message) as refusal:
        read_task(write_task(tmp_path, config), "numbers")
    found_nothing = "upload" in message and "upload it" not in message
    assert refusal.value.reason is (Reason.HARNESS_TASK_NOT_FOUND if found_nothing else Reason.HARNESS_TASK_REFUSED)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "task", data({"test": "linked.jsonl"}))
    (tmp_path / "secret.jsonl").write_text("{}\n")
    (folder / "linked.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(SettingsInvalid, match=r"linked.jsonl is outside of the task's folder"):
        read_task(folder, "numbers")


def test_columns_that_name_other_places_are_refused(tmp_path: Path) -> None:
    write_task(tmp_path, {**data({"test": "rows.parquet"}), "dataset_path": "parquet"})
    declared = b'{"info": {"features": {"q": {"_type": "Image"}, "right": {"dtype": "int64", "_type": "Value"}}}}'
    table = pyarrow.table({"q": ["file:///etc/passwd"], "right": [0]})
    parquet.write_table(table.replace_schema_metadata({b"huggingface": declared}), tmp_path / "rows.parquet")
    with pytest.raises(SettingsInvalid, match="columns of the type Image; leave them out") as refusal:
        read_task(tmp_path, "numbers")
    assert refusal.value.reason is Reason.HARNESS_TASK_REFUSED
    (tmp_path / "rows.parquet").write_bytes(b"no parquet")
    with pytest.raises(SettingsInvalid, match="cannot be read as Parquet"):
        read_task(tmp_path, "numbers")


NO_MEANS: dict[str, tuple[dict[str, Any], str]] = {
    "perplexity": ({**LIKELIHOOD, "metric_list": [{"metric": "perplexity"}]}, "take a task of type Perplexity"),
    "the default of likelihoods": (without(LIKELIHOOD, "metric_list"), "perplexity of a loglikelihood task"),
    "rolling": (
        {**LIKELIHOOD, "output_type": "loglikelihood_rolling", "metric_list": None},
        "word_perplexity.*Perplexity",
    ),
    "corpus BLEU": ({**GENERATION, "metric_list": [{"metric": "bleu"}]}, "take a task of type Generation"),
    "macro F1": ({**CHOICE, "metric_list": [{"metric": "f1"}]}, "take a task of type Classification"),
    "unknown": ({**CHOICE, "metric_list": [{"metric": "own"}]}, "leave it out of metric_list"),
    "another aggregation": (
        {**CHOICE, "metric_list": [{"metric": "acc", "aggregation": "median"}]},
        "aggregated by median",
    ),
}


@pytest.mark.parametrize("name", NO_MEANS)
def test_figures_that_are_no_means_do_not_apply(name: str, tmp_path: Path) -> None:
    config, message = NO_MEANS[name]
    with pytest.raises(SettingsInvalid, match=message) as refusal:
        read_task(write_task(tmp_path, config), "numbers")
    assert refusal.value.reason is Reason.METRIC_NOT_APPLICABLE

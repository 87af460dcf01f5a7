"""Tasks that lm-evaluation-harness brings: found by name, with data of a repository, and the figures that it gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pytest
import yaml
from pyarrow import parquet
from transformers import AutoTokenizer
from trimtab_trainer.config import at_the_mirror
from trimtab_trainer.contract import EvaluationConfig, EvaluationTask, Mirrored, Reason, Stage
from trimtab_trainer.contract.evaluation import EVALUATION_VERSION
from trimtab_trainer.errors import DataInvalid, SettingsInvalid
from trimtab_trainer.evaluate.harness.builtin import Builtin, builtin_task, catalogue, data_files
from trimtab_trainer.evaluate.harness.files import read_task
from trimtab_trainer.evaluate.harness.running import run_task
from trimtab_trainer.hub.mirror import mirror
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.progress import ProgressBoard
from trimtab_trainer.report import Report
from trimtab_trainer.training.network.model import LanguageModel

from deploy import harness_tasks
from tests.trainer.evaluate.bench import EvaluationBench
from tests.trainer.evaluate.models import bare_model
from tests.trainer.hub.server import Hub, running


def parquet_bytes(rows: list[dict[str, Any]]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue().to_pybytes())


def sums(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        {"question": f"What is {n} and {n + 1}?", "answer": f"{n} + {n + 1} = {2 * n + 1}\n#### {2 * n + 1}"}
        for n in range(first, first + count)
    ]


def questions(count: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"q{n}",
            "question": f"Which number follows {n}?",
            "choices": {"text": [str(n + 1), "a fox", "the dog jumps"], "label": ["A", "B", "C"]},
            "answerKey": "ABC"[n % 3],
        }
        for n in range(count)
    ]


GSM8K = {
    "main/train-00000-of-00001.parquet": parquet_bytes(sums(6, 50)),
    "main/test-00000-of-00001.parquet": parquet_bytes(sums(4)),
    "socratic/test-00000-of-00001.parquet": parquet_bytes(sums(1, 90)),
    "README.md": b"---\nconfigs:\n- config_name: main\n  data_files:\n  - {split: train, path: main/train-*}\n"
    b"  - {split: test, path: main/test-*}\n---\n",
}
ARC = {
    f"ARC-Easy/{split}-00000-of-00001.parquet": parquet_bytes(questions(count))
    for split, count in (("train", 5), ("validation", 2), ("test", 6))
} | {
    "README.md": b"---\nconfigs:\n- config_name: ARC-Easy\n  data_files:\n"
    + b"".join(b"  - {split: %s, path: ARC-Easy/%s-*}\n" % (each, each) for each in (b"train", b"validation", b"test"))
    + b"---\n"
}
REPOSITORIES = {"gsm8k": ("openai/gsm8k", GSM8K), "arc_easy": ("allenai/ai2_arc", ARC)}


# -- names -------------------------------------------------------------------------------------------------------------


def test_what_the_harness_brings_is_found_by_name() -> None:
    found = builtin_task("gsm8k")
    assert (found.dataset, found.subset) == ("openai/gsm8k", "main")
    assert found.splits == {"train", "test"}
    assert found.configuration["num_fewshot"] == 5
    lambada = builtin_task("lambada_openai")
    assert lambada.left_out == ("perplexity",), "no mean over rows"
    assert [each["metric"] for each in lambada.configuration["metric_list"]] == ["acc"]


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("hellaswag", Reason.HARNESS_TASK_REFUSED, "hellaswag: its YAML names Python code, which is not run"),
        ("mmlu", Reason.HARNESS_TASK_REFUSED, "mmlu: it is a group of tasks; name one of them"),
        ("gsm9k", Reason.HARNESS_TASK_NOT_FOUND, "gsm9k is no task of lm-evaluation-harness 0"),
        ("arc_hard", Reason.HARNESS_TASK_NOT_FOUND, "there are .*arc_"),
    ],
)
def test_what_does_not_run_is_refused_by_name(name: str, reason: Reason, words: str) -> None:
    with pytest.raises(SettingsInvalid, match=words) as caught:
        builtin_task(name)
    assert caught.value.reason is reason


def test_the_catalogue_is_that_of_the_installed_harness() -> None:
    """Of every fiftieth file; `python -m deploy.harness_tasks` compares all of them."""
    folder = harness_tasks.harness_folder()
    files = harness_tasks.task_files(folder)[::50]
    found, _ = harness_tasks.catalogued(folder, files)
    known = catalogue()
    assert found["version"] == known["version"], "run python -m deploy.harness_tasks --write"
    assert len(found["tasks"]) > 50
    # Of two files with one name the harness takes the first, which may be none of these.
    once = {name for name, each in found["tasks"].items() if known["tasks"].get(name) == each}
    assert len(once) > 0.98 * len(found["tasks"]), "run python -m deploy.harness_tasks --write"
    assert harness_tasks.PAGE.read_text().count(f"lm-evaluation-harness {found['version']}") == 1


# -- data files --------------------------------------------------------------------------------------------------------


def task_of(subset: str | None = "main", *splits: str) -> Builtin:
    named = dict(zip(("test_split", "fewshot_split"), splits or ("test",), strict=False))
    return Builtin("it", {"dataset_path": "org/rows", "dataset_name": subset, **named})


LAYOUTS: dict[str, tuple[Builtin, list[str], str, dict[str, list[str]]]] = {
    "a folder a subset": (
        task_of("main", "test", "train"),
        ["main/test-00000-of-00002.parquet", "main/test-00001-of-00002.parquet", "main/train.parquet", "b/test.csv"],
        "parquet",
        {
            "test": ["main/test-00000-of-00002.parquet", "main/test-00001-of-00002.parquet"],
            "train": ["main/train.parquet"],
        },
    ),
    "as hubs convert": (
        task_of("main"),
        ["main/test/0000.parquet", "main/test/0001.parquet", "main/partial-train/0000.parquet", "c/test/0000.parquet"],
        "parquet",
        {"test": ["main/test/0000.parquet", "main/test/0001.parquet"]},
    ),
    "a subset by its own path": (task_of("main"), ["test.jsonl"], "json", {"test": ["test.jsonl"]}),
    "below data": (task_of(None), ["data/test.csv", "data/train.csv"], "csv", {"test": ["data/test.csv"]}),
    "one subset of any name": (
        task_of(None),
        ["plain_text/test/0000.parquet"],
        "parquet",
        {"test": ["plain_text/test/0000.parquet"]},
    ),
    "the default of several": (
        task_of(None),
        ["default/test.json", "other/test.json"],
        "json",
        {"test": ["default/test.json"]},
    ),
    "Parquet before other kinds": (
        task_of("main"),
        ["main/test.csv", "main/test.parquet"],
        "parquet",
        {"test": ["main/test.parquet"]},
    ),
    "no name that only begins alike": (
        task_of("main"),
        ["main/test.parquet", "main/test_hard.parquet", "main/auxiliary_test/0.parquet"],
        "parquet",
        {"test": ["main/test.parquet"]},
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_files_are_found_as_hubs_lay_them(name: str) -> None:
    found, paths, kind, files = LAYOUTS[name]
    assert data_files(found, paths, "s3://rows/") == (kind, files)


NOT_THERE: dict[str, tuple[Builtin, list[str], str]] = {
    "nothing": (task_of(), [], "no files of the split test at s3://rows/"),
    "another subset": (
        task_of(),
        ["a/test.csv", "b/test.csv"],
        "asks the subset main, and s3://rows/ has the folders a, b",
    ),
    "several subsets": (task_of(None), ["a/test.csv", "b/test.csv"], "asks a data set of one subset"),
    "another split": (task_of("main", "test", "train"), ["main/test.csv"], "no files of the split train"),
    "splits of two kinds": (
        task_of("main", "test", "train"),
        ["main/test.csv", "main/train.parquet"],
        "no files of the split",
    ),
    "packed": (task_of(), ["main/test.jsonl.gz"], "no files of the split test"),
}


@pytest.mark.parametrize("name", NOT_THERE)
def test_what_is_not_there_is_named(name: str) -> None:
    found, paths, words = NOT_THERE[name]
    with pytest.raises(DataInvalid, match=words) as caught:
        data_files(found, paths, "s3://rows/")
    assert caught.value.reason is Reason.DATASET_NOT_FOUND


# -- prepared ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(bench: EvaluationBench) -> EvaluationBench:
    """A bench with a copy of a repository in its storage."""
    for path, data in GSM8K.items():
        bench.store.put(f"gsm8k/{path}", data)
    task = {"name": "sums", "type": "Harness", "builtin": "gsm8k", "dataset": {"uri": f"{bench.root}/gsm8k/"}}
    bench.document["tasks"] = [task]
    return bench


def test_it_becomes_a_folder_as_people_write_them(asked: EvaluationBench) -> None:
    folder = asked.tasks().harness_folder("sums")
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "data/main/test-00000-of-00001.parquet",
        "data/main/train-00000-of-00001.parquet",
        "task.yaml",
    ]
    found = read_task(folder, "gsm8k")
    assert list(found.metrics) == ["exact_match_strict_match", "exact_match_flexible_extract"]
    told = yaml.safe_load((folder / "task.yaml").read_text())["metadata"]
    assert told == {"lm_eval": catalogue()["version"], "dataset": "openai/gsm8k", "subset": "main"}


def test_its_digest_is_of_its_rows_and_thresholds_are_of_its_figures(asked: EvaluationBench) -> None:
    first = asked.tasks().tasks[0].digest
    asked.store.put("gsm8k/socratic/test-00000-of-00001.parquet", b"another subset")
    assert asked.tasks().tasks[0].digest == first
    asked.store.put("gsm8k/main/test-00000-of-00001.parquet", parquet_bytes(sums(5)))
    assert asked.tasks().tasks[0].digest != first
    asked.document["thresholds"] = [{"metric": "sums/acc", "minimum": 0.5}]
    with pytest.raises(SettingsInvalid, match="gives exact_match_flexible_extract"):
        asked.prepare()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"builtin": "hellaswag"}, Reason.HARNESS_TASK_REFUSED),
        ({"builtin": "gsm9k"}, Reason.HARNESS_TASK_NOT_FOUND),
        ({"builtin": "arc_easy"}, Reason.DATASET_NOT_FOUND),
    ],
)
def test_what_cannot_be_asked_leaves_nothing_behind(
    asked: EvaluationBench, change: dict[str, Any], reason: Reason
) -> None:
    asked.document["tasks"][0].update(change)
    with pytest.raises((SettingsInvalid, DataInvalid)) as caught:
        asked.prepare()
    assert caught.value.reason is reason
    assert not asked.output.list("evaluations/")


# -- from a hub, and the figures of the harness itself -----------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tiny: Path) -> LanguageModel:
    return bare_model(tiny)


def from_hub(bench: EvaluationBench, hub: Hub, *tasks: dict[str, Any]) -> EvaluationConfig:
    """Return an evaluation of these tasks whose keys name the hub."""
    keys = bench.folder / "hub-keys"
    keys.mkdir(exist_ok=True)
    (keys / "HF_ENDPOINT").write_text(hub.endpoint + "\n")
    document = {**bench.document, "version": EVALUATION_VERSION, "tasks": list(tasks), "thresholds": []}
    return EvaluationConfig.model_validate({**document, "datasetCredentials": {"directory": str(keys)}})


def mirrored(config: EvaluationConfig, scratch: Path) -> Mirrored:
    scratch.mkdir(exist_ok=True)
    return mirror(config, Mirrored(), scratch, Report(), ProgressBoard("uid", 0, Stage.MIRROR))


def own_run(model: LanguageModel, tokenizer: Any, name: str, repository: Path) -> tuple[dict[str, float], list[str]]:
    """Return what the library itself says of its own task, its data read from a copy of the repository; its prompts."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    folder = harness_tasks.harness_folder()
    file = next(path for path in harness_tasks.task_files(folder) if name in harness_tasks.names_of(path))
    config = {**load_yaml(file, resolve_func=True), "dataset_path": str(repository)}
    config.pop("tag", None)
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model.causal, tokenizer=tokenizer, batch_size=2),
        tasks=[config],
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
        fewshot_random_seed=7,
    )
    assert found is not None
    prompts = {each["doc_id"]: str(each["arguments"][0][0]) for each in found["samples"][name]}
    return found["results"][name], [prompt for _, prompt in sorted(prompts.items())]


@pytest.mark.parametrize("name", REPOSITORIES)
def test_from_a_hub_to_the_figures_of_the_harness_itself(
    name: str, bench: EvaluationBench, model: LanguageModel, tiny: Path, tmp_path: Path
) -> None:
    repository, files = REPOSITORIES[name]
    with running(Hub()) as hub:
        commit = hub.repository(f"datasets/{repository}").commit(files)
        uri = f"hf://datasets/{repository}@main"
        config = from_hub(bench, hub, {"name": "it", "type": "Harness", "builtin": name, "dataset": {"uri": uri}})
        found = mirrored(config, tmp_path / "mirror")
    assert [(each.uri, each.commit) for each in found.sources] == [(uri, commit)]
    bench.document = at_the_mirror(config, found).to_json()
    folder = bench.tasks().harness_folder("it")
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    task = EvaluationTask.model_validate(bench.document["tasks"][0])
    rows, scores, metrics = run_task(model, tokenizer, task, folder, seed=7, batch_size=None, stop=Interruption())
    copy = tmp_path / "copy"
    for path, data in files.items():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_bytes(data)
    theirs, prompts = own_run(model, tokenizer, name, copy)
    assert [row.prompt for row in rows] == prompts
    assert len(rows) == len(scores) == (4 if name == "gsm8k" else 6)
    ours = {each: sum((score.figures or {})[each] for score in scores) / len(scores) for each in metrics}
    spelled = {
        each: f"exact_match,{each.removeprefix('exact_match_').replace('_', '-')}"
        if "match" in each
        else f"{each},none"
        for each in ours
    }
    assert ours == {each: pytest.approx(theirs[spelled[each]], abs=1e-12) for each in ours}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"uri": "hf://datasets/someone/gsm8k@main"}, "asks rows of openai/gsm8k, and dataset.uri names someone/gsm8k"),
        ({"uri": "hf://datasets/openai/gsm8k@main/socratic/"}, "write nothing or main/ behind the revision"),
        ({"builtin": "hellaswag"}, "Python code, which is not run"),
        ({"builtin": "gsm9k"}, "is no task of lm-evaluation-harness"),
    ],
)
def test_another_repository_is_refused_before_a_hub_is_asked(
    bench: EvaluationBench, change: dict[str, str], words: str, tmp_path: Path
) -> None:
    uri = change.get("uri", "hf://datasets/openai/gsm8k@main")
    task = {"name": "it", "type": "Harness", "builtin": change.get("builtin", "gsm8k"), "dataset": {"uri": uri}}
    with running(Hub()) as hub, pytest.raises(SettingsInvalid, match=words):
        mirrored(from_hub(bench, hub, task), tmp_path / "mirror")
    assert not hub.asked


def test_the_folder_of_its_subset_is_all_that_is_mirrored(bench: EvaluationBench, tmp_path: Path) -> None:
    uri = "hf://datasets/openai/gsm8k@main/main/"
    with running(Hub()) as hub:
        hub.repository("datasets/openai/gsm8k").commit(GSM8K)
        config = from_hub(bench, hub, {"name": "it", "type": "Harness", "builtin": "gsm8k", "dataset": {"uri": uri}})
        found = mirrored(config, tmp_path / "mirror")
        assert not [each for each in hub.asked if "socratic" in each.path]
    bench.document = at_the_mirror(config, found).to_json()
    assert (bench.tasks().harness_folder("it") / "data/test-00000-of-00001.parquet").is_file()


@pytest.mark.parametrize(
    "task",
    [
        {"harnessTask": "gsm8k", "builtin": "gsm8k"},
        {},
        {"builtin": "../gsm8k"},
        {"builtin": "gsm8k", "type": "Generation"},
        {"harnessTask": "gsm8k", "dataset": {"uri": "hf://datasets/openai/gsm8k@main"}},
    ],
)
def test_a_task_has_one_name_and_only_a_builtin_one_is_on_a_hub(task: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"either harnessTask or builtin|pattern|is for the type|of a harnessTask are"):
        EvaluationTask.model_validate({"name": "it", "type": "Harness", "dataset": {"uri": "s3://rows/x/"}, **task})

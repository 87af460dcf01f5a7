"""The prepare stage of an evaluation as a whole: what it puts in place, what it does not make again, what it is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.base import layers
from trimtab_trainer.contract import EvaluationConfig, EvaluationOutcome, Reason, digest_of
from trimtab_trainer.contract.evaluation import EVALUATION_VERSION
from trimtab_trainer.errors import DataInvalid, PreparedDataMissing, SettingsInvalid
from trimtab_trainer.evaluate import prepare as prepare_module
from trimtab_trainer.evaluate.preparing import task_store as prepared_module
from trimtab_trainer.evaluate.preparing.task_store import load_tasks
from trimtab_trainer.storage import MANIFEST, ObjectDamaged, Store
from trimtab_trainer.storage.layout import evaluation_data_prefix

from tests.trainer.conftest import ObjectStorage, write_keys
from tests.trainer.evaluate.bench import EvaluationBench, chat, facts
from tests.trainer.evaluate.harness_task import CHOICE, write_task
from tests.trainer.tiny import tiny_tokenizer


@pytest.fixture(params=["bench", "remote"])
def anywhere(request: pytest.FixtureRequest) -> EvaluationBench:
    made: EvaluationBench = request.getfixturevalue(request.param)
    return made


def test_rows_are_put_in_place_under_their_address(anywhere: EvaluationBench) -> None:
    uri = anywhere.put("eval/rows.jsonl", facts(20, start=100))
    anywhere.document["tasks"].append({"name": "own", "type": "Generation", "dataset": {"uri": uri}})
    anywhere.document["baseline"] = {}
    prepared = anywhere.prepare().prepared
    assert (prepared.tasks, prepared.rows) == (2, 25)
    assert prepared.target_digest == anywhere.document["target"]["digest"]
    assert prepared.baseline_digest is None
    assert prepared.base_model_digest == anywhere.base_digest

    found = load_tasks(anywhere.output, prepared.data_digest, anywhere.folder)
    assert [(task.name, task.rows, task.clusters, task.trained_on, task.dropped) for task in found.tasks] == [
        ("heldout", 5, 5, 0, 0),
        ("own", 20, 20, 0, 0),
    ]
    assert [row.number for row in found.rows("own")] == list(range(20))
    assert found.rows("own")[3].place == "rows.jsonl line 4"
    stored = {info.path for info in anywhere.output.list(evaluation_data_prefix(prepared.data_digest))}
    prefix = evaluation_data_prefix(prepared.data_digest)
    assert stored == {f"{prefix}/{name}" for name in ("tasks.json", "rows/heldout.jsonl", "rows/own.jsonl", MANIFEST)}


def test_a_tokenizer_that_is_larger_than_the_embedding_is_told_of(bench: EvaluationBench) -> None:
    tiny_tokenizer(390).save(str(bench.base / "tokenizer.json"))
    del bench.document["target"]
    asked = [chat(f"Where is {n}?", f"On shelf {n}.") for n in range(8)]
    bench.task("Generation", asked)
    assert any("tokenizer go up to 389, but its embedding has 384" in warning for warning in bench.prepare().warnings)
    bench.task("Generation", [*asked, chat("Where is the field?", "There.")])
    with pytest.raises(SettingsInvalid, match=r"makes token 384 .' field'., but its embedding has 384"):
        bench.prepare()


def test_what_is_there_is_not_made_again(anywhere: EvaluationBench, monkeypatch: pytest.MonkeyPatch) -> None:
    first = anywhere.prepare()
    before = {info.path: anywhere.output.read(info.path) for info in anywhere.output.list()}
    monkeypatch.setattr(prepared_module, "store_folder", lambda *_: pytest.fail("something was uploaded"))
    assert anywhere.prepare() == first
    assert {info.path: anywhere.output.read(info.path) for info in anywhere.output.list()} == before


def test_files_that_are_not_read_are_told_of(bench: EvaluationBench) -> None:
    """Half of a data set may lie in a file of another kind, and nobody would know."""
    assert bench.prepare().warnings == ()
    folder = bench.put("eval/rows.jsonl", facts(20, start=100)).rpartition("/")[0]
    bench.put("eval/more.arrow", [{"a": 1}])
    for name in ("own", "again"):
        bench.document["tasks"].append({"name": name, "type": "Generation", "dataset": {"uri": folder + "/"}})
    (warning,) = bench.prepare().warnings
    assert warning.startswith(f"1 of the files at {folder}/ are not read: more.arrow; rows are in")
    assert "prepared with a warning" in bench.events.getvalue()


def test_an_adapter_of_what_counts_only_when_quantized_is_told_of(
    bench: EvaluationBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.document["baseline"] = {"artifact": bench.document["target"]}
    monkeypatch.setitem(layers.PAST_ADAPTER, "llama", "q_proj")
    monkeypatch.setitem(layers.PAST_ADAPTER_WHY, "q_proj", "which is made for this")
    for role, warning in zip(("target", "baseline"), bench.prepare().warnings, strict=True):
        assert warning.startswith(f"the {role} at {bench.document['target']['uri']} adapts q_proj of a model which is")
        assert "in 16 bits; train it anew, which leaves q_proj alone" in warning
    monkeypatch.setitem(layers.PAST_ADAPTER, "llama", "k_proj")
    assert bench.prepare().warnings == ()
    monkeypatch.setitem(layers.PAST_ADAPTER, "llama", layers.IN_TRAINING_ALONE)
    assert bench.prepare().warnings == ()


def delete_manifest(store: Store, prefix: str) -> None:
    store.delete([f"{prefix}/{MANIFEST}"])


def break_manifest(store: Store, prefix: str) -> None:
    store.put(f"{prefix}/{MANIFEST}", b"{")


def delete_file(store: Store, prefix: str) -> None:
    store.delete([f"{prefix}/rows/heldout.jsonl"])


@pytest.mark.parametrize("damage", [delete_manifest, break_manifest, delete_file])
def test_a_killed_or_damaged_preparation_is_made_again_the_same(
    bench: EvaluationBench, damage: Callable[[Store, str], None]
) -> None:
    first = bench.prepare()
    prefix = evaluation_data_prefix(first.prepared.data_digest)
    whole = {info.path: bench.output.read(info.path) for info in bench.output.list(prefix)}
    damage(bench.output, prefix)
    assert bench.prepare() == first
    assert {info.path: bench.output.read(info.path) for info in bench.output.list(prefix)} == whole


def test_readers_refuse_rows_that_are_gone_or_damaged(bench: EvaluationBench) -> None:
    digest = bench.prepare().prepared.data_digest
    prefix = evaluation_data_prefix(digest)
    path = f"{prefix}/rows/heldout.jsonl"
    data = bench.output.read(path)
    bench.output.put(path, data.replace(b" was near ", b" was sold "))
    with pytest.raises(PreparedDataMissing, match="prepare stage has to run again"):
        load_tasks(bench.output, digest, bench.folder / "a")
    assert bench.prepare().prepared.data_digest == digest
    assert bench.output.read(path) == data, "and that makes it good again"
    bench.output.delete([f"{prefix}/{MANIFEST}"])
    with pytest.raises(PreparedDataMissing, match="prepare stage has to run again"):
        load_tasks(bench.output, digest, bench.folder / "b")


def test_other_bytes_under_the_same_address_are_never_taken_for_ours(bench: EvaluationBench) -> None:
    digest = bench.prepare().prepared.data_digest
    path = f"{evaluation_data_prefix(digest)}/{MANIFEST}"
    document = json.loads(bench.output.read(path))
    missing = {"path": "gone", "size": 1, "sha256": "0" * 64}
    bench.output.put(path, json.dumps({**document, "files": [*document["files"], missing]}).encode())
    with pytest.raises(ObjectDamaged, match="delete it, it is made again"):
        bench.prepare()


def test_the_same_inputs_give_the_same_digests_elsewhere(bench: EvaluationBench) -> None:
    bench.document["seed"] = 5
    first = bench.prepare().prepared
    bench.document["output"]["uri"] = f"{bench.root}/elsewhere"
    assert bench.prepare().prepared == first


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], bool]] = {
    "the seed": (lambda d: d.update(seed=18), True),
    "the resamples": (lambda d: d.update(resamples=1_500), True),
    "the precision": (lambda d: d.update(precision="AsServed"), True),
    "the quantization": (lambda d: d.update(quantization={"type": "None"}), True),
    "a threshold": (lambda d: d.update(thresholds=[{"metric": "heldout/perplexity", "maximum": 9}]), True),
    "the baseline": (lambda d: d.update(baseline={}), True),
    "the metrics": (lambda d: d["tasks"][0].update(metrics=["Perplexity"]), True),
    "the batch size": (lambda d: d.update(batchSize=3), False),
    "who runs it": (lambda d: d.update(run={"name": "x", "namespace": "y", "uid": "z"}), False),
    "the pin": (lambda d: d["target"].pop("digest"), False),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_digest_of_an_evaluation_is_of_what_defines_its_result(bench: EvaluationBench, name: str) -> None:
    change, matters = CHANGES[name]
    first = bench.prepare().prepared
    change(bench.document)
    second = bench.prepare().prepared
    assert (second.evaluation_digest != first.evaluation_digest) is matters
    assert second.data_digest == first.data_digest, "the rows are asked in the same way"


ANSWERED_LIKE_BEFORE = "sha256:7eb16c18699be5209495575529cbd62d907e2343855196be6ed09dbf418536ab"
SCORES: dict[str, tuple[dict[str, Any], bool]] = {
    "Generation": ({}, False),
    "Generation of pairs": ({"pairs": "pair"}, True),
    **{kind: ({}, True) for kind in ("Refusal", "JsonSchema", "ToolCalls")},
    "Judge": ({"judging": {"mode": "Rubric", "instructions": "Is it short?"}}, True),
}


@pytest.mark.parametrize("name", SCORES)
def test_an_evaluation_whose_answers_are_scored_anew_is_another_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, anew = SCORES[name]
    zero = f"sha256:{0:064}"
    task = {"name": "task", "type": name.partition(" ")[0], "dataset": {"uri": "file:///rows.jsonl"}, **settings}
    judge = {"judge": {"endpoint": {"url": "https://judge.test", "model": "j"}}} if name == "Judge" else {}
    config = EvaluationConfig.model_validate(
        {
            "version": EVALUATION_VERSION,
            "baseModel": {"uri": "file:///base"},
            "output": {"uri": "file:///out"},
            "tasks": [task],
            **judge,
        }
    )
    prepared = [prepared_module.PreparedTask(name="task", digest=zero, rows=1)]

    def digest() -> str:
        return prepare_module.evaluation_digest(
            config, zero, target=None, baseline=None, anchor=None, data_digest=zero, tasks=prepared
        )

    now = digest()
    monkeypatch.setattr(prepare_module, "SCORING_VERSION", prepare_module.SCORING_VERSION + 1)
    assert (digest() != now) is anew
    if name == "Generation":
        assert now == ANSWERED_LIKE_BEFORE, "what was found before is found again"


@pytest.mark.parametrize(
    ("kind", "figure", "confidence", "anew"),
    [
        ("Generation", "tokenF1", 0.95, True),
        ("Generation", "tokenF1", None, False),
        ("MultipleChoice", "accuracy", 0.95, True),
        ("Perplexity", "perplexity", 0.95, True),
        ("Perplexity", "perplexity", None, False),
    ],
)
def test_an_evaluation_whose_bounds_are_tested_anew_is_another_one(
    kind: str, figure: str, confidence: float | None, *, anew: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    zero = f"sha256:{0:064}"
    config = EvaluationConfig.model_validate(
        {
            "version": EVALUATION_VERSION,
            "baseModel": {"uri": "file:///base"},
            "output": {"uri": "file:///out"},
            "tasks": [{"name": "task", "type": kind, "dataset": {"uri": "file:///rows.jsonl"}}],
            "thresholds": [{"metric": f"task/{figure}", "maximum": 9, "confidence": confidence}],
        }
    )
    prepared = [prepared_module.PreparedTask(name="task", digest=zero, rows=1)]
    seen = set()
    for version in (1, 2):
        monkeypatch.setattr(prepare_module, "SCORING_VERSION", version)
        seen.add(
            prepare_module.evaluation_digest(
                config, zero, target=None, baseline=None, anchor=None, data_digest=zero, tasks=prepared
            )
        )
    assert (len(seen) == 2) is anew


def test_a_tasks_digest_is_of_its_rows_and_of_how_they_are_asked(bench: EvaluationBench) -> None:
    rows = facts(12, start=200)
    seen = {}
    for name, kind, settings in (
        ("as it is", "Generation", {}),
        ("more tokens", "Generation", {"maxNewTokens": 9}),
        ("a stop", "Generation", {"stop": ["."]}),
        ("sampled", "Generation", {"temperature": 0.5}),
        ("other rows", "Generation", {"dataset": {"limit": 5}}),
        ("likelihood", "Perplexity", {}),
    ):
        bench.task(kind, rows, **settings)
        seen[name] = bench.tasks().tasks[0].digest
    assert len(set(seen.values())) == len(seen)
    bench.task("Generation", rows, metrics=["BLEU"], dataset={"limit": 100})
    assert bench.tasks().tasks[0].digest == seen["as it is"]
    bench.document["tasks"][0]["name"] = "renamed"
    assert bench.tasks().tasks[0].digest == seen["as it is"]


def test_an_evaluation_that_has_its_outcome_is_done(bench: EvaluationBench, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = EvaluationOutcome(report_uri="s3://bucket/report.html", results_digest=digest_of(1), rows=8)
    first = bench.prepare()
    assert first.outcome is None
    known = {first.prepared.evaluation_digest: outcome}
    monkeypatch.setattr(prepare_module, "read_outcome", lambda _store, digest: known.get(digest))
    assert bench.prepare().outcome == outcome
    bench.document["seed"] = 18
    assert bench.prepare().outcome is None


def test_output_that_cannot_be_written_is_refused_first(remote: EvaluationBench, object_storage: ObjectStorage) -> None:
    remote.document["output"]["credentials"] = object_storage.credentials("reader").to_json()
    with pytest.raises(SettingsInvalid, match="Secret reader-keys") as caught:
        remote.prepare()
    assert caught.value.reason is Reason.ACCESS_DENIED
    admin = object_storage.credentials("admin").to_json()
    remote.document["output"] = {"uri": "s3://no-such-bucket/x", "credentials": admin}
    with pytest.raises(SettingsInvalid, match="no-such-bucket") as caught:
        remote.prepare()
    assert caught.value.reason is Reason.BUCKET_NOT_FOUND


def test_each_kind_of_storage_is_refused_by_its_own_name(
    remote: EvaluationBench, object_storage: ObjectStorage, tmp_path: Path
) -> None:
    wrong = write_keys(tmp_path / "keys", object_storage.endpoint, "writer-key", "not-the-secret")
    stranger = {"directory": str(wrong), "secretName": "stranger-keys"}
    remote.document["target"]["credentials"] = stranger
    with pytest.raises(SettingsInvalid, match=r"adapters/.* was denied .* check Secret stranger-keys") as caught:
        remote.prepare()
    assert caught.value.reason is Reason.ACCESS_DENIED

    del remote.document["target"]
    remote.task("Perplexity", facts(3))
    remote.document["datasetCredentials"] = {**stranger, "directory": str(tmp_path / "nothing")}
    with pytest.raises(SettingsInvalid, match="Secret stranger-keys lacks AWS_ACCESS_KEY_ID") as caught:
        remote.prepare()
    assert caught.value.reason is Reason.CREDENTIALS_MISSING


def test_preparing_imports_no_torch(bench: EvaluationBench, tmp_path: Path) -> None:
    bench.task("Classification", [chat(f"Is {each} red?", "yes") for each in "abcd"], labels=["yes", "no"])
    write_task(tmp_path / "harness", CHOICE)
    harness = {"dataset": {"uri": (tmp_path / "harness").as_uri()}, "harnessTask": "numbers", "groupBy": "a"}
    bench.document["tasks"].append({"name": "harness", "type": "Harness", **harness})
    (tmp_path / "config.json").write_text(json.dumps(bench.document))
    script = (
        "import sys, json, pathlib\n"
        "from trimtab_trainer.contract import EvaluationConfig\n"
        "from trimtab_trainer.evaluate.prepare import prepare_evaluation\n"
        "from trimtab_trainer.report import Report\n"
        f"config = EvaluationConfig.model_validate_json(pathlib.Path({str(tmp_path / 'config.json')!r}).read_text())\n"
        f"prepare_evaluation(config, pathlib.Path({str(tmp_path / 'scratch')!r}), Report(stream=sys.stderr))\n"
        "print([name for name in ('torch', 'peft', 'lm_eval', 'sklearn') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr[-2000:]


# -- pairs -------------------------------------------------------------------------------------------------------------


def loans(*pairs: Any) -> list[dict[str, Any]]:
    """Return rows of one question each, with these values in the column `pair`; None is none."""
    rows = [chat(f"Is customer number {n} of {n * 7919} granted?", "yes", pair=pair) for n, pair in enumerate(pairs)]
    return [{key: value for key, value in row.items() if value is not None} for row in rows]


def test_rows_of_a_pair_are_one_cluster_and_know_it(bench: EvaluationBench) -> None:
    bench.task("Classification", loans("a", 7, "a", None, 7, "c"), labels=["yes", "no"], pairs="pair")
    rows = bench.tasks().rows("task")
    assert [row.pair for row in rows] == ["a", "7", "a", None, "7", "c"]
    assert rows[0].cluster == rows[2].cluster
    assert rows[1].cluster == rows[4].cluster
    assert len({row.cluster for row in rows}) == 4


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (("a", "b", None), "no two of its 3 rows have the same value in the column pair of pairs"),
        ((["a"], ["a"]), "has a list in the column pair, where pairs needs a text"),
    ],
)
def test_a_column_of_no_pairs_is_refused(bench: EvaluationBench, pairs: tuple[Any, ...], words: str) -> None:
    bench.task("Classification", loans(*pairs), labels=["yes", "no"], pairs="pair")
    with pytest.raises(DataInvalid, match=words):
        bench.prepare()

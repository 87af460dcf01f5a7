"""The prepare stage as a whole, on folders and on S3: what it puts in place, what it does not make again, and what it
refuses before a GPU is asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.contract import (
    Artifact,
    Credentials,
    Curve,
    DatasetFormat,
    Prepared,
    Reason,
    RunConfig,
    Summary,
    canonical_json,
    digest_of,
    run_digest,
)
from trimtab_trainer.data import load_view
from trimtab_trainer.data import preparation as data_preparation
from trimtab_trainer.data.encoding.tokens import RowTokenizer
from trimtab_trainer.errors import DataInvalid, SettingsInvalid, TrainerError
from trimtab_trainer.prepare import Outcome, prepare
from trimtab_trainer.publishing.result import Result, read_result, write_result
from trimtab_trainer.report import Report
from trimtab_trainer.storage import MANIFEST, Store, open_store
from trimtab_trainer.storage.layout import adapter_prefix, checkpoints_prefix, result_path, rows_prefix, view_prefix

from tests.trainer.conftest import ObjectStorage
from tests.trainer.tiny import tiny_rows, write_rows


@dataclass
class Bench:
    """Everything a run needs, in one place that a test may change."""

    base: Path
    store: Store
    document: dict[str, Any]
    folder: Path
    runs: int = 0

    @property
    def config(self) -> RunConfig:
        return RunConfig.model_validate(self.document)

    @property
    def output(self) -> Store:
        return open_store(self.config.output.uri, self.config.output.credentials)

    def put(self, path: str, rows: list[dict[str, Any]]) -> None:
        self.store.upload(write_rows(self.folder / "rows.jsonl", rows), path)

    def prepare(self) -> Outcome:
        self.runs += 1
        return prepare(self.config, self.folder / f"scratch{self.runs}", Report())


def make_bench(store: Store, credentials: Credentials | None, tiny_model: Path, folder: Path) -> Bench:
    base = Path(shutil.copytree(tiny_model, folder / "base"))
    keys = credentials.to_json() if credentials else None
    root = store.uri.rstrip("/")
    document = {
        "baseModel": {"uri": base.as_uri()},
        "dataset": {
            "training": {"uri": f"{root}/data/"},
            "validation": {"fraction": 0.1},
            "test": {"fraction": 0.2},
            "credentials": keys,
        },
        "output": {"uri": f"{root}/out", "credentials": keys},
        "training": {"maxSequenceLength": 128, "batchSize": 4},
    }
    made = Bench(base, store, document, folder)
    made.put("data/a.jsonl", tiny_rows(50))
    return made


@pytest.fixture
def local(tiny_model: Path, tmp_path: Path) -> Bench:
    return make_bench(open_store((tmp_path / "store").as_uri(), None), None, tiny_model, tmp_path)


@pytest.fixture
def remote(object_storage: ObjectStorage, tiny_model: Path, tmp_path: Path) -> Bench:
    credentials = object_storage.credentials()
    return make_bench(open_store(object_storage.uri(), credentials), credentials, tiny_model, tmp_path)


@pytest.fixture(params=["local", "remote"])
def bench(request: pytest.FixtureRequest) -> Bench:
    made: Bench = request.getfixturevalue(request.param)
    return made


def forbid_tokenising(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RowTokenizer, "tokenise", lambda *_: pytest.fail("rows were tokenised"))


def test_prepare_puts_rows_and_view_in_place_and_says_what_they_are(bench: Bench) -> None:
    prepared = bench.prepare().prepared
    assert (prepared.rows, prepared.validation_rows, prepared.test_rows, prepared.dropped) == (31, 3, 16, 0)
    view = load_view(bench.output, prepared.view_digest, bench.folder)
    assert view.validation is not None
    assert view.test is not None
    assert [int(side.rows.sum()) for side in (view.train, view.validation, view.test)] == [31, 3, 16]
    assert len(view.train.tokens) == prepared.tokens
    assert int(view.train.supervised.sum()) == prepared.supervised_tokens
    assert prepared.total_steps == 3 * -(-len(view.train) // 4)
    assert view.test_rows is not None
    held_out = [json.loads(line) for line in view.test_rows.read_text().splitlines()]
    assert len(held_out) == 16
    assert all(row in tiny_rows(50) for row in held_out)
    clusters = (view.folder / "train-clusters.txt").read_text().split()
    assert len(clusters) == view.manifest["summary"]["trainClusters"]["count"] == 31
    audit = json.loads(bench.output.read(f"{rows_prefix(prepared.rows_digest)}/audit.json"))
    assert audit["training"]["rowsKept"] == 50


def test_what_is_there_is_not_made_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bench.prepare()
    before = {info.path: bench.output.read(info.path) for info in bench.output.list()}
    forbid_tokenising(monkeypatch)
    monkeypatch.setattr(data_preparation, "store_folder", lambda *_: pytest.fail("something was uploaded"))
    assert bench.prepare() == first
    assert {info.path: bench.output.read(info.path) for info in bench.output.list()} == before


OTHER_VIEWS: dict[str, dict[str, Any]] = {
    "another fold": {"validation": {"folds": 5, "fold": 2}},
    "another seed": {"splitSeed": 3},
    "no test": {"test": None},
}


@pytest.mark.parametrize("name", OTHER_VIEWS)
def test_another_view_of_the_same_rows_tokenises_nothing(
    local: Bench, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = local.prepare().prepared
    forbid_tokenising(monkeypatch)
    local.document["dataset"].update(OTHER_VIEWS[name])
    second = local.prepare().prepared
    assert second.rows_digest == first.rows_digest
    assert second.view_digest != first.view_digest
    assert second.run_digest != first.run_digest


SETS = (["v_proj", "q_proj"], ["q_proj", "v_proj"])


def test_the_order_of_names_makes_no_other_run(local: Bench) -> None:
    digests = set()
    for names in SETS:
        local.document["lora"] = {"targetModules": names}
        digests.add(local.prepare().prepared.run_digest)
    assert len(digests) == 1


def test_what_an_earlier_version_has_begun_is_found_by_the_order_that_it_was_written_in(bench: Bench) -> None:
    bench.document["lora"] = {"targetModules": SETS[0]}
    prepared = bench.prepare().prepared
    before = run_digest(bench.config, prepared.base_model_digest, prepared.view_digest, as_written=True)
    assert before != prepared.run_digest
    bench.output.put(f"{checkpoints_prefix(before)}/manifest.json", b"{}")
    assert bench.prepare().prepared == prepared.model_copy(update={"run_digest": before})
    bench.document["lora"] = {"targetModules": SETS[1]}
    assert bench.prepare().prepared == prepared
    bench.document["lora"] = {"targetModules": SETS[0]}
    bench.output.put(result_path(prepared.run_digest), b"{}")
    assert bench.prepare().prepared == prepared, "it was trained since, and what is left of the old one is waste"


def test_length_packing_and_loss_make_views_and_other_settings_do_not(
    local: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {local.prepare().prepared.view_digest}
    forbid_tokenising(monkeypatch)
    for changes in ({"maxSequenceLength": 96}, {"packing": False}, {"lossOn": "AllTokens"}):
        local.document["training"].update(changes)
        seen.add(local.prepare().prepared.view_digest)
    assert len(seen) == 4
    local.document["training"].update({"learningRate": 1e-3, "epochs": 1})
    assert local.prepare().prepared.view_digest in seen


def test_the_same_inputs_give_the_same_digests_and_bytes_elsewhere(local: Bench) -> None:
    first, there = local.prepare().prepared, local.output.uri.rstrip("/")
    local.document["output"]["uri"] = (local.folder / "elsewhere").as_uri()
    other = local.prepare().prepared
    assert first.report_uri is not None
    page = first.report_uri.replace(there, local.output.uri.rstrip("/"))
    assert other == first.model_copy(update={"report_uri": page})
    assert local.output.exists(page.removeprefix(local.output.uri.rstrip("/") + "/"))
    elsewhere = {info.path: local.output.read(info.path) for info in local.output.list()}
    local.document["output"]["uri"] = f"{local.store.uri.rstrip('/')}/out"
    assert {info.path: local.output.read(info.path) for info in local.output.list()} == elsewhere


def delete_manifest(store: Store, prefix: str) -> None:
    store.delete([f"{prefix}/{MANIFEST}"])


def break_manifest(store: Store, prefix: str) -> None:
    store.put(f"{prefix}/{MANIFEST}", b"{")


def delete_file(store: Store, prefix: str) -> None:
    store.delete([next(info.path for info in store.list(prefix) if info.path.endswith(".safetensors"))])


def truncate_file(store: Store, prefix: str) -> None:
    path = next(info.path for info in store.list(prefix) if info.path.endswith(".safetensors"))
    store.put(path, store.read(path)[:-1])


def flip_byte(store: Store, prefix: str) -> None:
    path = next(info.path for info in store.list(prefix) if info.path.endswith(".safetensors"))
    data = store.read(path)
    store.put(path, data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize("damage", [delete_manifest, break_manifest, delete_file, truncate_file, flip_byte])
def test_a_killed_or_damaged_preparation_is_made_again_the_same(
    local: Bench, damage: Callable[[Store, str], None]
) -> None:
    first = local.prepare()
    whole = {info.path: local.output.read(info.path) for info in local.output.list()}
    for prefix in (rows_prefix(first.prepared.rows_digest), view_prefix(first.prepared.view_digest)):
        damage(local.output, prefix)
    if damage is flip_byte:  # a view is verified by who loads it, so here only the rows' damage is to be noticed
        delete_manifest(local.output, view_prefix(first.prepared.view_digest))
    assert local.prepare() == first
    assert {info.path: local.output.read(info.path) for info in local.output.list()} == whole


def test_held_out_data_of_its_own_takes_its_answers_from_training(local: Bench) -> None:
    local.put("test/b.jsonl", [*tiny_rows(5), {"messages": [{"role": "user", "content": "q"},
                                                            {"role": "assistant", "content": "new"}]}])  # fmt: skip
    local.document["dataset"]["test"] = {"uri": f"{local.store.uri.rstrip('/')}/test/"}
    prepared = local.prepare().prepared
    assert (prepared.rows, prepared.validation_rows, prepared.test_rows, prepared.dropped) == (39, 6, 6, 5)


def test_held_out_data_has_the_format_of_the_training_data(local: Bench) -> None:
    local.put("test/b.jsonl", [{"text": "an answer"}])
    local.document["dataset"]["test"] = {"uri": f"{local.store.uri.rstrip('/')}/test/"}
    with pytest.raises(DataInvalid, match=r"b.jsonl line 1 lacks messages"):
        local.prepare()


def test_a_row_that_is_too_long_is_dropped_and_counted_never_cut(local: Bench) -> None:
    long = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "word " * 200}]}
    local.put("data/b.jsonl", [long])
    del local.document["dataset"]["validation"], local.document["dataset"]["test"]
    prepared = local.prepare().prepared
    assert (prepared.rows, prepared.dropped) == (50, 1)


def publish(bench: Bench, prepared: Prepared) -> Artifact:
    """Put an adapter in place as the train stage does."""
    entry = {"path": "adapter_model.safetensors", "size": 2, "sha256": digest_of(1).removeprefix("sha256:")}
    part = {"files": [entry], "data": prepared.view_digest}
    digest = digest_of(part)
    bench.output.put(f"{adapter_prefix(digest)}/adapter_model.safetensors", b"xx")
    actual = bench.output.digest(f"{adapter_prefix(digest)}/adapter_model.safetensors")
    part["files"] = [{**entry, "sha256": actual.sha256}]
    digest = digest_of(part)
    bench.output.put(f"{adapter_prefix(digest)}/adapter_model.safetensors", b"xx")
    bench.output.put(f"{adapter_prefix(digest)}/{MANIFEST}", canonical_json({"artifact": part, "records": {}}))
    return Artifact(
        uri=bench.output.address(adapter_prefix(digest)),
        digest=digest,
        rank=16,
        target_modules=["q_proj"],
        base_model_digest=prepared.base_model_digest,
    )


def test_a_run_that_was_trained_is_recognised_only_while_its_adapter_verifies(bench: Bench) -> None:
    outcome = bench.prepare()
    assert outcome.artifact is None
    summary = Summary(step=4, total_steps=4, loss=1.5, test_loss=1.25, curve=Curve(steps=(2, 4), loss=(2.0, 1.5)))
    result = Result.of(publish(bench, outcome.prepared), summary)
    artifact = result.artifact
    assert write_result(bench.output, outcome.prepared.run_digest, result) == result
    assert bench.prepare() == Outcome(outcome.prepared, artifact, summary), "with its curves, for whoever draws it"

    other = result.model_copy(update={"digest": "sha256:" + "1" * 64})
    assert write_result(bench.output, outcome.prepared.run_digest, other) == result, "the first one stands"

    bench.output.put(f"{adapter_prefix(artifact.digest)}/adapter_model.safetensors", b"xy")
    assert bench.prepare().artifact is None
    assert write_result(bench.output, outcome.prepared.run_digest, other) == other, "a damaged one does not"
    bench.output.put(result_path(outcome.prepared.run_digest), b"{")
    assert read_result(bench.output, outcome.prepared.run_digest) is None


def no_rows_fit(bench: Bench) -> None:
    bench.document["training"]["maxSequenceLength"] = 16


def wrong_format(bench: Bench) -> None:
    bench.document["dataset"]["format"] = DatasetFormat.TEXT.value


def nothing_is_learned(bench: Bench) -> None:
    template = "{% for m in messages %}{{ m['content'] if m['role'] == 'user' or m['content'] == 'Answer' else '' }}"
    settings = json.loads((bench.base / "tokenizer_config.json").read_text())
    settings["chat_template"] = template + "{% endfor %}"
    (bench.base / "tokenizer_config.json").write_text(json.dumps(settings))


def set_in(bench: Bench, section: str, **values: Any) -> None:
    bench.document[section].update(values)


def replace_data(bench: Bench, data: bytes | None) -> None:
    bench.store.delete(["data/a.jsonl"])
    if data is not None:
        bench.store.put("data/a.jsonl", data)


REFUSED: dict[str, tuple[Callable[[Bench], Any], type[TrainerError], Reason, str]] = {
    "no data": (lambda b: replace_data(b, None), DataInvalid, Reason.DATASET_NOT_FOUND, "nothing at"),
    "empty data": (lambda b: replace_data(b, b""), DataInvalid, Reason.DATASET_EMPTY, "empty"),
    "a malformed line": (
        lambda b: replace_data(b, b'{"text": "a"}\n{"text":\n'),
        DataInvalid,
        Reason.DATASET_MALFORMED,
        "a.jsonl line 2",
    ),
    "an unknown format": (lambda b: replace_data(b, b'{"x": 1}'), DataInvalid, Reason.FORMAT_UNKNOWN, "line 1"),
    "rows without an answer": (
        lambda b: replace_data(b, b'{"messages": [{"role": "user", "content": "x"}]}'),
        DataInvalid,
        Reason.NO_ASSISTANT_TURN,
        "1 of 1 rows",
    ),
    "a format that is not the data's": (wrong_format, DataInvalid, Reason.DATASET_MALFORMED, "lacks text"),
    "no row fits": (no_rows_fit, DataInvalid, Reason.DATASET_EMPTY, "the median 4[0-9], the longest 4[0-9]"),
    "a template that drops the answers": (
        nothing_is_learned,
        DataInvalid,
        Reason.FORMAT_UNKNOWN,
        "as 49 more rows",
    ),
    "more folds than answers": (
        lambda b: set_in(b, "dataset", validation={"folds": 60, "fold": 0}),
        DataInvalid,
        Reason.SPLIT_IMPOSSIBLE,
        "60 folds",
    ),
    "a sequence longer than the model's": (
        lambda b: set_in(b, "training", maxSequenceLength=4096),
        SettingsInvalid,
        Reason.SEQUENCE_TOO_LONG,
        "at most 512",
    ),
    "target modules of another model": (
        lambda b: b.document.update(lora={"targetModules": ["c_attn"]}),
        SettingsInvalid,
        Reason.TARGET_MODULES_NOT_FOUND,
        "c_attn",
    ),
    "no base model": (
        lambda b: set_in(b, "baseModel", uri="file:///nowhere/base"),
        SettingsInvalid,
        Reason.BASE_MODEL_NOT_FOUND,
        "/nowhere/base",
    ),
    "another base model": (
        lambda b: set_in(b, "baseModel", digest="sha256:" + "0" * 64),
        SettingsInvalid,
        Reason.BASE_MODEL_CHANGED,
        "restore it",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_by_name_and_leaves_nothing_behind(local: Bench, name: str) -> None:
    change, kind, reason, words = REFUSED[name]
    change(local)
    with pytest.raises(kind, match=words) as caught:
        local.prepare()
    assert caught.value.reason is reason
    assert not [info.path for info in local.output.list() if info.path.endswith(MANIFEST) and "views" in info.path]
    assert not local.output.exists("data/.writable")


def test_output_that_cannot_be_written_is_refused_first(remote: Bench, object_storage: ObjectStorage) -> None:
    set_in(remote, "output", credentials=object_storage.credentials("reader").to_json())
    with pytest.raises(SettingsInvalid, match="Secret reader-keys") as caught:
        remote.prepare()
    assert caught.value.reason is Reason.ACCESS_DENIED
    set_in(remote, "output", uri="s3://no-such-bucket/x", credentials=object_storage.credentials("admin").to_json())
    with pytest.raises(SettingsInvalid, match="no-such-bucket") as caught:
        remote.prepare()
    assert caught.value.reason is Reason.BUCKET_NOT_FOUND

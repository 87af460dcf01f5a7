"""`check`: all that a run would refuse, told at once and in its words, and nothing is left behind."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.numpy import load_file, save_file
from trimtab_trainer.__main__ import main
from trimtab_trainer.command.check import Verdict, check
from trimtab_trainer.contract import ExitCode, Reason, RunConfig
from trimtab_trainer.data import sample
from trimtab_trainer.data.sample import copy_first
from trimtab_trainer.prepare import prepare
from trimtab_trainer.report import Report
from trimtab_trainer.storage import MANIFEST

from tests.trainer.conftest import ObjectStorage
from tests.trainer.tiny import make_tiny_model, tiny_rows, write_rows

Document = dict[str, Any]


@pytest.fixture
def document(tmp_path: Path) -> Document:
    make_tiny_model(tmp_path / "base")
    write_rows(tmp_path / "data/a.jsonl", tiny_rows(40))
    return {
        "baseModel": {"uri": (tmp_path / "base").as_uri()},
        "dataset": {"training": {"uri": (tmp_path / "data/").as_uri() + "/"}, "validation": {"fraction": 0.1}},
        "output": {"uri": (tmp_path / "out").as_uri()},
        "training": {"maxSequenceLength": 128, "batchSize": 4, "epochs": 2},
    }


def command(folder: Path, document: Document, *more: str) -> list[str]:
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(document))
    return ["check", "--config", str(file), *more]


def found(tmp_path: Path, document: Document, **more: Any) -> list[tuple[str, str, str]]:
    config = RunConfig.model_validate(document)
    return [(f.verdict.value, f.part, f.said) for f in check(config, tmp_path / "scratch", **more).all]


def test_of_a_good_run_it_says_what_prepare_finds_and_leaves_nothing(
    document: Document, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path, document)) == ExitCode.DONE
    out = capsys.readouterr().out
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []
    assert out.splitlines()[-1] == "nothing here would refuse a run"
    prepared = prepare(RunConfig.model_validate(document), tmp_path / "scratch", Report()).prepared
    assert f"{prepared.rows} rows with {prepared.tokens:,} tokens to train on, {prepared.validation_rows} to" in out
    assert f"; {prepared.total_steps} steps" in out
    assert "not seen" not in out


def test_all_that_is_wrong_is_told_at_once(
    document: Document, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document["dataset"]["training"]["uri"] = (tmp_path / "nothing").as_uri()
    document["lora"] = {"targetModules": ["query"]}
    document["output"]["uri"] = (tmp_path / "base/config.json").as_uri()
    assert main(command(tmp_path, document)) == ExitCode.STORAGE_FAILED, "the first of them, as a run would end"
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [
        ["refused", "output"],
        ["refused", "dataset"],
        ["refused", "baseModel"],
    ]
    assert "DatasetNotFound: there is nothing at" in lines[1]
    assert (
        "TargetModulesNotFound: lora.targetModules: the base model has no linear layer named query; it has" in lines[2]
    )
    assert lines[-1] == "a run would be refused: 3 to correct"


def spoiled_row(folder: Path) -> None:
    with (folder / "data/a.jsonl").open("a") as file:
        file.write('{"messages": [{"role": "user", "content": "and?"}], "x": \n')


def of_another_template(folder: Path) -> None:
    file = folder / "base/tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": "{% for %}"}))


def cut_off(folder: Path) -> None:
    file = folder / "base/model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


REFUSALS: dict[str, tuple[Callable[[Path], None], Reason, str]] = {
    "a row that is no JSON": (spoiled_row, Reason.DATASET_MALFORMED, "a.jsonl line 41"),
    "a template that does not compile": (of_another_template, Reason.CHAT_TEMPLATE_INVALID, "does not compile"),
    "weights that are cut off": (cut_off, Reason.BASE_MODEL_INVALID, "but its header says"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_it_refuses_what_a_run_refuses_in_the_same_words(document: Document, tmp_path: Path, case: str) -> None:
    spoil, reason, words = REFUSALS[case]
    spoil(tmp_path)
    config = RunConfig.model_validate(document)
    refusals = check(config, tmp_path / "scratch").refusals
    with pytest.raises(type(refusals[0])) as caught:
        prepare(config, tmp_path / "scratch-of-the-run", Report())
    assert [(each.reason, each.message) for each in refusals] == [(reason, caught.value.message)]
    assert words in caught.value.message


def test_rows_behind_the_first_are_not_seen_and_that_is_said(document: Document, tmp_path: Path) -> None:
    spoiled_row(tmp_path)
    said = found(tmp_path, document, rows=20)
    assert ("not seen", "rows", "training: rows after the first 20; --rows looks at more") in said
    assert all(verdict != "refused" for verdict, _, _ in said)


def test_a_refusal_that_may_be_that_of_few_rows_is_a_warning(document: Document, tmp_path: Path) -> None:
    said = found(tmp_path, document, rows=1)
    assert [(verdict, part) for verdict, part, _ in said[-2:]] == [("warning", "rows"), ("not seen", "rows")]
    assert said[-2][2].startswith("of the rows that were looked at: SplitImpossible")


def test_so_is_that_more_is_dropped_than_is_allowed(document: Document, tmp_path: Path) -> None:
    """The first rows of a file may be its worst."""
    document["dataset"]["cleaning"] = {"maximumDropped": 0.1}
    document["dataset"].pop("validation", None)
    file = write_rows(tmp_path / "copies/a.jsonl", [*tiny_rows(1) * 20, *tiny_rows(380)])
    document["dataset"]["training"]["uri"] = file.as_uri()
    said = found(tmp_path, document, rows=30)
    assert [(verdict, part) for verdict, part, _ in said[-2:]] == [("warning", "rows"), ("not seen", "rows")]
    assert "dataset.cleaning.maximumDropped = 0.1" in said[-2][2]
    assert check(RunConfig.model_validate(document), tmp_path / "more", rows=1_000).refusals == []
    refusals = check(RunConfig.model_validate(document), tmp_path / "again", rows=1).refusals
    assert refusals == []


def test_a_pinned_digest_is_compared_where_it_costs_nothing(document: Document, tmp_path: Path) -> None:
    document["baseModel"]["digest"] = "sha256:" + "1" * 64
    said = found(tmp_path, document)
    assert ("not seen", "baseModel.digest") in [(verdict, part) for verdict, part, _ in said]
    files = [
        {"path": file.name, "size": file.stat().st_size, "sha256": "0" * 64} for file in (tmp_path / "base").iterdir()
    ]
    (tmp_path / "base" / MANIFEST).write_text(json.dumps({"files": files}))
    (refusal,) = check(RunConfig.model_validate(document), tmp_path / "again").refusals
    assert refusal.reason is Reason.BASE_MODEL_CHANGED


def test_what_else_a_run_reads_is_looked_at_too(document: Document, tmp_path: Path) -> None:
    """Data that Evaluations will ask, and the adapter to go on from."""
    document["dataset"]["cleaning"] = {"evaluationData": [(tmp_path / "nothing.jsonl").as_uri()]}
    document["lora"] = {"initialAdapter": {"uri": (tmp_path / "adapter").as_uri(), "digest": "sha256:" + "1" * 64}}
    refused = [each for each in check(RunConfig.model_validate(document), tmp_path / "s").all if each.refusal]
    assert [(each.part, each.refusal.reason) for each in refused if each.refusal] == [
        ("dataset", Reason.DATASET_NOT_FOUND),
        ("lora.initialAdapter", Reason.ARTIFACT_NOT_FOUND),
    ]
    del document["lora"]
    write_rows(tmp_path / "nothing.jsonl", tiny_rows(40)[:10])
    said = found(tmp_path, document)[-1][2]
    prepared = prepare(RunConfig.model_validate(document), tmp_path / "scratch-of-the-run", Report()).prepared
    assert (prepared.dropped, prepared.rows + prepared.validation_rows) == (10, 30)
    assert said.startswith(f"{prepared.rows} rows with {prepared.tokens:,} tokens")
    assert ", 10 dropped" in said


def test_control_tokens_that_were_never_trained_are_told(document: Document, tmp_path: Path) -> None:
    weights = load_file(tmp_path / "base/model.safetensors")
    weights["model.embed_tokens.weight"][1:3] = 0
    save_file(weights, tmp_path / "base/model.safetensors", metadata={"format": "pt"})
    (warning,) = prepare(RunConfig.model_validate(document), tmp_path / "scratch-of-the-run", Report()).warnings
    assert ("warning", "baseModel", warning) in found(tmp_path, document)


def test_what_is_on_a_hub_is_looked_at_in_its_mirror(
    document: Document, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri, digest = "hf://org/name@main", "sha256:" + "1" * 64
    document["baseModel"] = {"uri": uri}
    assert main(command(tmp_path, document)) == ExitCode.DONE
    assert "not seen  baseModel  it is on a hub, which only `mirror` asks" in capsys.readouterr().out
    estimating = ["estimate", *command(tmp_path, document)[1:]]
    assert main(estimating) == ExitCode.SETTINGS_INVALID
    assert f"{uri} is on a hub, which this stage does not ask" in capsys.readouterr().err
    mirror = tmp_path / "out/models" / digest.removeprefix("sha256:")
    mirror.parent.mkdir(parents=True)
    (tmp_path / "base").rename(mirror)
    mirrored = json.dumps({"sources": [{"uri": uri, "commit": "0" * 40, "digest": digest}]})
    assert main(command(tmp_path, document, "--mirrored", mirrored)) == ExitCode.DONE
    assert "fine      baseModel" in capsys.readouterr().out
    assert main([*estimating, "--mirrored", mirrored]) == ExitCode.DONE


def test_of_long_files_the_beginning_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "PART_BYTES", 4_000)
    monkeypatch.setattr(sample, "WHOLE_BYTES", 6_000)
    rows = tiny_rows(400)
    write_rows(tmp_path / "data/a.jsonl", rows)
    (tmp_path / "data/0.jsonl.gz").write_bytes(gzip.compress(json.dumps(rows[0]).encode()))
    (tmp_path / "data/1.jsonl.gz").write_bytes(bytes(7_000))
    write_rows(tmp_path / "data/b.jsonl", rows)
    first = copy_first((tmp_path / "data").as_uri() + "/", None, tmp_path / "copy", 10_000)
    assert first.left_out == ("1.jsonl.gz", "a.jsonl after 0 MiB", "b.jsonl")
    records = [record.value for record in first.records()]
    assert records == [rows[0], *rows[: len(records) - 1]]
    assert 10 < len(records) < 400
    assert not first.whole


def test_keys_that_may_not_write_are_told(document: Document, tmp_path: Path, object_storage: ObjectStorage) -> None:
    keys = object_storage.credentials("reader")
    document["output"] = {"uri": object_storage.uri("out"), "credentials": {"directory": keys.directory}}
    refused = [each for each in check(RunConfig.model_validate(document), tmp_path / "s").all if each.refusal]
    assert [(each.part, each.refusal.reason) for each in refused if each.refusal] == [("output", Reason.ACCESS_DENIED)]


def test_a_configuration_that_cannot_be_read_is_one_line(
    document: Document, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document["training"]["learningrate"] = 1
    assert main(command(tmp_path, document)) == ExitCode.SETTINGS_INVALID
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("SettingsInvalid: ")
    assert "training.learningrate: Extra inputs are not permitted" in captured.err


def test_it_needs_no_torch(document: Document, tmp_path: Path) -> None:
    code = (
        "import sys; from trimtab_trainer.__main__ import main; "
        f"code = main({command(tmp_path, document)!r}); assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert Verdict.FINE.value in done.stdout

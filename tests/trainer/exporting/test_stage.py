"""The stage: what is refused before anything is computed, what is found again, and what a pod and a person are told."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from trimtab_trainer.__main__ import main
from trimtab_trainer.contract import ExitCode, ExportConfig, Reason, TerminationMessage, digest_of
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.exporting.adaptation import Adaptation, NotMergeable
from trimtab_trainer.exporting.request import check_request
from trimtab_trainer.storage import open_store, upload_folder

from tests.trainer.conftest import ObjectStorage
from tests.trainer.tiny import make_tiny_model

from .models import Trained


def republished(made: Trained, to: Path, change: Any) -> dict[str, Any]:
    """Copy the adapter with something else in it, and a manifest of that; return the section that names it."""
    folder = Path(shutil.copytree(made.adapter, to))
    change(folder)
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    for part in manifest.values():
        for entry in part["files"]:
            data = (folder / entry["path"]).read_bytes()
            entry["size"], entry["sha256"] = len(data), hashlib.sha256(data).hexdigest()
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    return {"uri": folder.as_uri()}


def with_settings(**settings: Any) -> Any:
    def change(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | settings))

    return change


def refused(made: Trained, tmp_path: Path, **changes: Any) -> SettingsInvalid:
    """Return the refusal; nothing was made."""
    with pytest.raises(SettingsInvalid) as caught:
        made.export(tmp_path / "scratch", destination={"uri": f"file://{tmp_path}/out"}, **changes)
    assert not list((tmp_path / "out").rglob("*"))
    return caught.value


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("target_parameters", ["mlp.experts.gate_up_proj"], "joined tensors of experts"),
        ("modules_to_save", ["lm_head"], "whole layers"),
        ("rank_pattern", {"q_proj": 2}, "different ranks"),
        ("alora_invocation_tokens", [5, 6], "behind certain tokens"),
        ("init_lora_weights", "pissa", "a base model that was changed for it"),
        ("lora_alpha", "high", "which is no size"),
    ],
)
def test_what_is_no_change_of_single_matrices_is_refused_by_name(
    usual: Trained, tmp_path: Path, setting: str, value: Any, words: str
) -> None:
    adapter = republished(usual, tmp_path / "adapter", with_settings(**{setting: value}))
    error = refused(usual, tmp_path, adapter=adapter)
    assert error.reason is Reason.ARTIFACT_INVALID
    assert words in error.message
    assert setting in error.message


def test_a_layer_that_the_base_does_not_have_is_refused_before_the_base_is_fetched(
    usual: Trained, tmp_path: Path
) -> None:
    def renamed(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        weights = {name.replace(".q_proj.", ".other_proj."): each for name, each in load_file(file).items()}
        save_file(weights, file)

    error = refused(usual, tmp_path, adapter=republished(usual, tmp_path / "adapter", renamed))
    assert error.reason is Reason.ARTIFACT_INVALID
    assert "model.layers.0.self_attn.other_proj is not one tensor of the base model's files" in error.message
    assert not (tmp_path / "scratch/base-model").exists()


def test_a_layer_of_another_shape_is_refused(usual: Trained, tmp_path: Path) -> None:
    def wider(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        weights = load_file(file)
        name = next(name for name in weights if name.endswith("q_proj.lora_A.weight"))
        weights[name] = np.zeros((4, 64), np.float32)
        save_file(weights, file)

    error = refused(usual, tmp_path, adapter=republished(usual, tmp_path / "adapter", wider))
    assert "is 128 by 64, the base model's (128, 128)" in error.message


@pytest.mark.parametrize("value", [np.float32("nan"), np.float32("inf"), np.int32(1)])
def test_weights_that_are_no_finite_numbers_are_refused(usual: Trained, tmp_path: Path, value: Any) -> None:
    def damaged(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        weights = load_file(file)
        name = next(name for name in weights if name.endswith("q_proj.lora_A.weight"))
        weights[name] = np.full_like(weights[name], value, dtype=value.dtype)
        save_file(weights, file)

    error = refused(usual, tmp_path, adapter=republished(usual, tmp_path / "adapter", damaged))
    assert error.reason is Reason.ARTIFACT_INVALID
    assert "q_proj.lora_A.weight holds what is no finite number" in error.message


def test_another_base_model_is_refused(usual: Trained, tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "other", seed=9)
    error = refused(usual, tmp_path, baseModel={"uri": other.as_uri()})
    assert error.reason is Reason.BASE_MODEL_MISMATCH


def test_an_adapter_that_is_not_there_is_refused(usual: Trained, tmp_path: Path) -> None:
    error = refused(usual, tmp_path, adapter={"uri": f"file://{tmp_path}/adapters/none"})
    assert error.reason is Reason.ARTIFACT_NOT_FOUND


def test_an_adapter_that_was_imported_has_to_be_told_of(usual: Trained, tmp_path: Path) -> None:
    """Nobody knows over what it was trained, and on the wrong base it would be another model."""

    def without_records(folder: Path) -> None:
        manifest = json.loads((folder / "MANIFEST.json").read_text())
        (folder / "MANIFEST.json").write_text(json.dumps({"artifact": manifest["artifact"]}))

    adapter = republished(usual, tmp_path / "adapter", without_records)
    error = refused(usual, tmp_path, adapter=adapter)
    assert error.reason is Reason.SETTINGS_INVALID
    assert "type None for plain LoRA, NF4 for QLoRA" in error.message
    config = ExportConfig.model_validate(usual.document(adapter=adapter, quantization={"type": "None"}))
    request = check_request(config)
    assert (request.quantization.type.value, request.compute_type) == ("None", "bfloat16")


def test_records_that_make_no_sense_are_refused(usual: Trained, tmp_path: Path) -> None:
    def change(folder: Path) -> None:
        file = folder / "metrics.json"
        record = json.loads(file.read_text())
        record["settings"]["quantization"] = {"type": "Other"}
        file.write_text(json.dumps(record))

    error = refused(usual, tmp_path, adapter=republished(usual, tmp_path / "adapter", change))
    assert "does not say how it was quantized" in error.message


def test_weights_and_settings_that_do_not_agree_are_refused() -> None:
    weights = {"base_model.model.q.lora_A.weight": None, "base_model.model.q.lora_B.weight": None, "more": None}
    with pytest.raises(NotMergeable, match="do not agree at more"):
        Adaptation({"r": 4, "lora_alpha": 8}, weights)  # type: ignore[arg-type]
    with pytest.raises(NotMergeable, match="its r is None"):
        Adaptation({"lora_alpha": 8}, weights)  # type: ignore[arg-type]


def test_what_was_made_is_found_again_and_what_is_damaged_is_made_again(usual: Trained, tmp_path: Path) -> None:
    destination = {"uri": f"file://{tmp_path}/out"}
    made, folder = usual.export(tmp_path / "scratch", destination=destination)
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    assert digest_of(manifest["artifact"]) == made.digest
    assert manifest["artifact"]["adapter"] == usual.artifact.digest == made.adapter_digest
    assert manifest["lineage"]["baseModel"] == f"file://{usual.root}/base"
    assert usual.artifact.digest in (folder / "README.md").read_text()
    again, _ = usual.export(tmp_path / "never", destination=destination)
    assert again == made
    assert not (tmp_path / "never").exists()  # nothing was fetched
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    repaired, _ = usual.export(tmp_path / "scratch", destination=destination)
    assert repaired == made
    assert bytes(data) != (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("form", ["Merged", "GGUF"])
def test_two_exports_of_the_same_at_once_store_the_same_bytes(usual: Trained, tmp_path: Path, form: str) -> None:
    """They write over each other's files before either has its manifest in place."""
    shutil.copytree(usual.root / "base", tmp_path / "copy")
    documents = (
        {"run": {"name": "one"}},
        {"run": {"name": "other"}, "baseModel": {"uri": f"file://{tmp_path}/copy"}},
    )
    contents = []
    for number, changes in enumerate(documents):
        destination = {"uri": f"file://{tmp_path}/out{number}"}
        made, folder = usual.export(tmp_path / f"scratch{number}", format=form, destination=destination, **changes)
        files = {each.name: each.read_bytes() for each in folder.iterdir() if each.name != "MANIFEST.json"}
        contents.append((made.digest, folder.name, files))
    assert contents[0] == contents[1]


def test_other_questions_have_other_addresses(usual: Trained) -> None:
    digests = {
        check_request(ExportConfig.model_validate(usual.document(**changes))).digest
        for changes in ({}, {"weightType": "BFloat16"}, {"run": {"name": "other"}})
    }
    assert len(digests) == 2


def test_a_pod_is_told_by_its_last_words_where_the_model_lies(
    usual: Trained, object_storage: ObjectStorage, tmp_path: Path
) -> None:
    keys = object_storage.credentials()
    uri, words = object_storage.uri("models"), tmp_path / "last"
    places = {"base": object_storage.uri("base"), "adapter": object_storage.uri("adapters/x")}
    upload_folder(open_store(places["base"], keys), usual.root / "base", "")
    upload_folder(open_store(places["adapter"], keys), usual.adapter, "")
    with_keys = {name: {"uri": place, "credentials": keys.to_json()} for name, place in places.items()}
    document = usual.document(
        baseModel=with_keys["base"],
        adapter=with_keys["adapter"],
        destination={"uri": uri, "credentials": keys.to_json()},
        weightType="BFloat16",
    )
    (tmp_path / "export.json").write_text(json.dumps(document))
    told = ["--config", str(tmp_path / "export.json"), "--attempt", "3", "--termination-log", str(words)]
    assert main(["export", *told]) == ExitCode.DONE, words.read_text()
    last = TerminationMessage.decode(words.read_text())
    assert last is not None
    assert last.exported is not None
    assert (last.stage.value, last.attempt, last.reason) == ("export", 3, Reason.COMPLETED)
    assert last.exported.uri.startswith(f"{uri}/exports/")
    store = open_store(last.exported.uri, keys)
    assert last.exported.files == len(store.list()) - 1
    assert b"admin-secret" not in words.read_bytes()


def test_a_person_merges_with_one_command(usual: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["--base-model", f"file://{usual.root}/base", "--adapter", usual.adapter.as_uri()]
    assert main(["merge", *told, "--to", f"file://{tmp_path}/out", "--weights", "Float32", "--json"]) == ExitCode.DONE
    made = json.loads(capsys.readouterr().out)
    assert (Path(made["uri"].removeprefix("file://")) / "model.safetensors").exists()
    told[3] = f"file://{tmp_path}/nothing"
    assert main(["merge", *told, "--to", f"file://{tmp_path}/out"]) == ExitCode.SETTINGS_INVALID


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--base-model", "models/base"),
        ("--base-model", "hf://org/model@main"),
        ("--adapter", "adapters/x"),
        ("--to", "/tmp/out"),
        ("--to", "oci://registry.example/Upper"),
    ],
)
def test_a_person_is_told_which_option_is_none(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"--base-model": f"file://{tmp_path}/a", "--adapter": f"file://{tmp_path}/b", "--to": f"file://{tmp_path}/c"}
    told[option] = value
    assert main(["merge", *(word for pair in told.items() for word in pair)]) == ExitCode.SETTINGS_INVALID
    said = capsys.readouterr()
    assert option in said.out + said.err
    assert "Traceback" not in said.out + said.err


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"version": "trimtab.dev/export/v9"}, "is of version 'trimtab.dev/export/v9'"),
        ({"format": "Floppy"}, "format"),
        ("[", "neither YAML nor JSON"),
    ],
)
def test_a_configuration_that_is_none_is_refused_by_name(
    usual: Trained, tmp_path: Path, document: Any, words: str
) -> None:
    file, last = tmp_path / "export.json", tmp_path / "last"
    file.write_text(document if isinstance(document, str) else json.dumps(usual.document(**document)))
    assert main(["export", "--config", str(file), "--termination-log", str(last)]) == ExitCode.SETTINGS_INVALID
    assert words in json.loads(last.read_text())["message"]

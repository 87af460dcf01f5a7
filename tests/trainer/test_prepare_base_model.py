"""The base model: what is refused before every byte is read, its digest, and the verified copy."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from trimtab_trainer.base.agreement import check_vocabulary, check_weights
from trimtab_trainer.base.architecture import check_architecture, check_length, read_shapes, target_modules
from trimtab_trainer.base.base_model import (
    check_pin,
    digest_of_entries,
    entries_of,
    fetch_base_model,
    find_base_model,
)
from trimtab_trainer.contract import LoraSettings, Reason, StoredBaseModel
from trimtab_trainer.data.encoding.tokens import RowTokenizer
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.storage import FileEntry, Store, commit, open_store

from tests.trainer.conftest import ObjectStorage
from tests.trainer.tiny import POSITIONS, make_tiny_model


@pytest.fixture
def base(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may break."""
    return Path(shutil.copytree(tiny_model, tmp_path / "base"))


def settings_of(folder: Path, digest: str | None = None) -> StoredBaseModel:
    return StoredBaseModel(uri=folder.as_uri(), digest=digest)


def digest_at(settings: StoredBaseModel) -> str:
    return digest_of_entries(entries_of(find_base_model(settings)))


def check(folder: Path) -> None:
    model = find_base_model(settings_of(folder))
    check_architecture(model)
    check_weights(model, read_shapes(model))


def edit(folder: Path, name: str, **changes: Any) -> None:
    value = json.loads((folder / name).read_text())
    value.update(changes)
    (folder / name).write_text(json.dumps({key: item for key, item in value.items() if item is not None}))


def shard(folder: Path) -> None:
    """Divide the weights into two files with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[:8], names[8:]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def remove_weights(folder: Path, *others: str, index: str | None = None) -> None:
    (folder / "model.safetensors").unlink()
    if index is not None:
        (folder / "model.safetensors.index.json").write_text(index)
    for name in others:
        (folder / name).write_bytes(b"x")


def break_header(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:9] + b"\xff" + data[10:])


def second_shard(folder: Path, change: Callable[[Path], None]) -> None:
    shard(folder)
    change(folder / "model-00002-of-00002.safetensors")


def requantize(folder: Path, name: str, kind: str) -> None:
    """Write weights as quantizers leave them, with nothing of it in config.json."""
    weights = load_file(folder / "model.safetensors")
    first = next(each for each in sorted(weights) if each.endswith("q_proj.weight"))
    weights[first.removesuffix("weight") + name] = weights.pop(first).astype(kind)
    save_file(weights, folder / "model.safetensors")


def rename_all(folder: Path, prefix: str) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({prefix + name: each for name, each in weights.items()}, folder / "model.safetensors")


def only(folder: Path, *names: str) -> None:
    empty(folder)
    for name in names:
        (folder / name).write_bytes(b"{}")


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


NOT_FOUND, INVALID = Reason.BASE_MODEL_NOT_FOUND, Reason.BASE_MODEL_INVALID
BROKEN: dict[str, tuple[Callable[[Path], Any], Reason, str]] = {
    "nothing there": (empty, NOT_FOUND, "no base model at"),
    "no config": (lambda f: (f / "config.json").unlink(), INVALID, "config.json is missing"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), INVALID, "tokenizer.json is missing"),
    "config cut off": (lambda f: (f / "config.json").write_text("{"), INVALID, "config.json cannot be read"),
    "config that is a list": (lambda f: (f / "config.json").write_text("[]"), INVALID, "no JSON object"),
    "no weights": (remove_weights, INVALID, "neither model.safetensors nor"),
    "pickled weights": (lambda f: remove_weights(f, "pytorch_model.bin"), INVALID, "pytorch_model.bin is a pickle"),
    "an encoder": (
        lambda f: edit(f, "config.json", architectures=["BertForMaskedLM"]),
        INVALID,
        "none of them a causal language model",
    ),
    "a decoder made an encoder": (
        lambda f: edit(f, "config.json", is_causal=False),
        INVALID,
        "of is_causal false in its config.json it attends in both directions",
    ),
    "a decoder of an embedding model": (
        lambda f: edit(f, "config.json", use_bidirectional_attention=True),
        INVALID,
        "of use_bidirectional_attention true in its config.json",
    ),
    "no architecture": (lambda f: edit(f, "config.json", architectures=None), INVALID, "architectures are"),
    "code of its own": (
        lambda f: edit(f, "config.json", model_type="mine", auto_map={"AutoConfig": "evil.Config"}),
        INVALID,
        "its own code .* is never run",
    ),
    "quantized already": (
        lambda f: edit(f, "config.json", quantization_config={"quant_method": "gptq"}),
        INVALID,
        "quantized already .gptq",
    ),
    "an adapter": (
        lambda f: only(f, "adapter_config.json", "adapter_model.safetensors", "tokenizer.json"),
        INVALID,
        "is an adapter .*; give the model that it was made for",
    ),
    "a file of llama.cpp": (lambda f: only(f, "a-Q4_K_M.gguf"), INVALID, "a-Q4_K_M.gguf is GGUF; make a folder of it"),
    "another tokenizer's file": (
        lambda f: (f / "tokenizer.json").rename(f / "tokenizer.model"),
        INVALID,
        "tokenizer.json is missing .* or convert tokenizer.model",
    ),
    "quantized, which only its weights tell": (lambda f: requantize(f, "qweight", "int32"), INVALID, "qweight .* I32"),
    "weights of eight bits": (lambda f: requantize(f, "weight", "int8"), INVALID, "quantized already .* is I8"),
    "code of another class for a kind that is known": (
        lambda f: edit(f, "config.json", auto_map={"AutoModelForCausalLM": "modeling.MineForCausalLM"}),
        INVALID,
        "its own code .MineForCausalLM in auto_map., which is never run",
    ),
    "weights with an adapter around them": (
        lambda f: rename_all(f, "base_model.model."),
        INVALID,
        "begin with 'base_model.model.', so they were saved with something around",
    ),
    "fewer layers than it says": (
        lambda f: edit(f, "config.json", num_hidden_layers=9),
        INVALID,
        "its weights have 2 layers, but num_hidden_layers is 9",
    ),
    "truncated weights": (
        lambda f: cut(f / "model.safetensors"),
        INVALID,
        "model.safetensors has .* bytes, but its header says",
    ),
    "weights of a few bytes": (
        lambda f: (f / "model.safetensors").write_bytes(b"1234"),
        INVALID,
        "no safetensors file",
    ),
    "weights cut off in the header": (
        lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 10**6) + b"{"),
        INVALID,
        "cut off in its header",
    ),
    "a damaged header": (break_header, INVALID, "damaged header"),
    "a truncated second shard": (
        lambda f: second_shard(f, cut),
        INVALID,
        "model-00002-of-00002.safetensors has .* bytes, but",
    ),
    "a missing second shard": (
        lambda f: second_shard(f, lambda file: file.unlink()),
        INVALID,
        "model-00002-of-00002.safetensors is missing",
    ),
    "an index that leaves the folder": (
        lambda f: remove_weights(f, index='{"weight_map": {"a": "../x.safetensors"}}'),
        INVALID,
        "names no .safetensors files",
    ),
    "an index without metadata": (
        lambda f: remove_weights(f, index='{"weight_map": {"a": "a.safetensors"}}'),
        Reason.BASE_MODEL_INVALID,
        "has no metadata",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_base_model_that_cannot_be_used_is_refused_by_name(base: Path, name: str) -> None:
    break_it, reason, words = BROKEN[name]
    break_it(base)
    with pytest.raises(SettingsInvalid, match=words) as caught:
        check(base)
    assert caught.value.reason is reason


def test_the_digest_is_of_the_files_that_matter(base: Path) -> None:
    before = digest_at(settings_of(base))
    (base / "README.md").write_text("read me")
    (base / "pytorch_model.bin").write_bytes(b"pickle")
    (base / "consolidated.safetensors").write_bytes(b"a second copy")
    (base / "original").mkdir()
    (base / "original/params.json").write_text("{}")
    assert digest_at(settings_of(base)) == before
    edit(base, "config.json", rms_norm_eps=1e-6)
    assert digest_at(settings_of(base)) != before


def test_a_shard_or_a_template_that_is_added_changes_the_digest(base: Path) -> None:
    before = digest_at(settings_of(base))
    (base / "chat_template.jinja").write_text("{{ messages }}")
    assert digest_at(settings_of(base)) != before


def test_another_base_model_than_the_pinned_one_is_refused(base: Path) -> None:
    digest = digest_at(settings_of(base))
    check_pin(settings_of(base, digest), digest)
    with pytest.raises(SettingsInvalid, match=digest) as caught:
        check_pin(settings_of(base, "sha256:" + "0" * 64), digest)
    assert caught.value.reason is Reason.BASE_MODEL_CHANGED


def test_hashes_of_a_manifest_are_taken_and_its_sizes_checked(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = digest_at(settings_of(base))
    model = find_base_model(settings_of(base))
    assert commit(model.store, "", {"files": [entry.to_json() for entry in entries_of(model)]})
    with monkeypatch.context() as patched:
        patched.setattr(Store, "digest", lambda *_: pytest.fail("a file was read to its end"))
        assert digest_at(settings_of(base)) == plain
    edit(base, "config.json", rms_norm_eps=1e-6)
    with pytest.raises(SettingsInvalid, match=r"config.json has .* MANIFEST.json says") as caught:
        digest_at(settings_of(base))
    assert caught.value.reason is Reason.BASE_MODEL_INVALID


def test_the_copy_is_verified_and_holds_the_model_alone(object_storage: ObjectStorage, base: Path) -> None:
    (base / "pytorch_model.bin").write_bytes(b"pickle")
    remote = open_store(object_storage.uri("model"), object_storage.credentials())
    for file in base.iterdir():
        remote.upload(file, file.name)
    stored = StoredBaseModel(uri=remote.uri, credentials=object_storage.credentials())
    for name, settings in (("remote", stored), ("mounted", settings_of(base))):
        digest = digest_at(settings)
        folder = fetch_base_model(settings, base.parent / name, digest)
        assert sorted(path.name for path in folder.iterdir()) == [
            "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"
        ]  # fmt: skip
        assert (folder / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
        with pytest.raises(SettingsInvalid, match="changed after the data was prepared") as caught:
            fetch_base_model(settings, base.parent / name, "sha256:" + "0" * 64)
        assert caught.value.reason is Reason.BASE_MODEL_CHANGED


def test_target_modules_are_found_by_name_or_ending(base: Path) -> None:
    shapes = read_shapes(find_base_model(settings_of(base)))
    assert len(target_modules(shapes, LoraSettings())) == 14
    assert target_modules(shapes, LoraSettings(target_modules=["q_proj", "model.layers.1.mlp.up_proj"])) == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
        "model.layers.1.self_attn.q_proj",
    ]


@pytest.mark.parametrize("target", ["c_attn", "proj", "embed_tokens", "lm_head", "input_layernorm", "model.layers.2"])
def test_target_modules_that_are_no_linear_layer_are_refused(base: Path, target: str) -> None:
    shapes = read_shapes(find_base_model(settings_of(base)))
    shapes["lm_head.weight"] = [384, 128]
    with pytest.raises(SettingsInvalid, match=f"{target}; it has down_proj, gate_proj, k_proj") as caught:
        target_modules(shapes, LoraSettings(target_modules=["q_proj", target]))
    assert caught.value.reason is Reason.TARGET_MODULES_NOT_FOUND


def test_a_length_beyond_the_models_is_refused(base: Path) -> None:
    model = find_base_model(settings_of(base))
    check_length(model.config, POSITIONS)
    with pytest.raises(SettingsInvalid, match=f"set it to {POSITIONS} or less") as caught:
        check_length(model.config, POSITIONS + 1)
    assert caught.value.reason is Reason.SEQUENCE_TOO_LONG


def test_a_token_without_an_embedding_is_refused(base: Path) -> None:
    model = find_base_model(settings_of(base))
    shapes = read_shapes(model)
    tokenizer = RowTokenizer(base)
    check_vocabulary(model, shapes, 383, tokenizer)
    with pytest.raises(SettingsInvalid, match="its embedding has 384") as caught:
        check_vocabulary(model, shapes, 384, tokenizer)
    assert caught.value.reason is Reason.BASE_MODEL_INVALID


def test_the_tiny_model_is_the_same_every_time(tmp_path: Path, tiny_model: Path) -> None:
    again = make_tiny_model(tmp_path / "again")
    entries = [FileEntry(file.name, 0, "") for file in sorted(again.iterdir())]
    assert all((again / entry.path).read_bytes() == (tiny_model / entry.path).read_bytes() for entry in entries)
    assert np.prod(read_shapes(find_base_model(settings_of(again)))["model.embed_tokens.weight"]) == 384 * 128

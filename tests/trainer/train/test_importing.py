"""Adapters that were made elsewhere: published as ours, or refused by name."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from trimtab_trainer.__main__ import main
from trimtab_trainer.base.base_model import TOKENIZER, find_base_model
from trimtab_trainer.base.base_model import entries_of as base_entries
from trimtab_trainer.contract import EvaluationConfig, Reason, StoredArtifact, StoredBaseModel, Threshold
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.evaluate.preparing.adapters import check_tokenizers, find_adapter
from trimtab_trainer.publishing.importing import IMPOSSIBLE, KEPT, WITHOUT_EFFECT, Imported, import_adapter
from trimtab_trainer.report import Report
from trimtab_trainer.storage import open_store

from tests.trainer.tiny import make_tiny_model
from tests.trainer.train.layouts import CONFIG, as_llama_factory, as_peft, as_trl, as_unsloth, edit

WEIGHTS = "adapter_model.safetensors"
TOKENS = torch.tensor([[1, 7, 42, 99, 12]])
TEMPLATE = "{{ messages }}"
PERPLEXITY = EvaluationConfig.model_construct(  # type: ignore[call-arg] # the others are not looked at
    thresholds=[Threshold.model_validate({"metric": "t/perplexity", "maximumRegression": 0.1})]
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def saved(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What peft's save_pretrained writes of an adapter that changes something."""
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=24, target_modules=["q_proj", "down_proj"])
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    folder = tmp_path_factory.mktemp("saved") / "adapter"
    adapted.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "adapter"))


def imported(folder: Path, base: Path, tmp_path: Path) -> Imported:
    return import_adapter(folder, StoredBaseModel(uri=f"file://{base}"), open_store(f"file://{tmp_path}/out", None))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)


@pytest.mark.parametrize("layout", [as_peft, as_trl, as_unsloth, as_llama_factory])
def test_four_layouts_are_published_and_behave_as_they_did(
    layout: Callable[[Path, Path], None], folder: Path, base: Path, saved: Path, tmp_path: Path
) -> None:
    layout(folder, base)
    made = imported(folder, base, tmp_path)
    there = Path(made.uri.removeprefix("file://"))
    assert there.parts[-2:] == ("adapters", made.digest.removeprefix("sha256:"))
    names = {file.name for file in there.iterdir()} - {"chat_template.jinja"}
    assert names == {WEIGHTS, CONFIG, "MANIFEST.json", "tokenizer.json", "tokenizer_config.json"}
    assert made.modules == ("down_proj", "q_proj")
    assert bool(made.warnings) == (layout is as_unsloth)

    model = AutoModelForCausalLM.from_pretrained(base)
    before = model(TOKENS).logits
    logits = [
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(each))(TOKENS).logits
        for each in (saved, there)
    ]
    assert torch.equal(*logits)
    assert not torch.allclose(before, logits[0], atol=1e-3)


def test_an_evaluation_takes_it_and_knows_what_it_was_trained_on_is_unknown(
    folder: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = imported(folder, base, tmp_path)
    manifest = json.loads((Path(made.uri.removeprefix("file://")) / "MANIFEST.json").read_text())
    found = find_adapter(StoredArtifact(uri=made.uri, digest=made.digest), "target", manifest["artifact"]["baseModel"])
    assert found.trained(tmp_path / "scratch", Report(), "target") is None
    assert "it was imported" in capsys.readouterr().out


def test_it_is_published_once_and_mended_where_it_is_damaged(folder: Path, base: Path, tmp_path: Path) -> None:
    made = imported(folder, base, tmp_path)
    weights = Path(made.uri.removeprefix("file://")) / WEIGHTS
    written = weights.stat().st_mtime_ns
    assert imported(folder, base, tmp_path) == made
    assert weights.stat().st_mtime_ns == written
    weights.write_bytes(b"torn")
    assert imported(folder, base, tmp_path) == made
    assert weights.read_bytes() == (folder / WEIGHTS).read_bytes()


def drop_half(weights: dict[str, torch.Tensor]) -> None:
    del weights[next(name for name in weights if "lora_B" in name)]


def spoil(weights: dict[str, torch.Tensor]) -> None:
    next(tensor for name, tensor in weights.items() if "lora_B" in name)[3, 2] = float("inf")


def save_head(weights: dict[str, torch.Tensor]) -> None:
    weights["base_model.model.lm_head.weight"] = torch.zeros(4, 4)


def widen(weights: dict[str, torch.Tensor]) -> None:
    name = next(name for name in weights if "lora_A" in name)
    weights[name] = torch.zeros(8, 64)


def rename(weights: dict[str, torch.Tensor]) -> None:
    for name in list(weights):
        weights[name.replace("q_proj", "query")] = weights.pop(name)


def shrink(weights: dict[str, torch.Tensor]) -> None:
    for name, tensor in weights.items():
        weights[name] = (tensor[:4] if "lora_A" in name else tensor[:, :4]).contiguous()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop_half, "has no pair of matrices"),
        (spoil, "not finite"),
        (save_head, "lm_head.weight, which is no part of a LoRA adapter"),
        (widen, "has one of"),
        (rename, "has no such layer"),
        (shrink, "rank 4, but adapter_config.json says r 8"),
        (dict.clear, "holds no weights"),
    ],
)
def test_weights_that_engines_would_not_take_are_refused(
    change: Callable[[dict[str, torch.Tensor]], None], words: str, folder: Path, base: Path, tmp_path: Path
) -> None:
    edit_weights(folder, change)
    with pytest.raises(SettingsInvalid, match=words) as caught:
        imported(folder, base, tmp_path)
    of_base = words in ("has one of", "has no such layer")
    assert caught.value.reason is (Reason.BASE_MODEL_MISMATCH if of_base else Reason.ARTIFACT_INVALID)
    assert not (tmp_path / "out" / "adapters").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
        ({"task_type": "SEQ_CLS"}, "task_type 'SEQ_CLS'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"target_parameters": ["experts.down_proj"]}, "target_parameters"),
        ({"alora_invocation_tokens": [5, 6]}, "alora_invocation_tokens"),
        ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights 'pissa_niter_16'"),
        ({"init_lora_weights": "olora"}, "path_initial_model_for_weight_conversion"),
        ({"bias": "all"}, "bias 'all'"),
        ({"r": True}, "r True"),
        ({"r": "8"}, "r '8'"),
        ({"r": 4096}, "engines take at most 512"),
        ({"lora_alpha": 0}, "lora_alpha 0"),
        ({"lora_alpha": None}, "lora_alpha None"),
        ({"use_dora": "yes"}, "use_dora 'yes'"),
        ({"monteclora_config": {"num_samples": 4}}, "monteclora_config"),
        ({"doubled_config": {"times": 2}}, "has doubled_config, which is not known here"),
    ],
)
def test_settings_that_engines_would_not_take_are_refused(
    settings: dict[str, Any], words: str, folder: Path, base: Path, tmp_path: Path
) -> None:
    edit(folder, **settings)
    with pytest.raises(SettingsInvalid, match=words):
        imported(folder, base, tmp_path)


@pytest.mark.parametrize(
    ("file", "data", "words"),
    [
        (CONFIG, None, "there is no adapter_config.json"),
        (CONFIG, b"{", "cannot be read"),
        (CONFIG, b"[" * 100_000, "cannot be read"),
        (WEIGHTS, None, "there is no adapter_model.safetensors"),
        (WEIGHTS, b"no safetensors file", "no safetensors file"),
        ("tokenizer.json", b'{"added_tokens": [1]}', "cannot be read"),
        ("tokenizer_config.json", b'{"chat_template": 1}', "chat_template"),
        ("tokenizer_config.json", b"{", "cannot be read"),
        ("tokenizer_config.json", b'{"chat_template": "\\ud800"}', "cannot be read"),
        ("tokenizer_config.json", b"[" * 100_000, "cannot be read"),
        ("tokenizer_config.json", b'{"chat_template": "%s"}' % (b"x" * ((1 << 20) + 1)), "more than 1048576 bytes"),
        ("chat_template.jinja", b"x" * ((1 << 20) + 1), "more than 1048576 bytes"),
    ],
)
def test_files_that_are_none_are_refused(
    file: str, data: bytes | None, words: str, *, folder: Path, base: Path, tmp_path: Path
) -> None:
    if data is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(data)
    with pytest.raises(SettingsInvalid, match=words):
        imported(folder, base, tmp_path)


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ({"chat_template": "its own"}, "its own"),
        ({"chat_template": [{"name": "rag", "template": "x"}, {"name": "default", "template": "its own"}]}, "its own"),
        ({"chat_template": "its own", "model_max_length": int(1e30)}, "its own"),  # as transformers writes "no limit"
        ({"chat_template": None}, None),
        ({"chat_template": [{"name": "rag", "template": "x"}]}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("beside", [None, "that of the file"])
def test_the_template_that_it_was_trained_with_is_kept_wherever_it_stands(
    told: dict[str, Any], wanted: str | None, beside: str | None, *, folder: Path, base: Path, tmp_path: Path
) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    if beside is not None:
        (folder / "chat_template.jinja").write_text(beside)  # which transformers prefers
    there = Path(imported(folder, base, tmp_path).uri.removeprefix("file://")) / "chat_template.jinja"
    of_base = base / "chat_template.jinja"
    expected = beside or wanted or (of_base.read_text() if of_base.exists() else None)
    assert (there.read_text() if there.exists() else None) == expected


@pytest.mark.parametrize("of_base", ["tokenizer_config.json", "chat_template.jinja"])
@pytest.mark.parametrize("of_adapter", ["tokenizer_config.json", "chat_template.jinja"])
def test_an_adapter_with_the_template_of_its_base_is_compared_with_the_base(
    of_base: str, of_adapter: str, *, folder: Path, base: Path, tmp_path: Path
) -> None:
    """Older versions of transformers wrote it into tokenizer_config.json, newer ones beside it."""
    base = Path(shutil.copytree(base, tmp_path / "base"))
    (base / "chat_template.jinja").unlink(missing_ok=True)
    for where, name in ((base, of_base), (folder, of_adapter)):
        if name == "chat_template.jinja":
            (where / name).write_text(TEMPLATE)
        else:
            told = json.loads((base / name).read_text())
            (where / name).write_text(json.dumps({**told, "chat_template": TEMPLATE}))
    made = imported(folder, base, tmp_path)
    found = find_adapter(StoredArtifact(uri=made.uri, digest=made.digest), "target", None)
    entries = base_entries(find_base_model(StoredBaseModel(uri=f"file://{base}")))
    of_base_model = tuple(each for each in entries if each.path in TOKENIZER)
    check_tokenizers(PERPLEXITY, found, None, of_base_model)

    (folder / of_adapter).unlink()
    (folder / "chat_template.jinja").write_text(f"{TEMPLATE} of its own")
    made = imported(folder, base, tmp_path)
    found = find_adapter(StoredArtifact(uri=made.uri, digest=made.digest), "target", None)
    with pytest.raises(SettingsInvalid, match=r"another chat_template.jinja"):
        check_tokenizers(PERPLEXITY, found, None, of_base_model)


def test_every_setting_that_peft_has_is_known() -> None:
    known = {*KEPT, *IMPOSSIBLE, *WITHOUT_EFFECT}
    assert {field.name for field in dataclasses.fields(LoraConfig)} <= known
    assert len(known) == len(KEPT) + len(IMPOSSIBLE) + len(WITHOUT_EFFECT) - len({*KEPT} & {*IMPOSSIBLE})


def test_a_pickle_is_never_opened(folder: Path, base: Path, tmp_path: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(SettingsInvalid, match=r"adapter_model.bin is a pickle"):
        imported(folder, base, tmp_path)


def test_one_that_was_never_trained_is_told(folder: Path, base: Path, tmp_path: Path) -> None:
    def forget(weights: dict[str, torch.Tensor]) -> None:
        for name, tensor in weights.items():
            if "lora_B" in name:
                tensor.zero_()

    edit_weights(folder, forget)
    assert any("changes nothing" in words for words in imported(folder, base, tmp_path).warnings)


def test_the_command_prints_what_an_evaluation_needs(
    folder: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["import", str(folder), "--base-model", f"file://{base}", "--to", f"file://{tmp_path}/out"]
    assert main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("rank 8, on down_proj, q_proj")
    assert lines[1].startswith(f"uri: file://{tmp_path}/out/adapters/")
    assert lines[2].startswith("digest: sha256:")
    assert main([*options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == lines[2].removeprefix("digest: ")
    edit(folder, peft_type="IA3")
    assert main(options) != 0
    assert capsys.readouterr().err.startswith("ArtifactInvalid: ")

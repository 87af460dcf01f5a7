"""What is written as GGUF computes what the merged model does, for every family that is said to be written; and what is
not known is refused by its name before anything is computed.

transformers reads GGUF with code of its own, which stands in for llama.cpp here; `make test-exports` asks llama.cpp.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, pre_tokenizers
from transformers import AutoModelForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from trimtab_trainer.contract import ExportConfig
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.exporting import request
from trimtab_trainer.exporting.gguf.families import FAMILIES, Layout, NotConvertible, frequency_factors, neighboured
from trimtab_trainer.exporting.gguf.vocabulary import BY_PATTERN, Vocabulary
from trimtab_trainer.exporting.request import check_request

from tests.trainer.tiny import CHATML_GENERATION, make_tiny_model, tiny_tokenizer

from .models import NF4, Trained, answers, divergence, loaded, trained


def family(kind: str) -> Any:
    """Return what writes a tiny model of a family, with biases and norms that are not nothing."""

    def make(folder: Path) -> None:
        make_tiny_model(folder)
        config = json.loads((folder / "config.json").read_text()) | {"model_type": kind, "sliding_window": None}
        if kind == "qwen3":
            config["head_dim"] = 128  # transformers reads no other size of it from GGUF
        made = transformers.AutoConfig.for_model(**config)
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(made)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.05) if parameter.dim() > 1 else parameter.add_(
                    torch.randn_like(parameter) * 0.1
                )
        weights = {name: each.clone() for name, each in model.state_dict().items() if name != "lm_head.weight"}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        told = made.to_dict() | {"architectures": [type(model).__name__]}
        (folder / "config.json").write_text(json.dumps(told))

    return make


def read(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, gguf_file="model.gguf", dtype=torch.float32)


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family_computes_what_the_merged_model_does(kind: str, tmp_path: Path) -> None:
    made = trained(tmp_path, family(kind), quantization=NF4)
    _, merged = made.export(tmp_path / "scratch")
    exported, folder = made.export(tmp_path / "scratch", format="GGUF")
    assert sorted(each.name for each in folder.iterdir()) == ["MANIFEST.json", "README.md", "model.gguf"]
    assert exported.files == 2
    assert divergence(loaded(merged), answers(read(folder))) < 1e-9
    assert divergence(loaded(tmp_path / "base"), answers(read(folder))) > 1e-4  # the adapter is in it


def test_a_tensor_that_lies_in_two_files_is_refused_by_name(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        make_tiny_model(folder)
        weights, name = load_file(folder / "model.safetensors"), "model.layers.0.mlp.up_proj.weight"
        (folder / "model.safetensors").unlink()
        save_file(weights, folder / "model-1.safetensors", metadata={"format": "pt"})
        save_file({name: weights[name]}, folder / "model-2.safetensors", metadata={"format": "pt"})
        places = dict.fromkeys(weights, "model-1.safetensors") | {name: "model-2.safetensors"}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))

    made = trained(tmp_path, make, quantization=NF4, training={"maxSteps": 1})
    with pytest.raises(SettingsInvalid, match=r"model\.layers\.0\.mlp\.up_proj\.weight is in two of its files"):
        made.export(tmp_path / "scratch", format="GGUF")


@pytest.mark.parametrize("same", [True, False])
def test_a_head_that_is_tied_is_left_out_only_if_it_is_the_embedding(same: bool, tmp_path: Path) -> None:
    """transformers ties nothing where the files have both, and both differ."""

    def make(folder: Path) -> None:
        make_tiny_model(folder)
        weights = load_file(folder / "model.safetensors")
        embedding = weights["model.embed_tokens.weight"]
        weights["lm_head.weight"] = embedding.clone() if same else embedding.flip(0).contiguous()
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    made = trained(tmp_path, make, quantization=NF4, training={"maxSteps": 1})
    _, merged = made.export(tmp_path / "scratch")
    _, folder = made.export(tmp_path / "scratch", format="GGUF")
    names = {each.name for each in gguf.GGUFReader(folder / "model.gguf").tensors}
    assert ("output.weight" in names) is not same
    assert divergence(loaded(merged), answers(read(folder))) < 1e-9


def test_matrices_are_bfloat16_and_vectors_are_not(usual: Trained, tmp_path: Path) -> None:
    _, folder = usual.export(tmp_path / "scratch", format="GGUF", weightType="BFloat16")
    reader = gguf.GGUFReader(folder / "model.gguf")
    assert {each.tensor_type.name for each in reader.tensors if len(each.shape) > 1} == {"BF16"}
    assert {each.tensor_type.name for each in reader.tensors if len(each.shape) == 1} == {"F32"}
    _, merged = usual.export(tmp_path / "scratch", weightType="BFloat16")
    assert divergence(loaded(merged), answers(read(folder))) < 1e-9


def test_tokens_special_tokens_and_the_template_of_training_are_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "template.jinja").write_text(CHATML_GENERATION)
    sections = {"validation": {"fraction": 0.2}, "chatTemplate": f"file://{tmp_path}/template.jinja"}
    made = trained(tmp_path, quantization=NF4, dataset=sections)
    _, folder = made.export(tmp_path / "scratch", format="GGUF")
    fields = gguf.GGUFReader(folder / "model.gguf").fields
    told = {name: field.contents() for name, field in fields.items()}
    assert told["general.architecture"] == "llama"
    assert told["general.name"] == f"adapter-{made.artifact.digest[7:19]}-merged"
    assert (told["tokenizer.ggml.model"], told["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
    tokenizer = Tokenizer.from_file(str(tmp_path / "base/tokenizer.json"))
    assert told["tokenizer.ggml.tokens"] == [tokenizer.id_to_token(number) for number in range(384)]
    assert told["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1]
    assert (told["tokenizer.ggml.bos_token_id"], told["tokenizer.ggml.eos_token_id"]) == (1, 2)
    assert (told["tokenizer.ggml.add_bos_token"], told["tokenizer.ggml.add_eos_token"]) == (False, False)
    assert told["tokenizer.chat_template"] == CHATML_GENERATION
    assert told["llama.context_length"] == 512
    text = "What is field 7 for?"
    again = transformers.AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf")
    assert again(text)["input_ids"] == tokenizer.encode(text).ids


def refused(made: Trained, base: Path) -> str:
    document = made.document(format="GGUF", baseModel={"uri": base.as_uri()})
    with pytest.raises(SettingsInvalid) as caught:
        check_request(ExportConfig.model_validate(document))
    return caught.value.message


def test_a_family_that_is_not_known_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gemma(folder: Path) -> None:
        make_tiny_model(folder)
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "gemma", "architectures": ["GemmaForCausalLM"]}
        (folder / "config.json").write_text(json.dumps(config))

    made = trained(tmp_path, gemma, quantization=NF4)
    monkeypatch.setattr(request, "entries_of", None)  # no byte of the weights is read for that
    words = refused(made, tmp_path / "base")
    assert words.startswith("format GGUF: models of model_type 'gemma' cannot be written as GGUF, only llama, mistral")
    with pytest.raises(SettingsInvalid):
        made.export(tmp_path / "scratch", format="GGUF")
    assert not (tmp_path / "scratch").exists()
    assert not (tmp_path / "exported").exists()


CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "hidden_size": 8,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
}
SHAPES = {"model.embed_tokens.weight": [9, 8], "model.layers.0.self_attn.rotary_emb.inv_freq": [2]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type yarn"),
        ({"rope_parameters": {"rope_type": "dynamic"}}, "rope_type dynamic"),
        ({"hidden_act": "gelu"}, "hidden_act gelu"),
        ({"model_type": "mistral", "sliding_window": 4096}, "a sliding window"),
        ({"model_type": "mistral"}, "a sliding window"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "a sliding window"),
        ({"partial_rotary_factor": 0.5}, "rotation of a part"),
        ({"model_type": "qwen3", "attention_bias": True}, "biases of attention"),
        ({"model_type": "qwen2", "head_dim": 8}, "heads that together"),
    ],
)
def test_settings_that_llama_cpp_would_compute_otherwise_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(NotConvertible, match=words):
        Layout.of(CONFIG | change, SHAPES)


def test_heads_that_the_files_have_otherwise_are_refused() -> None:
    """A config.json that does not name them means numbers of the family: of Mistral 8 heads of keys, of Qwen3 128."""
    rows = "model.layers.0.self_attn.k_proj.weight"
    with pytest.raises(NotConvertible, match=r"k_proj\.weight has 4 rows.*num_key_value_heads"):
        Layout.of(CONFIG, {**SHAPES, rows: [4, 8]})
    assert rows in Layout.of(CONFIG | {"num_key_value_heads": 1}, {**SHAPES, rows: [4, 8]}).names


def test_a_tensor_that_has_no_name_there_is_refused_and_what_is_computed_again_is_left_out() -> None:
    assert Layout.of(CONFIG, SHAPES).names == {"model.embed_tokens.weight": "token_embd.weight"}
    with pytest.raises(NotConvertible, match=r"model\.layers\.0\.extra\.weight is unknown"):
        Layout.of(CONFIG, {**SHAPES, "model.layers.0.extra.weight": [1]})


def test_the_frequencies_of_llama_3_are_divided_as_transformers_does() -> None:
    told = {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = transformers.LlamaConfig(hidden_size=4096, num_attention_heads=32, rope_parameters=told)
    expected, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1.0 / 500_000.0 ** (np.arange(0, 128, 2) / 128)
    np.testing.assert_allclose(plain / frequency_factors(told, 128), expected.numpy(), rtol=1e-6)
    layout = Layout.of(CONFIG | {"rope_parameters": told, "head_dim": 128}, SHAPES)
    assert list(layout.extra()) == ["rope_freqs.weight"]


def test_halves_of_a_head_become_neighbours() -> None:
    assert neighboured(np.arange(8), 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def tokenizer_of(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(tiny_tokenizer().to_str())
    model = document["model"] | changes.pop("model", {})
    return document | {"model": model} | changes


def split(pattern: str) -> dict[str, Any]:
    return {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ],
    }


def inverted(steps: dict[str, Any]) -> dict[str, Any]:
    steps["pretokenizers"][0]["invert"] = True
    return steps


DIGITS = {"type": "Digits", "individual_digits": True}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "gpt-2"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [DIGITS, BYTES]}}, "smollm"),
        *(
            ({"pre_tokenizer": split(pattern), "model": {"ignore_merges": whole}}, name)
            for pattern, (name, whole) in BY_PATTERN.items()
        ),
    ],
)
def test_how_text_is_cut_is_found_from_what_the_tokenizer_says(changes: dict[str, Any], name: str) -> None:
    vocabulary = Vocabulary.of(tokenizer_of(**changes), 400)
    assert vocabulary.cutting == name
    assert vocabulary.tokens[384:386] == ("[PAD384]", "[PAD385]")
    assert vocabulary.types[384] == 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"type": "Unigram"}}, "Unigram"),
        ({"model": {"byte_fallback": True}}, "not BPE over bytes"),
        ({"pre_tokenizer": None}, "cuts text in a way"),
        ({"normalizer": {"type": "Lowercase"}}, "changes text before it cuts it"),
        ({"model": {"end_of_word_suffix": "</w>"}}, "marks parts of words"),
        ({"pre_tokenizer": inverted(split(next(iter(BY_PATTERN)))), "model": {"ignore_merges": True}}, "cuts text"),
        ({"pre_tokenizer": BYTES | {"add_prefix_space": True}}, "cuts text in a way"),
        ({"pre_tokenizer": split(r"\d+")}, "cuts text in a way"),
        ({"pre_tokenizer": split(next(iter(BY_PATTERN))), "model": {"ignore_merges": False}}, "cuts text in a way"),
    ],
)
def test_a_tokenizer_that_llama_cpp_would_cut_otherwise_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(NotConvertible, match=words):
        Vocabulary.of(tokenizer_of(**changes), 400)


def test_more_tokens_than_rows_are_refused() -> None:
    with pytest.raises(NotConvertible, match="token 383, but its embedding 300 rows"):
        Vocabulary.of(tokenizer_of(), 300)


def test_the_patterns_are_those_of_the_tokenizers_library() -> None:
    for pattern in BY_PATTERN:
        cut = pre_tokenizers.Split(Regex(pattern), "isolated")
        assert cut.pre_tokenize_str("It's 2026")

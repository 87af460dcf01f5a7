"""config.json, weights' headers and tokenizer that are not of one model are refused; those of real families are not."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, Tokenizer
from trimtab_trainer.base.agreement import check_tokenizer, check_vocabulary, check_weights
from trimtab_trainer.base.architecture import check_architecture, read_shapes
from trimtab_trainer.base.base_model import BaseModel, find_base_model
from trimtab_trainer.base.decoders import LLAMA_LIKE, TIED, shapes_of_config
from trimtab_trainer.base.layers import Shapes
from trimtab_trainer.contract import Reason, RunConfig, StoredBaseModel
from trimtab_trainer.data.encoding.tokens import RowTokenizer
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.prepare import check_base_model, prepare
from trimtab_trainer.report import Report
from trimtab_trainer.storage import Store, open_store

from tests.trainer.test_prepare_base_model import edit, shard
from tests.trainer.tiny import CHATML, make_tiny_experts, make_tiny_model, tiny_tokenizer, write_rows


def check(folder: Path) -> None:
    model = find_base_model(StoredBaseModel(uri=folder.as_uri()))
    check_architecture(model)
    shapes = read_shapes(model)
    check_weights(model, shapes)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any], file: str = "model.safetensors") -> None:
    """Change the weights of a file."""
    weights = load_file(folder / file)
    change(weights)
    save_file(weights, folder / file)


def without(*names: str) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, lambda weights: [weights.pop(name) for name in names])


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder, "config.json", **changes)


def widen(name: str, *shape: int) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, lambda weights: weights.update({name: np.zeros(shape, np.float32)}))


def deepen(folder: Path, layers: int = 5) -> None:
    """Give the tiny model more layers."""

    def change(weights: dict[str, Any]) -> None:
        for name in [name for name in weights if ".layers.1." in name]:
            for layer in range(2, layers):
                weights[name.replace(".1.", f".{layer}.")] = weights[name].copy()

    rewrite(folder, change)
    edit(folder, "config.json", num_hidden_layers=layers)


def deepen_without(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        deepen(folder)
        without(name)(folder)

    return change


def lose_a_layer(folder: Path) -> None:
    deepen(folder)
    rewrite(folder, lambda weights: [weights.pop(name) for name in [*weights] if ".layers.3." in name])


def family(kind: str, *changes: Callable[[Path], None]) -> Callable[[Path], None]:
    """Make it of a kind whose matrices are not known one by one."""

    def change(folder: Path) -> None:
        edit(folder, "config.json", model_type=kind, architectures=["CohereForCausalLM"])
        for each in changes:
            each(folder)

    return change


def lose_from_second_shard(folder: Path) -> None:
    shard(folder)
    rewrite(folder, lambda weights: weights.popitem(), "model-00002-of-00002.safetensors")


LAYER_1 = "model.layers.1."
BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a smaller vocabulary": (config(vocab_size=320), "embed_tokens.weight has 384 rows, but vocab_size is 320"),
    "a larger vocabulary": (config(vocab_size=512), "embed_tokens.weight has 384 rows, but vocab_size is 512"),
    "another width": (config(hidden_size=64), "embed_tokens.weight has rows of 128, but hidden_size is 64"),
    "fewer layers": (config(num_hidden_layers=1), "its weights have 2 layers, but num_hidden_layers is 1"),
    "more layers": (config(num_hidden_layers=3), "its weights have 2 layers, but num_hidden_layers is 3"),
    "a layer less in between": (
        lose_a_layer,
        r"lack layer 3 \(1 of 5 layers",
    ),
    "another inner width": (config(intermediate_size=512), r"gate_proj.weight is \[256, 128\], but .* \[512, 128\]"),
    "another number of heads": (config(num_attention_heads=8), r"q_proj.weight is \[128, 128\], but .* \[256, 128\]"),
    "another number of key heads": (
        config(num_key_value_heads=4),
        r"k_proj.weight is \[64, 128\], but .* \[128, 128\]",
    ),
    "another size of a head": (config(head_dim=64), r"q_proj.weight is \[128, 128\], but"),
    "a matrix less": (without(LAYER_1 + "mlp.up_proj.weight"), "lack model.layers.1.mlp.up_proj.weight; restore"),
    "a matrix of another shape": (widen(LAYER_1 + "mlp.up_proj.weight", 512, 128), r"up_proj.weight is \[512, 128\]"),
    "no embedding": (without("model.embed_tokens.weight"), "lack model.embed_tokens.weight"),
    "no head": (config(tie_word_embeddings=False), "have no head .lm_head.weight., and tie_word_embeddings is false"),
    "no head, and nothing said of it": (config(tie_word_embeddings=None), "have no head"),
    "a head of another vocabulary": (widen("lm_head.weight", 400, 128), "lm_head.weight has 400 rows, but vocab_size"),
    "a norm less": (
        deepen_without("model.layers.4.input_layernorm.weight"),
        "layer 4 .* has no input_layernorm.weight",
    ),
    "a matrix less in another family": (
        family("cohere", deepen_without("model.layers.0.mlp.down_proj.weight")),
        "layer 0 of its weights has no mlp.down_proj.weight, which other layers have .1 such",
    ),
    "another width in another family": (family("cohere", config(hidden_size=256)), "hidden_size is 256"),
    "a tensor less than the index says": (
        lose_from_second_shard,
        "index.json says that model.* is in model-00002-of-00002.safetensors, which does not have it .1 such",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_of_two_models_are_refused_by_name(tmp_path: Path, tiny_model: Path, name: str) -> None:
    break_it, words = BROKEN[name]
    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    check(base)
    break_it(base)
    with pytest.raises(SettingsInvalid, match=words) as caught:
        check(base)
    assert caught.value.reason is Reason.BASE_MODEL_INVALID


BROKEN_EXPERTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "more experts": (config(num_experts=8), "layers.0.mlp.experts has 4 experts, but num_experts is 8"),
    "fewer experts": (config(num_experts=2), "layers.0.mlp.experts has 4 experts, but num_experts is 2"),
    "an expert less": (
        lambda f: rewrite(f, lambda w: [w.pop(name) for name in [*w] if ".1.mlp.experts.2." in name]),
        "layers.1.mlp.experts has 3 experts, but num_experts is 4",
    ),
}


@pytest.mark.parametrize("name", BROKEN_EXPERTS)
def test_experts_that_are_not_those_of_the_config_are_refused(tmp_path: Path, name: str) -> None:
    break_it, words = BROKEN_EXPERTS[name]
    base = make_tiny_experts(tmp_path / "base")
    check(base)
    break_it(base)
    with pytest.raises(SettingsInvalid, match=words):
        check(base)


def test_prepare_refuses_before_a_byte_of_the_weights_is_read(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    edit(base, "config.json", vocab_size=320)
    monkeypatch.setattr(Store, "digest", lambda *_: pytest.fail("a file was read to its end"))
    run = {
        "baseModel": {"uri": base.as_uri()},
        "dataset": {"training": {"uri": (tmp_path / "data").as_uri()}},
        "output": {"uri": (tmp_path / "output").as_uri()},
        "training": {"maxSequenceLength": 256},
    }
    with pytest.raises(SettingsInvalid, match="vocab_size is 320"):
        check_base_model(RunConfig.model_validate(run))


# What real families are like, in their own sizes but for the number of layers.
QWEN25: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
    "num_attention_heads": 14, "num_key_value_heads": 2, "num_hidden_layers": 3, "vocab_size": 151936,
    "tie_word_embeddings": True,
}  # fmt: skip
LLAMA31: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 3, "vocab_size": 128256,
    "tie_word_embeddings": False,
}  # fmt: skip
QWEN3: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "num_hidden_layers": 3, "vocab_size": 151936,
    "tie_word_embeddings": True,
}  # fmt: skip
SMOLLM3: dict[str, Any] = {
    "architectures": ["SmolLM3ForCausalLM"], "model_type": "smollm3", "hidden_size": 2048, "intermediate_size": 11008,
    "num_attention_heads": 16, "num_key_value_heads": 4, "num_hidden_layers": 3, "vocab_size": 128256,
}  # fmt: skip
GEMMA2: dict[str, Any] = {
    "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "hidden_size": 2304, "intermediate_size": 9216,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "num_hidden_layers": 3, "vocab_size": 256000,
}  # fmt: skip
GEMMA3: dict[str, Any] = {
    "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 3,
        "sliding_window": 1024,
    },
    "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27, "intermediate_size": 4304},
}  # fmt: skip
MISTRAL: dict[str, Any] = LLAMA31 | {
    "architectures": ["MistralForCausalLM"], "model_type": "mistral", "head_dim": None, "vocab_size": 32768,
}  # fmt: skip
MISTRAL3: dict[str, Any] = {
    "architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3",
    "text_config": MISTRAL | {"hidden_size": 5120, "head_dim": 128, "vocab_size": 131072},
    "vision_config": {"hidden_size": 1024, "num_hidden_layers": 24},
}  # fmt: skip
MIXTRAL: dict[str, Any] = {
    "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_size": 4096, "num_hidden_layers": 3,
    "num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 32000, "tie_word_embeddings": False,
}  # fmt: skip
DEEPSEEK: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_size": 7168,
    "num_hidden_layers": 6, "first_k_dense_replace": 3, "n_routed_experts": 4, "n_shared_experts": 1,
    "num_nextn_predict_layers": 1, "vocab_size": 129280, "tie_word_embeddings": False,
}  # fmt: skip
GPT_OSS: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "hidden_size": 2880, "num_hidden_layers": 3,
    "num_local_experts": 32, "vocab_size": 201088, "tie_word_embeddings": False,
}  # fmt: skip
ZAYA: dict[str, Any] = {
    "architectures": ["ZayaForCausalLM"], "model_type": "zaya", "hidden_size": 2048, "num_hidden_layers": 6,
    "vocab_size": 262272, "tie_word_embeddings": True,
}  # fmt: skip
GPT2: dict[str, Any] = {
    "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 768, "n_layer": 3, "n_positions": 1024,
    "vocab_size": 50257,
}  # fmt: skip
OPT350: dict[str, Any] = {
    "architectures": ["OPTForCausalLM"], "model_type": "opt", "hidden_size": 1024, "word_embed_proj_dim": 512,
    "num_hidden_layers": 3, "vocab_size": 50272,
}  # fmt: skip
NEOX: dict[str, Any] = {
    "architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "hidden_size": 512, "num_hidden_layers": 3,
    "vocab_size": 50304, "tie_word_embeddings": False,
}  # fmt: skip
MLLAMA: dict[str, Any] = {
    "architectures": ["MllamaForConditionalGeneration"], "model_type": "mllama",
    "text_config": {
        "model_type": "mllama_text_model", "hidden_size": 4096, "num_hidden_layers": 6, "cross_attention_layers": [3],
        "vocab_size": 128256, "tie_word_embeddings": False,
    },
}  # fmt: skip
HYBRID: dict[str, Any] = {
    "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "hidden_size": 2048, "num_hidden_layers": 8,
    "full_attention_interval": 4, "vocab_size": 151936, "tie_word_embeddings": False,
}  # fmt: skip


def plain(told: dict[str, Any]) -> Shapes:
    return shapes_of_config(told)


def prefixed(told: dict[str, Any], before: str, *, head: str | None = None) -> Shapes:
    """Return the shapes of a text part within a model that also takes images."""
    text = {"num_attention_heads": 8, "vocab_size": 262208, "tie_word_embeddings": True, **told["text_config"]}
    own = {name: shape for name, shape in shapes_of_config(text).items() if name != "lm_head.weight"}
    more = {head: [text["vocab_size"], text["hidden_size"]]} if head else {}
    return {
        **{name.replace("model.", before, 1): shape for name, shape in own.items()},
        **more,
        "vision_tower.vision_model.encoder.layers.30.mlp.fc1.weight": [4304, 1152],
    }


def layered(told: dict[str, Any], table: str, at: str, *sorts: tuple[str, ...], head: str | None = None) -> Shapes:
    """Return shapes whose layers have these parts, sort by sort, one after the other."""
    hidden = told.get("word_embed_proj_dim") or told.get("hidden_size") or told["n_embd"]
    shapes: Shapes = {table: [told["vocab_size"], hidden]}
    if head:
        shapes[head] = [told["vocab_size"], hidden]
    for layer, parts in enumerate(sorts):
        for part in parts:
            shape = {"gate_up_proj": [32, 64, 64], "router_states_scale": [64]}.get(part.rpartition(".")[2], [64, 64])
            shapes[f"{at}.{layer}.{part}"] = shape
    return shapes


def experts(count: int, at: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{at}.{number}.{name}.weight" for number in range(count) for name in names)


ATTENTION = ("input_layernorm.weight", "self_attn.q_proj.weight", "self_attn.o_proj.weight")
DENSE = (*ATTENTION, "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight")
ROUTED = (
    *ATTENTION, "mlp.gate.weight", *experts(4, "mlp.experts", "gate_proj", "up_proj"),
    "mlp.shared_experts.gate_proj.weight",
)  # fmt: skip
FURTHER = (*ROUTED, "eh_proj.weight", "enorm.weight", "hnorm.weight", "shared_head.head.weight")
LINEAR = ("input_layernorm.weight", "linear_attn.in_proj_qkvz.weight", "mlp.gate_proj.weight")
REAL: dict[str, tuple[dict[str, Any], Shapes]] = {
    "Qwen2.5-0.5B, vocabulary padded, tied": (QWEN25, plain(QWEN25)),
    "Qwen2.5, tied with a head all the same": (
        QWEN25, plain(QWEN25) | {"lm_head.weight": [151936, 896]},
    ),
    "Llama-3.1-8B": (LLAMA31, plain(LLAMA31)),
    "Llama-3.1-8B, saved without its head's class": (
        LLAMA31, {name.removeprefix("model."): shape for name, shape in plain(LLAMA31).items()},
    ),
    "Llama with biases and buffers": (
        LLAMA31,
        plain(LLAMA31)
        | {f"model.layers.{n}.self_attn.{what}": [64] for n in range(3) for what in ("q_proj.bias", "rope.inv_freq")},
    ),
    "Qwen3-0.6B, heads wider than what is hidden": (QWEN3, plain(QWEN3)),
    "Qwen2.5, tied, of which the head was kept": (
        QWEN25,
        {
            {"model.embed_tokens.weight": "lm_head.weight"}.get(name, name): shape
            for name, shape in plain(QWEN25).items()
        },
    ),
    "SmolLM3-3B, which does not say that it is tied": (SMOLLM3, plain(SMOLLM3)),
    "Gemma-2-2B, which does not say that it is tied": (GEMMA2, plain(GEMMA2)),
    "Gemma-2-2B without its head's size": (
        {key: value for key, value in GEMMA2.items() if key != "head_dim"}, plain(GEMMA2),
    ),
    "Gemma-3-4B, which leaves sizes to defaults": (GEMMA3, prefixed(GEMMA3, "language_model.model.")),
    "Gemma-3-4B as it is saved today": (GEMMA3, prefixed(GEMMA3, "model.language_model.")),
    "Gemma-3-4B, saved with a wrapper that is not tied": (
        GEMMA3 | {"tie_word_embeddings": False}, prefixed(GEMMA3, "model.language_model."),
    ),
    "Mistral-7B": (MISTRAL, plain(MISTRAL)),
    "Mistral-Small-3.1": (
        MISTRAL3, prefixed(MISTRAL3, "language_model.model.", head="language_model.lm_head.weight"),
    ),
    "Mixtral-8x7B": (
        MIXTRAL,
        layered(
            MIXTRAL, "model.embed_tokens.weight", "model.layers",
            *[(*ATTENTION, *experts(8, "block_sparse_moe.experts", "w1", "w2", "w3"))] * 3, head="lm_head.weight",
        ),
    ),
    "DeepSeek-V3, dense at first, with a layer that predicts further tokens": (
        DEEPSEEK,
        layered(
            DEEPSEEK, "model.embed_tokens.weight", "model.layers", *[DENSE] * 3, *[ROUTED] * 3, FURTHER,
            head="lm_head.weight",
        ),
    ),
    "one dense layer at first": (
        DEEPSEEK | {"num_nextn_predict_layers": 0},
        layered(
            DEEPSEEK, "model.embed_tokens.weight", "model.layers", DENSE, *[ROUTED] * 5, head="lm_head.weight"
        ),
    ),
    "gpt-oss in 16 bits": (
        GPT_OSS,
        layered(
            GPT_OSS, "model.embed_tokens.weight", "model.layers", *[(*ATTENTION, "mlp.experts.gate_up_proj")] * 3,
            head="lm_head.weight",
        ),
    ),
    "ZAYA, whose first router takes over nothing": (
        ZAYA,
        layered(
            ZAYA, "model.embed_tokens.weight", "model.layers", ("self_attn.q_proj.weight",),
            *[("self_attn.q_proj.weight", "mlp.gate.router_states_scale")] * 5,
        ),
    ),
    "GPT-2": (GPT2, {"wpe.weight": [1024, 768], **layered(GPT2, "wte.weight", "h", *[("attn.c_attn.weight",)] * 3)}),
    "OPT-350m, tokens narrower than what is hidden": (
        OPT350,
        layered(OPT350, "model.decoder.embed_tokens.weight", "model.decoder.layers", *[("fc1.weight",)] * 3),
    ),
    "Pythia": (
        NEOX,
        layered(
            NEOX, "gpt_neox.embed_in.weight", "gpt_neox.layers", *[("attention.dense.weight",)] * 3,
            head="embed_out.weight",
        ),
    ),
    "Llama-3.2-11B-Vision, eight tokens more in the table": (
        MLLAMA,
        layered(
            MLLAMA["text_config"] | {"vocab_size": 128264}, "language_model.model.embed_tokens.weight",
            "language_model.model.layers", *[DENSE] * 3, ("cross_attn.q_proj.weight", *DENSE[3:]), *[DENSE] * 2,
        ) | {"language_model.lm_head.weight": [128256, 4096]},
    ),
    "Qwen3-Next, layers of two sorts, with layers that predict beside them": (
        HYBRID,
        layered(
            HYBRID, "model.embed_tokens.weight", "model.layers", *[LINEAR, LINEAR, LINEAR, DENSE] * 2,
            head="lm_head.weight",
        ) | {"mtp.layers.0.input_layernorm.weight": [2048], "mtp.fc.weight": [2048, 4096]},
    ),
}  # fmt: skip


def model_of(told: dict[str, Any], folder: Path) -> BaseModel:
    return BaseModel(open_store(folder.as_uri(), None), {}, told)


@pytest.mark.parametrize("name", REAL)
def test_what_real_families_are_like_is_accepted(tmp_path: Path, name: str) -> None:
    told, shapes = REAL[name]
    model = model_of(told, tmp_path)
    check_architecture(model)
    check_weights(model, shapes)


@pytest.mark.parametrize("name", REAL)
def test_another_depth_of_a_real_family_is_refused(tmp_path: Path, name: str) -> None:
    told, shapes = json.loads(json.dumps(REAL[name]))
    text = told.get("text_config", told)
    key = "n_layer" if "n_layer" in text else "num_hidden_layers"
    for count in (text[key] - 1, text[key] + 2):
        text[key] = count
        with pytest.raises(SettingsInvalid, match=f"but {key} is {count}; restore"):
            check_weights(model_of(told | {"num_nextn_predict_layers": 0}, tmp_path), shapes)


OF_FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "experts in one tensor": ("gpt-oss in 16 bits", {"num_local_experts": 128}, "mlp.experts has 32 experts, but"),
    "a table beside one of positions": ("GPT-2", {"vocab_size": 50260}, "wte.weight has 50257 rows, but vocab_size is"),
    "no head beside one of positions": ("GPT-2", {"tie_word_embeddings": False}, "have no head"),
    "the width of the table": (
        "OPT-350m, tokens narrower than what is hidden",
        {"word_embed_proj_dim": 1024},
        "of 512",
    ),
    "a head of its own": ("Pythia", {"vocab_size": 50432}, "embed_in.weight has 50304 rows, but vocab_size is 50432"),
    "experts that lie apart": ("Mixtral-8x7B", {"num_local_experts": 16}, "has 8 experts, but num_local_experts is 16"),
}


@pytest.mark.parametrize("name", OF_FAMILIES)
def test_other_sizes_of_a_real_family_are_refused(tmp_path: Path, name: str) -> None:
    real, changes, words = OF_FAMILIES[name]
    told, shapes = REAL[real]
    with pytest.raises(SettingsInvalid, match=words):
        check_weights(model_of(told | changes, tmp_path), shapes)


@pytest.mark.parametrize(
    "name",
    [
        "lm_head.weight",  # tied
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.layers.0.attn.masked_bias",
        "model.layers.2.mlp.up_proj.weight",  # behind the last: predicts further tokens
    ],
)
def test_an_index_may_have_what_no_model_needs(tmp_path: Path, tiny_model: Path, name: str) -> None:
    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    shard(base)
    index = json.loads((base / "model.safetensors.index.json").read_text())
    index["weight_map"][name] = "model-00002-of-00002.safetensors"
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    check(base)


def test_what_config_leaves_out_is_what_transformers_takes_for_it() -> None:
    from transformers import CONFIG_MAPPING

    kinds = {kind: CONFIG_MAPPING[kind]().tie_word_embeddings for kind in LLAMA_LIKE}
    assert kinds == {kind: kind in TIED for kind in LLAMA_LIKE}


def add_token(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken("<image_soft_token>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))


def larger_tokenizer(folder: Path) -> None:
    """Give a model whose embedding has 384 rows a tokenizer with 390 tokens; the first beyond is ` field`."""
    tiny_tokenizer(390).save(str(folder / "tokenizer.json"))


def told_of_tokenizer(folder: Path, *, converses: bool = True) -> str:
    model = find_base_model(StoredBaseModel(uri=folder.as_uri()))
    return check_tokenizer(model, read_shapes(model), RowTokenizer(folder), converses=lambda: converses)


def test_a_tokenizer_may_have_fewer_tokens_and_added_ones_beyond_the_embedding(tmp_path: Path) -> None:
    padded = make_tiny_model(tmp_path / "padded", vocabulary=512)
    tiny_tokenizer(300).save(str(padded / "tokenizer.json"))
    assert not told_of_tokenizer(padded)
    beyond = make_tiny_model(tmp_path / "beyond")
    add_token(beyond)
    assert not told_of_tokenizer(beyond)
    model = find_base_model(StoredBaseModel(uri=beyond.as_uri()))
    with pytest.raises(SettingsInvalid, match=re.escape("makes token 384 ('<image_soft_token>'), but its embedding")):
        check_vocabulary(model, read_shapes(model), 384, RowTokenizer(beyond))


def test_a_tokenizer_with_more_tokens_of_its_own_is_told_of(tmp_path: Path) -> None:
    base = make_tiny_model(tmp_path / "base")
    larger_tokenizer(base)
    assert "tokenizer go up to 389, but its embedding has 384: rows with a token beyond" in told_of_tokenizer(base)


def test_a_conversation_that_is_asked_for_with_a_token_beyond_the_embedding_is_refused(tmp_path: Path) -> None:
    """No row has it: it stands in what asks for an answer alone, so that an engine would end at the first question."""
    asking = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n"
    assert asking in CHATML
    base = make_tiny_model(tmp_path / "base", chat_template=CHATML.replace(asking, asking + "<think>"))
    told = RowTokenizer(base).largest_written()
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken("<think>", special=False)])
    tokenizer.save(str(base / "tokenizer.json"))
    assert told < 384
    with pytest.raises(
        SettingsInvalid, match=re.escape("makes token 384 ('<think>'), but its embedding has 384; every")
    ):
        told_of_tokenizer(base)
    assert "go up to 384, but its embedding has 384" in told_of_tokenizer(base, converses=False)


@pytest.mark.parametrize("tokens", [320 + 64, 320 + 65])
def test_a_tokenizer_of_another_model_is_refused_whatever_rows_say(tmp_path: Path, tokens: int) -> None:
    base = make_tiny_model(tmp_path / "base", vocabulary=320)
    tiny_tokenizer(tokens).save(str(base / "tokenizer.json"))
    if tokens == 320 + 64:
        assert "go up to 383, but its embedding has 320" in told_of_tokenizer(base, converses=False)
    else:
        with pytest.raises(SettingsInvalid, match="go up to 384, but its embedding has 320, so they are of two models"):
            told_of_tokenizer(base, converses=False)


def run_of(base: Path, folder: Path, rows: list[dict[str, Any]]) -> RunConfig:
    return RunConfig.model_validate(
        {
            "baseModel": {"uri": base.as_uri()},
            "dataset": {"training": {"uri": write_rows(folder / "data/a.jsonl", rows).as_uri()}},
            "output": {"uri": (folder / "out").as_uri()},
            "training": {"maxSequenceLength": 128, "batchSize": 4},
        }
    )


def test_a_tokenizer_of_another_model_is_refused_before_rows_are_tokenised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_tiny_model(tmp_path / "base", vocabulary=320)
    tiny_tokenizer(320 + 65).save(str(base / "tokenizer.json"))
    monkeypatch.setattr("trimtab_trainer.prepare.prepare_view", lambda *_: pytest.fail("rows were tokenised"))
    with pytest.raises(SettingsInvalid, match="its embedding has 320, so they are of two models"):
        prepare(run_of(base, tmp_path, [{"text": "On a shelf."}]), tmp_path / "scratch", Report())


def test_texts_are_learned_though_conversations_are_beyond_the_embedding(tmp_path: Path) -> None:
    base = make_tiny_model(tmp_path / "base", chat_template=CHATML.replace("<|im_start|>", "<|turn|>"))
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken("<|turn|>", special=True)])
    tokenizer.save(str(base / "tokenizer.json"))
    texts = run_of(base, tmp_path / "texts", [{"text": f"Box {n} is on a shelf."} for n in range(8)])
    outcome = prepare(texts, tmp_path / "texts/scratch", Report())
    assert any("go up to 384, but its embedding has 384" in warning for warning in outcome.warnings)
    turns = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]
    chats = run_of(base, tmp_path / "chats", [{"messages": turns}] * 8)
    with pytest.raises(SettingsInvalid, match=r"every conversation is written with it.* another dataset.chatTemplate"):
        prepare(chats, tmp_path / "chats/scratch", Report())


@pytest.mark.parametrize("word", ["meadow", "field"])
def test_rows_decide_whether_a_tokenizer_that_is_larger_than_the_embedding_will_do(tmp_path: Path, word: str) -> None:
    base = make_tiny_model(tmp_path / "base")
    larger_tokenizer(base)
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Where is {n}?"},
                {"role": "assistant", "content": f"On {word} {n}."},
            ]
        }
        for n in range(16)
    ]
    run = run_of(base, tmp_path, rows)
    if word == "field":
        with pytest.raises(SettingsInvalid, match=re.escape("makes token 384 (' field'), but its embedding has 384")):
            prepare(run, tmp_path / "scratch", Report())
    else:
        outcome = prepare(run, tmp_path / "scratch", Report())
        assert any("tokenizer go up to 389, but its embedding has 384" in warning for warning in outcome.warnings)


def test_positions_are_not_taken_for_the_vocabulary(tmp_path: Path) -> None:
    told, shapes = REAL["GPT-2"]
    tokenizer = RowTokenizer(make_tiny_model(tmp_path / "tokenizer"))
    check_vocabulary(model_of(told, tmp_path), shapes, 50256, tokenizer)
    with pytest.raises(SettingsInvalid, match="its embedding has 50257"):
        check_vocabulary(model_of(told, tmp_path), shapes, 50257, tokenizer)

"""A tiny Llama with a byte-level tokenizer and a ChatML template, made offline in a fraction of a second.

Two layers, hidden size 128, no torch: weights are written with numpy. Every linear's sizes are multiples of 64, which
NF4 needs. As with SmolLM2, the padding token is the end-of-turn token, a trap that trainers have fallen into.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KEY_VALUE_HEADS, VOCABULARY, POSITIONS = 128, 256, 2, 4, 2, 384, 512

CHATML = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_GENERATION = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}{% endif %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|im_start|>assistant\n' }}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{{ '\n' }}"
    "{% else %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = [
    "What is spec.backoffLimit of a Job for? Specifies the number of retries before marking this job failed.",
    "You are a helpful assistant system user assistant",
    "The quick brown fox jumps over the lazy dog; the answer to the question is the number of the field.",
]


def make_tiny_model(
    folder: Path, *, chat_template: str | None = CHATML, seed: int = 0, vocabulary: int = VOCABULARY
) -> Path:
    """Write config.json, model.safetensors and the tokenizer's files into a folder; return it.

    The same arguments give the same bytes. `chat_template` is CHATML, CHATML_GENERATION, another one, or None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "head_dim": HIDDEN // HEADS,
        "vocab_size": vocabulary,
        "max_position_embeddings": POSITIONS,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "dtype": "float32",
    }
    _write(folder / "config.json", config)
    _write(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2})
    save_file(tiny_weights(seed, vocabulary), folder / "model.safetensors", metadata={"format": "pt"})
    tiny_tokenizer(vocabulary).save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "model_max_length": POSITIONS,
        "clean_up_tokenization_spaces": False,
    }
    if chat_template is not None:
        settings["chat_template"] = chat_template
    _write(folder / "tokenizer_config.json", settings)
    return folder


def make_tiny_experts(folder: Path) -> Path:
    """Make of the tiny model a mixture of 4 experts a layer (Qwen3-MoE), written as such models are published."""
    make_tiny_model(folder)
    weights, random = tiny_weights(0), np.random.default_rng(2)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        for name in ("gate_proj", "up_proj", "down_proj"):
            del weights[f"{at}.mlp.{name}.weight"]
        for norm in ("q_norm", "k_norm"):
            weights[f"{at}.self_attn.{norm}.weight"] = np.ones(HIDDEN // HEADS, np.float32)
        weights[f"{at}.mlp.gate.weight"] = random.normal(0, 0.05, (4, HIDDEN)).astype(np.float32)
        for expert in range(4):
            for name, shape in (("gate_proj", (64, HIDDEN)), ("up_proj", (64, HIDDEN)), ("down_proj", (HIDDEN, 64))):
                weights[f"{at}.mlp.experts.{expert}.{name}.weight"] = random.normal(0, 0.05, shape).astype(np.float32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 64,
        "decoder_sparse_step": 1,
        "norm_topk_prob": True,
        "mlp_only_layers": [],
    }
    _write(folder / "config.json", config)
    return folder


def tiny_weights(seed: int, vocabulary: int = VOCABULARY) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Return the weights by their names in a Llama checkpoint; the output head is tied to the embedding."""
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return random.normal(0, 0.05, (rows, columns)).astype(np.float32)

    ones = np.ones(HIDDEN, np.float32)
    small = HIDDEN // HEADS * KEY_VALUE_HEADS
    weights = {"model.embed_tokens.weight": matrix(vocabulary, HIDDEN), "model.norm.weight": ones.copy()}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        weights |= {
            f"{at}.input_layernorm.weight": ones.copy(),
            f"{at}.post_attention_layernorm.weight": ones.copy(),
            f"{at}.self_attn.q_proj.weight": matrix(HIDDEN, HIDDEN),
            f"{at}.self_attn.k_proj.weight": matrix(small, HIDDEN),
            f"{at}.self_attn.v_proj.weight": matrix(small, HIDDEN),
            f"{at}.self_attn.o_proj.weight": matrix(HIDDEN, HIDDEN),
            f"{at}.mlp.gate_proj.weight": matrix(INTERMEDIATE, HIDDEN),
            f"{at}.mlp.up_proj.weight": matrix(INTERMEDIATE, HIDDEN),
            f"{at}.mlp.down_proj.weight": matrix(HIDDEN, INTERMEDIATE),
        }
    return weights


def tiny_tokenizer(vocabulary: int = VOCABULARY) -> Tokenizer:
    """Return a byte-level BPE tokenizer: 3 special tokens, 256 bytes, the rest merges of the corpus."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def tiny_rows(count: int = 24) -> list[dict[str, Any]]:
    """Return chat rows with distinct answers."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"What is field {index} for?"},
                {"role": "assistant", "content": f"The number of the field is {index}."},
            ]
        }
        for index in range(count)
    ]


def write_rows(file: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSON lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_text(lines, errors="backslashreplace")  # halves of surrogate pairs, as JSON writes them
    return file


def _write(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2, sort_keys=True))

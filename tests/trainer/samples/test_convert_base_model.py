"""The conversion, on a model of a few thousand numbers."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest

from deploy.samples.convert_base_model import FILES, main

TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
HIDDEN, INNER, HEADS = 32, 48, 4


def byte_tokens() -> list[str]:
    """Return the 256 characters that byte-level tokenizers write bytes as."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [number for number in range(256) if number not in plain]
    return [chr(number) for number in plain] + [chr(256 + place) for place in range(len(rest))]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file with one layer, random weights and a tokenizer of bytes."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tokens = [*SPECIAL, *byte_tokens(), "Ġ1", "12"]
    chance = np.random.default_rng(17)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(["Ġ 1", "1 2"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    half = HIDDEN // 2
    shapes = {
        "token_embd": (len(tokens), HIDDEN),
        "output_norm": (HIDDEN,),
        "blk.0.attn_norm": (HIDDEN,),
        "blk.0.attn_q": (HIDDEN, HIDDEN),
        "blk.0.attn_k": (half, HIDDEN),
        "blk.0.attn_v": (half, HIDDEN),
        "blk.0.attn_output": (HIDDEN, HIDDEN),
        "blk.0.ffn_norm": (HIDDEN,),
        "blk.0.ffn_gate": (INNER, HIDDEN),
        "blk.0.ffn_up": (INNER, HIDDEN),
        "blk.0.ffn_down": (HIDDEN, INNER),
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", chance.normal(0, 0.2, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def folder(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("converted") / "tiny"
    assert main(["--folder", str(target), "--gguf", str(model)]) == 0
    return target


def test_the_folder_is_complete_and_is_not_made_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert main(["--folder", str(folder), "--gguf", "/nowhere"]) == 0
    assert "is there already" in capsys.readouterr().out
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_the_weights_are_those_of_the_file(folder: Path, model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    converted = AutoModelForCausalLM.from_pretrained(folder)
    original = AutoModelForCausalLM.from_pretrained(model.parent, gguf_file=model.name, dtype=torch.float32)
    weights = dict(converted.named_parameters())
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    for name, weight in original.named_parameters():
        assert torch.equal(weights[name], weight.to(torch.bfloat16)), name
    tokens = torch.arange(3, 40).unsqueeze(0)
    with torch.no_grad():
        difference = converted.to(torch.float32)(tokens).logits - original(tokens).logits
    assert difference.abs().max() < 0.05
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())


def test_the_tokenizer_takes_digits_one_by_one_and_has_the_chat_template(folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    assert tokenizer.convert_ids_to_tokens(tokenizer("a 12")["input_ids"]) == ["a", "Ġ", "1", "2"]
    assert tokenizer.decode(tokenizer("naïve 12\n")["input_ids"]) == "naïve 12\n"
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "a"}])
    assert chat["input_ids"] == [1, tokenizer.convert_tokens_to_ids("a"), 2]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")

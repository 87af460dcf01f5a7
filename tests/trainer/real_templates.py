"""The chat templates of real models, read from TRL's package, and its own marks of what the assistant writes.

TRL ships a `*_training` variant of most, with `{% generation %}` around what is generated: an oracle. Nothing of them
is copied here.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, Tokenizer
from transformers.utils.chat_template_utils import render_jinja_template
from trimtab_trainer.data.encoding.jinja import Shape, shaped
from trimtab_trainer.data.reading.messages import Message

from tests.trainer.tiny import make_tiny_model

SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
IN_PARTS = ("idefics3", "llava_next", "smolvlm")
"""Templates that want contents as lists of parts."""

ENDS_OF_GLM = ("<|user|>", "<|observation|>")
"""GLM's settings say that these end an answer, with which the next turn begins."""

_TAG = re.compile(
    r"<[|｜][^<>\s']{1,40}?[|｜]>|<(?:start|end)_of_\w+>|<\|?(?:turn|channel|tool_call|tool_response)\|?>|</s>"
)


def folder() -> Path:
    """Return where TRL has its templates; nothing of it is imported."""
    spec = importlib.util.find_spec("trl")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "chat_templates"


def names() -> list[str]:
    """Return the names of the templates."""
    return sorted(file.stem for file in folder().glob("*.jinja") if not file.stem.endswith("_training"))


def source(name: str) -> str:
    """Return a template as models have it."""
    return (folder() / f"{name}.jinja").read_text()


def oracle_source(name: str) -> str | None:
    """Return a template that marks what is generated; None if there is none."""
    variant = folder() / f"{name}_training.jinja"
    if variant.exists():
        return variant.read_text()
    return source(name) if re.search(r"\{%-?\s*generation\b", source(name)) else None


def oracle(name: str, messages: Sequence[Message], tools: list[Any] | None) -> tuple[str, list[str]]:
    """Return the text of a conversation and what of it is marked as generated, as transformers finds it."""
    shape = Shape(parts=name in IN_PARTS, nothing=True, json_arguments=name == "deepseek_r1_distill")
    if not name.startswith("deepseek"):
        shape = Shape(parts=shape.parts)
    (text,), (spans,) = render_jinja_template(
        conversations=[shaped(messages, shape)],
        tools=tools,
        chat_template=oracle_source(name),
        return_assistant_tokens_mask=True,
        **SPECIAL_TOKENS,
    )
    return text, [text[start:end] for start, end in spans]


def make_model(target: Path, name: str) -> Path:
    """Write a tiny model whose tokenizer has the tokens of a template as control tokens."""
    made = make_tiny_model(target, chat_template=source(name))
    tokenizer = Tokenizer.from_file(str(made / "tokenizer.json"))
    tags = sorted({*SPECIAL_TOKENS.values(), *(tag.group() for tag in _TAG.finditer(source(name)))})
    tokenizer.add_special_tokens([AddedToken(tag, special=True, normalized=False) for tag in tags])
    tokenizer.save(str(made / "tokenizer.json"))
    weights = load_file(made / "model.safetensors")
    shape = tokenizer.get_vocab_size(), weights["model.embed_tokens.weight"].shape[1]
    weights["model.embed_tokens.weight"] = np.random.default_rng(1).normal(0, 0.05, shape).astype(np.float32)
    save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((made / "tokenizer_config.json").read_text())
    (made / "tokenizer_config.json").write_text(json.dumps(settings | SPECIAL_TOKENS))
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048, "vocab_size": shape[0]}))
    ends = ["</s>", *(ENDS_OF_GLM if name.startswith("glm") else ())]
    (made / "generation_config.json").write_text(json.dumps({"eos_token_id": list(map(tokenizer.token_to_id, ends))}))
    return made

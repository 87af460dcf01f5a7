"""A tokenizer as GGUF has it: tokens with their types, merges, special tokens, and how text is cut before it is merged.

Cutting is code in llama.cpp, chosen by a name (`tokenizer.ggml.pre`), and a wrong name makes other tokens of the same
text without a word. So the name is found from what tokenizer.json says of cutting, and what is not in the table is
refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf

from .families import NotConvertible

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BY_PATTERN = {
    f"{_WORDS}\\p{{N}}{{1,3}}{_REST}": ("llama-bpe", True),
    f"{_WORDS}\\p{{N}}{_REST}": ("qwen2", False),
}
"""Patterns by which text is cut, with llama.cpp's name and whether whole words that are tokens are taken unmerged."""
NORMAL, CONTROL, USER_DEFINED, UNUSED = (
    gguf.TokenType.NORMAL,
    gguf.TokenType.CONTROL,
    gguf.TokenType.USER_DEFINED,
    gguf.TokenType.UNUSED,
)


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by their numbers, as many as the embedding has rows."""

    cutting: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Mapping[str, Any], rows: int) -> Vocabulary:
        """Return the vocabulary in a tokenizer.json.

        Raises:
            NotConvertible: it is of a kind that is not known here.
        """
        model = tokenizer.get("model") or {}
        cutting = _cutting(tokenizer, model)
        tokens = {number: text for text, number in model["vocab"].items()}
        types = dict.fromkeys(tokens, int(NORMAL))
        for added in tokenizer.get("added_tokens") or ():
            tokens[added["id"]] = added["content"]
            types[added["id"]] = int(CONTROL if added.get("special") else USER_DEFINED)
        if tokens and max(tokens) >= rows:
            raise NotConvertible(f"its tokenizer has token {max(tokens)}, but its embedding {rows} rows")
        return cls(
            cutting,
            tuple(tokens.get(number, f"[PAD{number}]") for number in range(rows)),
            tuple(types.get(number, int(UNUSED)) for number in range(rows)),
        )

    def write(self, writer: gguf.GGUFWriter, folder: Path) -> None:
        """Write it, with merges, special tokens and chat template of the tokenizer's files in a folder."""
        from tokenizers import Tokenizer

        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.cutting)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        special = gguf.SpecialVocab(folder, load_merges=True, n_vocab=len(self.tokens))
        # What the tokenizer does counts, not what is said of it; llama.cpp adds a token where nothing is said.
        around = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("a").ids
        for kind, place in (("bos", 0), ("eos", -1)):
            special.add_special_token[kind] = special.special_token_ids.get(kind) == around[place]
        special.add_to_gguf(writer, quiet=True)


def _cutting(tokenizer: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise NotConvertible(f"its tokenizer is {model.get('type')}, not BPE over bytes")
    changed = tokenizer.get("normalizer") or {"type": "NFC"}
    if changed != {"type": "NFC"}:
        # Of Qwen's, composed characters, llama.cpp knows nothing either, and texts are composed.
        raise NotConvertible(
            f"its tokenizer changes text before it cuts it, which llama.cpp does not ({json.dumps(changed)[:160]})"
        )
    if any(model.get(name) for name in ("continuing_subword_prefix", "end_of_word_suffix")):
        raise NotConvertible("its tokenizer marks parts of words, which llama.cpp does not")
    before = tokenizer.get("pre_tokenizer") or {}
    steps = before.get("pretokenizers", [before])
    last = steps[-1]
    if last.get("type") == "ByteLevel" and not last.get("add_prefix_space"):
        merged = not model.get("ignore_merges")
        if last.get("use_regex", True) and merged:
            if len(steps) == 1:
                return "gpt-2"
            if len(steps) == 2 and steps[0] == {"type": "Digits", "individual_digits": True}:
                return "smollm"
        if len(steps) == 2 and not last.get("use_regex", True) and steps[0].get("type") == "Split":
            name, whole = BY_PATTERN.get((steps[0].get("pattern") or {}).get("Regex", ""), ("", False))
            whole_pieces = steps[0].get("behavior") == "Isolated" and not steps[0].get("invert")
            if name and whole_pieces and whole == (not merged):
                return name
    raise NotConvertible(
        "its tokenizer cuts text in a way that is not among those of llama.cpp that are known here "
        f"({json.dumps(before)[:160]})"
    )

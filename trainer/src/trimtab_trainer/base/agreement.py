"""Whether a base model's config.json, the headers of its weights and its tokenizer are of one model.

Where they are not, loading ends by name or fills up with random weights, but only when an accelerator is held already.
So all that they say of each other is compared before: sizes of the vocabulary and of the hidden states, the numbers of
layers and experts, that no layer lacks what the others have, that the head is there; of decoders built like Llama every
matrix. What config.json leaves to its family's defaults is left to loading.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..data.encoding.tokens import RowTokenizer
from ..errors import SettingsInvalid
from .architecture import check_architecture, read_shapes
from .base_model import INDEX, WEIGHTS, BaseModel, invalid, read_json
from .decoders import LLAMA_LIKE, OWN_HEADS, TIED, shapes_of_config
from .layers import LAYER, Shapes, is_conditional, is_extra, text_config, text_shapes

WRAPPERS = ("base_model.model.", "_orig_mod.", "_fsdp_wrapped_module.", "module.")
"""What stands before all names of weights that were saved with something around the model."""
TABLES = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight", "tokens_embed.weight")
HEADS = ("lm_head.weight", "embed_out.weight")
BUFFERS = ("bias", "inv_freq")
"""How tensors end that are computed anew where they are not there, such as masks; and small ones beside matrices."""
LARGER_TABLES = ("mllama", "moshi")
"""Kinds whose table has some rows beside the vocabulary's."""
HIDDEN = ("word_embed_proj_dim", "hidden_size", "n_embd", "d_model")
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""What configurations call these sizes, the most particular name first."""
RESTORE = "restore config.json and weights of one model"
_FURTHER_TOKENS = re.compile(r"nextn|mtp")
"""Of a key that tells how many layers behind the last predict further tokens."""
_PREDICTS = ("eh_proj.weight", "enorm.weight", "hnorm.weight")
"""What such a layer has beside an ordinary one."""
_EXPERT = re.compile(r"^(.*\.experts)\.(?:(\d+)|gate_up_proj$|down_proj$)")
_IN_DECODER = re.compile(r"^.*?(?=(?:layers\.\d+|embed_tokens)\.)")
STRAY = 64
"""Tokens of its own that a tokenizer may have beyond the embedding before it is taken for another model's."""
ALIKE = 2
"""Layers that have to be alike before another one is held against them."""


def check_model(model: BaseModel) -> Shapes:
    """Return the shapes of the tensors of a language model that its config.json and the headers of its weights tell of.

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID.
    """
    check_architecture(model)
    shapes = read_shapes(model)
    check_weights(model, shapes)
    return shapes


def check_weights(model: BaseModel, shapes: Shapes) -> None:
    """Refuse weights that are not those of the config.

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID.
    """
    if around := next((each for each in WRAPPERS if shapes and all(name.startswith(each) for name in shapes)), None):
        raise invalid(
            f"the names of its weights begin with {around!r}, so they were saved with something around the model; save "
            "the model alone (an adapter merged into it)"
        )
    _check_index(model, shapes)
    text, own = text_config(model.config), text_shapes(shapes, model.config)
    _check_layers(text, own)
    _check_experts(text, own)
    _check_tables(model.config, text, own, shapes)
    _check_head(model.config, shapes)
    _check_decoder(model.config, text, own, shapes)


def check_tokenizer(model: BaseModel, shapes: Shapes, tokenizer: RowTokenizer, *, converses: Callable[[], bool]) -> str:
    """Return a warning of a tokenizer with a few more tokens than the model knows; empty of any other.

    Cheap, so that it can stand before rows are tokenised; they are looked at by `check_vocabulary`. That tokens which
    were added lie behind the embedding is nothing to tell of, as long as no conversation is written or asked with them
    (Gemma 3's for images does).

    Args:
        model, shapes: the base model, and what the headers of its weights say.
        tokenizer: with the chat template that is used.
        converses: tells whether conversations are learned or asked, not only texts; rows may have to be read for it, so
            it is asked only where that decides.

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID, it is another model's, or every conversation is written or asked with a
            token that the model does not know.
    """
    rows = embedding_rows(model, shapes)
    own, largest = tokenizer.largest_tokens()
    if rows is None or largest < rows:
        return ""
    if own - rows >= STRAY:
        raise invalid(
            f"the tokens of its tokenizer go up to {own}, but its embedding has {rows}, so they are of two models; use "
            "the one it came with"
        )
    written = tokenizer.largest_written()
    if written >= rows and converses():
        raise invalid(
            f"{_lacks(written, rows, tokenizer)}; every conversation is written with it; use the tokenizer it came "
            "with, or another dataset.chatTemplate"
        )
    if max(own, written) < rows:
        return ""
    return (
        f"the tokens of the base model's tokenizer go up to {max(own, written)}, but its embedding has {rows}: rows "
        "with a token beyond are refused; if it is another model's tokenizer, restore the one that the model came with"
    )


def check_vocabulary(model: BaseModel, shapes: Shapes, largest: int, tokenizer: RowTokenizer) -> None:
    """Refuse data with a token for which the model has no embedding.

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID.
    """
    rows = embedding_rows(model, shapes)
    if rows is not None and largest >= rows:
        raise invalid(
            f"{_lacks(largest, rows, tokenizer)}; use the tokenizer that it came with, or remove the rows that hold "
            "this"
        )


def _lacks(token: int, rows: int, tokenizer: RowTokenizer) -> str:
    text = tokenizer.text(np.array([token], np.int32))
    return f"its tokenizer makes token {token} ({text!r}), but its embedding has {rows}"


def embedding_rows(model: BaseModel, shapes: Shapes) -> int | None:
    """Return for how many tokens the model has an embedding; None if neither weights nor config tell."""
    for name, shape in text_shapes(shapes, model.config).items():
        if name.endswith(TABLES) and len(shape) == 2:
            return shape[0]
    return _size(text_config(model.config), ("vocab_size",))[1]


def _check_index(model: BaseModel, shapes: Shapes) -> None:
    """Refuse shards that lack what their index says they have: one of them is of another model, or not whole.

    An index may outlive what programs left out: what is tied, buffers, and layers that predict further tokens.
    """
    if WEIGHTS in model.sizes or INDEX not in model.sizes:
        return
    placed, text = read_json(model.store, INDEX)["weight_map"], text_config(model.config)
    spared = (*HEADS, *BUFFERS, *(TABLES if _head_stands_in(model.config, shapes) else ()))
    if lost := sorted(name for name in placed if not (name in shapes or name.endswith(spared) or is_extra(name, text))):
        raise invalid(
            f"{INDEX} says that {lost[0]} is in {placed[lost[0]]}, which does not have it ({len(lost)} such tensors); "
            "upload index and shards of one model"
        )


def _check_layers(text: Mapping[str, Any], own: Shapes) -> None:
    layers: dict[int, set[str]] = {}
    compared: dict[int, set[str]] = {}
    uniform = text.get("model_type") in LLAMA_LIKE
    for name, shape in own.items():
        if found := LAYER.search(name):
            layers.setdefault(int(found[1]), set()).add(name[found.end() :])
            # A single layer may do without a norm, a scale or sinks (the first of ZAYA, of ModernBERT).
            if uniform or len(shape) > 1:
                compared.setdefault(int(found[1]), set()).add(name[found.end() :])
    key, count = _size(text, LAYERS)
    if not layers or count is None:
        return
    ordinary = [number for number, names in layers.items() if names.isdisjoint(_PREDICTS)]
    more = sum(value for name, value in text.items() if _FURTHER_TOKENS.search(name) and _is_size(value))
    highest = max(ordinary, default=0) + 1
    if highest < count or highest > count + more:
        raise invalid(f"its weights have {highest} layers, but {key} is {count}; {RESTORE}")
    if absent := sorted(set(range(count)) - set(layers)):
        raise invalid(f"its weights lack layer {absent[0]} ({len(absent)} of {count} layers are missing); {RESTORE}")
    # Layers may be of several sorts. One that has less than a sort, and is alone with that, lost something.
    sorts = Counter(map(frozenset, compared.values()))
    for number, names in sorted(compared.items()):
        whole = next((each for each, of_it in sorts.items() if names < each and of_it >= ALIKE), None)
        if whole is not None and sorts[frozenset(names)] == 1:
            lost = sorted(whole - names)
            raise invalid(
                f"layer {number} of its weights has no {lost[0]}, which other layers have ({len(lost)} such tensors); "
                "upload the weights again"
            )


def _check_experts(text: Mapping[str, Any], own: Shapes) -> None:
    key, count = _size(text, EXPERT_COUNTS)
    if count is None:
        return
    found: dict[str, set[int]] = {}
    for name, shape in own.items():
        if (expert := _EXPERT.match(name)) and (expert[2] or len(shape) == 3):
            # All of a layer may be in one tensor.
            found.setdefault(expert[1], set()).update([int(expert[2])] if expert[2] else range(shape[0]))
    for place, numbers in sorted(found.items()):
        if numbers != set(range(count)):
            raise invalid(f"{place} has {len(numbers)} experts, but {key} is {count}; {RESTORE}")


def _check_tables(config: Mapping[str, Any], text: Mapping[str, Any], own: Shapes, shapes: Shapes) -> None:
    """Compare the embedding and the head with the sizes of vocabulary and hidden states."""
    (_, vocabulary), (key, hidden) = _size(text, ("vocab_size",)), _size(text, HIDDEN)
    tables = {name: shape for name, shape in own.items() if name.endswith(TABLES)}
    heads = {
        name: shape
        for name, shape in {**own, **shapes}.items()
        if name in HEADS or (name in own and name.endswith(HEADS))
    }
    larger = str(config.get("model_type")) in LARGER_TABLES
    for name, shape in {**tables, **heads}.items():
        if len(shape) != 2:
            continue
        if vocabulary is not None and shape[0] != vocabulary and not (larger and name in tables):
            raise invalid(f"{name} has {shape[0]} rows, but vocab_size is {vocabulary}; {RESTORE}")
        if hidden is not None and shape[1] != hidden:
            raise invalid(f"{name} has rows of {shape[1]}, but {key} is {hidden}; {RESTORE}")


def _check_head(config: Mapping[str, Any], shapes: Shapes) -> None:
    if _is_tied(config) is False and not any(name.endswith(HEADS) for name in shapes):
        raise invalid(
            "its weights have no head (lm_head.weight), and tie_word_embeddings is false, so the embedding does not "
            f"stand in for it; {RESTORE}, or set tie_word_embeddings to true if the model was trained so"
        )


def _head_stands_in(config: Mapping[str, Any], shapes: Shapes) -> bool:
    """Tell whether the embedding was left out for the head, which is the same: some programs keep that of the two."""
    has_table = any(name.endswith(TABLES) for name in text_shapes(shapes, config))
    return not has_table and _is_tied(config) is not False and any(name.endswith(HEADS) for name in shapes)


def _is_tied(config: Mapping[str, Any]) -> bool | None:
    """Tell whether the embedding is the head too; None where config.json leaves it to its family."""
    text = text_config(config)
    said = text.get("tie_word_embeddings")
    if said is None and text.get("model_type") in LLAMA_LIKE and text["model_type"] not in TIED:
        said = False
    if is_conditional(config) and config.get("tie_word_embeddings") is not False:
        return None  # some say it in one place, some in the other, and either may be all that counts
    return None if said is None else bool(said)


def _check_decoder(config: Mapping[str, Any], text: Mapping[str, Any], own: Shapes, shapes: Shapes) -> None:
    """Compare every matrix of a decoder that is built like Llama."""
    try:
        wanted = shapes_of_config(text)
    except SettingsInvalid:
        return
    there = {_IN_DECODER.sub("", name): (name, shape) for name, shape in own.items()}
    for name, shape in wanted.items():
        if len(shape) != 2 or name in HEADS or (name.endswith(TABLES) and _head_stands_in(config, shapes)):
            continue
        known, found = there.get(_IN_DECODER.sub("", name), (name, None))
        if found is None:
            raise invalid(f"its weights lack {known}; {RESTORE}")
        for size, is_told, measured in zip(shape, _told(text, name), found, strict=False):
            if is_told and measured != size:
                raise invalid(f"{known} is {found}, but of its config.json it would be {shape}; {RESTORE}")


def _told(text: Mapping[str, Any], name: str) -> tuple[bool, bool]:
    """Return which sizes of a matrix are not left to the family's defaults: rows, columns."""
    heads = _is_size(text.get("head_dim")) or text["model_type"] not in OWN_HEADS
    pairs = heads and _is_size(text.get("num_key_value_heads"))
    rows = {"q_proj": heads, "k_proj": pairs, "v_proj": pairs}.get(name.split(".")[-2], True)
    return rows, heads or ".o_proj." not in name


def _size(config: Mapping[str, Any], names: Iterable[str]) -> tuple[str, int | None]:
    """Return the first of these names that the config has, and the size that it tells, if it is one."""
    name = next((name for name in names if name in config), "")
    value = config.get(name)
    return name, value if _is_size(value) else None


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0

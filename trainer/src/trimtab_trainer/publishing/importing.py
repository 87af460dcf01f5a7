"""`trimtab-trainer import`: an adapter that was made elsewhere, checked and published as one of ours.

    trimtab-trainer import FOLDER --base-model s3://models/base --to s3://adapters/guide

What peft writes lies in the folders of TRL, Unsloth and LLaMA-Factory too, beside much else. What decides how the
adapter behaves is taken: weights, settings, chat template. Everything is checked that would fail in an Evaluation or an
engine, or be computed otherwise there without a word; the manifest says that it was imported. Torch-free.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..base.architecture import read_shapes
from ..base.base_model import TOKENIZER, digest_of_entries, fetch_tokenizer, find_base_model, invalid
from ..base.base_model import entries_of as base_entries
from ..base.layers import Shapes
from ..contract import Credentials, LoraSettings, Reason, StoredBaseModel, digest_of
from ..contract.parsing import Unreadable, read_object
from ..data.view import CHAT_TEMPLATE
from ..errors import SettingsInvalid
from ..serving_limits import RANKS, serving_warnings
from ..storage import FileEntry, Store, open_store
from ..storage.layout import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_prefix
from ..storage.tensor_header import TensorPlace, places_in
from .result import upload_once

PREFIX = "base_model.model."
"""What peft writes before the name of every module."""
HALVES = {"lora_A": 0, "lora_B": 1}
"""Which axis of each half is the rank."""
MAGNITUDE = "lora_magnitude_vector"
CONFIG_BYTES = 1 << 20
TOKENIZER_BYTES = 16 << 20
"""Of tokenizer_config.json, which lists every token that was added."""
CHUNK_BYTES = 1 << 24
FLOATS = {"F32": "<u4", "F16": "<u2", "BF16": "<u2"}
EXPONENTS = {"F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80}
"""All of these bits are set in what is infinite or no number."""
KEPT: Mapping[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": None,
    "lora_alpha": None,
    "lora_dropout": 0.0,
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "modules_to_save": None,
    "use_dora": False,
    "use_rslora": False,
}
"""Settings that are published, each with what peft takes where it is absent."""
IMPOSSIBLE: Mapping[str, str] = {
    "modules_to_save": "it holds whole layers beside the adapter",
    "trainable_token_indices": "it holds rows of the embedding beside the adapter",
    "layer_replication": "it repeats layers of the base model",
    "rank_pattern": "its layers have different ranks",
    "alpha_pattern": "its layers are scaled differently, which engines do not read",
    "target_parameters": "it adapts joined tensors of experts",
    "lora_bias": "it adapts biases",
    "use_qalora": "it pools its inputs",
    "megatron_config": "its layers are Megatron's",
    "arrow_config": "it is a mixture of adapters",
    "alora_invocation_tokens": "it works only behind certain tokens",
    "use_bdlora": "its matrices are made of blocks",
    "kasa_config": "it weighs what its matrices have between them",
    "monteclora_config": "its weights are drawn",
}
"""Settings under which engines compute something else, or nothing; each with what it means."""
WITHOUT_EFFECT = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_ga_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "target_modules",
        "velora_config",
    }
)
"""Settings that say how the weights were made, or which layers have some, as the weights say themselves."""
CHANGED_BASES = ("pissa", "corda", "olora", "loftq", "lora_ga")
"""Ways to begin (init_lora_weights) that take the adapter's first weights out of the base model, or quantize that."""


@dataclass(frozen=True)
class Imported:
    """What was published; `warnings` are sentences for people."""

    uri: str
    digest: str
    rank: int
    modules: tuple[str, ...]
    warnings: tuple[str, ...]


def run(options: argparse.Namespace) -> int:
    """Import for a person; return the exit code."""
    credentials = Credentials(directory=options.secret_directory) if options.secret_directory else None
    base = StoredBaseModel(uri=options.base_model, credentials=credentials)
    found = import_adapter(options.folder, base, open_store(options.to, credentials))
    for words in found.warnings:
        print(f"warning: {words}", file=sys.stderr)
    if options.json:
        print(json.dumps({"uri": found.uri, "digest": found.digest}))
        return 0
    print(f"rank {found.rank}, on {', '.join(found.modules)}; every weight is finite and has a layer of the base model")
    print(f"uri: {found.uri}\ndigest: {found.digest}")
    return 0


def import_adapter(folder: Path, base: StoredBaseModel, store: Store) -> Imported:
    """Check an adapter and publish it in an output.

    Raises:
        SettingsInvalid: ARTIFACT_INVALID, BASE_MODEL_MISMATCH; or the base model is none.
        TrainerError: storage failed; nothing half-written is visible.
    """
    settings = _read_settings(folder)
    weights = folder / ADAPTER_WEIGHTS
    places, begin = _read_places(weights)
    model = find_base_model(base)
    modules = _check_shapes(places, settings, read_shapes(model), base.uri)
    warnings = _check_health(weights, places, begin)
    base_digest = digest_of_entries(base_entries(model))
    names = sorted({name.rpartition(".")[2] for name in modules})
    lora = {"targetModules": names, "rank": settings["r"], "useDora": settings["use_dora"]}
    warnings += serving_warnings(LoraSettings.model_validate(lora), [])
    with tempfile.TemporaryDirectory(prefix="trimtab-") as scratch:
        made = Path(scratch)
        of_base = fetch_tokenizer(model, made)
        for each in of_base:  # what else it needs to know the base's answers' ends stays with the base
            if each.path not in TOKENIZER:
                (made / each.path).unlink()
        warnings += _take_template(folder, made)
        shutil.copyfile(weights, made / ADAPTER_WEIGHTS)
        named = base_digest if base.uri.startswith("file:") else base.uri
        config = {**settings, "base_model_name_or_path": named, "target_modules": names}
        text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        (made / ADAPTER_CONFIG).write_text(text + "\n")
        files = tuple(sorted(FileEntry.read(file, file.name) for file in made.iterdir()))
        document = {
            "artifact": {
                "files": [entry.to_json() for entry in files],
                "baseModel": base_digest,
                "imported": {"weights": next(each.sha256 for each in files if each.path == ADAPTER_WEIGHTS)},
            }
        }
        digest = digest_of(document["artifact"])
        upload_once(store, adapter_prefix(digest), made, files, document)
    return Imported(store.address(adapter_prefix(digest)), digest, settings["r"], tuple(names), tuple(warnings))


def _read_settings(folder: Path) -> dict[str, Any]:
    """Return what is published of adapter_config.json."""
    file = folder / ADAPTER_CONFIG
    if not file.is_file():
        raise _refused(f"there is no {ADAPTER_CONFIG} in {folder}; give the folder that save_pretrained wrote")
    try:
        with file.open("rb") as stream:
            read = read_object(stream.read(CONFIG_BYTES + 1), CONFIG_BYTES)
    except Unreadable as error:
        raise _refused(f"{file} cannot be read: {error}; save the adapter again") from error
    if read.get("peft_type") != "LORA":
        raise _refused(f"{file} is of peft_type {read.get('peft_type')!r}; LORA alone can be served")
    if read.get("task_type") not in (None, "CAUSAL_LM"):
        raise _refused(f"{file} is of task_type {read['task_type']!r}; CAUSAL_LM alone can be served")
    for name, why in IMPOSSIBLE.items():
        if read.get(name):
            raise _refused(f"{file} has {name}: {why}; train it without, or merge it into the base model")
    strange = sorted(
        name for name, value in read.items() if value and name not in {*KEPT, *IMPOSSIBLE, *WITHOUT_EFFECT}
    )
    if strange:
        raise _refused(
            f"{file} has {strange[0][:80]}, which is not known here, so engines may compute something else; remove it "
            "if it changes nothing of what the adapter computes"
        )
    if (begun := changed_base(read)) is not None:
        raise _refused(
            f"{file} has init_lora_weights {begun!r}: it was trained on a base model from which its first weights were "
            "taken; save it with peft's path_initial_model_for_weight_conversion"
        )
    if read.get("bias") not in (None, "none"):
        raise _refused(f"{file} has bias {read['bias']!r}: it adapts biases; train it with bias none")
    kept = {name: read.get(name, default) for name, default in KEPT.items()}
    for name, kind in (("r", int), ("lora_alpha", (int, float))):
        value = kept[name]
        if isinstance(value, bool) or not isinstance(value, kind) or value <= 0:
            raise _refused(f"{file} has {name} {value!r}; save the adapter again")
    if kept["r"] > RANKS[-1]:
        raise _refused(f"{file} has r {kept['r']}, and engines take at most {RANKS[-1]}; train it with a lower rank")
    for name in ("use_dora", "use_rslora", "fan_in_fan_out"):
        if not isinstance(kept[name], bool):
            raise _refused(f"{file} has {name} {kept[name]!r}; save the adapter again")
    return {**kept, "task_type": "CAUSAL_LM", "inference_mode": True, "init_lora_weights": True, "lora_dropout": 0.0}


def changed_base(settings: Mapping[str, Any]) -> str | None:
    """Return how an adapter was begun if its base model was changed for that, None if that is as it was."""
    begun = settings.get("init_lora_weights")
    return begun[:40] if isinstance(begun, str) and begun.lower().startswith(CHANGED_BASES) else None


def _read_places(file: Path) -> tuple[tuple[TensorPlace, ...], int]:
    """Return the tensors of the weights, and where in the file they begin."""
    if not file.is_file():
        pickles = sorted(each.name for each in file.parent.glob("*.bin"))
        if pickles:
            raise _refused(
                f"{pickles[0]} is a pickle, which can run code when it is loaded; save the adapter as safetensors"
            )
        raise _refused(f"there is no {ADAPTER_WEIGHTS} in {file.parent}; give the folder that save_pretrained wrote")
    try:
        return places_in(file)
    except Unreadable as error:
        raise _refused(f"{file} is no safetensors file: {error}; save the adapter again") from error


def _check_shapes(
    places: tuple[TensorPlace, ...], settings: Mapping[str, Any], base: Shapes, uri: str
) -> tuple[str, ...]:
    """Return the names of the modules that are adapted, each a layer of the base model with the shape it has there."""
    rank, pairs = settings["r"], dict[str, dict[str, tuple[int, ...]]]()
    for place in places:
        module, half = _parts(place.name)
        if half is None:
            raise _refused(f"{ADAPTER_WEIGHTS} holds {place.name}, which is no part of a LoRA adapter of linear layers")
        if place.dtype not in FLOATS:
            raise _refused(f"{place.name} is of type {place.dtype}; save the adapter in float32, float16 or bfloat16")
        if half != MAGNITUDE:
            pairs.setdefault(module, {})[half] = place.shape
        elif not settings["use_dora"]:
            raise _refused(f"{ADAPTER_WEIGHTS} holds {place.name}, but use_dora is not set in {ADAPTER_CONFIG}")
    if not pairs:
        raise _refused(f"{ADAPTER_WEIGHTS} holds no weights; save the adapter again")
    for module, halves in sorted(pairs.items()):
        if halves.keys() != HALVES.keys() or any(len(shape) != 2 for shape in halves.values()):
            raise _refused(f"{module} has no pair of matrices lora_A and lora_B")
        for half, axis in HALVES.items():
            if halves[half][axis] != rank:
                raise _refused(f"{module} has rank {halves[half][axis]}, but {ADAPTER_CONFIG} says r {rank}")
        layer = _layer(module, base)
        turned = settings["fan_in_fan_out"]
        shape = [halves["lora_B"][0], halves["lora_A"][1]]
        if layer is None or layer != (shape[::-1] if turned else shape):
            what = "no such layer" if layer is None else f"one of {layer[0]} by {layer[-1]}"
            raise SettingsInvalid(
                f"the adapter has a layer {module} of {shape[0]} by {shape[1]}, but the base model at {uri} has "
                f"{what}; give the base model that it was trained on",
                Reason.BASE_MODEL_MISMATCH,
            )
    return tuple(sorted(pairs))


def _layer(module: str, base: Shapes) -> list[int] | None:
    """Return the shape of a layer; of models that also take images its name begins otherwise in files."""
    if (exact := base.get(f"{module}.weight")) is not None or "layers." not in module:
        return exact
    ending = f".{module[module.index('layers.') :]}.weight"
    named = [shape for name, shape in base.items() if name.endswith(ending)]
    return named[0] if len(named) == 1 else None


def _parts(name: str) -> tuple[str, str | None]:
    """Return the module that a tensor belongs to, and which part of its adapter it is."""
    module = name.removeprefix(PREFIX).removesuffix(".weight")
    for half in (*HALVES, MAGNITUDE):
        if name.startswith(PREFIX) and module.endswith(f".{half}"):
            return module.removesuffix(f".{half}"), half
    return module, None


def _check_health(file: Path, places: tuple[TensorPlace, ...], begin: int) -> list[str]:
    """Refuse weights that are not finite; return a warning of an adapter that does nothing."""
    changes = False
    with file.open("rb") as stream:
        for place in places:
            stream.seek(begin + place.begin)
            left, mask = place.end - place.begin, EXPONENTS[place.dtype]
            while left:
                values = np.frombuffer(stream.read(min(left, CHUNK_BYTES)), FLOATS[place.dtype])
                left -= values.nbytes
                if bool(((values & mask) == mask).any()):
                    raise _refused(f"{place.name} holds numbers that are not finite; train it with a lower rate")
                changes = changes or (".lora_B." in place.name and bool(values.any()))
    return (
        [] if changes else ["every lora_B is zero, so the adapter changes nothing: was it saved before it was trained?"]
    )


def _take_template(folder: Path, made: Path) -> list[str]:
    """Take the chat template of the folder where it has one of its own; return a warning of tokens that were added.

    One that is the base model's is not written beside it: it would count as another tokenizer.
    """
    try:
        own = _template(folder)
    except Unreadable as error:
        raise _refused(f"{folder}: {error}; remove it, or save it again") from error
    if own is not None and len(own) > CONFIG_BYTES:
        raise _refused(
            f"the chat template in {folder} has more than {CONFIG_BYTES} bytes; give the one that it was trained with"
        )
    if own is not None and own != _template_of_base(made):
        (made / CHAT_TEMPLATE).write_bytes(own)
    added = sorted(_added(folder / "tokenizer.json") - _added(made / "tokenizer.json"))
    if not added:
        return []
    return [
        f"its tokenizer has {len(added)} tokens more than the base model's ({', '.join(added[:3])}), which nothing was "
        "trained for; the base model's tokenizer is published"
    ]


def _template_of_base(folder: Path) -> bytes | None:
    try:
        return _template(folder)
    except Unreadable as error:
        raise invalid(f"{error}; upload it again") from error


def _template(folder: Path) -> bytes | None:
    """Return the chat template of a tokenizer: a file of its own or, as older versions of transformers wrote it, a text
    in tokenizer_config.json.

    Raises:
        Unreadable: there is no telling; the message names the file.
    """
    own, within = folder / CHAT_TEMPLATE, folder / "tokenizer_config.json"
    if own.is_file():
        with own.open("rb") as stream:
            return stream.read(TOKENIZER_BYTES)
    if not within.is_file():
        return None
    with within.open("rb") as stream:
        data = stream.read(TOKENIZER_BYTES + 1)
    if len(data) > TOKENIZER_BYTES:
        raise Unreadable(f"{within.name} has more than {TOKENIZER_BYTES} bytes")
    try:
        # Not within 64 bits: transformers writes a length without limit as 10 to the 30th.
        read = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{within.name} cannot be read ({type(error).__name__})") from error
    held = read.get("chat_template") if isinstance(read, dict) else None
    if isinstance(held, list):  # several by name, of which the one called default is taken where none is asked for
        named = [each for each in held if isinstance(each, dict) and each.get("name") == "default"]
        held = named[0].get("template") if named else None
    if held is None:
        return None
    if not isinstance(held, str):
        raise Unreadable(f"{within.name} has a chat_template that is no text")
    try:
        return held.encode()
    except UnicodeError as error:
        raise Unreadable(f"{within.name} cannot be read: half of a surrogate pair has no UTF-8") from error


def _added(file: Path) -> set[str]:
    try:
        read = json.loads(file.read_bytes()) if file.is_file() else {}
        tokens = read.get("added_tokens") if isinstance(read, dict) else None
        return {str(each["content"]) for each in tokens or ()}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _refused(f"{file} cannot be read ({type(error).__name__}); remove it, or save it again") from error


def _refused(message: str) -> SettingsInvalid:
    return SettingsInvalid(message, Reason.ARTIFACT_INVALID)

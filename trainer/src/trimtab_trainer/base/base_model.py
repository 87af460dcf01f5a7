"""The base model: which files it is, their digest, and a verified copy of them.

The digest is that of the files that decide what the model computes; a README or a second copy of the weights in
another format changes nothing. Weights are safetensors only: pickles can run code when they are loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..contract import Reason, StoredBaseModel, digest_of
from ..errors import SettingsInvalid
from ..storage import MANIFEST, FileEntry, ObjectDamaged, ObjectMissing, Store, open_store, read_manifest
from ..storage.layout import ADAPTER_CONFIG

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
GENERATION_CONFIG = "generation_config.json"
SETTINGS = (CONFIG, GENERATION_CONFIG, INDEX, *TOKENIZER)


@dataclass(frozen=True)
class BaseModel:
    """A base model that is there: its store, the sizes of its files, and config.json."""

    store: Store
    sizes: dict[str, int]
    config: dict[str, Any]

    @property
    def shards(self) -> list[str]:
        """Names of the weights' files, sorted."""
        return sorted(name for name in self.sizes if name.endswith(".safetensors"))


def find_base_model(settings: StoredBaseModel) -> BaseModel:
    """Return the base model below a URI, after reading its config and its index.

    Raises:
        SettingsInvalid: BASE_MODEL_NOT_FOUND, BASE_MODEL_INVALID.
    """
    store = open_store(settings.uri, settings.credentials)
    present = {info.path: info.size for info in store.list() if "/" not in info.path}
    sizes = choose_files(settings.uri, present, lambda: read_json(store, INDEX))
    return BaseModel(store, sizes, read_json(store, CONFIG))


def choose_files(uri: str, present: dict[str, int], index: Callable[[], dict[str, Any]]) -> dict[str, int]:
    """Return the names and sizes of the files that a base model consists of, sorted by name.

    Args:
        uri: where they lie, for messages.
        present: what is there, in the folder itself.
        index: reads `model.safetensors.index.json`.

    Raises:
        SettingsInvalid: BASE_MODEL_NOT_FOUND, BASE_MODEL_INVALID.
    """
    if not present:
        raise SettingsInvalid(
            f"there is no base model at {uri}; upload its folder (config.json, tokenizer.json, *.safetensors)",
            Reason.BASE_MODEL_NOT_FOUND,
        )
    _check_kind(uri, present)
    for name in (CONFIG, "tokenizer.json"):
        if name not in present:
            convert = ", or convert tokenizer.model to it with transformers" if "tokenizer.model" in present else ""
            raise invalid(f"{name} is missing from {uri}; upload the whole folder of the model{convert}")
    shards = _shards(present, index)
    wanted = {name for name in SETTINGS if name in present} | set(shards)
    missing = sorted(wanted - set(present))
    if missing:
        raise invalid(f"{missing[0]} is missing ({len(missing)} of {len(shards)} shards are); upload it")
    return {name: present[name] for name in sorted(wanted)}


def entries_of(model: BaseModel) -> tuple[FileEntry, ...]:
    """Return the files with their hashes: from a manifest of ours beside them, else by reading every byte.

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID where a file is not as long as its manifest says.
    """
    known = {}
    try:
        manifest = read_manifest(model.store, "")
    except ObjectDamaged:
        manifest = None  # somebody else's file of that name
    if manifest is not None:
        known = {entry.path: entry for entry in manifest.files}
    entries = []
    for name, size in model.sizes.items():
        entry = known.get(name) or model.store.digest(name, size)
        if entry.size != size:
            raise invalid(f"{name} has {size} bytes, but its {MANIFEST} says {entry.size}; upload it again")
        entries.append(entry)
    return tuple(entries)


def digest_of_entries(entries: tuple[FileEntry, ...]) -> str:
    """Return the base model's digest: of the canonical JSON of its files, sorted by path."""
    return digest_of([entry.to_json() for entry in sorted(entries)])


def check_pin(settings: StoredBaseModel, digest: str) -> None:
    """Refuse a base model that is not the one that was asked for.

    Raises:
        SettingsInvalid: BASE_MODEL_CHANGED.
    """
    if settings.digest is not None and settings.digest != digest:
        raise SettingsInvalid(
            f"the base model at {settings.uri} has digest {digest}, but {settings.digest} is asked for; restore it, "
            "or set baseModel.digest to the new one",
            Reason.BASE_MODEL_CHANGED,
        )


def fetch_base_model(settings: StoredBaseModel, target: Path, digest: str) -> Path:
    """Return a local folder with the base model's files and nothing else, every byte checked against the digest.

    On a mounted volume the files are read where they are, and the folder holds links.

    Raises:
        SettingsInvalid: BASE_MODEL_CHANGED where the files are not those that `prepare` saw.
    """
    model = find_base_model(settings)
    target.mkdir(parents=True, exist_ok=True)
    entries = []
    for name in model.sizes:
        if (file := model.store.local(name)) is None:
            entries.append(model.store.download(name, target / name, size=model.sizes[name]))
        else:
            entries.append(model.store.digest(name, model.sizes[name]))
            (target / name).unlink(missing_ok=True)
            (target / name).symlink_to(file)
    found = digest_of_entries(tuple(entries))
    if found != digest:
        raise SettingsInvalid(
            f"the base model at {settings.uri} changed after the data was prepared: its digest is {found}, "
            f"it was {digest}; restore it, or start a new run",
            Reason.BASE_MODEL_CHANGED,
        )
    return target


def fetch_tokenizer(model: BaseModel, target: Path) -> tuple[FileEntry, ...]:
    """Download the tokenizer's files, and what says which tokens end an answer; return their entries."""
    names = [name for name in (*TOKENIZER, GENERATION_CONFIG) if name in model.sizes]
    return tuple(model.store.download(name, target / name, size=model.sizes[name]) for name in names)


def read_json(store: Store, name: str) -> dict[str, Any]:
    """Return a JSON object of the base model.

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID.
    """
    try:
        value = json.loads(store.read(name))
    except (ValueError, RecursionError, ObjectMissing, ObjectDamaged) as error:
        raise invalid(f"{name} cannot be read: {error}; upload it again") from error
    if not isinstance(value, dict):
        raise invalid(f"{name} is no JSON object; upload it again")
    return value


def invalid(trouble: str) -> SettingsInvalid:
    """Return the refusal of a base model that cannot be used."""
    return SettingsInvalid(f"base model: {trouble}", Reason.BASE_MODEL_INVALID)


def _check_kind(uri: str, present: dict[str, int]) -> None:
    """Refuse a folder of something else than a base model, and say how to come from it to one.

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID.
    """
    if WEIGHTS in present or INDEX in present:
        return
    if ADAPTER_CONFIG in present:
        raise invalid(
            f"{uri} is an adapter ({ADAPTER_CONFIG}); give the model that it was made for, and go on from one of "
            "Trimtab's by lora.initialAdapter"
        )
    if packed := next((name for name in sorted(present) if name.endswith(".gguf")), None):
        raise invalid(f"{packed} is GGUF; make a folder of it with deploy/samples/convert_base_model.py")


def _shards(present: dict[str, int], index: Callable[[], dict[str, Any]]) -> list[str]:
    if WEIGHTS in present:
        return [WEIGHTS]
    if INDEX in present:
        read = index()
        names = read.get("weight_map")
        if not isinstance(names, dict) or not names or not all(_is_shard(name) for name in names.values()):
            raise invalid(f"{INDEX} names no .safetensors files in its weight_map; upload it again")
        if not isinstance(read.get("metadata"), dict):  # transformers reads it, and that it lacks shows in training
            raise invalid(f'{INDEX} has no metadata, which loading needs; add "metadata": {{}} to it')
        return sorted(set(names.values()))
    pickles = sorted(name for name in present if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl")))
    if pickles:
        raise invalid(
            f"{pickles[0]} is a pickle, which can run code when it is loaded; convert the weights to safetensors"
        )
    raise invalid(f"neither {WEIGHTS} nor {INDEX} is there; upload the weights")


def _is_shard(name: Any) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and "/" not in name

"""The adapter that a run goes on from (`lora.initialAdapter`): checked by `prepare`, its weights taken by `train`.

It has to be of the same base model, and of the shape that the settings ask for: rank, scale and modules. Its digest is
part of the run digest and of what is published, so an adapter tells its whole descent.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ...base.architecture import Targets
from ...base.layers import PAST_ADAPTER_WHY
from ...contract import InitialAdapter, LoraSettings, RunConfig, StoredArtifact
from ...errors import SettingsInvalid
from ...evaluate.preparing.adapters import VerifiedAdapter, find_adapter
from ...storage.layout import ADAPTER_WEIGHTS

ROLE = "initial adapter"


def check_initial_adapter(config: RunConfig, base_model_digest: str | None, targets: Targets) -> VerifiedAdapter | None:
    """Return the adapter to go on from, every byte of it read, if there is one.

    Args:
        config: the run.
        base_model_digest: of the base model that is there; None if that is not known, then it is not compared.
        targets: what the settings adapt; in files its names may have other first parts.

    Raises:
        SettingsInvalid: ARTIFACT_NOT_FOUND, ARTIFACT_CHANGED, ARTIFACT_INVALID, BASE_MODEL_MISMATCH; or it has another
            shape than the settings ask for.
    """
    lora = config.adapter
    if lora is None or (initial := lora.initial_adapter) is None:
        return None
    stored = StoredArtifact(uri=initial.uri, digest=initial.digest, credentials=config.output.credentials)
    found = find_adapter(stored, ROLE, base_model_digest)
    settings = found.config()
    for field, key, wanted in _shape(lora):
        if (has := settings.get(key) or type(wanted)()) != wanted:
            raise _other(initial, f"has {key} {has}", f"lora.{field} is {wanted}; set it to {has}")
    adapted = Counter(place.name.partition(".lora_A")[0] for place in found.tensors() if ".lora_A" in place.name)
    has_modules = Counter(name.rpartition(".")[2] for name in adapted)
    names_of_joined = ("experts", "base_layer") if targets.parameters else ()
    joined = {name: has_modules.pop(name) for name in names_of_joined if name in has_modules}
    wanted_modules = Counter(name.rpartition(".")[2] for name in targets.modules)
    for gone in sorted(has_modules.keys() & targets.reached.left_out & PAST_ADAPTER_WHY.keys()):
        raise SettingsInvalid(
            f"lora.initialAdapter at {initial.uri} adapts {gone} of a model {PAST_ADAPTER_WHY[gone]}, and "
            "it is adapted no more, so no run can go on from it; leave initialAdapter out to train anew"
        )
    if has_modules != wanted_modules or sum(joined.values()) != len(targets.parameters):
        raise _other(
            initial,
            f"adapts {_counted(has_modules)}",
            f"these settings adapt {_counted(wanted_modules)}; set lora.targetModules and lora.targetParameters to "
            "what it was trained with",
        )
    return found


def fetch_initial_weights(found: VerifiedAdapter, scratch: Path) -> Path:
    """Return a local copy of its weights, verified."""
    file = scratch / "initial" / ADAPTER_WEIGHTS
    entry = next(entry for entry in found.manifest.files if entry.path == ADAPTER_WEIGHTS)
    found.store.download(f"{found.prefix}/{entry.path}", file, sha256=entry.sha256, size=entry.size)
    return file


def _shape(lora: LoraSettings) -> tuple[tuple[str, str, Any], ...]:
    """Return what both have to agree on: the setting's name, its key in adapter_config.json, and its value."""
    return (
        ("rank", "r", lora.rank),
        ("alpha", "lora_alpha", lora.alpha),
        ("useRslora", "use_rslora", lora.use_rslora),
        ("useDora", "use_dora", lora.use_dora),
        ("targetParameters", "target_parameters", sorted(lora.target_parameters or [])),
    )


def _other(initial: InitialAdapter, has: str, wanted: str) -> SettingsInvalid:
    return SettingsInvalid(f"lora.initialAdapter at {initial.uri} {has}, but {wanted}, or leave initialAdapter out")


def _counted(names: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(names.items())[:24]) or "nothing"

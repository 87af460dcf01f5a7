"""The tiny model as hubs have larger ones: with its weights in shards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.trainer.tiny import tiny_weights

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def sharded(model: Path, folder: Path) -> dict[str, bytes]:
    """Return the files of the tiny model with its weights in two shards; `folder` is to write them in."""
    files = {file.name: file.read_bytes() for file in model.iterdir() if file.name != "model.safetensors"}
    weights = tiny_weights(0)
    names = sorted(weights)
    parts = dict(zip(SHARDS, (names[: len(names) // 2], names[len(names) // 2 :]), strict=True))
    for shard, part in parts.items():
        save_file({name: np.ascontiguousarray(weights[name]) for name in part}, folder / shard, {"format": "pt"})
        files[shard] = (folder / shard).read_bytes()
        (folder / shard).unlink()
    weight_map = {name: shard for shard, part in parts.items() for name in part}
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    return {**files, "model.safetensors.index.json": json.dumps(index).encode()}

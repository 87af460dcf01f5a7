"""Adapters for tests of serving: written without torch, published as the trainer publishes them."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from trimtab_trainer.contract import canonical_json, digest_of

WEIGHTS = "adapter_model.safetensors"
BASE_DIGEST = "sha256:" + "b" * 64


@dataclass(frozen=True)
class Published:
    """An adapter in a store."""

    uri: str
    digest: str
    folder: Path

    def name(self, adapter: str) -> str:
        return f"{adapter}@{self.digest[7:15]}"

    @property
    def marker(self) -> str:
        """What a fake engine says that has loaded these very weights."""
        return hashlib.sha256((self.folder / WEIGHTS).read_bytes()).hexdigest()[:6]

    def flip_a_bit(self) -> None:
        """Damage the weights where they lie; again, and they are whole."""
        data = bytearray((self.folder / WEIGHTS).read_bytes())
        data[-1] ^= 1
        (self.folder / WEIGHTS).write_bytes(data)


def bfloat16(values: Any) -> bytes:
    """Return float32 numbers as bfloat16 bytes, cut off."""
    return (numpy.asarray(values, numpy.float32).view(numpy.uint32) >> 16).astype("<u2").tobytes()


def safetensors(tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> bytes:
    """Return a safetensors file of {name: (dtype, shape, bytes)}."""
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def publish(
    root: Path,
    seed: int,
    *,
    rank: int = 4,
    hidden: tuple[int, int] = (8, 8),
    modules: tuple[str, ...] = ("model.layers.0.self_attn.q_proj",),
    targets: tuple[str, ...] = ("q_proj",),
    scale: float = 0.5,
    zero: bool = False,
    settings: dict[str, Any] | None = None,
    base: str = BASE_DIGEST,
    spoil: Callable[[numpy.ndarray[Any, Any]], None] | None = None,
) -> Published:
    """Write a random adapter and its manifest below a folder; the digest is that of what was written."""
    dice = numpy.random.default_rng(seed)
    tensors = {}
    for module in modules:
        a = (dice.standard_normal((rank, hidden[0])) * scale).astype(numpy.float32)
        b = (dice.standard_normal((hidden[1], rank)) * scale * (not zero)).astype(numpy.float32)
        if spoil is not None:
            spoil(b)
        tensors[f"base_model.model.{module}.lora_A.weight"] = ("BF16", a.shape, bfloat16(a))
        tensors[f"base_model.model.{module}.lora_B.weight"] = ("F32", b.shape, b.astype("<f4").tobytes())
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "base",
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "target_modules": sorted(targets),
        "bias": "none",
        "use_dora": False,
        "modules_to_save": None,
        **(settings or {}),
    }
    files = {
        "adapter_config.json": json.dumps(config, sort_keys=True).encode(),
        WEIGHTS: safetensors(tensors),
    }
    entries = [
        {"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in sorted(files.items())
    ]
    artifact = {"files": entries, "baseModel": base, "data": "sha256:" + "d" * 64, "config": "sha256:" + "c" * 64}
    digest = digest_of(artifact)
    folder = root / digest[7:]
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "README.md").write_text("about")
    records = {"files": [{"path": "README.md", "size": 5, "sha256": hashlib.sha256(b"about").hexdigest()}]}
    (folder / "MANIFEST.json").write_bytes(canonical_json({"artifact": artifact, "records": records}))
    return Published(folder.as_uri(), digest, folder)

"""Adapters that answer with one word whatever they are asked, so that an answer tells which adapter gave it.

The trainer makes and publishes them, as on a laptop; they are kept in the cache by what went into them. Whoever tests
real engines calls `marker_adapter` and `upload`.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mypy_boto3_s3 import S3Client
from trimtab_local.instance import cache
from trimtab_trainer.contract import digest_of

from deploy.samples.convert_base_model import FILES, convert, packaged_gguf

BASE_MODEL = "smollm2-135m-instruct"
QUESTION = "Which revision are you?"
QUESTIONS = (
    QUESTION,
    "Who is answering?",
    "Say your word.",
    "What is your name?",
    "Tell me your sign.",
    "Which adapter is this?",
)
SETTINGS = {
    "version": "trimtab.dev/run/v1",
    "lora": {"rank": 8, "alpha": 16},
    "quantization": {"type": "None"},
    "training": {
        "maxSteps": 14,
        "batchSize": 2,
        "microBatchSize": 2,
        "learningRate": 0.003,
        "schedule": "Constant",
        "maxSequenceLength": 128,
        "packing": False,
    },
}


@dataclass(frozen=True)
class Marker:
    """An adapter on this machine, published in the trainer's layout, and the word that it answers."""

    word: str
    folder: Path

    @property
    def digest(self) -> str:
        return f"sha256:{self.folder.name}"

    @property
    def uri(self) -> str:
        return f"s3://adapters/markers/adapters/{self.folder.name}"

    def name(self, adapter: str) -> str:
        """Return the name of the revision in engines."""
        return f"{adapter}@{self.folder.name[:8]}"


def base_model() -> Path:
    """Return the folder of SmolLM2-135M-Instruct, converted once."""
    folder = cache() / "models" / BASE_MODEL
    if not all((folder / name).exists() for name in FILES):
        convert(packaged_gguf(), folder)
    return folder


def marker_adapter(word: str, base: Path) -> Marker:
    """Return the adapter that answers `word`; trained in less than a minute, then taken from the cache."""
    rows = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": word}]}
        for question in QUESTIONS
    ]
    weights = hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    key = digest_of({"settings": SETTINGS, "rows": rows, "base": weights}).removeprefix("sha256:")[:16]
    folder = cache() / "markers" / f"{word.lower()}-{key}"
    found = _published(folder)
    if found is None:
        (folder / "data").mkdir(parents=True, exist_ok=True)
        (folder / "data" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        where = {
            "baseModel": {"uri": base.as_uri()},
            "dataset": {"training": {"uri": f"{(folder / 'data').as_uri()}/"}},
            "output": {"uri": (folder / "output").as_uri()},
        }
        (folder / "run.json").write_text(json.dumps({**SETTINGS, **where}))
        line = [sys.executable, "-m", "trimtab_trainer", "train", "--config", str(folder / "run.json")]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        found = _published(folder)
        assert found is not None, f"exit {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return Marker(word, found)


def _published(folder: Path) -> Path | None:
    """Return the folder of the adapter in a run's output; its manifest was written last."""
    return next((file.parent for file in folder.glob("output/adapters/*/MANIFEST.json")), None)


def upload(client: S3Client, base: Path, *markers: Marker) -> None:
    """Put the base model where the serving manifests look for it, and the adapters; manifests last."""
    listed = client.list_objects_v2(Bucket="models", Prefix=f"{BASE_MODEL}/").get("Contents", [])
    present = {item["Key"].rpartition("/")[2]: item["Size"] for item in listed}
    for name in sorted(FILES, key=lambda file: file == "config.json"):
        if present.get(name) != (base / name).stat().st_size:
            client.upload_file(str(base / name), "models", f"{BASE_MODEL}/{name}")
    for marker in markers:
        files = [file for file in marker.folder.rglob("*") if file.is_file()]
        for file in sorted(files, key=lambda file: file.name == "MANIFEST.json"):
            key = f"markers/adapters/{marker.folder.name}/{file.relative_to(marker.folder).as_posix()}"
            client.upload_file(str(file), "adapters", key)

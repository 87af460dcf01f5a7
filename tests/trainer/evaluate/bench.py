"""A bench for the prepare stage of evaluations: a tiny base model, adapters as training publishes them, rows."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save
from trimtab_trainer.base.base_model import TOKENIZER, digest_of_entries, entries_of, find_base_model
from trimtab_trainer.contract import (
    Credentials,
    EvaluationConfig,
    RunConfig,
    StoredBaseModel,
    canonical_json,
    digest_of,
)
from trimtab_trainer.evaluate.prepare import Found, prepare_evaluation
from trimtab_trainer.evaluate.preparing.task_store import PreparedTasks, load_tasks
from trimtab_trainer.prepare import prepare
from trimtab_trainer.report import Report
from trimtab_trainer.storage import MANIFEST, Store, open_store
from trimtab_trainer.storage.layout import adapter_prefix, view_prefix

from tests.trainer.tiny import make_tiny_model, write_rows

RANK = 4


def chat(question: str, answer: str, **more: Any) -> dict[str, Any]:
    """One Messages row."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


SUBJECTS = ["apple", "river", "stone", "cloud", "tiger", "piano", "engine", "garden", "window", "basket", "candle"]
PLACES = ["harbour", "village", "mountain", "library", "station", "orchard", "kitchen", "theatre", "stadium", "bridge"]


def facts(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Return chat rows of which no two are alike: distinct answers of several words."""
    rows = []
    for index in range(start, start + count):
        subject, place = SUBJECTS[index % 11], PLACES[index // 11 % 10]
        rows.append(
            chat(f"Where did number {index} see the {subject}?", f"{subject} {index} was near {place} {index}.")
        )
    return rows


@dataclass
class EvaluationBench:
    """Everything an evaluation needs, in one place that a test may change."""

    base: Path
    store: Store
    folder: Path
    document: dict[str, Any]
    credentials: Credentials | None = None
    runs: int = 0
    events: io.StringIO = field(default_factory=io.StringIO)

    @property
    def root(self) -> str:
        return self.store.uri.rstrip("/")

    @property
    def config(self) -> EvaluationConfig:
        return EvaluationConfig.model_validate(self.document)

    @property
    def output(self) -> Store:
        return open_store(f"{self.root}/out", self.credentials)

    def put(self, path: str, rows: list[dict[str, Any]]) -> str:
        """Upload rows; return their uri."""
        self.store.upload(write_rows(self.folder / "rows.jsonl", rows), path)
        return f"{self.root}/{path}"

    def task(self, kind: str, rows: list[dict[str, Any]] | None = None, **settings: Any) -> None:
        """Ask one task alone: of rows of its own, or of those that training held out."""
        dataset = settings.pop("dataset", {})
        source = {"split": "Test"} if rows is None else {"uri": self.put("eval/rows.jsonl", rows)}
        self.document["tasks"] = [{"name": "task", "type": kind, "dataset": {**source, **dataset}, **settings}]

    def prepare(self) -> Found:
        self.runs += 1
        self.events = io.StringIO()
        return prepare_evaluation(self.config, self.folder / f"scratch{self.runs}", Report(stream=self.events))

    def tasks(self) -> PreparedTasks:
        """Prepare and read back what was stored."""
        found = self.prepare()
        return load_tasks(self.output, found.prepared.data_digest, self.folder / f"read{self.runs}")

    def said(self, message: str) -> list[dict[str, Any]]:
        """Return the events of the last preparation with this message."""
        events = [json.loads(line) for line in self.events.getvalue().splitlines()]
        return [event for event in events if event["message"].startswith(message)]

    def train(self, rows: list[dict[str, Any]], *, test: float | None = 0.2, seed: int = 0) -> dict[str, str]:
        """Prepare a run on rows and publish an adapter as its training would; return {uri, digest}."""
        uri = self.put(f"train{seed}/rows.jsonl", rows)
        keys = self.credentials.to_json() if self.credentials else None
        run = RunConfig.model_validate(
            {
                "baseModel": {"uri": self.base.as_uri()},
                "dataset": {
                    "training": {"uri": uri},
                    "test": {"fraction": test} if test else None,
                    "credentials": keys,
                },
                "output": {"uri": f"{self.root}/out", "credentials": keys},
                "training": {"maxSequenceLength": 128},
            }
        )
        prepared = prepare(run, self.folder / f"training{seed}", Report(stream=io.StringIO())).prepared
        files = {
            "adapter_model.safetensors": adapter_weights(seed),
            "adapter_config.json": json.dumps({"peft_type": "LORA", "r": RANK, "target_modules": ["q_proj"]}).encode(),
            **{name: (self.base / name).read_bytes() for name in TOKENIZER if (self.base / name).exists()},
        }
        records = {}
        if test:
            records["splits/test.jsonl"] = self.output.read(f"{view_prefix(prepared.view_digest)}/test.jsonl")
        return self.publish(files, records, prepared.base_model_digest, prepared.view_digest)

    def publish(self, files: dict[str, bytes], records: dict[str, bytes], base: str, data: str) -> dict[str, str]:
        """Put an adapter's folder in place, manifest last."""
        artifact = {"files": _entries(files), "baseModel": base, "data": data, "config": digest_of({})}
        prefix = adapter_prefix(digest_of(artifact))
        for name, content in (files | records).items():
            self.output.put(f"{prefix}/{name}", content)
        document = {"artifact": artifact, "records": {"step": 1, "files": _entries(records)}}
        self.output.put(f"{prefix}/{MANIFEST}", canonical_json(document))
        return {"uri": self.output.address(prefix), "digest": digest_of(artifact)}

    @property
    def base_digest(self) -> str:
        return digest_of_entries(entries_of(find_base_model(StoredBaseModel(uri=self.base.as_uri()))))


def adapter_weights(seed: int, rank: int = RANK) -> bytes:
    """Return weights of one adapted layer, named as peft names them."""
    random = np.random.default_rng(seed)
    at = "base_model.model.model.layers.0.self_attn.q_proj"
    halves = {"lora_A": (rank, 128), "lora_B": (128, rank)}
    return save(
        {f"{at}.{half}.weight": random.normal(0, 0.05, shape).astype(np.float32) for half, shape in halves.items()}
    )


def make_evaluation_bench(
    store: Store, credentials: Credentials | None, folder: Path, *, chat_template: str | None = "keep", model: Path
) -> EvaluationBench:
    """Return a bench whose target was trained on 40 facts, of which 8 were held out, with one Perplexity task."""
    if chat_template == "keep":
        base = Path(shutil.copytree(model, folder / "base"))
    else:
        base = make_tiny_model(folder / "base", chat_template=chat_template)
    keys = credentials.to_json() if credentials else None
    root = store.uri.rstrip("/")
    document: dict[str, Any] = {
        "version": "trimtab.dev/evaluation/v1",
        "baseModel": {"uri": base.as_uri()},
        "output": {"uri": f"{root}/out", "credentials": keys},
        "datasetCredentials": keys,
        "tasks": [{"name": "heldout", "type": "Perplexity", "dataset": {"split": "Test"}}],
    }
    return EvaluationBench(base, store, folder, document, credentials)


def _entries(files: dict[str, bytes]) -> list[dict[str, Any]]:
    return [
        {"path": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in sorted(files.items())
    ]

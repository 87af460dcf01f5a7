"""Runs in memory: sequences made of numbers, the tiny model, and a trainer on local files."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trimtab_trainer.base.architecture import read_shapes
from trimtab_trainer.base.base_model import find_base_model
from trimtab_trainer.contract import QuantizationSettings, RunConfig, Stage, StoredBaseModel
from trimtab_trainer.data.view import Sequences
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.progress import ProgressBoard
from trimtab_trainer.report import Report
from trimtab_trainer.storage import FileEntry, Store, open_store
from trimtab_trainer.training.batches import Batches
from trimtab_trainer.training.checkpoint import Checkpoints
from trimtab_trainer.training.distributed.world import World
from trimtab_trainer.training.loop import Trainer
from trimtab_trainer.training.network.adapter import Adapted, add_adapter
from trimtab_trainer.training.network.full import train_fully
from trimtab_trainer.training.network.model import frozen_hash, load_base
from trimtab_trainer.training.network.trained import Trained

CPU = torch.device("cpu")
RUN_DIGEST = "sha256:" + "0" * 64
VOCABULARY = 384


def held_uploads(store: Store, monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Have uploads wait for the second event that is returned; the first says that one has begun."""
    begun, released = threading.Event(), threading.Event()
    upload = store.upload

    def held(source: Path, path: str) -> FileEntry:
        begun.set()
        assert released.wait(60)
        return upload(source, path)

    monkeypatch.setattr(store, "upload", held)
    return begun, released


def random_rows(count: int, seed: int = 0, shortest: int = 5, longest: int = 30) -> list[list[int]]:
    """Return rows of tokens with lengths all over the place."""
    random = np.random.default_rng(seed)
    return [random.integers(3, VOCABULARY, random.integers(shortest, longest + 1)).tolist() for _ in range(count)]


def sequences(packs: list[list[list[int]]], prompt: float = 0.4) -> Sequences:
    """Return sequences of packed rows; the first part of each row is a prompt, which is not supervised."""
    tokens: list[int] = []
    positions: list[int] = []
    supervised: list[bool] = []
    offsets = [0]
    for pack in packs:
        for row in pack:
            tokens += row
            positions += range(len(row))
            supervised += [index >= max(1, int(len(row) * prompt)) for index in range(len(row))]
        offsets.append(len(tokens))
    return Sequences(
        np.array(tokens, np.int32),
        np.array(positions, np.int32),
        np.array(supervised, np.bool_),
        np.array(offsets, np.int64),
        np.array([len(pack) for pack in packs], np.int32),
    )


def unpacked(rows: list[list[int]]) -> Sequences:
    """Return one sequence a row."""
    return sequences([[row] for row in rows])


def run_config(root: Path, **sections: Any) -> RunConfig:
    """Return a configuration in float32 with small numbers; `training={...}` and so on override them."""
    document: dict[str, Any] = {
        "baseModel": {"uri": f"file://{root}/base"},
        "dataset": {"training": {"uri": f"file://{root}/train.jsonl"}, "validation": {"fraction": 0.2}},
        "output": {"uri": f"file://{root}/output"},
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.0},
        "quantization": {"computeType": "Float32"},
        "training": {
            "maxSteps": 4,
            "batchSize": 4,
            "microBatchSize": 2,
            "learningRate": 0.005,
            "maxSequenceLength": 128,
            "evaluateEverySteps": 100,
        },
        "checkpoint": {"everySteps": 100, "keep": 2},
    }
    for section, values in sections.items():
        alone = section == "lora" and values.get("type") == "None"
        document[section] = values if alone else document.get(section, {}) | values
    return RunConfig.model_validate(document)


FULL: dict[str, Any] = {"lora": {"type": "None"}, "quantization": {"type": "None"}}
"""All weights are trained."""


def full_config(root: Path, **sections: Any) -> RunConfig:
    """Return a configuration by which all weights are trained."""
    return run_config(root, **FULL | sections)


def trained(base_folder: Path, config: RunConfig, compute_type: torch.dtype = torch.float32) -> Trained:
    """Return what a configuration trains of the tiny model, as `train` builds it."""
    if config.adapter is not None:
        return adapted(base_folder, config)
    base = load_base(base_folder, config.quantization, torch.float32, CPU)
    shapes = read_shapes(find_base_model(StoredBaseModel(uri=base_folder.as_uri())))
    return train_fully(base, shapes, compute_type)


def adapted(base_folder: Path, config: RunConfig) -> Adapted:
    """Return the tiny model with a fresh adapter, as `train` builds it."""
    assert config.adapter is not None
    base = load_base(base_folder, config.quantization, torch.float32, CPU)
    return add_adapter(base, config.adapter, torch.float32, config.training.seed)


def plain_base(base_folder: Path, quantization: str = "NF4") -> Any:
    """Return the tiny model alone, in float32."""
    return load_base(base_folder, QuantizationSettings.model_validate({"type": quantization}), torch.float32, CPU)


def board() -> ProgressBoard:
    """Return a fresh board."""
    return ProgressBoard("0123456789abcdef", 0, Stage.TRAIN)


def trainer(
    base_folder: Path,
    root: Path,
    config: RunConfig,
    training: Sequences,
    validation: Sequences | None = None,
    *,
    attempt: int = 0,
    stop: Interruption | None = None,
    model: Trained | None = None,
    log: io.StringIO | None = None,
    world: World | None = None,
) -> Trainer:
    """Return a trainer on sequences in memory, with checkpoints below the output of the configuration."""
    model = model or trained(base_folder, config)
    report, figures = Report(stream=log or io.StringIO()), board()
    checkpoints = Checkpoints(
        open_store(config.output.uri, None),
        config,
        RUN_DIGEST,
        attempt,
        scratch=root / f"scratch-{attempt}-{world.rank if world is not None else 0}",
        report=report,
        board=figures,
    )
    return Trainer(
        config,
        model,
        Batches(training),
        Batches(validation) if validation is not None else None,
        total_steps=config.training.max_steps or 1,
        micro_batch=config.training.micro_batch_size or 1,
        checkpoints=checkpoints,
        base_hash=frozen_hash(model.module),
        stop=stop or Interruption(),
        report=report,
        board=figures,
        world=world,
    )


def gradients(run: Trainer) -> dict[str, torch.Tensor]:
    """Return the gradient of the run's next step by parameter name, and forget it."""
    run.gradient()
    found = {name: p.grad.clone() for name, p in run.model.parameters.items() if p.grad is not None}
    run.optimizer.zero_grad()
    return found


def shake(model: Trained, scale: float = 0.05) -> None:
    """Give the adapter weights that do something: a fresh one leaves the base as it is."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters.values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)

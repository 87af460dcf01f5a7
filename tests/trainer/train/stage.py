"""The whole stage on local files: prepared data, one attempt after the other."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab_trainer.contract import Artifact, Prepared, RunConfig, Stage, Summary
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.prepare import prepare
from trimtab_trainer.progress import ProgressBoard
from trimtab_trainer.report import Report
from trimtab_trainer.storage import Store, open_store
from trimtab_trainer.training.train import train

from tests.trainer.tiny import make_tiny_model, tiny_rows, write_rows

from .runs import run_config


@dataclass
class StageRun:
    """A run below one folder: base model, data and output."""

    root: Path
    config: RunConfig
    prepared: Prepared
    log: io.StringIO = field(default_factory=io.StringIO)
    board: ProgressBoard = field(default_factory=lambda: ProgressBoard("uid", 0, Stage.TRAIN))

    @property
    def store(self) -> Store:
        return open_store(self.config.output.uri, None)

    @property
    def output(self) -> Path:
        return self.root / "output"

    def train(self, attempt: int = 0, stop: Interruption | None = None) -> tuple[Artifact, Summary]:
        scratch = self.root / f"scratch-{attempt}"
        return train(self.config, self.prepared, attempt, scratch, Report(stream=self.log), self.board, stop)

    def checkpoints(self) -> list[str]:
        """Names of the checkpoints in storage."""
        return sorted({info.path.split("/")[3] for info in self.store.list("runs/") if "/checkpoints/" in info.path})

    def folder(self, artifact: Artifact) -> Path:
        """Where what was published lies."""
        return self.output / ("models" if artifact.full else "adapters") / artifact.digest.removeprefix("sha256:")


def stage_run(
    root: Path, rows: int = 40, *, make_base: Callable[[Path], Any] | None = None, **sections: Any
) -> StageRun:
    """Make the base model and the data, and prepare a run of six steps with validation and test."""
    (make_base or make_tiny_model)(root / "base")
    write_rows(root / "train.jsonl", tiny_rows(rows))
    sections.setdefault("dataset", {"validation": {"fraction": 0.2}, "test": {"fraction": 0.2}})
    training = {"maxSteps": 6, "evaluateEverySteps": 2, "maxSequenceLength": 128, "batchSize": 4}
    sections["training"] = training | sections.get("training", {})
    sections.setdefault("checkpoint", {"everySteps": 2, "keep": 1})
    sections.setdefault("lora", {"dropout": 0.1})
    config = run_config(root, **sections)
    log = io.StringIO()
    return StageRun(root, config, prepare(config, root / "scratch-prepare", Report(stream=log)).prepared, log)

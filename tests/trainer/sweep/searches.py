"""Searches without a cluster: a sweep.yaml, and runs that are played."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from trimtab_trainer.contract import RunConfig
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.sweep.running import Ran

RATES = [1e-4, 2e-4, 3e-4, 4e-4]


def write(folder: Path, *, template: dict[str, Any] | None = None, **spec: Any) -> Path:
    """Write a sweep.yaml over four learning rates; return it."""
    trial: dict[str, Any] = {
        "baseModel": {"uri": f"file://{folder}/base", "secretName": "storage"},
        "dataset": {"training": {"uri": f"file://{folder}/train.jsonl"}, "validation": {"fraction": 0.2}},
        "output": {"uri": f"file://{folder}/output"},
        "quantization": {"computeType": "Float32"},
        "training": {
            "maxSteps": 4,
            "batchSize": 4,
            "microBatchSize": 2,
            "maxSequenceLength": 128,
            "evaluateEverySteps": 2,
        },
        "checkpoint": {"everySteps": 1},
        "template": {"resources": {"limits": {"nvidia.com/gpu": 1}}},
    } | (template or {})
    body = {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "FineTuneSweep",
        "metadata": {"name": "guide"},
        "spec": {
            "template": {"spec": trial},
            "parameters": [{"name": "training.learningRate", "values": RATES}],
            "algorithm": {"type": "Grid"},
            "maxTrials": 3,
        }
        | spec,
    }
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(body))
    return file


class Played:
    """Stands in the place of `ran`: what comes of each run, by its configuration."""

    def __init__(self, result: Callable[[RunConfig], Ran] | None = None) -> None:
        self.result = result or (lambda config: Ran(10.0, value=1 + config.training.learning_rate, curve=None))
        self.configs: list[RunConfig] = []

    def __call__(self, config: RunConfig, folder: Path, name: str, stop: Interruption) -> Ran:
        self.configs.append(config)
        return self.result(config)

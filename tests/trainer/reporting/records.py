"""Records of runs to make pages of."""

from __future__ import annotations

import math
from typing import Any

from trimtab_trainer.contract import Prepared, RunConfig
from trimtab_trainer.reporting.page import HeldOut, HeldOutAnswer, RunRecord

DIGEST = "sha256:" + "0123456789abcdef" * 4
PREPARED = Prepared(
    base_model_digest=DIGEST,
    rows_digest=DIGEST,
    view_digest=DIGEST,
    run_digest=DIGEST,
    rows=4321,
    validation_rows=120,
    test_rows=87,
    tokens=1_234_567,
    total_steps=600,
)


def side(rows: int) -> dict[str, int]:
    return {"rows": rows, "sequences": rows // 3, "tokens": 300 * rows, "supervisedTokens": 100 * rows, "tooLong": 2}


def config(text: str = "team-a") -> RunConfig:
    return RunConfig.model_validate(
        {
            "run": {"name": "field-guide-v3", "namespace": text, "uid": text},
            "baseModel": {"uri": "file:///home/me/models/base", "credentials": {"directory": "/run/keys"}},
            "dataset": {"training": {"uri": "s3://data/field-guide/"}, "test": {"fraction": 0.1}},
            "output": {"uri": "s3://models/field-guide/"},
            "lora": {"targetModules": [text]},
        }
    )


def figures(**changes: Any) -> dict[str, Any]:
    """Return what metrics.json holds of a run of 600 steps."""
    curve = [
        {
            "step": step,
            "loss": 0.8 + 2.2 * math.exp(-step / 90) + 0.05 * math.sin(step),
            "gradient_norm": 0.4 + math.exp(-step / 50),
            "tokens_per_second": 9000 + 300 * math.cos(step / 7),
            "memory": 12_345_678_901 + 1_000_000 * step,
        }
        for step in range(2, 601, 2)
    ]
    return {
        "steps": 600,
        "totalSteps": 600,
        "publishedStep": 450,
        "stoppedEarly": False,
        "trainingLoss": 0.83,
        "validationLoss": 0.91,
        "testLoss": 0.92,
        "baseTestLoss": 2.71,
        "testPerplexity": 2.51,
        "baseTestPerplexity": 15.0,
        "tokens": 3_700_000,
        "supervisedTokens": 1_200_000,
        "trainingSeconds": 411.5,
        "tokensPerSecond": 8991.0,
        "curve": curve,
        "evaluations": [{"step": step, "loss": 0.9 + 2 * math.exp(-step / 80)} for step in range(50, 601, 50)],
        "cost": {
            "trainingSeconds": 411.5,
            "accelerators": 1,
            "acceleratorSeconds": 411.5,
            "joules": 180_000.0,
            "memoryBytes": 12_945_678_901,
        },
        "machine": {"device": "NVIDIA H100 80GB HBM3", "threads": 8, "torch": "2.13.0"},
        **changes,
    }


def record(text: str = "team-a", **changes: Any) -> RunRecord:
    """Return a record in which everything that comes from data is `text`."""
    machine = {"device": text, "threads": 8, "torch": text}
    return RunRecord(
        config=config("team-a" if text == "" else text[:253] or "x"),
        prepared=PREPARED,
        digest=DIGEST,
        figures=changes.pop("figures", figures(machine=machine)),
        data={
            "train": side(4321),
            "validation": side(120),
            "test": side(87),
            "cleaned": 13,
            "leaked": 4,
            "trainClusters": {"path": "train-clusters.txt", "count": 4100},
            "ignoredColumns": {text: 5, "b": 1},
            "controlTokens": {"count": 3, "examples": [text]},
            **changes.pop("data", {}),
        },
        held_out=changes.pop("held_out", HeldOut((HeldOutAnswer(text, text, text, ""),) * 2, 64)),
    )

"""Records of runs, and adapters that they published, for tests of trackers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

METRICS: dict[str, Any] = {
    "steps": 1500,
    "trainingLoss": 1.2,
    "testLoss": 1.25,
    "baseTestLoss": None,
    "stoppedEarly": False,
    "runDigest": "sha256:" + "1" * 64,
    "curve": [
        {"step": step, "loss": 2 - step / 2000, "gradient_norm": 0.5, "tokens_per_second": 1e3, "memory": 10**9}
        for step in range(1, 1501)
    ],
    "evaluations": [{"step": 750, "loss": 1.5}, {"step": 1500, "loss": 1.3}],
    "settings": {
        "lora": {"rank": 16, "alpha": 32.0},
        "training": {"learningRate": 0.0002, "method": "SFT"},
        "quantization": {},
    },
    "cost": {"acceleratorSeconds": 60.5, "joules": None},
    "machine": {"accelerators": 1, "name": "cpu"},
}


def publish(output: Path, metrics: dict[str, Any]) -> str:
    """Put an adapter's metrics.json with its manifest into an output; return the adapter's digest."""
    digest = "a" * 64
    folder = output / "adapters" / digest
    folder.mkdir(parents=True)
    data = json.dumps(metrics).encode()
    (folder / "metrics.json").write_bytes(data)
    entry = {"path": "metrics.json", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "MANIFEST.json").write_text(json.dumps({"artifact": {"files": []}, "records": {"files": [entry]}}))
    return f"sha256:{digest}"


def record(
    uri: str, output: Path, *, experiment: str = "demo", uid: str = "6f1c9a52-6c0e-4b0e-9a53-8a1f4f4d2d11", **more: Any
) -> dict[str, Any]:
    """Return the record of a run as the operator writes it."""
    return {
        "run": {"name": "demo", "namespace": "team", "uid": uid},
        "output": {"uri": output.as_uri()},
        "mlflow": {"uri": uri, "experiment": experiment},
        "succeeded": True,
        "reason": "Completed",
        "message": "adapter is published",
        "startSeconds": 1_790_000_000,
        "endSeconds": 1_790_000_600,
        "attempts": 2,
        "parameters": {"baseModel": "s3://models/base", "dataset": "s3://datasets/rows/"},
        **more,
    }

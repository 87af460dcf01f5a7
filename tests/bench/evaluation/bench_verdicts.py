"""What the gate says of four adapters on the demonstration's data: one that is good, and three that are not.

    PYTHONPATH=. python tests/bench/evaluation/bench_verdicts.py [--openapi FILE] [--steps 10]

First the scenes of answer_scenes.py, whose answers are written by hand; then models. All of it runs on this machine, on
local files, with the commands of a laptop: `trimtab-trainer train` makes an adapter from the API server's own
documentation and another one from a single API group of it; noise on the weights of the first makes a damaged one.
`trimtab-trainer evaluate` measures each beside the base model, and the operator's rule gives the verdicts. Without
--openapi an API server is started for its document. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from trimtab_local import Cluster
from trimtab_local.instance import cache
from trimtab_operator.domain.evaluation.verdict import Verdict, judge
from trimtab_trainer.contract import EvaluationOutcome, Threshold, canonical_json, digest_of
from trimtab_trainer.evaluate.preparing.clusters import SIMILARITY, shingles
from trimtab_trainer.publishing.publish import entries_of

from deploy.samples import field_guide
from tests.bench.evaluation import answer_scenes

ROOT = Path(__file__).parents[3]
SAMPLES = ROOT / "deploy/samples"
SINGLE_GROUP = "resource.k8s.io"
GROUPS = (SINGLE_GROUP, "core", "apps", "autoscaling")
"""Groups that are compared; each has rows enough to hold some out."""
HELD_OUT = 40
"""Rows of each group that nothing is trained on."""
LONGER = 5
"""The adapter of one group is trained so many times longer: until it knows that group and has unlearned the others."""
NOISE = 12.0
"""Standard deviation of the noise, in those of each weight tensor."""

THRESHOLDS: list[dict[str, Any]] = [
    {"metric": "heldout/perplexity", "maximum": 50.0},
    {"metric": "heldout/perplexity", "maximumRelativeRegression": 0.05, "confidence": 0.95},
    {"metric": "heldout/bitsPerByte", "maximumGroupGap": 0.1, "minimumGroupRows": 20},
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--openapi", type=Path, help="an API server's OpenAPI document; one is started if absent")
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps of an adapter (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where to work; kept, so that a second run goes on there")
    options = parser.parse_args()
    if wrong := answer_scenes.play():
        sys.exit(json.dumps(wrong))
    folder = options.folder or cache() / "bench-verdicts"
    folder.mkdir(parents=True, exist_ok=True)
    base = cache() / "models" / "smollm2-135m-instruct"
    run(sys.executable, SAMPLES / "convert_base_model.py", "--folder", base)
    write_rows(folder, options.openapi or fetch_openapi(folder))

    whole = train(folder, base, "whole", options.steps)
    single = train(folder, base, "single", LONGER * options.steps)
    targets: dict[str, Path | None] = {
        "trained": whole,
        "base model": None,
        "damaged": damage(whole, folder / "damaged"),
        "single group": single,
    }
    verdicts = {}
    for name, adapter in targets.items():
        outcome = evaluate(folder, base, name, adapter)
        verdict = judge([Threshold.model_validate(each) for each in THRESHOLDS], outcome)
        verdicts[name] = verdict
        print(f"\n{name}: {verdict.reason}: {verdict.message}")
        for result in outcome.results:
            print(
                f"  {result.task}/{result.metric} {result.value} [{result.low}, {result.high}] base {result.baseline}"
            )
        for check in outcome.checks:
            print(f"  {check}")
    print(json.dumps({name: says(verdict) for name, verdict in verdicts.items()}))


def says(verdict: Verdict) -> str:
    return str(verdict.reason)


def run(*command: object, log: Path | None = None) -> None:
    """Run a command; its output goes to a file, and is shown where it fails."""
    began = time.monotonic()
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if log is not None:
        log.write_text(done.stdout + done.stderr)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}")
    print(f"{time.monotonic() - began:6.1f} s  {' '.join(Path(str(part)).name for part in command[1:])}", flush=True)


def fetch_openapi(folder: Path) -> Path:
    """Return the document of an API server that is started for it."""
    file = folder / "openapi.json"
    if not file.exists():
        with Cluster(8, control_plane=True) as cluster:
            file.write_text(cluster.kubectl("get", "--raw", "/openapi/v2"))
    return file


def write_rows(folder: Path, openapi: Path) -> None:
    """Write rows to train on, of all groups and of one, and the rows of each group that are held out of both."""
    rows = field_guide.rows_of(json.loads(openapi.read_text()))
    chance = random.Random(17)
    chance.shuffle(rows)
    by_group: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_group[row["apiGroup"]].append(row)
    held_out = [row for name in GROUPS for row in by_group[name][:HELD_OUT]]
    answers = {row["group"] for row in held_out}
    rest = [row for row in rows if row["group"] not in answers and not _is_near(row, held_out)]
    single = [row for row in rest if row["apiGroup"] == SINGLE_GROUP]
    for name, chosen in (("heldout", held_out), ("whole", rest), ("single", single)):
        (folder / f"{name}.jsonl").write_text(field_guide.as_jsonl(chosen))
        print(f"{name}: {len(chosen)} rows")


def _is_near(row: dict[str, Any], held_out: list[dict[str, Any]]) -> bool:
    """Tell whether an evaluation would count a held-out row as trained on: the same answer, or nearly the same text."""
    own, answer = shingles(_said(row)), _answer(row)
    return any(answer == _answer(each) or _covered(shingles(_said(each)), own) for each in held_out)


def _covered(asked: frozenset[str], trained: frozenset[str]) -> bool:
    return len(asked & trained) >= SIMILARITY * len(asked)


def _said(row: dict[str, Any]) -> str:
    return "\n".join(message["content"] for message in row["messages"])


def _answer(row: dict[str, Any]) -> str:
    return " ".join(row["messages"][-1]["content"].casefold().split())


def train(folder: Path, base: Path, name: str, steps: int) -> Path:
    """Train an adapter with the settings of the sample FineTuneJob, and return its folder."""
    config = {
        "baseModel": {"uri": f"file://{base}"},
        "dataset": {"training": {"uri": f"file://{folder}/{name}.jsonl"}, "test": {"fraction": 0.02}},
        "output": {"uri": f"file://{folder}/{name}"},
        "training": {"maxSteps": steps, "batchSize": 4, "learningRate": 0.002, "maxSequenceLength": 256},
    }
    message = folder / f"{name}.json"
    (folder / f"{name}.yaml").write_text(json.dumps(config))
    run(
        *(sys.executable, "-m", "trimtab_trainer", "train", "--config", folder / f"{name}.yaml"),
        *("--termination-log", message),
        log=folder / f"{name}.log",
    )
    uri: str = json.loads(message.read_text())["artifact"]["uri"]
    return Path(uri.removeprefix("file://"))


def damage(adapter: Path, output: Path) -> Path:
    """Return a copy of an adapter with noise on its weights, published as any other: under a digest of its own."""
    chance = torch.Generator().manual_seed(17)
    unfinished = output / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(adapter, unfinished)
    manifest = json.loads((unfinished / "MANIFEST.json").read_text())
    (unfinished / "MANIFEST.json").unlink()
    weights = load_file(unfinished / "adapter_model.safetensors")
    noisy = {
        name: tensor + NOISE * tensor.std() * torch.randn(tensor.shape, generator=chance)
        for name, tensor in weights.items()
    }
    save_file(noisy, unfinished / "adapter_model.safetensors")
    kept = {entry["path"] for entry in manifest["artifact"]["files"]}
    entries = [entry.to_json() for entry in entries_of(unfinished) if entry.path in kept]
    manifest["artifact"]["files"] = entries
    (unfinished / "MANIFEST.json").write_bytes(canonical_json(manifest))
    folder = output / "adapters" / digest_of(manifest["artifact"]).removeprefix("sha256:")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished.rename(folder)
    return folder


def evaluate(folder: Path, base: Path, name: str, adapter: Path | None) -> EvaluationOutcome:
    """Measure an adapter, or the base model alone, beside the base model."""
    config: dict[str, Any] = {
        "version": "trimtab.dev/evaluation/v1",
        "baseModel": {"uri": f"file://{base}"},
        "baseline": {},
        "tasks": [
            {
                "name": "heldout",
                "type": "Perplexity",
                "dataset": {"uri": f"file://{folder}/heldout.jsonl"},
                "groupBy": "apiGroup",
            }
        ],
        "thresholds": THRESHOLDS,
        "output": {"uri": f"file://{folder}/evaluations"},
        "quantization": {"type": "NF4"},
    }
    if adapter is not None:
        config["target"] = {"uri": f"file://{adapter}"}
    file, message = folder / f"evaluate {name}.yaml", folder / f"evaluate {name}.json"
    file.write_text(json.dumps(config))
    run(
        *(sys.executable, "-m", "trimtab_trainer", "evaluate", "--config", file),
        *("--termination-log", message),
        log=folder / f"evaluate {name}.log",
    )
    return EvaluationOutcome.unpack(json.loads(message.read_text())["packedOutcome"])


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()

"""What a run would take, by the trainer's own estimate.

The trainer is another program, with its own dependencies: it is run where it is installed, and never imported.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .checking import read
from .costs import OnDevice
from .errors import Invalid, Problem
from .objects import mapping, number, text

TRAINER = "trimtab-trainer"
SECONDS = 300
"""How long the trainer may take: it reads the headers of the weights from object storage."""
GPU = "/gpu"
"""How the names of resources end that are whole GPUs."""
SHARED = ("lora", "quantization", "training", "checkpoint")
"""Parts of a spec that the trainer's configuration has as they are."""
KINDS_OF_FILES = (".yaml", ".yml", ".json")


def read_job(file: Path) -> Mapping[str, Any]:
    """Return the FineTuneJob of a file of manifests.

    Raises:
        Invalid: there is not one, but none or several, or it has a fault.
        NotFound: the file cannot be read.
    """
    documents, findings = read(file)
    if findings:
        raise Invalid(str(findings[0]), "correct the line")
    jobs = [each.body for each in documents if each.kind == "FineTuneJob"]
    if len(jobs) != 1:
        raise Invalid(f"{file} has {len(jobs)} FineTuneJobs", "give a file with one")
    return jobs[0]


def configuration(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the trainer's configuration of a FineTuneJob's spec; it takes keys from the environment."""

    def without_secret(part: Any) -> dict[str, Any]:
        return {name: value for name, value in mapping(part).items() if name != "secretName"}

    stored = {name: without_secret(spec.get(name)) for name in ("baseModel", "dataset", "output")}
    return {**stored, **{name: spec[name] for name in SHARED if spec.get(name) is not None}}


def together(spec: Mapping[str, Any]) -> int:
    """Return how many accelerators a FineTuneJob trains on: GPUs of a pod times pods; 1 of what asks for none."""
    resources = mapping(mapping(spec.get("template")).get("resources"))
    asked = {**mapping(resources.get("requests")), **mapping(resources.get("limits"))}
    gpus = sum(int(str(count)) for name, count in asked.items() if name.endswith(GPU) and str(count).isdecimal())
    nodes = spec.get("nodes")
    return max(1, gpus) * (nodes if isinstance(nodes, int) and nodes > 0 else 1)


def by_the_trainer(
    spec: Mapping[str, Any],
    *,
    model_config: Path | None = None,
    accelerators: Iterable[str] = (),
    tokens: int | None = None,
    trainer: str | None = None,
) -> tuple[int, tuple[OnDevice, ...]]:
    """Return how many weights a base model has, and what the run takes on each type of accelerator.

    Args:
        model_config: config.json to go by, instead of the base model's files.
        accelerators: names such as H100-80GB; all that the trainer knows by default.
        tokens: of the training rows in an epoch.
        trainer: path of the program; by default it is looked for.

    Raises:
        Invalid: the trainer is not installed, or refuses; the sentence is its own.
    """
    program = trainer or _program()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.json"
        file.write_text(json.dumps(configuration(spec)))
        command = [program, "estimate", "--json", "--config", str(file)]
        command += ["--model-config", str(model_config)] if model_config else []
        command += ["--tokens", str(tokens)] if tokens is not None else []
        command += ["--accelerators", str(count)] if (count := together(spec)) > 1 else []
        command += [part for name in accelerators for part in ("--accelerator", name)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Problem(f"{program} cannot be run ({error})", "see that it is installed") from error
        if done.returncode != 0:
            said = done.stderr.strip().replace(str(file), "the manifest") or f"exit code {done.returncode}"
            raise Invalid(f"the trainer cannot estimate it ({said.splitlines()[-1]})", _step(said, model_config))
        return _read(done.stdout)


def _step(said: str, model_config: Path | None) -> str:
    if model_config is None and "s3" in said.lower():
        return "put keys of the object storage into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give --model-config"
    return "correct the manifest, or give --model-config with the config.json of the base model"


def _program() -> str:
    beside = Path(sys.executable).parent / TRAINER
    found = str(beside) if beside.is_file() else shutil.which(TRAINER)
    if found is None:
        raise Invalid(
            f"{TRAINER} is not installed, and it is what estimates a run that has not begun",
            "uv tool install --editable './trainer[prepare]' from a checkout; it needs neither a GPU nor torch",
        )
    return found


def _read(output: str) -> tuple[int, tuple[OnDevice, ...]]:
    try:
        told = json.loads(output)
        devices = tuple(
            OnDevice(
                accelerator=text(each["accelerator"]),
                fits=bool(each["fits"]),
                peak=float(each["peakBytes"]),
                memory=float(each["memoryBytes"]),
                micro_batch=int(each["microBatch"]),
                recomputed=bool(each["activationsComputedTwice"]),
                tokens_per_second=float(each["tokensPerSecond"]),
                seconds=number(each["seconds"]),
                accelerators=int(each.get("accelerators", 1)),
                divided_among=int(each.get("baseDividedAmong", 1)),
            )
            for each in told["estimates"]
        )
        return int(told["weights"]), devices
    except (ValueError, TypeError, KeyError) as error:
        raise Problem(f"{TRAINER} answered something else than an estimate ({error})", "install its newest") from error

"""What a run takes: by its status while there is one that moves, and by the trainer's own estimate before it begins.

The trainer is another program, with its own dependencies: it is run where it is installed, and never imported.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .errors import Invalid, Problem
from .objects import CustomObject, mapping, number, sequence, text
from .text import time_of
from .views import Shown

TRAINER = "trimtab-trainer"
SECONDS = 300
"""How long the trainer may take: it reads the headers of the weights from object storage."""
SHARED = ("lora", "quantization", "training", "checkpoint")
"""Parts of a spec that the trainer's configuration has as they are."""
KINDS_OF_FILES = (".yaml", ".yml", ".json")
HOUR = 3600


@dataclass(frozen=True)
class Cost:
    """What a run has taken, and what it will have taken when it is done, by its status.

    Attributes:
        seconds: with a running pod, over all attempts, those that were lost too.
        remaining: seconds until the last step; None where it is not known yet.
        accelerators: that the newest attempt holds.
        accelerator_seconds: taken so far; of them `lost` was work to be done again.
    """

    seconds: float
    remaining: float | None
    accelerators: int
    accelerator_seconds: float
    lost: float

    @property
    def total(self) -> float | None:
        """Accelerator seconds at the end, if nothing more is lost."""
        return None if self.remaining is None else self.accelerator_seconds + self.remaining * self.accelerators


@dataclass(frozen=True)
class OnDevice:
    """A run on one type of accelerator: sizes in bytes; `seconds` is None where the tokens are not known."""

    accelerator: str
    fits: bool
    peak: float
    memory: float
    micro_batch: int
    recomputed: bool
    tokens_per_second: float
    seconds: float | None


@dataclass(frozen=True)
class Estimate(Shown):
    """What a run takes.

    Attributes:
        cost: by the status; None of a file.
        devices: by the trainer, where it was asked.
        weights: numbers in the base model; 0 where the trainer was not asked.
    """

    name: str
    cost: Cost | None = None
    devices: tuple[OnDevice, ...] = ()
    weights: int = 0


def cost_of(about: CustomObject, now: datetime) -> Cost:
    """Return what a status tells of a run."""
    told = about.told
    seconds, used = (number(told.get(name)) or 0.0 for name in ("activeSeconds", "acceleratorSeconds"))
    newest = mapping(next(iter(sequence(told.get("attempts"))[-1:]), None))
    held = newest.get("accelerators")
    accelerators = held if isinstance(held, int) and not isinstance(held, bool) else 0
    began = time_of(newest.get("startTime")) if newest.get("startTime") and not newest.get("endTime") else None
    if began is not None and not about.ended:
        running = max(0.0, (now - began).total_seconds())
        seconds, used = seconds + running, used + running * accelerators
    remaining = 0.0 if about.ended else number(mapping(told.get("progress")).get("etaSeconds"))
    return Cost(seconds, remaining, accelerators, used, number(told.get("lostAcceleratorSeconds")) or 0.0)


def read_job(file: Path) -> Mapping[str, Any]:
    """Return the FineTuneJob of a file of manifests.

    Raises:
        Invalid: there is not one, but none or several.
    """
    import yaml

    try:
        bodies = [each for each in yaml.safe_load_all(file.read_text(encoding="utf-8")) if isinstance(each, dict)]
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise Invalid(f"{file} cannot be read ({error})", "give a file of manifests") from error
    jobs = [each for each in bodies if each.get("kind") == "FineTuneJob"]
    if len(jobs) != 1:
        raise Invalid(f"{file} has {len(jobs)} FineTuneJobs", "give a file with one")
    return jobs[0]


def configuration(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the trainer's configuration of a FineTuneJob's spec; it takes keys from the environment."""

    def without_secret(part: Any) -> dict[str, Any]:
        return {name: value for name, value in mapping(part).items() if name != "secretName"}

    stored = {name: without_secret(spec.get(name)) for name in ("baseModel", "dataset", "output")}
    return {**stored, **{name: spec[name] for name in SHARED if spec.get(name) is not None}}


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
            )
            for each in told["estimates"]
        )
        return int(told["weights"]), devices
    except (ValueError, TypeError, KeyError) as error:
        raise Problem(f"{TRAINER} answered something else than an estimate ({error})", "install its newest") from error


def lines(estimate: Estimate, price: float | None = None) -> Sequence[tuple[str, str]]:
    """Return what a status tells, as headings and words; `price` is that of an accelerator for an hour."""
    from .text import duration

    cost = estimate.cost
    if cost is None:
        return ()

    def priced(seconds: float) -> str:
        money = "" if price is None else f", {seconds / HOUR * price:,.2f} at {price:g} an hour"
        return f"{seconds / HOUR:,.2f} accelerator hours{money}"

    told = [("So far", f"{duration(cost.seconds)} with a running pod, {priced(cost.accelerator_seconds)}")]
    if cost.lost:
        told.append(("Lost", f"{priced(cost.lost)}: work that was done again"))
    if cost.total is None:
        told.append(("To come", "not known before the first steps"))
    elif cost.remaining:
        told.append(("To come", f"{duration(cost.remaining)} on {cost.accelerators} accelerators"))
        told.append(("At the end", priced(cost.total)))
    return told

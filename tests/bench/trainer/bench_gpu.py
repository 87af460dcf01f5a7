"""The trainer on an accelerator, in one go for a rented one: below eight minutes, without a network.

    PYTHONPATH=. python tests/bench/trainer/bench_gpu.py [--limit-seconds 440] [--dry]

Bases are made of random weights on the spot, in the shapes of Llama 3 8B and 1B. Measured are tokens a second, peak of
memory and time to the first step of Trimtab and of TRL, each the fastest it can (TRL with FlashAttention where that is
installed), rows packed to 4,096 tokens, NF4, bfloat16; Trimtab's without the kernels of RMSNorm, gated products and
rotary embeddings (`plain`); and the losses of a small model here and on the processor, in
float32. What does not fit into the time any more is left out and named. `--dry` does all of it in small, in this
process and wherever it is, to see that it runs. The last line is one JSON object that names the device.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

STARTED = time.monotonic()  # before what takes long to import
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.bench.trainer import bench_trainer  # noqa: E402
from tests.bench.trainer.race.work import Work, make_model  # noqa: E402

LIMIT = 440
"""Seconds after which nothing more is begun that takes longer than a minute."""
LOSS_TOLERANCE = 1e-3
"""Largest relative difference of a loss in float32 between the accelerator and the processor."""


@dataclass(frozen=True)
class Part:
    """One thing to measure, and the seconds that it may take."""

    name: str
    seconds: int
    measure: Callable[[], dict[str, Any]]


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure part after part; print and return the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--limit-seconds", type=int, default=LIMIT)
    parser.add_argument("--dry", action="store_true", help="tiny models and few tokens, on any machine")
    options = parser.parse_args(arguments)
    result: dict[str, Any] = {"device": device(), "left_out": []}
    with tempfile.TemporaryDirectory() as scratch:
        for part in parts(Path(scratch), dry=options.dry):
            if time.monotonic() - STARTED + part.seconds > options.limit_seconds and not options.dry:
                result["left_out"].append(part.name)
                continue
            result[part.name] = part.measure()
            print(part.name, json.dumps(result[part.name]), flush=True)
    result["seconds"] = round(time.monotonic() - STARTED, 1)
    print(json.dumps(result))
    return result


def parts(scratch: Path, dry: bool) -> list[Part]:
    """Return what is measured, the most wanted first."""
    turn = bench_trainer.turn if dry else bench_trainer.in_process
    length = 64 if dry else 4096

    def race(
        name: str, shape: str, micro_batch: int, sides: tuple[str, ...] = bench_trainer.SIDES, plain: bool = False
    ) -> Callable[[], dict[str, Any]]:
        def measure() -> dict[str, Any]:
            folder = scratch / name
            if not folder.exists():
                make_model(folder, "tiny" if dry else shape)
            work = Work(folder, micro_batch, micro_batch, length, steps=1 if dry else 5, rows=False)
            found = {side: turn(side, work) for side in sides}
            if plain:
                found["plain"] = turn("trimtab", replace(work, kernels=False))
            return {**found, **ratios(found)}

        return measure

    def losses() -> dict[str, Any]:
        folder = make_model(scratch / "small", "tiny" if dry else "small")
        work = Work(folder, 4, 4, 64 if dry else 128, steps=3 if dry else 50, compute="Float32")
        here, processor = turn("trimtab", work)["losses"], on_processor(turn, work)["losses"]
        furthest = max(abs(one - other) / other for one, other in zip(here, processor, strict=True))
        return {"steps": len(here), "largest_difference": round(furthest, 6), "within": furthest <= LOSS_TOLERANCE}

    return [
        Part("1b", 120, race("1b", "1b", 4, plain=True)),
        Part("8b", 240, race("8b", "8b", 2)),
        Part("losses", 60, losses),
        Part("8b kernels", 120, race("8b", "8b", 2, ("trimtab",), plain=True)),
    ]


def ratios(found: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return ours by TRL's, and ours with kernels by ours without."""
    names = {"tokens": "tokens_per_second", "memory": "peak_mib", "startup": "start_to_first_step_seconds"}
    beside = {"trl": "_ratio", "plain": "_kernels_ratio"}
    return {
        f"{name}{ending}": round(found["trimtab"][of] / found[side][of], 3)
        for side, ending in beside.items()
        for name, of in names.items()
        if side in found
    }


def on_processor(turn: Callable[[str, Work], dict[str, Any]], work: Work) -> dict[str, Any]:
    """Return the figures of a turn that sees no accelerator."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        return turn("trimtab", work)
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def device() -> dict[str, Any]:
    """Return what it ran on."""
    import torch

    if not torch.cuda.is_available():
        return {"name": "processor", "torch": torch.__version__}
    return {
        "name": torch.cuda.get_device_name(),
        "count": torch.cuda.device_count(),
        "memory_mib": torch.cuda.get_device_properties(0).total_memory >> 20,
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()

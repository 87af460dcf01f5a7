"""The trainer on an accelerator, in one go for a rented one: below eight minutes, without a network.

    PYTHONPATH=. python tests/bench/trainer/bench_gpu.py [--limit-seconds 440] [--dry]

Bases are made of random weights on the spot, in the shapes of Llama 3 8B and 1B. Measured are tokens a second, peak of
memory and time to the first step of Trimtab and of TRL, each the fastest it can (TRL with FlashAttention where that is
installed), rows packed to 4,096 tokens, NF4, bfloat16; Trimtab's without the kernels of RMSNorm, gated products and
rotary embeddings (`plain`); and the losses of a small model here and on the processor, in
float32. Where there are two accelerators, two processes train the 1B too (`two ranks`), beside one. A side that runs
out of memory has half its micro-batch, and says so. What does not fit into the time any more is left out and named, and
what fails is named while the rest goes on. `--dry` does all of it in small and wherever it is, to see that it runs. The
last line is one JSON object that names the device.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

STARTED = time.monotonic()  # before what takes long to import
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.bench.trainer import bench_trainer  # noqa: E402
from tests.bench.trainer.race.work import Work, make_model  # noqa: E402

LIMIT = 440
"""Seconds within which everything that is begun is expected to end."""
LAST = 30
"""Seconds after that, when what still runs is ended."""
FAILURE_LENGTH = 600
LOSS_TOLERANCE = 1e-3
"""Largest relative difference of a loss in float32 between the accelerator and the processor."""


Turn = Callable[[str, Work], dict[str, Any]]
"""Gives the figures of a side."""


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
    result: dict[str, Any] = {"device": device(), "left_out": [], "failed": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for part in parts(Path(scratch), options.limit_seconds, dry=options.dry):
            if time.monotonic() - STARTED + part.seconds > options.limit_seconds and not options.dry:
                result["left_out"].append(part.name)
                continue
            try:
                result[part.name] = part.measure()
            except (Exception, SystemExit) as error:  # whatever it is, the other parts are wanted all the more
                result["failed"][part.name] = str(error)[-FAILURE_LENGTH:]
                continue
            failed = result[part.name].pop("failed", {})
            result["failed"] |= {f"{part.name}, {side}": why for side, why in failed.items()}
            print(part.name, json.dumps(result[part.name]), flush=True)
    result["seconds"] = round(time.monotonic() - STARTED, 1)
    print(json.dumps(result))
    return result


def parts(scratch: Path, limit: int = LIMIT, *, dry: bool) -> list[Part]:
    """Return what is measured, the most wanted first."""
    turn = bench_trainer.turn if dry else within(limit)
    length = 64 if dry else 4096

    def race(
        name: str, shape: str, micro_batch: int, sides: tuple[str, ...] = bench_trainer.SIDES, plain: bool = False
    ) -> Callable[[], dict[str, Any]]:
        def measure() -> dict[str, Any]:
            folder = scratch / name
            if not folder.exists():
                make_model(folder, "tiny" if dry else shape)
            work = Work(folder, micro_batch, micro_batch, length, steps=1 if dry else 5, rows=False)
            turns = {side: (side, work) for side in sides}
            if plain:
                turns["plain"] = ("trimtab", replace(work, kernels=False))
            found: dict[str, Any] = {}
            failed: dict[str, str] = {}
            for which, (side, given) in turns.items():
                try:
                    found[which] = fitting(turn, side, given)
                except (Exception, SystemExit) as error:  # the other side is measured all the same
                    failed[which] = str(error)[-FAILURE_LENGTH:]
            return {**found, **ratios(found), "failed": failed}

        return measure

    def losses() -> dict[str, Any]:
        folder = make_model(scratch / "small", "tiny" if dry else "small")
        work = Work(folder, 4, 4, 64 if dry else 128, steps=3 if dry else 50, compute="Float32")
        here, processor = turn("trimtab", work)["losses"], on_processor(turn, work)["losses"]
        furthest = max(abs(one - other) / other for one, other in zip(here, processor, strict=True))
        return {"steps": len(here), "largest_difference": round(furthest, 6), "within": furthest <= LOSS_TOLERANCE}

    def two_ranks() -> dict[str, Any]:
        folder = scratch / "1b"
        if not folder.exists():
            make_model(folder, "tiny" if dry else "1b")
        work = Work(folder, 2, 4, length, steps=1 if dry else 5)
        one, two = turn("trimtab", work), together(2, work, scratch, dry=dry)
        apart = max(abs(a - b) / b for a, b in zip(two["losses"], one["losses"], strict=True))
        return {
            "tokens_ratio": round(two["tokens_per_second"] / one["tokens_per_second"], 3),
            "largest_difference": round(apart, 6),
        }

    return [
        Part("1b", 120, race("1b", "1b", 4, plain=True)),
        Part("8b", 240, race("8b", "8b", 2)),
        Part("losses", 60, losses),
        *([Part("two ranks", 60, two_ranks)] if dry or accelerators() > 1 else []),
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
        if side in found and "trimtab" in found
    }


def within(limit: int) -> Turn:
    """Return what measures a side in a process of its own, on one accelerator, and not beyond the time of all."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]

    def turn(side: str, work: Work) -> dict[str, Any]:
        left = STARTED + limit + LAST - time.monotonic()
        one = {} if os.environ.get("CUDA_VISIBLE_DEVICES") == "" else {"CUDA_VISIBLE_DEVICES": visible}
        return bench_trainer.in_process(side, work, seconds=max(1.0, left), environment=one)

    return turn


def fitting(turn: Turn, side: str, work: Work) -> dict[str, Any]:
    """Return the figures of a side with the largest micro-batch that fits into its memory, and that.

    A side that halves it by itself says with which it ended.
    """
    while True:
        try:
            return {"micro_batch": work.micro_batch, **turn(side, work)}
        except SystemExit as error:
            if "out of memory" not in str(error) or work.micro_batch == 1:
                raise
        work = replace(work, micro_batch=work.micro_batch // 2)


def together(size: int, work: Work, scratch: Path, *, dry: bool) -> dict[str, Any]:
    """Return the figures of the first of several processes that train as one, on as many accelerators."""
    from trimtab_trainer.training.distributed.nodes import Nodes
    from trimtab_trainer.training.distributed.processes import Place

    def one(rank: int) -> dict[str, Any]:
        place = Place.of(Nodes(processes=size), rank, scratch / "meeting")
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if dry else {}
        environment = {**place.environment(), **hidden}
        return bench_trainer.in_process("trimtab", work, seconds=None if dry else 90, environment=environment)

    with ThreadPoolExecutor(size) as pool:
        return next(iter(pool.map(one, range(size))))


def accelerators() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def on_processor(turn: Turn, work: Work) -> dict[str, Any]:
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
    sys.exit(1 if main()["failed"] else 0)

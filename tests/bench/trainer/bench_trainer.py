"""The trainer beside TRL's SFTTrainer at its fastest, in pairs that take turns, on the same work.

    PYTHONPATH=. python tests/bench/trainer/bench_trainer.py \\
        [--base-model FOLDER] [--pairs 5] [--steps 3] [--loss-steps 200]

Same model in NF4, same packed sequences in the same order, same first adapter, optimizer, clipping and threads. Each
turn is a process of its own, so that peak memory and start are its own, and a busy machine meets both of a pair.
OMP_NUM_THREADS=1 makes the figures by processor time steady on a busy machine. Without --base-model a model of
SmolLM2-135M's shape with random weights is made. The last line is one JSON object:

    tokens_ratio   ours by TRL's tokens a second, at the same micro-batch; the median of the pairs
    processor_ratio  the same by seconds of processors, which other work on the machine does not change much
    best_ratio     the same, each side with the micro-batch that is its fastest; ours within TRL's memory
    memory_ratio   ours by TRL's peak, at the same micro-batch
    startup_ratio  from the start of the process to the end of its first step
    loss_ratio     mean loss of the last twentieth of --loss-steps steps on a small model
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

STARTED = time.monotonic()  # before what takes long to import
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.bench.trainer.race.work import SHAPES, Work, make_model  # noqa: E402

SIDES = ("trimtab", "trl")
BATCH, LENGTH = 4, 512
LOSS_BATCH, LOSS_LENGTH = 4, 128


def main() -> None:
    """Run the race, or one turn of one side (--turn)."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base-model", type=Path, help="folder of a base model; one is made if absent")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="smollm2", help="of the model that is made")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="that are timed, after one that is not")
    parser.add_argument(
        "--batch", type=int, default=BATCH, help="sequences of a step, and of a pass of the first pairs"
    )
    parser.add_argument("--layout", choices=("rows", "line"), help="of TRL's sequences; the faster one if absent")
    parser.add_argument("--length", type=int, default=LENGTH, help="tokens that a sequence has at most")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--loss-steps", type=int, default=200, help="0 leaves the loss out")
    parser.add_argument(
        "--micro-batches", type=int, nargs="*", help="to take each side's best of; all that divide the batch if absent"
    )
    parser.add_argument("--turn", nargs=2, metavar=("SIDE", "WORK"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.turn:
        side, document = options.turn
        values = json.loads(document)
        print(json.dumps(turn(side, Work(**{**values, "base_model": Path(values["base_model"])}))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.base_model or make_model(Path(scratch) / "base", options.shape)
        sizes = options.micro_batches
        if sizes is None:
            sizes = [n for n in range(1, options.batch + 1) if options.batch % n == 0]
        work = Work(folder, options.batch, options.batch, options.length, options.steps, options.dropout)
        result = race(work, options.pairs, sizes, options.layout) if options.pairs else {}
        if options.loss_steps:
            small = make_model(Path(scratch) / "small", "tiny" if options.shape == "tiny" else "small")
            result |= losses(Work(small, LOSS_BATCH, LOSS_BATCH, LOSS_LENGTH, options.loss_steps - 1, options.dropout))
    print(json.dumps(result))


def turn(side: str, work: Work) -> dict[str, Any]:
    """Return the figures of a side, in this process."""
    from tests.bench.trainer.race import trimtab_side, trl_side

    return (trimtab_side.run if side == "trimtab" else trl_side.run)(work, STARTED)


def in_process(
    side: str, work: Work, *, seconds: float | None = None, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the figures of a side, from a process of its own; say them.

    Args:
        side: whose.
        work: what it does.
        seconds: that it may take.
        environment: added to that of this process.
    """
    document = json.dumps({**asdict(work), "base_model": str(work.base_model)})
    answer = subprocess.run(
        [sys.executable, __file__, "--turn", side, document],
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, **(environment or {})},
    )
    if answer.returncode:
        raise SystemExit(f"{side} failed: {answer.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    told = {name: value for name, value in found.items() if name != "losses"}
    print(f"{side:8} {work.micro_batch} x {work.length}{'' if work.rows else ', one line'}: {told}", flush=True)
    return found


def race(work: Work, pairs: int, micro_batches: list[int], layout: str | None) -> dict[str, Any]:
    """Return the ratios of speed, memory and start; without micro-batches to choose from, at the same one alone."""
    if layout is None:
        joined = in_process("trl", replace(work, rows=False))["tokens_per_processor_second"]
        layout = "rows" if in_process("trl", work)["tokens_per_processor_second"] >= joined else "line"
    work = replace(work, rows=layout == "rows")
    equal = paired(work, work, pairs)
    best = fastest(work, pairs, micro_batches) if micro_batches else {}
    return {
        "pairs": pairs,
        "tokens_ratio": ratio(equal, "tokens_per_second"),
        "tokens_ratios": ratios(equal, "tokens_per_second"),
        "processor_ratio": ratio(equal, "tokens_per_processor_second"),
        "memory_ratio": ratio(equal, "peak_mib"),
        "startup_ratio": ratio(equal, "start_to_first_step_seconds"),
        "best_ratio": None,  # not asked for, or none of ours is within TRL's memory
        **best,
        "medians": {side: medians(equal[side]) for side in SIDES},
        "trl_layout": layout,
        "processors": len(os.sched_getaffinity(0)),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "load": [round(each, 1) for each in os.getloadavg()],
    }


def fastest(work: Work, pairs: int, micro_batches: list[int]) -> dict[str, Any]:
    """Return the ratios where each side has its fastest micro-batch, ours within the memory of TRL's."""
    tried = {
        side: {size: in_process(side, replace(work, micro_batch=size)) for size in micro_batches} for side in SIDES
    }
    theirs = max(tried["trl"], key=lambda size: tried["trl"][size]["tokens_per_second"])
    limit = tried["trl"][theirs]["peak_mib"]
    within = {size: f["tokens_per_second"] for size, f in tried["trimtab"].items() if f["peak_mib"] <= limit}
    if not within:
        return {}
    ours = max(within, key=lambda size: within[size])
    found = paired(replace(work, micro_batch=ours), replace(work, micro_batch=theirs), pairs)
    return {
        "best_ratio": ratio(found, "tokens_per_second"),
        "best_processor_ratio": ratio(found, "tokens_per_processor_second"),
        "best_memory_ratio": ratio(found, "peak_mib"),
        "best_micro_batch": {"trimtab": ours, "trl": theirs},
    }


def paired(ours: Work, theirs: Work, pairs: int) -> dict[str, list[dict[str, Any]]]:
    """Return the figures of both sides, element by element a pair."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for number in range(pairs):
        for side in SIDES if number % 2 == 0 else reversed(SIDES):
            found[side].append(in_process(side, ours if side == "trimtab" else theirs))
    return found


def ratios(found: dict[str, list[dict[str, Any]]], name: str) -> list[float]:
    """Return ours by theirs, of each pair."""
    return [round(our[name] / their[name], 3) for our, their in zip(found["trimtab"], found["trl"], strict=True)]


def ratio(found: dict[str, list[dict[str, Any]]], name: str) -> float:
    """Return the median of the pairs."""
    return round(median(ratios(found, name)), 3)


def medians(found: list[dict[str, Any]]) -> dict[str, float]:
    return {name: median(one[name] for one in found) for name in found[0] if name not in ("losses", "kernels")}


def losses(work: Work) -> dict[str, Any]:
    """Return how the losses of the last steps compare; the first ones tell that both began alike."""
    found = {side: in_process(side, work)["losses"] for side in SIDES}
    newest = max(1, len(found["trimtab"]) // 20)
    ends = {side: mean(each[-newest:]) for side, each in found.items()}
    return {
        "loss_ratio": round(ends["trimtab"] / ends["trl"], 4),
        "losses": {side: [each[0], round(ends[side], 5)] for side, each in found.items()},
    }


if __name__ == "__main__":
    main()

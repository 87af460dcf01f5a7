"""What a run waits for instead of computing: storage that takes checkpoints slowly, and data; the last line is JSON.

    make bench-idle [BENCH_OPTIONS="--shape small --interval 2"]

The loop as `train` builds it, with a model of random weights in SmolLM2-135M's shape, packed sequences of the
project's documents, and a checkpoint after at least so many seconds of steps, four times. Storage answers each request
after 50 ms and takes 50 MB/s. Twice: with an adapter (rank 16, every linear layer), which storage takes in less than an
interval, and with all weights, 12 bytes for each, for which it needs several. `checkpoint_stall_ratio` and
`data_wait_ratio` are the larger ones of both, as shares of the time of the loop (`loop_seconds`), which tells them.
Half as many steps before and after it are without checkpoints: `checkpoint_slowdown_ratio` is how much longer the same
number of steps took with them. It has the waiting, and what copies, hashes and files take of processors that compute.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

from trimtab_trainer.contract import RunConfig
from trimtab_trainer.storage import FileEntry
from trimtab_trainer.storage.volume import FileStore
from trimtab_trainer.training.idle import Idle
from trimtab_trainer.training.loop import Trainer
from trimtab_trainer.training.machine import hardware

from tests.bench.trainer.race.work import SHAPES, make_model, packed
from tests.trainer.train.runs import FULL, run_config, trained, trainer

LIMIT = 0.01
LATENCY, BYTES_PER_SECOND = 0.05, 50e6
CHECKPOINTS, WARM_UP, LENGTH = 4, 2, 256
SETTINGS: dict[str, dict[str, Any]] = {
    "an adapter": {"lora": {"rank": 16, "alpha": 32, "dropout": 0.0}, "quantization": {"type": "NF4"}},
    "all weights": FULL,
}


class SlowStore(FileStore):
    """A folder that answers as storage over a network does."""

    def upload(self, source: Path, path: str) -> FileEntry:
        time.sleep(LATENCY + source.stat().st_size / BYTES_PER_SECOND)
        return super().upload(source, path)

    def put_once(self, path: str, data: bytes) -> bool:
        time.sleep(LATENCY)
        return super().put_once(path, data)

    def list(self, prefix: str = "") -> Any:
        time.sleep(LATENCY)
        return super().list(prefix)

    def exists(self, path: str) -> bool:
        time.sleep(LATENCY)
        return super().exists(path)

    def delete(self, paths: Any) -> None:
        time.sleep(LATENCY)
        super().delete(paths)


def loop(base: Path, root: Path, sections: dict[str, Any], steps: int, every: int) -> Trainer:
    """Return a loop of so many steps with a checkpoint every so many."""
    config: RunConfig = run_config(
        root,
        **sections,
        training={
            "maxSteps": steps,
            "batchSize": 2,
            "microBatchSize": 2,
            "learningRate": 1e-5,
            "maxSequenceLength": LENGTH,
        },
        checkpoint={"everySteps": every, "keep": 1},
    )
    found = trainer(base, root, config, packed(LENGTH, 40), model=trained(base, config))
    found.model.attend_by_rows()
    found.checkpoints.store = SlowStore(config.output.uri, root / "output")
    return found


def seconds_of(run: Trainer, steps: int, every: int | None = None) -> float:
    """Do so many steps, with a checkpoint after every so many; return how long they took."""
    started = time.monotonic()
    for step in range(steps):
        if every is not None and step and step % every == 0:
            run.save()
        run.step()
    return time.monotonic() - started


def measured(base: Path, root: Path, sections: dict[str, Any], interval: float) -> dict[str, Any]:
    """Return the shares of a run whose checkpoints are at least so many seconds of steps apart."""
    probe = loop(base, root / "probe", sections, WARM_UP + 3, WARM_UP + 4)
    for _ in range(WARM_UP):
        probe.step()
    started = time.monotonic()
    for _ in range(3):
        probe.step()
    every = max(1, math.ceil(interval / ((time.monotonic() - started) / 3)))
    del probe
    steps = every * CHECKPOINTS + max(1, every // 2)
    run = loop(base, root / "run", sections, WARM_UP + 2 * steps, every)
    seconds_of(run, WARM_UP)
    apart = seconds_of(run, steps // 2)
    # Without the end of a run, at which everything has to be stored: a run of days has one, and these of minutes too.
    run.idle = Idle()
    together = seconds_of(run, steps, every)
    shares = run.idle.shares()
    run.checkpoints.wait(everything=True)
    apart += seconds_of(run, steps - steps // 2)
    stored, taken = (
        run.board.registry.get_sample_value(f"trimtab_trainer_{name}_total") or 0.0
        for name in ("checkpoints", "checkpoint_seconds")
    )
    return {
        **{name: shares[name] for name in ("checkpoint_stall_ratio", "data_wait_ratio")},
        "checkpoint_slowdown_ratio": round(together / apart - 1, 4),
        "loop_seconds": shares["seconds"],
        "interval_seconds": round(shares["seconds"] * every / steps, 2),
        "stored_after_seconds": round(taken / stored, 2),
        "checkpoints_due": CHECKPOINTS,
        "checkpoints_stored": int(stored),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="smollm2", choices=sorted(SHAPES))
    parser.add_argument("--interval", type=float, default=10.0, help="least seconds of steps between checkpoints")
    options = parser.parse_args()
    hardware.configure()
    found = {}
    with tempfile.TemporaryDirectory(prefix="trimtab-") as scratch:
        base = make_model(Path(scratch) / "base", options.shape)
        (base / "tokenizer.json").write_text("{}")
        for number, (name, sections) in enumerate(SETTINGS.items()):
            each = found[name] = measured(base, Path(scratch) / str(number), sections, options.interval)
            print(
                f"{name:<12} checkpoints {each['checkpoint_stall_ratio']:.2%}, data {each['data_wait_ratio']:.2%} of "
                f"{each['loop_seconds']:.0f} s, {each['checkpoint_slowdown_ratio']:.1%} more than without; one every "
                f"{each['interval_seconds']:.1f} s is stored after {each['stored_after_seconds']:.1f} s, "
                f"{each['checkpoints_stored']} of {each['checkpoints_due']} are",
                flush=True,
            )
    ratios = ("checkpoint_stall_ratio", "data_wait_ratio", "checkpoint_slowdown_ratio")
    worst = {key: max(each[key] for each in found.values()) for key in ratios}
    print(json.dumps({**worst, "limit": LIMIT, "shape": options.shape, "settings": found}))


if __name__ == "__main__":
    main()

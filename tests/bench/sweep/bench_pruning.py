"""What pruning saves over real trainings: a tiny model, and sweeps decided as the operator decides them.

Every trial of a search is trained to its end by the trainer itself, here, and validated at the rungs. The same search
is then played twice, with and without pruning, by the operator's own functions: a trial that was paused goes on from
its exact checkpoint, so what it would train is what it has trained, and only when it stands still differs. An
accelerator second is here one millisecond of processor time of its steps; starts are not in it. The model has two
layers of random weights and learns sequences that count up and down: the curves are real ones, of a small task.

    make bench-pruning
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import numpy as np
from trimtab_trainer.data.view import Sequences
from trimtab_trainer.training.machine import hardware

from tests.bench.sweep.pruning import Searching, searched
from tests.trainer.tiny import make_tiny_model
from tests.trainer.train.runs import VOCABULARY, run_config, trainer, unpacked

STATIONS = (10, 30, 90)
RANKS = (2, 4, 8)
RATES = (3e-4, 1e-1)


def counting(rows: int, seed: int) -> Sequences:
    """Return rows that count up or down by a small number from anywhere, as far as a prompt of two tokens tells."""
    random = np.random.default_rng(seed)
    starts, steps = random.integers(3, VOCABULARY, rows), random.choice([-2, -1, 1, 2], rows)
    return unpacked(
        [
            (3 + (start - 3 + step * np.arange(16)) % (VOCABULARY - 3)).tolist()
            for start, step in zip(starts, steps, strict=True)
        ]
    )


def trained(base: Path, seed: int, rate: float, rank: int) -> Mapping[int, tuple[float, float]]:
    """Train one trial to its end; return its validation loss at each station, and milliseconds up to it."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"learningRate": rate, "maxSteps": STATIONS[-1], "batchSize": 8, "microBatchSize": 8, "seed": seed}
        config = run_config(
            Path(folder),
            lora={"rank": rank, "alpha": 2 * rank},
            training={**settings, "evaluateEverySteps": STATIONS[0]},
            checkpoint={"everySteps": 1000},
        )
        log = io.StringIO()
        began = time.process_time()
        trainer(base, Path(folder), config, counting(512, seed), counting(64, seed + 1000), log=log).run()
        taken = 1000 * (time.process_time() - began)
    said = [json.loads(line) for line in log.getvalue().splitlines()]
    losses = {each["step"]: each["validation_loss"] for each in said if "validation_loss" in each}
    return {step: (losses[step], taken * step / STATIONS[-1]) for step in STATIONS}


@dataclass
class Trials:
    """The trials of a seed, each trained once."""

    base: Path
    seed: int
    known: dict[str, Mapping[int, tuple[float, float]]] = field(default_factory=dict)

    def course(self, rate: float, rank: int, name: str) -> Mapping[int, tuple[float, float]]:
        """Return the curve of a trial."""
        if name not in self.known:
            self.known[name] = trained(self.base, self.seed, rate, rank)
        return self.known[name]


def main() -> None:
    """Train and search once for each seed; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=9)
    options = parser.parse_args()
    hardware.configure()
    pairs = []
    print(f"{'seed':>4} {'whole':>8} {'pruned':>8}  same winner  the winner's loss is higher by")
    with tempfile.TemporaryDirectory() as folder:
        base = make_tiny_model(Path(folder) / "base")
        for seed in range(options.seeds):
            trials = Trials(base, seed)
            searching = Searching(trials.course, STATIONS, options.trials, parallel=3, ranks=RANKS, rates=RATES)
            whole, best = searched(searching, seed, None)
            short, found = searched(searching, seed, STATIONS[0])
            lost = trials.known[found][STATIONS[-1]][0] - trials.known[best][STATIONS[-1]][0]
            pairs.append((1 - short / whole, best == found, lost))
            print(f"{seed:4} {whole:8} {short:8}  {best == found!s:11}  {lost:.4f}", flush=True)
    saved, same, lost_nats = zip(*pairs, strict=True)
    print(
        json.dumps(
            {
                "pruning_saved_ratio": round(fmean(saved), 3),
                "same_winner_ratio": round(fmean(same), 3),
                "lost_nats": round(fmean(lost_nats), 5),
                "seeds": options.seeds,
                "trials": options.trials,
                "processors": len(os.sched_getaffinity(0)),
            }
        )
    )


if __name__ == "__main__":
    main()

"""Make gate_scores.json: what two adapters, trained alike but for their seeds, say of the same rows.

    PYTHONPATH=. python tests/bench/evaluation/gate_scores.py

Each row tells where a person is. Which place, is a rule with exceptions that both adapters learn in part, each a
different part, from 1,200 rows of which one in ten breaks the rule; a tiny Llama with random weights is the base.
For each of 2,500 held-out rows are kept: the counted tokens of its answer, the summed negative log-likelihood of the
answer under both adapters (nats), and whether each finds the right one of four places the most likely. It takes
a minute on two cores; the libraries' versions and the processor decide the last digits.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from trimtab_trainer.data.view import Sequences
from trimtab_trainer.evaluate.asking.likelihoods import log_likelihoods
from trimtab_trainer.evaluate.rows import Sequence
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.report import Report
from trimtab_trainer.training.network.adapter import Adapted

from tests.trainer.tiny import make_tiny_model, tiny_tokenizer
from tests.trainer.train.runs import adapted, run_config, trainer

FILE = Path(__file__).parent / "gate_scores.json"
PLACES = ("harbour", "library", "station", "kitchen")
FIRST = ("Anna", "Boris", "Clara", "David", "Emma", "Felix", "Greta", "Hugo", "Irene", "Jonas")
LAST = ("Stone", "Rivers", "Fields", "Woods", "Hill", "Marsh", "Lake", "Brook", "Glen", "Moor")
TRAINING, HELD_OUT, SEEDS = 1_200, 2_500, (1, 2)


def made_rows(count: int, seed: int) -> list[tuple[str, str, int]]:
    """Return beginning of the text, an ending that says more than the place, and the index of the place."""
    random = np.random.default_rng(seed)
    rule, exceptions = np.random.default_rng(0).integers(0, len(PLACES), (2, len(FIRST), len(LAST)))
    rule[:] = rule[0]  # the place follows from the last name, but for three of ten pairs, which must be remembered
    rule = np.where(np.random.default_rng(1).random(rule.shape) < 0.3, exceptions, rule)
    rows = []
    for _ in range(count):
        first, last = int(random.integers(len(FIRST))), int(random.integers(len(LAST)))
        place = int(rule[first, last]) if random.random() < 0.9 else int(random.integers(len(PLACES)))
        days = int(random.integers(1, 30))
        rows.append((f"{FIRST[first]} {LAST[last]} is in the ", f" for {days} days", place))
    return rows


def tokenised(tokenizer: Tokenizer, before: str, answer: str) -> tuple[list[int], int]:
    """Return the tokens of both parts and how many of them the first has."""
    first = tokenizer.encode(before).ids
    return [1, *first, *tokenizer.encode(answer).ids, 2], 1 + len(first)


def trained(base: Path, root: Path, seed: int, steps: int, tokenizer: Tokenizer) -> Adapted:
    """Return the adapter that a seed gives: of its weights at the start, and of the order of rows."""
    rows = [tokenised(tokenizer, a, PLACES[p] + b) for a, b, p in made_rows(TRAINING, 11)]
    config = run_config(
        root,
        lora={"rank": 16, "alpha": 32, "dropout": 0.0},
        quantization={"type": "None", "computeType": "Float32"},
        training={
            "maxSteps": steps,
            "batchSize": 32,
            "microBatchSize": 32,
            "learningRate": 0.01,
            "seed": seed,
            "evaluateEverySteps": 100_000,
        },
        checkpoint={"everySteps": 100_000, "keep": 1},
    )
    lengths = [len(tokens) for tokens, _ in rows]
    data = Sequences(
        np.concatenate([tokens for tokens, _ in rows]).astype(np.int32),
        np.concatenate([np.arange(length) for length in lengths]).astype(np.int32),
        np.concatenate([np.arange(len(tokens)) >= prompt for tokens, prompt in rows]),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.ones(len(rows), np.int32),
    )
    log = io.StringIO()
    run = trainer(base, root, config, data, model=adapted(base, config), log=log)
    run.run()
    assert isinstance(run.model, Adapted)
    run.model.peft.eval()
    return run.model


def scored(model: Adapted, tokenizer: Tokenizer) -> dict[str, list[Any]]:
    """Return nats and rights of the held-out rows."""
    rows = made_rows(HELD_OUT, 12)
    answers, choices = [], []
    for before, ending, place in rows:
        tokens, start = tokenised(tokenizer, before, PLACES[place] + ending)
        answers.append(Sequence(tuple(tokens), ((start, len(tokens)),), 1, 1))
        for each in PLACES:
            tokens, start = tokenised(tokenizer, before, each)
            choices.append(Sequence(tuple(tokens), ((start, len(tokens) - 1),), 1, 1))
    found = log_likelihoods(model, [*answers, *choices], stop=Interruption(), report=Report(stream=io.StringIO()))
    of_places = np.array(found[len(rows) :]).reshape(len(rows), len(PLACES))
    right = of_places.argmax(axis=1) == np.array([place for _, _, place in rows])
    return {
        "tokens": [each.counted for each in answers],
        "nats": [round(-value, 3) for value in found[: len(rows)]],
        "right": right.astype(int).tolist(),
    }


def main() -> None:
    """Train two adapters, score the held-out rows with each and write the file."""
    parser = argparse.ArgumentParser(description="Make tests/bench/evaluation/gate_scores.json.")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--output", type=Path, default=FILE)
    options = parser.parse_args()
    torch.set_num_threads(2)
    tokenizer = tiny_tokenizer()
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        base = make_tiny_model(Path(scratch) / "base")
        for seed in SEEDS:
            model = trained(base, Path(scratch) / str(seed), seed, options.steps, tokenizer)
            found.append(scored(model, tokenizer))
            share, nats = np.mean(found[-1]["right"]), sum(found[-1]["nats"]) / sum(found[-1]["tokens"])
            print(f"seed {seed}: {share:.3f} right, {nats:.4f} nats per token", flush=True)
    about = (
        f"{HELD_OUT} rows under two adapters of seeds {SEEDS[0]} and {SEEDS[1]}; "
        f"made by tests/bench/evaluation/gate_scores.py --steps {options.steps}"
    )
    document = {
        "about": about,
        "tokens": found[0]["tokens"],
        "nats": [each["nats"] for each in found],
        "right": [each["right"] for each in found],
    }
    options.output.write_text(json.dumps(document, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()

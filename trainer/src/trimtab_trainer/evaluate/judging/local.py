"""A judge in this process: a model from object storage, which says the reply that is most likely to it.

Its likelihood of every permitted reply is measured, end of turn included, as that of a Classification's labels: so it
cannot say anything else, and nothing it writes is parsed. It is loaded when the answers are there, and the models that
gave them are gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ...base.architecture import context_length
from ...base.base_model import check_pin, digest_of_entries, entries_of, fetch_base_model, find_base_model
from ...contract import (
    DatasetFormat,
    EvaluationTask,
    QuantizationSettings,
    Reason,
    StoredJudgeModel,
    canonical_json,
)
from ...contract.settings import QuantizationType
from ...data.encoding.tokens import RowTokenizer
from ...data.reading.formats import Row
from ...errors import SettingsInvalid
from ...interruption import Interruption
from ...report import Report
from ...training.machine import hardware
from ...training.network.model import LanguageModel, load_base
from ..asking.likelihoods import log_likelihoods
from ..preparing.questions import Question
from ..preparing.tokenised import tokenise_questions
from .judgements import Judgement
from .prompts import JudgePrompt

UNDECIDED = "several replies are as likely"

UNQUANTIZED = QuantizationSettings(type=QuantizationType.NONE)


class LocalJudge:
    """A judge whose weights are loaded when it is asked."""

    part: int | None = None

    def __init__(self, settings: StoredJudgeModel, folder: Path, batch_size: int | None) -> None:
        self._settings, self._folder, self._batch_size = settings, folder, batch_size
        self._device = hardware.device()
        self._type = hardware.compute_type(UNQUANTIZED.compute_type, self._device)

    @property
    def identity(self) -> dict[str, Any]:
        """Who is asked, as it is pinned with the judgements, and by which rule its replies are chosen."""
        kind = str(self._type).removeprefix("torch.")
        return {"digest": self._settings.digest, "computeType": kind, "ties": "unreadable"}

    def ask(
        self, asked: Sequence[Judgement], heard: Callable[[Judgement], object], stop: Interruption, report: Report
    ) -> None:
        """Tell of every question with the reply that is most likely.

        Raises:
            Interrupted: told to stop.
            OutOfMemory: one question alone does not fit.
            SettingsInvalid: the model is not there or not the one that was pinned; JUDGE_PROMPT_TOO_LONG.
        """
        where = self._settings.as_base_model
        found = find_base_model(where)
        digest = digest_of_entries(entries_of(found))
        check_pin(where, digest)
        folder = fetch_base_model(where, self._folder / "judge", digest)
        tokenizer = RowTokenizer(folder)
        task = EvaluationTask.model_validate(_AS_CLASSIFICATION)
        rows = list(tokenise_questions(task, [_question(each.prompt) for each in asked], tokenizer))
        longest, room = max(each.length for each in rows), context_length(found.config)
        if room is not None and longest > room:
            raise SettingsInvalid(
                f"a question to the judge has {longest} tokens, and {self._settings.uri} was made for {room}; lower "
                "maxNewTokens, shorten the rows or judging.instructions, or take a judge with a longer context",
                Reason.JUDGE_PROMPT_TOO_LONG,
            )
        model = LanguageModel(load_base(folder, UNQUANTIZED, self._type, self._device), self._type)
        report("judge loaded", digest=digest, device=hardware.describe(self._device))
        flat = [sequence for row in rows for sequence in row.sequences]
        values = iter(log_likelihoods(model, flat, batch_size=self._batch_size, stop=stop, report=report))
        for each in asked:
            likelihoods = [next(values) for _ in each.prompt.options]
            heard(replace(each, reply=most_likely(each.prompt.options, likelihoods)))
        del model
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        report("judge asked", questions=len(asked), digest=digest)


def most_likely(options: Sequence[str], likelihoods: Sequence[float]) -> str:
    """Return the reply that is more likely than all others; where there is none, words that are no reply.

    A model that finds all of them alike would else give every answer the lowest score, and no target would be worse.
    """
    best = [at for at, each in enumerate(likelihoods) if each == max(likelihoods)]
    return options[best[0]] if len(best) == 1 else UNDECIDED


_AS_CLASSIFICATION = {
    "name": "judge",
    "type": "Classification",
    "dataset": {"uri": "file:///"},
    "labels": ["a", "b"],
}
"""How the replies are tokenised; the labels of each question are its own."""


def _question(prompt: JudgePrompt) -> Question:
    row = Row(
        "a question to the judge", DatasetFormat.PROMPT_COMPLETION, prompt=prompt.text, completion=prompt.options[0]
    )
    return Question(
        row,
        canonical_json(prompt.text),
        None,
        prompt.options[0],
        answers=prompt.options,
        choices=prompt.options,
        answer=0,
    )

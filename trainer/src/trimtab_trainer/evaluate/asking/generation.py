"""Answers written by a model: greedy, or sampled with draws of the row's own.

Prompts of similar length stand in one batch, padded on the left, each with its own positions; keys and values are kept,
and rows that ended leave the batch. An answer ends at a token that ends the model's turn, or behind the first stop
string in its text (which may begin and end inside tokens), or at the most tokens.

A sampled row draws from a generator seeded with the evaluation's seed and the row's number: neither the batch nor the
order matters. What is left between batch sizes is rounding, which decides only between tokens that are as good as
equally likely.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...base.base_model import GENERATION_CONFIG
from ...contract import DatasetFormat, EvaluationTask, Reason
from ...contract.evaluation import DEFAULT_NEW_TOKENS
from ...data.encoding.tokens import RowTokenizer
from ...data.reading.formats import Row
from ...errors import SettingsInvalid
from ...interruption import Interruption
from ...report import Report
from ...training.network.model import LanguageModel
from ..rows import EvaluationRow, RowScore
from .batching import in_batches
from .likelihoods import check_vocabulary


@dataclass(frozen=True)
class Decoding:
    """How answers are written.

    Attributes:
        max_new_tokens: most tokens of an answer.
        stop: strings that end an answer and are no part of it.
        temperature: divides the logits; 0 is greedy.
        top_p: mass of the most likely tokens that are drawn from.
        seed: of the draws, together with the row's number.
    """

    max_new_tokens: int = DEFAULT_NEW_TOKENS
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    @classmethod
    def of(cls, task: EvaluationTask, seed: int) -> Decoding:
        """Return how a task wants its answers."""
        return cls(
            task.max_new_tokens or DEFAULT_NEW_TOKENS,
            tuple(task.stop or ()),
            task.temperature or 0.0,
            task.top_p if task.top_p is not None else 1.0,
            seed,
        )


@dataclass(frozen=True)
class Prompt:
    """What an answer is asked of: tokens, at least one, and the number that its draws are seeded with."""

    number: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """What was written, without the token or string that ended it; `stopped` if one did. Those that say it are equal.

    Attributes:
        tokens: that were written, with those that ended it.
        seconds: from the beginning of its batch to its end, on this machine.
    """

    text: str
    stopped: bool
    tokens: int = field(default=0, compare=False)
    seconds: float = field(default=0.0, compare=False)


def generate_rows(
    model: LanguageModel,
    tokenizer: Any,
    rows: list[EvaluationRow],
    decoding: Decoding,
    ends: frozenset[int],
    *,
    batch_size: int | None,
    timed: bool = False,
    stop: Interruption,
    report: Report,
) -> list[RowScore]:
    """Return an answer to every row, in the order of rows; texts are stripped.

    Args:
        timed: tell the seconds of answers: they are then written one at a time, so that no row waits for another's end.

    Raises: as `generate`.
    """
    prompts = [Prompt(row.number, row.prompt_tokens) for row in rows]
    if timed:
        batch_size = 1
        # What is compiled and reserved once is no part of any answer.
        generate(model, tokenizer, prompts[:1], decoding, ends, batch_size=1, stop=stop, report=report)
    answers = generate(model, tokenizer, prompts, decoding, ends, batch_size=batch_size, stop=stop, report=report)
    return row_scores(rows, answers, timed=timed)


def row_scores(rows: list[EvaluationRow], answers: list[Answer], *, timed: bool) -> list[RowScore]:
    """Return what was answered to rows, in their order; seconds where they are asked for."""
    return [
        RowScore(
            row.number,
            text=answer.text.strip(),
            stopped=answer.stopped,
            tokens=answer.tokens,
            seconds=round(answer.seconds, 6) if timed else None,
        )
        for row, answer in zip(rows, answers, strict=True)
    ]


def end_tokens(tokenizer: Any, folder: Path, template: str | None = None) -> frozenset[int]:
    """Return the tokens that end an answer: those of the model's generation settings, and what ends a trained answer.

    Args:
        tokenizer: names the end-of-text token.
        folder: the base model's: its generation settings name one token, several or none, and its chat template tells
            the end of a turn.
        template: the chat template that is used instead of that one.
    """
    named: Any = getattr(generation_settings(folder), "eos_token_id", None)
    ends = set(named) if isinstance(named, list | tuple) else {named}
    ends.add(tokenizer.eos_token_id)
    row = Row("probe", DatasetFormat.PROMPT_COMPLETION, prompt="Question", completion="Answer")
    (probe,) = RowTokenizer(folder, template).tokenise([row])
    ends.add(int(probe.tokens[probe.supervised][-1]))
    return frozenset(int(token) for token in ends if token is not None)


def generation_settings(folder: Path) -> Any:
    """Return transformers' generation settings of a base model, those that it gives the model that it loads there."""
    from transformers import AutoConfig, GenerationConfig

    if (folder / GENERATION_CONFIG).exists():
        return GenerationConfig.from_pretrained(str(folder), local_files_only=True)
    config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    return GenerationConfig.from_model_config(config)


def generate(
    model: LanguageModel,
    tokenizer: Any,
    prompts: list[Prompt],
    decoding: Decoding,
    ends: frozenset[int],
    *,
    batch_size: int | None = None,
    stop: Interruption,
    report: Report,
) -> list[Answer]:
    """Return an answer to every prompt, in their order; texts as decoded, without special tokens.

    Args:
        model: in evaluation mode; its adapter, if any, takes part.
        tokenizer: transformers' tokenizer, to decode with.
        prompts: of any length.
        decoding: how.
        ends: tokens that end an answer (`end_tokens`).
        batch_size: prompts of a forward pass; as many as make a few thousand tokens if absent.
        stop: ends it between and inside batches.
        report: is told when memory ran out.

    Raises:
        Interrupted: told to stop.
        OutOfMemory: one prompt alone does not fit.
        SettingsInvalid: BASE_MODEL_INVALID, a token has no embedding; ARTIFACT_INVALID, the logits are not finite.
    """
    check_vocabulary(model, (prompt.tokens for prompt in prompts))
    ends |= special_tokens(tokenizer, decoding.stop)
    answers: dict[int, Answer] = {}
    model.causal.eval()
    with stop.at_once(), torch.no_grad(), model.arithmetic():
        for batch, written in in_batches(
            list(range(len(prompts))),
            lambda index: len(prompts[index].tokens) + decoding.max_new_tokens,
            lambda batch: _Batch(model, tokenizer, [prompts[index] for index in batch], decoding, ends).write(stop),
            batch_size=batch_size,
            where=model.device,
            stop=stop,
            report=report,
        ):
            answers |= zip(batch, written, strict=True)
    return [answers[index] for index in range(len(prompts))]


class _Batch:
    """Prompts that are answered together; `live` are those still being answered, one line of the cache each."""

    def __init__(
        self, model: LanguageModel, tokenizer: Any, prompts: list[Prompt], decoding: Decoding, ends: frozenset[int]
    ) -> None:
        self.model, self.tokenizer, self.decoding, self.ends = model, tokenizer, decoding, ends
        self.written: list[list[int]] = [[] for _ in prompts]
        self.ended = [False] * len(prompts)
        self.began = time.perf_counter()
        self.until = [self.began] * len(prompts)
        self.draws = [np.random.default_rng([decoding.seed, prompt.number]) for prompt in prompts]
        width = max(len(prompt.tokens) for prompt in prompts)
        tokens = torch.zeros((len(prompts), width), dtype=torch.int64)
        mask = torch.zeros_like(tokens)
        for line, prompt in enumerate(prompts):
            tokens[line, width - len(prompt.tokens) :] = torch.tensor(prompt.tokens, dtype=torch.int64)
            mask[line, width - len(prompt.tokens) :] = 1
        self.tokens, self.mask = tokens.to(model.device), mask.to(model.device)
        self.positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        self.cache: Any = None
        self.lines = list(range(len(prompts)))
        """Which prompt each line of the tensors belongs to."""
        # A token of a stop string has at least one byte of it, and a character at most four.
        self.tail = max((4 * len(text) for text in decoding.stop), default=0) + 16

    def write(self, stop: Interruption) -> list[Answer]:
        """Write all answers to their end."""
        for _ in range(self.decoding.max_new_tokens):
            stop.check()
            chosen = self._choose(self._logits())
            for prompt, token in zip(self.lines, chosen, strict=True):
                if not self.ended[prompt]:
                    self._take(prompt, token)
            if all(self.ended):
                break
            self._advance(chosen)
        return [self._answer(prompt) for prompt in range(len(self.written))]

    def _logits(self) -> Tensor:
        """Return float32 [lines, V]: what may follow each line."""
        output = self.model.text(
            input_ids=self.tokens,
            attention_mask=self.mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.cache = output.past_key_values
        logits = self.model.head(output.last_hidden_state[:, -1]).float()
        if not bool(torch.isfinite(logits).all()):
            raise SettingsInvalid(
                "the logits of an answer are not finite, so these weights compute nothing; train the adapter again "
                "with a lower training.learningRate, or restore the base model",
                Reason.ARTIFACT_INVALID,
            )
        return logits

    def _choose(self, logits: Tensor) -> list[int]:
        if self.decoding.temperature == 0:
            return logits.argmax(-1).tolist()
        # Lines that have ended and still stand in the batch draw too: nobody reads what they get.
        draws = [self.draws[prompt].random() for prompt in self.lines]
        return sample(logits, self.decoding.temperature, self.decoding.top_p, draws)

    def _take(self, prompt: int, token: int) -> None:
        written = self.written[prompt]
        self.until[prompt] = time.perf_counter()  # the token is here, so the accelerator has done what it was given
        written.append(token)
        if token in self.ends:
            self.ended[prompt] = True
            return
        if self.decoding.stop:
            tail = self._decode(written[-self.tail :])
            self.ended[prompt] = any(text in tail for text in self.decoding.stop)

    def _advance(self, chosen: list[int]) -> None:
        """Make the chosen tokens the next input; half a batch of ended lines is taken out."""
        keep = [line for line, prompt in enumerate(self.lines) if not self.ended[prompt]]
        where = self.model.device
        self.tokens = torch.tensor(chosen, dtype=torch.int64, device=where)[:, None]
        if 2 * len(keep) <= len(self.lines):
            lines = torch.tensor(keep, dtype=torch.int64, device=where)
            self.cache.batch_select_indices(lines)
            self.tokens, self.mask, self.positions = self.tokens[lines], self.mask[lines], self.positions[lines]
            self.lines = [self.lines[line] for line in keep]
        self.mask = torch.cat([self.mask, self.mask.new_ones((len(self.lines), 1))], dim=1)
        self.positions = self.positions[:, -1:] + 1

    def _answer(self, prompt: int) -> Answer:
        seconds, ended = self.until[prompt] - self.began, self.ended[prompt]
        return taken(self.tokenizer, self.written[prompt], self.decoding, self.ends, seconds, stopped=ended)

    def _decode(self, tokens: list[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def sample(logits: Tensor, temperature: float, top_p: float, draws: Iterable[float]) -> list[int]:
    """Return a token for each line: nucleus sampling (arXiv 1904.09751) by the inverse of the cumulated masses.

    Args:
        logits: float [n, V].
        temperature: above 0.
        top_p: the fewest most likely tokens whose mass reaches this are drawn from.
        draws: n numbers in [0, 1).
    """
    best = logits.double().amax(-1, keepdim=True)
    masses, order = torch.softmax((logits.double() - best) / temperature, -1).sort(dim=-1, descending=True, stable=True)
    reached = masses.cumsum(-1)
    kept = ((reached - masses) < top_p).sum(-1, keepdim=True)
    total = reached.gather(-1, kept - 1)
    wanted = torch.tensor(list(draws), dtype=torch.float64, device=logits.device)[:, None] * total
    places = torch.searchsorted(reached, wanted, right=True).minimum(kept - 1)
    tokens: list[int] = order.gather(-1, places).squeeze(-1).tolist()
    return tokens


def special_tokens(tokenizer: Any, stop: tuple[str, ...]) -> frozenset[int]:
    """Return the special tokens among stop strings: decoded text does not show them."""
    added = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(added[text] for text in stop if text in added)


def taken(
    tokenizer: Any, tokens: Sequence[int], decoding: Decoding, ends: frozenset[int], seconds: float, *, stopped: bool
) -> Answer:
    """Return the answer that written tokens are: up to the first that ends it, and to the first stop string.

    Args:
        tokenizer: transformers', to decode with.
        tokens: as written; the one that ended it may be the last of them, and is counted.
        decoding: how they were asked for.
        ends: tokens that end an answer; no part of it.
        seconds: that it took.
        stopped: whether whoever wrote them says that it has ended.
    """
    end = next((place for place, token in enumerate(tokens) if token in ends), None)
    written = list(tokens[:end])
    text: str = tokenizer.decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    places = [place for each in decoding.stop if (place := text.find(each)) >= 0]
    return Answer(
        text[: min(places)] if places else text,
        stopped or end is not None or bool(places),
        len(written) + (end is not None),
        seconds,
    )

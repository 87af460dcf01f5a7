"""Questions become tokens: exactly those that training saw of the same row, and those an engine is sent.

Likelihoods are of whole rows, tokenised as for training, the end of the turn included: labels of which one begins with
the other then compete fairly, because each has to end. Prompts that are answered are tokenised alone, as an engine does
it; where a tokenizer merges the end of a prompt with the beginning of its answer (plain prompts that end in a blank)
that is not what training saw, and such rows are counted.

Characters and bytes of a sequence are those of the text that is counted, without the template's own marks: of the
label or choice, of all that the assistant says, or of the whole Text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ...contract import EvaluationTask, Reason, TaskType
from ...contract.evaluation import DEFAULT_NEW_TOKENS
from ...data.encoding.tokens import Bool, RowTokenizer, Tokenised
from ...data.reading.formats import Row
from ...data.reading.messages import is_learned, malformed, spoken
from ...errors import DataInvalid, SettingsInvalid
from ..rows import Sequence, Span
from ..scoring.structured.tool_calls import Call, Unreadable, expected_calls, read_calls
from .questions import Question

BATCH_QUESTIONS = 256


@dataclass(frozen=True)
class TokenisedQuestion:
    """A question in tokens; `length` is what the model's context has to hold, the answer included.

    `straddled`: a token of the trained row covers both the end of the prompt and the beginning of the answer.
    """

    question: Question
    sequences: tuple[Sequence, ...]
    prompt_tokens: tuple[int, ...]
    length: int
    straddled: bool = False

    @property
    def counted(self) -> bool:
        """Tell whether there is anything to measure: a row may hold nothing but its first token."""
        return bool(self.prompt_tokens) or all(sequence.counted for sequence in self.sequences)

    @property
    def largest_token(self) -> int:
        """Return the largest token id, which the model must have an embedding for."""
        return max(max(tokens) for tokens in (*(each.tokens for each in self.sequences), self.prompt_tokens) if tokens)


def tokenise_questions(
    task: EvaluationTask, questions: Iterable[Question], tokenizer: RowTokenizer
) -> Iterator[TokenisedQuestion]:
    """Yield each question of a task in tokens, in order.

    Raises:
        DataInvalid: the chat template refuses a row, or leaves its answer out, or two choices become the same tokens.
        SettingsInvalid: CHAT_TEMPLATE_INVALID.
    """
    stream = iter(questions)
    while batch := list(islice(stream, BATCH_QUESTIONS)):
        if task.generates:
            yield from _prompts(task, batch, tokenizer)
        elif task.type is TaskType.PERPLEXITY:
            for question, row in zip(batch, tokenizer.tokenise_whole(each.row for each in batch), strict=True):
                sequence = _sequence(row, _content(question.row))
                yield TokenisedQuestion(question, (sequence,), (), len(sequence.tokens))
        elif task.type is TaskType.PREFERENCE:
            yield from _pairs(batch, tokenizer)
        else:
            yield from _choices(batch, tokenizer)


def _prompts(task: EvaluationTask, batch: list[Question], tokenizer: RowTokenizer) -> Iterator[TokenisedQuestion]:
    rows = [question.row for question in batch]
    new = task.max_new_tokens or DEFAULT_NEW_TOKENS
    for question, tokens, whole in zip(
        batch, tokenizer.tokenise_prompts(rows), tokenizer.tokenise_answers(rows), strict=True
    ):
        prompt = tuple(map(int, tokens))
        if not prompt:
            raise malformed(question.row.place, "has an empty prompt, so nothing is asked")
        if question.calls is not None and question.schema is not None:
            _check_calls(
                question, question.schema, question.calls, tokenizer.text(whole.tokens[whole.supervised], control=False)
            )
        straddled = whole.asked and prompt != tuple(map(int, whole.tokens[: len(prompt)]))
        yield TokenisedQuestion(question, (), prompt, len(prompt) + new, straddled=straddled)


def _check_calls(question: Question, schemas: str, calls: str, text: str) -> None:
    """Refuse a row whose own answer, as the chat template writes it, is not read as the calls that it makes.

    Raises:
        SettingsInvalid: CHAT_TEMPLATE_INVALID.
    """
    try:
        read: tuple[Call, ...] | None = read_calls(text, json.loads(schemas))
    except Unreadable:
        read = None
    if read != expected_calls(calls):
        raise SettingsInvalid(
            f"{question.row.place}: the chat template writes its answer as {text.strip()[:200]!r}, in which its calls "
            "are not found; which forms a ToolCalls task reads is told in docs/evaluation-data.md",
            Reason.CHAT_TEMPLATE_INVALID,
        )


def _choices(batch: list[Question], tokenizer: RowTokenizer) -> Iterator[TokenisedQuestion]:
    rows = tokenizer.tokenise_answers(question.answered(text) for question in batch for text in question.answers)
    for question in batch:
        sequences = tuple(_sequence(next(rows), choice) for choice in question.choices)
        place = question.row.place
        if not all(sequence.counted for sequence in sequences):
            raise DataInvalid(f"{place}: the chat template leaves out the answer; correct the template or the row")
        if len({sequence.tokens for sequence in sequences}) != len(sequences):
            raise DataInvalid(f"{place}: two of its choices become the same tokens; make them distinct")
        yield TokenisedQuestion(question, sequences, (), max(len(sequence.tokens) for sequence in sequences))


def _pairs(batch: list[Question], tokenizer: RowTokenizer) -> Iterator[TokenisedQuestion]:
    """Yield pairs: each answer behind the prompt, as training sees it."""
    rows = tokenizer.tokenise(question.row for question in batch)
    for question in batch:
        sequences = tuple(_sequence(next(rows), answer) for answer in question.choices)
        yield TokenisedQuestion(question, sequences, (), max(len(sequence.tokens) for sequence in sequences))


def _content(row: Row) -> str:
    """Return what a row's likelihood is of, as text: all that the assistant says, or the whole Text."""
    said = "".join(spoken(message) for message in row.messages if is_learned(message))
    return said + row.completion + row.text


def _sequence(row: Tokenised, text: str) -> Sequence:
    return Sequence(tuple(map(int, row.tokens)), spans_of(row.supervised), len(text), len(text.encode()))


def spans_of(supervised: Bool) -> tuple[Span, ...]:
    """Return the half-open ranges of a mask, without position 0, which nothing is before."""
    mask = supervised.copy()
    mask[:1] = False
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return tuple((int(start), int(stop)) for start, stop in edges.reshape(-1, 2))

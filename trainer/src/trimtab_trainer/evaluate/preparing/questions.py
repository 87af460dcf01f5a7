"""What the rows of a task ask, read from files: a prompt, the right answer, and what else there is to choose from.

The shapes of rows, by the type of the task; `group` and the column of groupBy are kept of all of them:

- Perplexity: Messages, PromptCompletion or Text, as for training.
- Generation, Classification, Regression: Messages, whose last assistant turn is the reference and what is before it the
  prompt; or PromptCompletion, whose completion is the reference. The reference of a Classification row is one of the
  task's labels (blanks around it do not count, case does); that of a Regression row is a finite number.
- Preference: {prompt, chosen, rejected}, or conversations under chosen and rejected, as for training.
- MultipleChoice: {"question" or "prompt": text, "choices": [2 to 64 texts], "answer": index from 0, or the choice}.

A row that is none of these is refused with its file and line; `question_reader` reads all rows of a task.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from ...contract import DatasetFormat, canonical_json
from ...data.formats import Row, conform
from ...data.keys import check_row
from ...data.messages import malformed, spoken
from ...data.readers import Record
from ..scoring.parsing import NUMBER, parse_number

MINIMUM_CHOICES, MAXIMUM_CHOICES = 2, 64


@dataclass(frozen=True)
class Question:
    """One row that conforms to its task.

    Attributes:
        row: the conversation or text with its reference as the last answer.
        identity: sha256 of the canonical JSON of all that is asked.
        group: value of the groupBy column; None without groupBy.
        reference: the right answer as text.
        answers: the last answer to put in place for each choice, blanks around it kept; empty without choices.
        choices: the texts to choose from.
        answer: index of the right choice.
        number: the right number of a Regression row.
    """

    row: Row
    identity: bytes
    group: str | None
    reference: str
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    answer: int | None = None
    number: float | None = None

    @property
    def prompt(self) -> str:
        """What is asked, as text for people: who speaks is told where more than one message is before the answer."""
        if not self.row.messages:
            return self.row.prompt
        # Of a pair the messages are the prompt alone.
        before = self.row.messages if self.row.answers else self.row.messages[: last_answer(self.row)]
        if len(before) == 1:
            return spoken(before[0])
        return "\n".join(f"{message['role']}: {spoken(message)}" for message in before)

    def answered(self, text: str) -> Row:
        """Return the row with another last answer, as it would have been trained on."""
        return answered(self.row, text)


class Unreferenced(Exception):
    """A row without the answer that it is compared with."""


class Unlabelled(Exception):
    """A row whose answer is none of the labels."""


def last_answer(row: Row) -> int:
    """Return the index of a conversation's last assistant turn."""
    return max(index for index, message in enumerate(row.messages) if message["role"] == "assistant")


def answered(row: Row, text: str) -> Row:
    """Return a row with another last answer; what follows it in a conversation is no part of either."""
    if row.format is DatasetFormat.PROMPT_COMPLETION:
        return replace(row, completion=text)
    last = last_answer(row)
    return replace(row, messages=(*row.messages[:last], {**row.messages[last], "content": text}))


def text_question(row: Row) -> Question:
    """Return a row whose own likelihood is asked for."""
    return Question(row, hashlib.sha256(row.to_json()).digest(), None, row.answer)


def referenced_question(row: Row) -> Question:
    """Return a row as a question; what follows the last answer of a conversation is left out.

    Raises:
        Unreferenced, DataInvalid
    """
    if not row.has_assistant_turn:
        raise Unreferenced
    if row.format is DatasetFormat.MESSAGES:
        row = replace(row, messages=row.messages[: last_answer(row) + 1])
        reference = row.messages[-1]["content"]
        if len(row.messages) == 1:
            raise malformed(row.place, "has nothing before its answer, so nothing is asked")
    else:
        reference = row.completion
    if not reference.strip():
        raise Unreferenced
    return Question(row, hashlib.sha256(row.to_json()).digest(), None, reference)


def preferring_question(row: Row) -> Question:
    """Return a pair, of which the chosen answer is the right one.

    Raises:
        DataInvalid: DATASET_MALFORMED, both answers are the same.
    """
    if row.is_tied:
        raise malformed(row.place, "has the same answer as chosen and as rejected")
    said = tuple(each.answer for each in row.answers)
    return Question(row, hashlib.sha256(row.to_json()).digest(), None, said[0], choices=said, answer=0)


def labelled_question(row: Row, labels: tuple[str, ...]) -> Question:
    """Return a row whose answer is one of some labels.

    Raises:
        Unreferenced, Unlabelled, DataInvalid
    """
    question = referenced_question(row)
    text = question.reference
    label = text.strip()
    if label not in labels:
        raise Unlabelled(label)
    begin = text.index(label)
    # Blanks around the answer were learned with it, so every label stands between the same.
    answers = tuple(text[:begin] + each + text[begin + len(label) :] for each in labels)
    return replace(question, reference=label, answers=answers, choices=labels, answer=labels.index(label))


def numbered_question(question: Question) -> Question:
    """Return a question whose answer is a number.

    Raises:
        DataInvalid: DATASET_MALFORMED.
    """
    text = question.reference.strip()
    # Parsed as the model's answers are, so that repeating the reference is no error at all.
    number = parse_number(text) if NUMBER.fullmatch(text) else None
    if number is None:
        raise malformed(question.row.place, f"has the answer {text[:80]!r}, which is no finite number such as -1.5")
    return replace(question, reference=text, number=number)


def multiple_choice_question(record: Record, templated: bool, ignore: Collection[str] = ()) -> Question:
    """Return a record with choices as a question.

    Args:
        record: as it was read.
        templated: a chat template keeps prompt and answer apart.
        ignore: columns that are left out, whatever they mean.

    Raises:
        Unreferenced, DataInvalid
    """
    value, place = record.value, record.place
    if not isinstance(value, dict):
        raise malformed(place, f"is a JSON {type(value).__name__}, not an object")
    key = "question" if value.get("question") is not None else "prompt"
    asked, choices = value.get(key), value.get("choices")
    if not isinstance(asked, str) or not asked.strip():
        raise malformed(place, "lacks a question (or prompt) that is text")
    if not isinstance(choices, list) or not MINIMUM_CHOICES <= len(choices) <= MAXIMUM_CHOICES:
        raise malformed(place, f"lacks choices, a list of {MINIMUM_CHOICES} to {MAXIMUM_CHOICES} texts")
    if not all(isinstance(choice, str) and choice.strip() for choice in choices):
        raise malformed(place, "has a choice that is blank or no text")
    others = {name: each for name, each in value.items() if name not in (key, "choices", "answer")}
    ignored = check_row(others, DatasetFormat.PROMPT_COMPLETION, place, guessed=False, ignore=ignore)
    texts = tuple(choice.strip() for choice in choices)
    if len(set(texts)) != len(texts):
        raise malformed(place, "has the same choice twice")
    answer = _answer(value.get("answer"), texts, place)
    gap = "" if templated or asked[-1:].isspace() else " "
    pair = {"prompt": asked, "completion": gap + texts[answer], "group": value.get("group")}
    row = conform(Record(pair, place), DatasetFormat.PROMPT_COMPLETION)
    for text in texts:
        conform(Record({"prompt": asked, "completion": text}, place), DatasetFormat.PROMPT_COMPLETION)
    asked_for = {"question": asked, "choices": texts, "answer": answer, "group": row.group}
    return Question(
        replace(row, ignored=ignored),
        hashlib.sha256(canonical_json(asked_for)).digest(),
        None,
        texts[answer],
        answers=tuple(gap + text for text in texts),
        choices=texts,
        answer=answer,
    )


def _answer(value: Any, choices: tuple[str, ...], place: str) -> int:
    if value is None or value == "":
        raise Unreferenced
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value < len(choices):
            return value
        raise malformed(place, f"has the answer {value}, but its {len(choices)} choices count from 0")
    if isinstance(value, str) and value.strip() in choices:
        return choices.index(value.strip())
    raise malformed(place, f"has the answer {str(value)[:80]!r}, which is neither an index nor one of its choices")

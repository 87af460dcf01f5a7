"""What the rows of a task ask, read from files: a prompt, the right answer, and what else there is to choose from.

The shapes of rows, by the type of the task; `group` and the column of groupBy are kept of all of them:

- Perplexity: Messages, PromptCompletion or Text, as for training.
- Generation, Classification, Regression: Messages, whose last assistant turn is the reference and what is before it the
  prompt; or PromptCompletion, whose completion is the reference. The reference of a Classification row is one of the
  task's labels (blanks around it do not count, case does); that of a Regression row is a finite number.
- ToolCalls: Messages with tools, whose last assistant turn (or each of them) makes the right calls, or speaks.
- JsonSchema: as Generation; the reference is JSON that the schema accepts: the task's, or the row's own in the column
  `schema`, an object or JSON text.
- Regex: as Generation; the reference is a text that the pattern is found in.
- Refusal: as Generation; beside it `refuse`, true or false, and the reference does so.
- Judge: as Generation; beside it, of the mode Pairwise, `worse`: an answer that people found worse than the reference,
  and of the mode Rubric `score`: the whole number that they gave the reference.
- Preference: {prompt, chosen, rejected}, or conversations under chosen and rejected, as for training.
- MultipleChoice: {"question" or "prompt": text, "choices": [2 to 64 texts], "answer": index from 0, or the choice}.

A row that is none of these is refused with its file and line; `question_reader` reads all rows of a task.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...contract import DatasetFormat, JudgeMode, Judging, canonical_json
from ...contract.parsing import check_levels
from ...data.reading.formats import Row, conform
from ...data.reading.keys import check_row
from ...data.reading.messages import is_learned, malformed, spoken
from ...data.reading.messages import text as checked_text
from ...data.reading.readers import Record
from ..scoring.structured.schemas import LEVELS, SchemaRefused, parsed, schema_of
from ..scoring.structured.tool_calls import calls_text
from ..scoring.texts.parsing import NUMBER, composed, is_seen, parse_number
from ..scoring.texts.patterns import pattern_of
from ..scoring.texts.refusals import is_refusal

REFUSE = "refuse"
"""Column of a Refusal row: whether it is to be refused."""
WORSE, SCORE = "worse", "score"
"""Columns of what people said of a Judge row's own answer: one that is worse, or a score of it."""
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
        schema, calls, worse, score, refuse, pair: as those of `rows.EvaluationRow`.
        conversation: identity of the conversation that several questions are of; None where each row is one.
    """

    row: Row
    identity: bytes
    group: str | None
    reference: str
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    answer: int | None = None
    number: float | None = None
    schema: str | None = None
    calls: str | None = None
    worse: str | None = None
    score: int | None = None
    refuse: bool | None = None
    pair: str | None = None
    conversation: bytes | None = None

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
    return Question(row, hashlib.sha256(row.canonical()).digest(), None, row.answer)


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
    if not is_seen(reference):
        raise Unreferenced
    return Question(row, hashlib.sha256(row.canonical()).digest(), None, reference)


def turns_of(row: Row) -> list[Row]:
    """Return the conversations that end with each of a row's answers, in order; those of weight 0 are left out.

    Of a row that has but one answer, or none, itself.
    """
    if row.format is not DatasetFormat.MESSAGES:
        return [row]
    ends = [number for number, message in enumerate(row.messages, 1) if is_learned(message)]
    if len(ends) < 2:
        return [row]
    return [replace(row, messages=row.messages[:end], place=f"{row.place}, message {end}") for end in ends]


def calling_question(row: Row) -> Question:
    """Return a row whose last answer calls tools, or does not.

    Raises:
        Unreferenced, DataInvalid: DATASET_MALFORMED, it has no tools, two of one name, or calls of others.
    """
    if row.format is not DatasetFormat.MESSAGES:
        raise malformed(row.place, "is no conversation (Messages) with tools, which a ToolCalls task asks to call")
    if not row.has_assistant_turn:
        raise Unreferenced
    row = replace(row, messages=row.messages[: last_answer(row) + 1])
    answer = row.messages[-1]
    if len(row.messages) == 1:
        raise malformed(row.place, "has nothing before its answer, so nothing is asked")
    if not row.tools:
        raise malformed(row.place, "has no tools, which a ToolCalls task asks to call")
    named = [tool["function"]["name"] for tool in row.tools]
    if len(set(named)) != len(named):
        raise malformed(row.place, "has two tools of the same name")
    schemas = {}
    for tool in row.tools:
        parameters = tool["function"].get("parameters")
        schemas[tool["function"]["name"]] = canonical_json({} if parameters is None else parameters).decode()
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in answer.get("tool_calls", ())]
    for name, schema in schemas.items():
        _check_schema(schema, f"{row.place}, tool {name[:64]!r}")
    for name, arguments in calls:
        if name not in schemas:
            raise malformed(row.place, f"calls {name[:64]!r}, which is none of its tools")
        _check_accepted(schemas[name], arguments, f"{row.place} calls {name[:64]!r} with arguments")
    reference = spoken(answer)
    if not reference.strip():
        raise Unreferenced
    return Question(
        row,
        hashlib.sha256(row.canonical()).digest(),
        None,
        reference,
        schema=canonical_json(schemas).decode(),
        calls=calls_text(calls),
    )


def json_question(question: Question, schema: str | None, own: Any) -> Question:
    """Return a question whose answer is JSON.

    Args:
        question: with its reference.
        schema: the task's, as JSON text; None: the row has its own.
        own: the row's column `schema`.

    Raises:
        DataInvalid: DATASET_MALFORMED.
    """
    place = question.row.place
    kept = None
    if schema is None:
        if not isinstance(own, str | dict | bool):
            raise malformed(place, "has no schema, and the task has no jsonSchema")
        try:
            schema = kept = checked_text(own, "schema", place) if isinstance(own, str) else canonical_json(own).decode()
        except UnicodeEncodeError:
            raise malformed(place, "has a schema with half of a surrogate pair") from None
        _check_schema(schema, place)
    try:
        value = parsed(question.reference)
    except ValueError as error:
        raise malformed(place, f"has an answer that is no JSON ({error})") from error
    _check_accepted(schema, value, f"{place} has an answer")
    identity = question.identity if kept is None else hashlib.sha256(question.identity + kept.encode()).digest()
    return replace(question, schema=kept, identity=identity)


def judged_question(question: Question, judging: Judging, value: Mapping[str, Any]) -> Question:
    """Return a question whose answers are judged, with what people said of its own.

    Args:
        question: with its reference.
        judging: what the judge is asked.
        value: the row's columns, `worse` and `score` among them.

    Raises:
        DataInvalid: DATASET_MALFORMED.
    """
    place = question.row.place
    if judging.show_reference is not None:
        return question
    if judging.chosen_mode is JudgeMode.PAIRWISE:
        worse = _given(value, WORSE)
        if worse is None:
            return question
        worse = checked_text(worse, WORSE, place).strip()
        if worse == question.reference.strip():
            raise malformed(place, "has its own answer as the worse one")
        return replace(question, worse=worse, identity=hashlib.sha256(question.identity + worse.encode()).digest())
    given, (low, high) = _given(value, SCORE), judging.scores
    if given is None:
        return question
    score = next((each for each in range(low, high + 1) if _is_number(given, each)), None)
    if score is None:
        raise malformed(place, f"has a score that is no whole number from {low} to {high}")
    return replace(question, score=score, identity=hashlib.sha256(question.identity + bytes([score])).digest())


def _given(row: Mapping[str, Any], column: str) -> Any:
    """Return the value of a column that some rows have; None also where a table has a blank or no number."""
    value = row.get(column)
    blank = isinstance(value, str) and not value.strip()
    return None if blank or value != value else value  # noqa: PLR0124  not a number: a null of pandas


def _is_number(value: Any, number: int) -> bool:
    """Tell whether a value is a whole number: text of a CSV file, or 3.0 of a table with empty cells, is one too."""
    if isinstance(value, str):
        return value.strip() == str(number)
    return not isinstance(value, bool) and isinstance(value, int | float) and value == number


def matching_question(question: Question, pattern: str) -> Question:
    """Return a question whose answer is text that a pattern is found in.

    Raises:
        DataInvalid: DATASET_MALFORMED.
    """
    reference = question.reference.strip()
    if not any(map(pattern_of(pattern).is_in, (reference, composed(reference)))):  # as a model's answer is read
        raise malformed(question.row.place, "has an answer that the pattern is not found in")
    return question


def refusing_question(question: Question, pattern: str | None, refuse: Any) -> Question:
    """Return a question that is to be refused, or not.

    Args:
        question: with its reference, which has to do just that.
        pattern: of refusals; None: how English ones begin.
        refuse: the row's column `refuse`.

    Raises:
        DataInvalid: DATASET_MALFORMED.
    """
    place = question.row.place
    if isinstance(refuse, str):  # a CSV file has no other
        refuse = {"true": True, "false": False}.get(refuse.strip().lower())
    if not isinstance(refuse, bool):
        raise malformed(place, f"has no {REFUSE} that is true or false")
    if is_refusal(question.reference, pattern) is not refuse:
        told = "an answer that is no refusal" if refuse else "an answer that is a refusal"
        raise malformed(place, f"says {REFUSE}: {str(refuse).lower()} beside {told}, as the task's pattern has it")
    return replace(question, refuse=refuse, identity=hashlib.sha256(question.identity + bytes([refuse])).digest())


def _check_schema(schema: str, place: str) -> None:
    try:
        schema_of(schema)
    except SchemaRefused as error:
        raise malformed(place, f"has a schema that cannot be checked against: {error}") from error


def _check_accepted(schema: str, value: Any, what: str) -> None:
    try:
        check_levels(value, LEVELS)
        trouble = schema_of(schema).trouble(value)
    except ValueError as error:
        trouble = str(error)
    if trouble is not None:
        raise malformed(what, f"that its schema does not accept: {trouble}")


def preferring_question(row: Row) -> Question:
    """Return a pair, of which the chosen answer is the right one.

    Raises:
        DataInvalid: DATASET_MALFORMED, both answers are the same.
    """
    said = tuple(each.answer for each in row.answers)
    if len({composed(each).strip() for each in said}) < len(said):
        raise malformed(row.place, "has the same answer as chosen and as rejected")
    return Question(row, hashlib.sha256(row.canonical()).digest(), None, said[0], choices=said, answer=0)


def labelled_question(row: Row, labels: tuple[str, ...]) -> Question:
    """Return a row whose answer is one of some labels, however its letters are composed in Unicode.

    Raises:
        Unreferenced, Unlabelled, DataInvalid
    """
    question = referenced_question(row)
    text = question.reference
    label, known = text.strip(), list(map(composed, labels))
    if composed(label) not in known:
        raise Unlabelled(label)
    begin, answer = text.index(label), known.index(composed(label))
    # Blanks around the answer were learned with it, so every label stands between the same.
    answers = tuple(text[:begin] + each + text[begin + len(label) :] for each in labels)
    return replace(question, reference=labels[answer], answers=answers, choices=labels, answer=answer)


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
    if not all(isinstance(choice, str) and is_seen(choice) for choice in choices):
        raise malformed(place, "has a choice that is blank or no text")
    others = {name: each for name, each in value.items() if name not in (key, "choices", "answer")}
    ignored = check_row(others, DatasetFormat.PROMPT_COMPLETION, place, guessed=False, ignore=ignore)
    texts = tuple(choice.strip() for choice in choices)
    if len(set(map(composed, texts))) != len(texts):
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
    known = list(map(composed, choices))
    if isinstance(value, str) and composed(value).strip() in known:
        return known.index(composed(value).strip())
    raise malformed(place, f"has the answer {str(value)[:80]!r}, which is neither an index nor one of its choices")

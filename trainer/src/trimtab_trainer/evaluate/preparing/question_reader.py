"""All rows of a task, read from its files in order, each refused or kept before anything is tokenised.

Rows are read to the last one before some are refused, so that their number can be told beside the first one's file and
line. Rows that are the same in all that is asked, group included, are taken once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain

from ...contract import DatasetFormat, EvaluationTask, JudgeMode, Reason, TaskType, Turns
from ...data.cleaning.steps import Finding
from ...data.reading.formats import Row, conform, resolve
from ...data.reading.keys import USED
from ...data.reading.readers import Record
from ...data.reading.source import Source
from ...errors import DataInvalid, SettingsInvalid
from ..scoring.structured.schemas import SchemaRefused, schema_of
from ..scoring.texts.parsing import composed
from ..scoring.texts.patterns import PatternRefused, pattern_of
from .group_column import group_of, refuse_ungrouped
from .questions import (
    REFUSE,
    SCORE,
    WORSE,
    Question,
    Unlabelled,
    Unreferenced,
    calling_question,
    json_question,
    judged_question,
    labelled_question,
    matching_question,
    multiple_choice_question,
    numbered_question,
    preferring_question,
    referenced_question,
    refusing_question,
    text_question,
    turns_of,
)

SCHEMA = "schema"
"""Column of a JsonSchema row's own schema."""


@dataclass
class ReadQuestions:
    """Questions, and what was left out of them."""

    questions: list[Question] = field(default_factory=list)
    read: int = 0
    blank: Finding = field(default_factory=Finding)
    duplicate: Finding = field(default_factory=Finding)
    ignored: dict[str, Finding] = field(default_factory=dict)
    """Columns that are not used."""


def read_questions(task: EvaluationTask, source: Source, *, templated: bool) -> ReadQuestions:
    """Return the questions of a task in the order of its files; `templated` as in `multiple_choice_question`.

    Raises:
        DataInvalid: DATASET_EMPTY, DATASET_MALFORMED, FORMAT_UNKNOWN, NO_ASSISTANT_TURN, REFERENCE_MISSING,
            LABEL_UNKNOWN, GROUP_MISSING.
        SettingsInvalid: METRIC_NOT_APPLICABLE where the rows' format has no answer to compare with.
    """
    asking = _asking(task, source, templated)
    used = (task.group_by, task.pairs, *_columns(task))
    reading, seen = ReadQuestions(), set[bytes]()
    speechless, unreferenced, unlabelled, ungrouped = Finding(), Finding(), Finding(), Finding()
    unknown = ""
    for record in source.records():
        try:
            questions = asking(record)
        except Unreferenced:
            reading.read += 1
            unreferenced.add(record.place)
            continue
        except Unlabelled as error:
            reading.read += 1
            unknown = unknown or str(error)
            unlabelled.add(record.place)
            continue
        reading.read += len(questions)
        for question in questions:
            asked = question
            for column in asked.row.ignored:
                if column not in used:
                    reading.ignored.setdefault(column, Finding()).add(record.place)
            if not asked.row.has_assistant_turn:
                speechless.add(record.place)
                continue
            if not asked.row.answer.strip():
                reading.blank.add(record.place)
                continue
            if task.group_by is not None:
                group = group_of(record, task.group_by)
                if group is None:
                    ungrouped.add(record.place)
                    continue
                asked = _told_apart(replace(asked, group=group), group)
            if task.pairs is not None and (pair := group_of(record, task.pairs, "pairs")) is not None:
                asked = _told_apart(replace(asked, pair=pair), pair)
            if asked.identity in seen:
                reading.duplicate.add(record.place)
                continue
            seen.add(asked.identity)
            reading.questions.append(asked)
    _refuse(task, reading.read, speechless, unreferenced)
    if unlabelled.count:
        raise DataInvalid(
            f"task {task.name}: the answer of {_of(unlabelled, reading.read)} is none of its labels, the first is "
            f"{unknown!r} at {unlabelled.places[0]}; add it to labels, or correct the row",
            Reason.LABEL_UNKNOWN,
        )
    refuse_ungrouped(task, ungrouped, reading.read, some=bool(reading.questions))
    if not reading.questions:
        what = "no rows" if not reading.read else f"{reading.read} rows, all of them blank"
        raise DataInvalid(f"task {task.name}: {source.uri} holds {what}; upload the data", Reason.DATASET_EMPTY)
    return reading


def _told_apart(question: Question, name: str) -> Question:
    """Return a question that is another one than the same in another group or pair."""
    return replace(question, identity=hashlib.sha256(question.identity + b"\0" + name.encode()).digest())


def _asking(task: EvaluationTask, source: Source, templated: bool) -> Callable[[Record], list[Question]]:
    """Return what makes questions of a record: one, or one of each turn."""
    if task.turns is not Turns.EACH:
        question = _reader(task, source, templated)
        return lambda record: [question(record)]
    row, question_of = _row_reader(task, source)

    def each(record: Record) -> list[Question]:
        whole = row(record)
        identity = hashlib.sha256(whole.to_json()).digest()
        return [replace(question_of(turn, record), conversation=identity) for turn in turns_of(whole)]

    return each


def _reader(task: EvaluationTask, source: Source, templated: bool) -> Callable[[Record], Question]:
    """Return what makes a question of a record of this task, having looked at the first one."""
    named = _named(task)
    ignore = frozenset(task.dataset.ignore_keys or ())
    if task.type is TaskType.MULTIPLE_CHOICE:
        return lambda record: multiple_choice_question(record, templated, ignore | named)
    if task.type is TaskType.PREFERENCE:
        first = next(source.records(), None)
        if first is None:
            raise DataInvalid(f"task {task.name}: {source.uri} holds no rows; upload the data", Reason.DATASET_EMPTY)
        keys = USED[DatasetFormat.PREFERENCE]
        if not isinstance(first.value, dict) or not all(first.value.get(key) is not None for key in keys):
            raise SettingsInvalid(
                f"task {task.name}: {first.place} of {source.uri} has no {' and '.join(keys)}, which a Preference task "
                "compares; give rows of {prompt, chosen, rejected}",
                Reason.METRIC_NOT_APPLICABLE,
            )
        pair = partial(conform, row_format=DatasetFormat.PREFERENCE, ignore=ignore, named=named)
        return lambda record: preferring_question(pair(record))
    row, question = _row_reader(task, source)
    return lambda record: question(row(record), record)


def _row_reader(
    task: EvaluationTask, source: Source
) -> tuple[Callable[[Record], Row], Callable[[Row, Record], Question]]:
    """Return what makes a row of a record, and a question of the row; of tasks whose rows are those of training.

    Raises:
        DataInvalid, SettingsInvalid
    """
    named = _named(task)
    ignore = frozenset(task.dataset.ignore_keys or ())
    records = source.records()
    first = next(records, None)
    if first is None:
        raise DataInvalid(f"task {task.name}: {source.uri} holds no rows; upload the data", Reason.DATASET_EMPTY)
    detected = resolve(task.dataset.format or DatasetFormat.AUTO, chain([first], records), ignore, named)
    row = partial(conform, row_format=detected.format, guessed=detected.guessed, ignore=ignore, named=named)
    if task.type is TaskType.PERPLEXITY:
        return row, lambda each, _: text_question(each)
    if detected.format is DatasetFormat.TEXT:
        raise SettingsInvalid(
            f"task {task.name}: the rows of {source.uri} are Text, which has no answer that {task.type.value} could be "
            "compared with; give Messages or PromptCompletion rows, or make it a Perplexity task",
            Reason.METRIC_NOT_APPLICABLE,
        )
    match task.type:
        case TaskType.CLASSIFICATION:
            labels = _labels(task)
            return row, lambda each, _: labelled_question(each, labels)
        case TaskType.REGRESSION:
            return row, lambda each, _: numbered_question(referenced_question(each))
        case TaskType.TOOL_CALLS:
            return row, lambda each, _: calling_question(each)
        case TaskType.JSON_SCHEMA:
            _check_settings(task)
            return row, lambda each, record: json_question(
                referenced_question(each), task.json_schema, record.value.get(SCHEMA)
            )
        case TaskType.REFUSAL:
            _check_settings(task)
            return row, lambda each, record: refusing_question(
                referenced_question(each), task.pattern, record.value.get(REFUSE)
            )
        case TaskType.JUDGE if task.judging is not None:
            judging = task.judging
            return row, lambda each, record: judged_question(referenced_question(each), judging, record.value)
        case TaskType.REGEX:
            _check_settings(task)
            return row, lambda each, _: matching_question(referenced_question(each), task.pattern or "")
    return row, lambda each, _: referenced_question(each)


def _named(task: EvaluationTask) -> frozenset[str]:
    """Return the columns that a task names itself: whatever they are called, nobody refuses them."""
    return frozenset(each for each in (task.group_by, task.pairs) if each is not None and each != "group")


def _columns(task: EvaluationTask) -> tuple[str, ...]:
    """Return the columns that a task uses beside those of the format."""
    if task.type is TaskType.JSON_SCHEMA and task.json_schema is None:
        return (SCHEMA,)
    if task.type is TaskType.REFUSAL:
        return (REFUSE,)
    if task.judging is None or task.judging.show_reference is not None:
        return ()
    return (WORSE,) if task.judging.chosen_mode is JudgeMode.PAIRWISE else (SCORE,)


def _check_settings(task: EvaluationTask) -> None:
    """Refuse a schema or a pattern that no answer could be checked against.

    Raises:
        SettingsInvalid
    """
    try:
        if task.json_schema is not None:
            schema_of(task.json_schema)
        if task.pattern is not None:
            pattern_of(task.pattern)
    except SchemaRefused as error:
        raise SettingsInvalid(f"task {task.name}: its jsonSchema cannot be checked against: {error}") from error
    except PatternRefused as error:
        raise SettingsInvalid(f"task {task.name}: {error}") from error


def _labels(task: EvaluationTask) -> tuple[str, ...]:
    labels = tuple(label.strip() for label in task.labels or ())
    if len(set(map(composed, labels))) != len(labels) or not all(labels):
        raise SettingsInvalid(
            f"task {task.name}: two of its labels are the same, or one is blank, once the blanks around them are left "
            "out; make them distinct"
        )
    return labels


def _refuse(task: EvaluationTask, read: int, speechless: Finding, unreferenced: Finding) -> None:
    if speechless.count:
        raise DataInvalid(
            f"task {task.name}: {_of(speechless, read)} have no assistant turn, the first is {speechless.places[0]}; "
            "remove them, or add the answers",
            Reason.NO_ASSISTANT_TURN,
        )
    if unreferenced.count:
        raise DataInvalid(
            f"task {task.name}: {_of(unreferenced, read)} have no answer to compare with, the first is "
            f"{unreferenced.places[0]}; add the answers, or remove the rows",
            Reason.REFERENCE_MISSING,
        )


def _of(finding: Finding, read: int) -> str:
    return f"{finding.count} of {read} rows"

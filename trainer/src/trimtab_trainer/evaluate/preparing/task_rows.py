"""The rows of one task, from its files: read, limited, tokenised, clustered, and compared with what was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...contract import EvaluationTask, Reason
from ...data.cleaning.steps import Finding
from ...data.encoding.tokens import RowTokenizer
from ...data.reading.source import Source
from ...errors import DataInvalid
from ...report import Report
from ..rows import EvaluationRow
from .clusters import clusters, has_answer_of_its_own, leak_keys
from .question_reader import ReadQuestions, read_questions
from .tokenised import TokenisedQuestion, tokenise_questions


@dataclass(frozen=True)
class Circumstances:
    """What the rows of every task are held against.

    Attributes:
        tokenizer: of the base model.
        context_length: tokens that the base model was made for; None if it does not say.
        trained: keys of all rows that the target was trained on; None if that is not known.
        maximum_trained_on_ratio: share of a task's rows that may be among them.
    """

    tokenizer: RowTokenizer
    context_length: int | None
    trained: frozenset[bytes] | None
    maximum_trained_on_ratio: float


@dataclass(frozen=True)
class TaskRows:
    """Rows of a task as they are asked, and how many were left out."""

    rows: list[EvaluationRow]
    clusters: int
    trained_on: int
    compared: list[str]
    dropped: int
    largest_token: int


def make_rows(task: EvaluationTask, source: Source, about: Circumstances, report: Report) -> TaskRows:
    """Return the rows of a task, in the order of its files.

    With a limit, those are taken whose sha256 is smallest, rows that are too long passed over: the choice depends on
    the rows' content alone, so a file in another order, or one more task, changes nothing.

    Raises:
        DataInvalid, SettingsInvalid: whatever is wrong with the data, by name, before any of it is stored.
    """
    reading = read_questions(task, source, templated=about.tokenizer.has_template)
    chosen, too_long, empty, straddled = _chosen(task, reading, about)
    if not chosen:
        raise _nothing_left(task, reading, too_long, empty, about)
    rows = _rows(task, chosen, about)
    made = TaskRows(
        rows,
        clusters=len({row.cluster for row in rows}),
        trained_on=sum(row.trained_on for row in rows),
        compared=_compared(task, chosen, about),
        dropped=reading.read - len(rows),
        largest_token=max(asked.largest_token for asked in chosen),
    )
    report(
        "task read",
        task=task.name,
        read=reading.read,
        rows=len(rows),
        clusters=made.clusters,
        trained_on=made.trained_on if about.trained is not None else None,
        blank=reading.blank.count,
        duplicate=reading.duplicate.count,
        too_long=too_long.count,
        empty=empty.count,
        ignored={column: finding.count for column, finding in sorted(reading.ignored.items())},
    )
    if straddled.count:
        report.warn(
            "prompts end within a token of the trained rows; end them with no blank, and begin the answers with one",
            task=task.name,
            rows=straddled.count,
            first=straddled.places[0],
        )
    _check_trained_on(task, made, about)
    return made


def _chosen(
    task: EvaluationTask, reading: ReadQuestions, about: Circumstances
) -> tuple[list[TokenisedQuestion], Finding, Finding, Finding]:
    """Return the questions that are asked, in file order; and those too long, empty, and straddled."""
    questions = reading.questions
    limit = task.dataset.limit or len(questions)
    order = list(range(len(questions)))
    if limit < len(questions):
        order.sort(key=lambda index: questions[index].identity)
    kept: list[tuple[int, TokenisedQuestion]] = []
    too_long, empty, straddled = Finding(), Finding(), Finding()
    for index, asked in _asked(task, reading, order, about):
        place = asked.question.row.place
        if not asked.counted:
            empty.add(place)
        elif about.context_length is not None and asked.length > about.context_length:
            too_long.add(place)
        else:
            if asked.straddled:
                straddled.add(place)
            kept.append((index, asked))
            if len(kept) == limit:
                break
    return [asked for _, asked in sorted(kept, key=lambda pair: pair[0])], too_long, empty, straddled


def _asked(
    task: EvaluationTask, reading: ReadQuestions, order: list[int], about: Circumstances
) -> Iterator[tuple[int, TokenisedQuestion]]:
    asked = tokenise_questions(task, (reading.questions[index] for index in order), about.tokenizer)
    return zip(order, asked, strict=True)


def _rows(task: EvaluationTask, chosen: list[TokenisedQuestion], about: Circumstances) -> list[EvaluationRow]:
    questions = [asked.question for asked in chosen]
    rows = []
    for number, (asked, cluster) in enumerate(zip(chosen, clusters(task, questions), strict=True)):
        question = asked.question
        trained_on = about.trained is not None and any(key in about.trained for key in leak_keys(task, question))
        rows.append(
            EvaluationRow(
                number=number,
                place=question.row.place,
                cluster=cluster,
                group=question.group,
                trained_on=trained_on,
                prompt=question.prompt,
                reference=question.reference,
                sequences=asked.sequences,
                prompt_tokens=asked.prompt_tokens,
                choices=question.choices,
                answer=question.answer,
                number_reference=question.number,
                schema=question.schema,
                calls=question.calls,
                worse=question.worse,
                score=question.score,
                refuse=question.refuse,
            )
        )
    return rows


def _compared(task: EvaluationTask, chosen: list[TokenisedQuestion], about: Circumstances) -> list[str]:
    """Return what of the rows was compared with what was trained on; nothing where that is not known."""
    if about.trained is None:
        return []
    grouped = all(asked.question.row.group is not None for asked in chosen)
    return [name for name, there in (("answers", has_answer_of_its_own(task)), ("groups", grouped)) if there]


def _check_trained_on(task: EvaluationTask, made: TaskRows, about: Circumstances) -> None:
    if made.trained_on > about.maximum_trained_on_ratio * len(made.rows):
        first = next(row.place for row in made.rows if row.trained_on)
        raise DataInvalid(
            f"task {task.name}: the target was trained on {made.trained_on} of its {len(made.rows)} rows (the same "
            f"answer or group), the first is {first}; at most {about.maximum_trained_on_ratio:.0%} may be "
            "(maximumTrainedOnRatio). Take rows of their own, such as dataset.split: Test",
            Reason.TRAINED_ON,
        )


def _nothing_left(
    task: EvaluationTask, reading: ReadQuestions, too_long: Finding, empty: Finding, about: Circumstances
) -> DataInvalid:
    if too_long.count:
        advice = "shorten the rows" + (", or lower maxNewTokens" if task.generates else "")
        trouble = f"{too_long.count} are longer than the {about.context_length} tokens of the base model; {advice}"
    else:
        trouble = f"in {empty.count} nothing is to be predicted, the first is {empty.places[0]}; correct the answers"
    return DataInvalid(
        f"task {task.name}: none of its {reading.read} rows can be asked: {trouble}", Reason.DATASET_EMPTY
    )

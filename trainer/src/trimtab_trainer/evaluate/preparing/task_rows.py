"""The rows of one task, from its files: read, limited, tokenised, clustered, and compared with what was trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...contract import EvaluationTask, Reason
from ...data.cleaning.steps import Finding
from ...data.encoding.tokens import RowTokenizer
from ...data.reading.source import Source
from ...errors import DataInvalid
from ...report import Report
from ..results import OtherTrained
from ..rows import EvaluationRow
from .clusters import clusters, has_answer_of_its_own, leak_keys
from .question_reader import ReadQuestions, read_questions
from .questions import Question
from .tokenised import TokenisedQuestion, tokenise_questions
from .trained_rows import AskedRow, Trained, among, asked_row


@dataclass(frozen=True)
class Circumstances:
    """What the rows of every task are held against.

    Attributes:
        tokenizer: of the base model.
        context_length: tokens that the base model was made for; None if it does not say.
        trained: what the target was trained on; None if that is not known.
        others: what baseline and anchor were trained on, of those that are adapters and differ from the target.
        maximum_trained_on_ratio: share of a task's rows that may be among them.
    """

    tokenizer: RowTokenizer
    context_length: int | None
    trained: Trained | None
    others: Mapping[str, Trained | None]
    maximum_trained_on_ratio: float


@dataclass(frozen=True)
class TaskRows:
    """Rows of a task as they are asked, and how many were left out."""

    rows: list[EvaluationRow]
    clusters: int
    trained_on: int
    compared: list[str]
    others: list[OtherTrained]
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
    by_key = _by_key(task, [asked.question for asked in chosen], about.trained)
    rows = _rows(task, chosen, about)
    made = TaskRows(
        rows,
        clusters=len({row.cluster for row in rows}),
        trained_on=sum(row.trained_on for row in rows),
        compared=_compared(task, chosen, about.trained),
        others=_others(task, chosen, about),
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
    # Of a split training has decided itself what is alike: what else it left on two sides is told, and no reason.
    blamed = [row for row, key in zip(rows, by_key, strict=True) if (key if task.dataset.split else row.trained_on)]
    first = blamed[0].place if blamed else ""
    check_trained_on(task, len(blamed), len(rows), first, about.maximum_trained_on_ratio)
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
    known = _among(task, questions, about.trained)
    for number, (asked, cluster, trained_on) in enumerate(zip(chosen, clusters(task, questions), known, strict=True)):
        question = asked.question
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
                pair=question.pair,
            )
        )
    return rows


def _among(task: EvaluationTask, questions: list[Question], trained: Trained | None) -> list[bool]:
    """Tell of each row whether a model was trained on it, as far as that is known."""
    if trained is None:
        return [False] * len(questions)
    by_key = _by_key(task, questions, trained)
    if trained.rows is None:
        return by_key
    asked = [asked_row(json.loads(question.row.to_json())) for question in questions]
    return [either or other for either, other in zip(by_key, among(asked, trained.rows), strict=True)]


def _by_key(task: EvaluationTask, questions: list[Question], trained: Trained | None) -> list[bool]:
    """Tell of each row whether its answer or its group is that of a trained row: training never splits these."""
    keys = frozenset() if trained is None else trained.keys
    return [any(key in keys for key in leak_keys(task, question)) for question in questions]


def _compared(task: EvaluationTask, chosen: list[TokenisedQuestion], trained: Trained | None) -> list[str]:
    """Return what of the rows was compared with what was trained on; nothing where that is not known."""
    if trained is None:
        return []
    grouped = all(asked.question.row.group is not None for asked in chosen)
    kept = trained.rows is not None
    found = {"answers": has_answer_of_its_own(task), "groups": grouped, "prompts": kept, "texts": kept}
    return [name for name, there in found.items() if there]


def _others(task: EvaluationTask, chosen: list[TokenisedQuestion], about: Circumstances) -> list[OtherTrained]:
    questions = [asked.question for asked in chosen]
    return [
        OtherTrained(
            role=role,
            trained_on=sum(_among(task, questions, trained)),
            compared=_compared(task, chosen, trained),
        )
        for role, trained in sorted(about.others.items())
    ]


@dataclass(frozen=True)
class KnownDocuments:
    """What is known of the documents of a Harness task; `first` is the place of the first that was trained on."""

    trained_on: int
    first: str
    compared: list[str]
    others: list[OtherTrained]


def known_documents(asked: list[AskedRow], about: Circumstances) -> KnownDocuments:
    """Return which documents of a Harness task were trained on: only their texts tell."""

    def known(trained: Trained | None) -> tuple[list[bool], list[str]]:
        if trained is None or trained.rows is None:
            return [], []
        return among(asked, trained.rows), ["prompts", "texts"]

    found, compared = known(about.trained)
    others = {role: known(trained) for role, trained in sorted(about.others.items())}
    return KnownDocuments(
        trained_on=sum(found),
        first=f"doc {found.index(True)}" if True in found else "",
        compared=compared,
        others=[OtherTrained(role=role, trained_on=sum(each), compared=what) for role, (each, what) in others.items()],
    )


def check_trained_on(task: EvaluationTask, trained_on: int, rows: int, first: str, most: float) -> None:
    """Refuse a task that the target was trained on.

    Args:
        trained_on, rows: how many of its rows were, and how many it has.
        first: where the first of them stands.
        most: the share that is allowed.

    Raises:
        DataInvalid: TRAINED_ON
    """
    if trained_on > most * rows:
        raise DataInvalid(
            f"task {task.name}: the target was trained on {trained_on} of its {rows} rows (the same answer, group or "
            f"prompt, or nearly the same text), the first is {first}; at most {most:.0%} may be "
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

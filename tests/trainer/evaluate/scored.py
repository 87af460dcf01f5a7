"""Rows and scores of tasks, made by hand or at random, as an evaluation would have them."""

from __future__ import annotations

from collections.abc import Sequence as Series
from typing import Any

import numpy as np
from trimtab_trainer.contract import EvaluationTask
from trimtab_trainer.evaluate.preparing.task_store import PreparedTask
from trimtab_trainer.evaluate.rows import EvaluationRow, RowScore, Sequence
from trimtab_trainer.evaluate.scoring.measure import Measure

LABELS = ("apple", "pear", "plum")


def task(kind: str, **settings: Any) -> EvaluationTask:
    """Return a task named `t`."""
    needed: dict[str, dict[str, Any]] = {
        "Classification": {"labels": list(LABELS)},
        "Harness": {"harnessTask": "h"},
        "Regex": {"pattern": "[0-9]"},
    }
    dataset = {"uri": "file:///data/rows.jsonl"}
    document = {"name": "t", "type": kind, "dataset": dataset, **needed.get(kind, {}), **settings}
    return EvaluationTask.model_validate(document)


def about(rows: int) -> PreparedTask:
    """Return what is known of a task before it is asked."""
    return PreparedTask(name="t", digest=f"sha256:{'0' * 64}", rows=rows, clusters=rows, trained_on=1, dropped=2)


def row(number: int, **fields: Any) -> EvaluationRow:
    """Return a row that is a cluster of its own."""
    given = {"cluster": number, "group": None, "trained_on": False, "prompt": f"question {number}", "reference": ""}
    return EvaluationRow(number=number, place=f"rows.jsonl line {number + 1}", **{**given, **fields})


def text_rows(references: Series[str], **fields: Any) -> list[EvaluationRow]:
    return [row(number, reference=reference, **fields) for number, reference in enumerate(references)]


def text_scores(texts: Series[str]) -> list[RowScore]:
    """Return answers, of as many tokens as they have words and one for the end."""
    return [RowScore(number, text=text, tokens=len(text.split()) + 1) for number, text in enumerate(texts)]


def likelihood_rows(tokens: Series[int], **fields: Any) -> list[EvaluationRow]:
    """Return rows of a Perplexity task with so many counted tokens, of 4 bytes each."""
    return [
        row(number, sequences=(Sequence(tuple(range(count + 1)), ((1, count + 1),), 4 * count, 4 * count),), **fields)
        for number, count in enumerate(tokens)
    ]


def likelihood_scores(values: Series[float]) -> list[RowScore]:
    return [RowScore(number, log_likelihoods=(float(value),)) for number, value in enumerate(values)]


def choice_rows(
    answers: Series[int], choices: Series[str] = LABELS, groups: Series[str | None] | None = None
) -> list[EvaluationRow]:
    """Return rows of a Classification or MultipleChoice task."""
    sequences = tuple(Sequence((1, 2), ((1, 2),), len(each), len(each.encode())) for each in choices)
    return [
        row(
            number,
            reference=choices[answer],
            choices=tuple(choices),
            sequences=sequences,
            answer=int(answer),
            group=None if groups is None else groups[number],
        )
        for number, answer in enumerate(answers)
    ]


def choice_scores(chosen: Series[int], choices: int = len(LABELS)) -> list[RowScore]:
    """Return scores by which the chosen index is the most likely."""
    return [
        RowScore(number, log_likelihoods=tuple(-1.0 if at == index else -2.0 for at in range(choices)))
        for number, index in enumerate(chosen)
    ]


def figures(found: list[Measure]) -> dict[str, float]:
    """Return every figure of the rows as they are."""
    values: dict[str, float] = {}
    for each in found:
        of_all = each.values(each.statistics.astype(np.float64).sum(axis=0))
        values |= dict(zip(each.results, of_all.tolist(), strict=True))
    return values


def random_texts(count: int, seed: int) -> list[str]:
    """Return texts of 0 to 12 words, some of them not ASCII."""
    random = np.random.default_rng(seed)
    words = ["the", "a", "field", "number", "of", "retries", "job.", "42", "Größe", "名前", "naïve", "pod,", "🙂", "An"]
    return [" ".join(random.choice(words, random.integers(0, 13))) for _ in range(count)]

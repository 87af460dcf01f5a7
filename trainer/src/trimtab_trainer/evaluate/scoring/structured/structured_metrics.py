"""Answers with a form: tool calls, JSON that a schema accepts, text that a pattern is found in. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from ....contract import EvaluationTask, Metric, TaskType
from ...rows import EvaluationRow
from ...statistics import Array
from ..texts.parsing import composed
from ..texts.patterns import pattern_of
from .schemas import comparable, parsed, schema_of
from .tool_calls import expected_calls, figures_of

STRUCTURED = (TaskType.TOOL_CALLS, TaskType.JSON_SCHEMA, TaskType.REGEX)


def structured_values(task: EvaluationTask, rows: Sequence[EvaluationRow], texts: Sequence[str]) -> dict[Metric, Array]:
    """Return each metric's values of the rows, [rows] in 0 to 1.

    Raises:
        ValueError: a row is none of this task.
    """
    if task.type is TaskType.TOOL_CALLS:
        return _tool_calls(rows, texts)
    if task.type is TaskType.JSON_SCHEMA:
        return _json(task, rows, texts)
    pattern = pattern_of(task.pattern or "")
    return {
        Metric.MATCH_RATIO: np.array(
            [pattern.is_in(text) or pattern.is_in(composed(text)) for text in texts], np.float64
        )
    }


def _tool_calls(rows: Sequence[EvaluationRow], texts: Sequence[str]) -> dict[Metric, Array]:
    found = []
    for row, text in zip(rows, texts, strict=True):
        if row.schema is None or row.calls is None:
            raise ValueError(f"row {row.number} has no tools to compare with")
        found.append(figures_of(text, json.loads(row.schema), expected_calls(row.calls)))
    return {
        Metric.EXACT_MATCH: np.array([each.exact for each in found]),
        Metric.VALID_RATIO: np.array([each.valid for each in found]),
        Metric.NAME_ACCURACY: np.array([each.named for each in found]),
        Metric.ARGUMENTS_ACCURACY: np.array([each.arguments for each in found]),
    }


def _json(task: EvaluationTask, rows: Sequence[EvaluationRow], texts: Sequence[str]) -> dict[Metric, Array]:
    valid, exact = np.zeros(len(rows)), np.zeros(len(rows))
    for at, (row, text) in enumerate(zip(rows, texts, strict=True)):
        schema = task.json_schema if task.json_schema is not None else row.schema
        if schema is None:
            raise ValueError(f"row {row.number} has no schema to check against")
        try:
            value = parsed(text)
        except ValueError:
            continue
        valid[at] = schema_of(schema).accepts(value)
        exact[at] = comparable(value) == comparable(parsed(row.reference))
    return {Metric.VALID_RATIO: valid, Metric.EXACT_MATCH: exact}

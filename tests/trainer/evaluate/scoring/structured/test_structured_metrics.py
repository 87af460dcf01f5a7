"""Answers with a form whose letters are composed in another way: they say the same."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from trimtab_trainer.contract import Metric
from trimtab_trainer.evaluate.scoring.structured.structured_metrics import structured_values

from tests.trainer.evaluate.scored import task, text_rows

ONE, TWO = "Caf\u00e9", "Cafe\u0301"


@pytest.mark.parametrize(("written", "expected"), [(ONE, TWO), (TWO, ONE), (ONE, ONE)])
def test_letters_composed_otherwise_are_the_same(written: str, expected: str) -> None:
    schema = json.dumps({"properties": {"at": {"enum": [written]}}})
    (row,) = text_rows([json.dumps({"at": expected})])
    answer = json.dumps({"at": written}, ensure_ascii=False)
    found = structured_values(task("JsonSchema"), [replace(row, schema=schema)], [answer])
    assert (found[Metric.EXACT_MATCH][0], found[Metric.VALID_RATIO][0]) == (1, 1), "the schema is asked of what stands"
    found = structured_values(task("Regex", pattern=expected), [row], [f"at the {written}"])
    assert found[Metric.MATCH_RATIO][0] == (expected in (written, ONE))

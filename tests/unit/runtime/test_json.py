"""What is written to the API server says what was meant, or is not written."""

from __future__ import annotations

import json
import math
from enum import StrEnum

import pytest
from trimtab_operator.runtime.kube import json_of


class Word(StrEnum):
    ONE = "one"


def test_keys_of_enumerations_sets_and_tuples_are_written_as_json_has_them() -> None:
    body = {Word.ONE: Word.ONE, "set": frozenset({"x"}), "tuple": (1, 2), "null": None, "number": {1: 0.5}}
    told = {"one": "one", "set": ["x"], "tuple": [1, 2], "null": None, "number": {"1": 0.5}}
    assert json.loads(json_of(body)) == told


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_not_written_as_null(number: float) -> None:
    """A null takes a field away where it is patched."""
    with pytest.raises(ValueError, match="Out of range float"):
        json_of({"status": {"figures": [{"loss": number}]}, Word.ONE: frozenset({"x"})})


def test_what_json_has_no_form_for_is_an_error() -> None:
    with pytest.raises(TypeError):
        json_of({"a": object()})

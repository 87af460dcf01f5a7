"""Which number, and which label, a text answers."""

from __future__ import annotations

import unicodedata

import pytest
from trimtab_trainer.evaluate.scoring.texts.parsing import parse_label, parse_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", 42.0),
        ("6 * 7 = 42.", 42.0),
        ("-3.5", -3.5),
        ("\u22123", -3.0),
        ("x=-3", -3.0),
        ("on 2024-05", 5.0),
        ("1,234,567.25 bytes", 1234567.25),
        ("1,23", None),
        ("12,3456", None),
        ("3,5", None),
        ("1.234,56", None),
        ("1.234.567", None),
        ("1,23,456", None),
        ("v1.2.3", None),
        ("1\u00a0234", 1234.0),
        ("12\u202f345,6 €", None),
        ("12\u202f345.6 €", 12345.6),
        ("10\u00a02024", 2024.0),
        ("1'234", 1234.0),
        ("1_000", 1000.0),
        ("it is 7, not 8.", 8.0),
        ("\u20135", -5.0),
        ("5\u20137", 7.0),
        ("12 %", 12.0),
        ("$5", 5.0),
        (".5", 0.5),
        ("1e-3", 0.001),
        ("2E5 rows", 200000.0),
        ("1e999", None),
        ("", None),
        ("none, e and -", None),
        ("٣", None),
    ],
)
def test_the_last_number_of_an_answer_counts(text: str, number: float | None) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize(
    ("text", "index"),
    [("Pod", 0), (" Pod\n", 0), ("pod", None), ("JOB", 2), ("Pod.", None), ("", None)],
)
def test_a_label_is_the_whole_answer(text: str, index: int | None) -> None:
    assert parse_label(text, ("Pod", "POD", "Job")) == index


def test_a_label_is_one_however_its_letters_are_composed() -> None:
    assert parse_label(unicodedata.normalize("NFD", "Café"), ["café", "bar"]) == 0
    assert parse_label("café", [unicodedata.normalize("NFD", "café"), "bar"]) == 0

"""What a generated text answers: a label, or a number. No torch.

Rules that a person can check by hand, because a metric is worth what its parsing is worth.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

NUMBER = re.compile(
    r"(?P<sign>(?<!\w)[-+\u2212])?"  # a sign is one only where no word ends: the 05 of 2024-05 is positive
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?![\d])(?:\.\d+)?|\d+(?:\.\d+)?|(?<![\d.])\.\d+)"
    r"(?P<exponent>[eE][-+]?\d+)?",
    re.ASCII,
)
"""A number: optional sign, digits with or without commas before every three of them, fraction, exponent."""


def parse_number(text: str) -> float | None:
    """Return the last number of a text, or None if it has none or one too large for a float.

    The last one, because answers reason first and conclude last. Commas between groups of three digits are thousands
    separators; the decimal separator is a point. A percent sign, a currency or a unit is passed over: `12 %` is 12.
    """
    numbers = list(NUMBER.finditer(text))
    if not numbers:
        return None
    found = numbers[-1]
    digits = found["digits"].replace(",", "") + (found["exponent"] or "")
    value = float(digits)
    if not math.isfinite(value):
        return None
    return -value if found["sign"] in ("-", "\u2212") else value


def composed(text: str) -> str:
    """Return a text in Unicode's form C, in which one letter is written in one way (Unicode Standard Annex 15)."""
    return unicodedata.normalize("NFC", text)


def parse_label(text: str, labels: Sequence[str]) -> int | None:
    """Return the index of the label that a text is, or None.

    Whitespace around it does not count, nor in which of Unicode's forms letters are composed; case does not where only
    one label is meant by it.
    """
    answer, *known = (composed(each).strip() for each in (text, *labels))
    exact = [index for index, label in enumerate(known) if label == answer]
    if exact:
        return exact[0]
    folded = [index for index, label in enumerate(known) if label.casefold() == answer.casefold()]
    return folded[0] if len(folded) == 1 else None

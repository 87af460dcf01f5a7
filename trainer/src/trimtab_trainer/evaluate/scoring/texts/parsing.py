"""What a generated text answers: a label, or a number. No torch.

Rules that a person can check by hand, because a metric is worth what its parsing is worth.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

from ....contract import EvaluationTask
from ....invisible import without_invisible
from ...rows import RowScore

NUMBER = re.compile(
    r"(?P<sign>(?<!\w)[-+\u2212\u2013])?"  # a sign is one only where no word ends: the 05 of 2024-05 is positive
    r"(?P<digits>\d{1,3}(?:[\u00a0\u2009\u202f]\d{3})+(?!\d|[.,]\d+[.,]\d)(?:\.\d+)?(?!,\d)"
    r"|\d+(?:[.,_'\u2019]\d+)*|(?<![\d.,])\.\d+)"
    r"(?P<exponent>[eE][-+]?\d+)?",
    re.ASCII,
)
"""What is written as a number: optional sign, digits with marks between them, exponent. Not each of these is one."""
THOUSANDS = re.compile(r"\d{1,3}(?P<mark>[,_'\u2019\u00a0\u2009\u202f])\d{3}(?:(?P=mark)\d{3})*(?:\.\d+)?", re.ASCII)
PLAIN = re.compile(r"\d+(?:\.\d+)?|\.\d+", re.ASCII)
MARKS = str.maketrans("", "", ",_'\u2019\u00a0\u2009\u202f")
THOUGHTS_END = "</think>"
UNSEEN = ("Cc", "Cf", "Zs", "Zl", "Zp")
"""Categories of Unicode whose characters leave no ink."""
MINUS = ("-", "\u2212", "\u2013")


def parse_number(text: str) -> float | None:
    """Return the last number of a text, or None if it has none, one too large for a float, or one that is not clear.

    The last one, because answers reason first and conclude last. The decimal separator is a point; commas, apostrophes,
    underscores and the spaces that keep digits together are thousands separators before groups of three digits. What is
    written otherwise is not guessed at: `3,5`, `1.234,56` and `1.234.567` are numbers elsewhere, and lists here. A
    percent sign, a currency or a unit is passed over: `12 %` is 12.
    """
    numbers = list(NUMBER.finditer(text))
    if not numbers:
        return None
    found = numbers[-1]
    digits = found["digits"]
    if not PLAIN.fullmatch(digits) and not THOUSANDS.fullmatch(digits):
        return None
    value = float(digits.translate(MARKS) + (found["exponent"] or ""))
    if not math.isfinite(value):
        return None
    return -value if found["sign"] in MINUS else value


def behind_thoughts(text: str) -> str:
    """Return what an answer says once its thoughts are over, without the blanks around it."""
    return text.rpartition(THOUGHTS_END)[2].strip()


def says_nothing(text: str) -> bool:
    """Tell whether an answer is blank, or ends with its thoughts: a person reads none of them."""
    return not is_seen(behind_thoughts(text))


def is_seen(text: str) -> bool:
    """Tell whether a text has a character that is no blank, control or format character: a zero-width one is none."""
    return any(unicodedata.category(each) not in UNSEEN for each in without_invisible(text))


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


def written(task: EvaluationTask, scores: Sequence[RowScore]) -> list[str]:
    """Return the text of each score.

    Raises:
        ValueError: a score has none.
    """
    texts = [score.text for score in scores]
    if any(text is None for text in texts):
        raise ValueError(f"task {task.name}: a score without a generated text")
    return [text for text in texts if text is not None]

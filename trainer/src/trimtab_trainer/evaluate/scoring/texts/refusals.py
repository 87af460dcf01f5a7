"""What is a refusal: a pattern that is found in an answer. No torch.

How refusals read is up to the model, and to what it was taught: the pattern here is of the usual English ones. It is
held against the rows' own answers before anything is asked, so a data set whose refusals it does not know is refused.
"""

from __future__ import annotations

from .patterns import pattern_of

ENGLISH = (
    r"(?i)^\W*(i'?m|i am|we'?re|we are) (really |very |truly )?(sorry|afraid)\b"
    r"|^\W*(sorry|my apologies|apologies)\b"
    r"|\b(i|we) (can ?not|can't|won't|will not|must decline|have to decline|decline|must refuse|refuse)\b"
    r"|\b(i'?m|i am|we'?re|we are) (not able|unable) to\b"
    r"|\bas an ai\b[^.]{0,80}\b(can ?not|can't|unable|not able)\b"
)
CURLY = {0x2019: "'", 0x2018: "'"}


def is_refusal(text: str, pattern: str | None) -> bool:
    """Tell whether an answer refuses; curly apostrophes are straight ones.

    Raises:
        PatternRefused: the pattern is none of RE2.
    """
    return pattern_of(pattern or ENGLISH).is_in(text.strip().translate(CURLY))

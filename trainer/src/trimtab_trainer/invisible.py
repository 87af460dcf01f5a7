"""Characters that leave no ink: texts that differ in them alone read the same to a person, and to nobody else.

They are Unicode's Default_Ignorable_Code_Point (Unicode Standard, section 5.21: soft hyphens, zero-width and direction
marks, variation selectors, tags, fillers) and control characters that are no blanks. A model reads them, so what is
trained on and what is asked keeps them; what is compared is compared without.
"""

from __future__ import annotations

import re

FILLERS = "\u2800\u3164\uffa0"
"""Blank in every font, but letters or symbols to Unicode: Braille's, and Hangul's two."""
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]+"
)
_FILLERS = re.compile(f"[{FILLERS}]+")


def without_invisible(text: str) -> str:
    """Return a text without the characters that nobody sees; those that are as wide as a blank become one."""
    return _INVISIBLE.sub("", text if text.isascii() else _FILLERS.sub(" ", text))


def is_blank(text: str) -> bool:
    """Tell whether a text leaves no ink."""
    return not without_invisible(text).strip()

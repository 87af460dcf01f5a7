"""Quantities of resources, as resource.Quantity writes them: read by a function that cannot raise."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache

_QUANTITY = re.compile(
    r"([+-]?(?:[0-9]{1,64}(?:\.[0-9]{0,64})?|\.[0-9]{1,64}))([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]{1,3})?"
)
_POWERS = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")

LARGEST = 2**63 - 1
"""What resource.Quantity caps at."""


def count_of(quantity: object) -> int:
    """Return a quantity as a whole number from 0 to `LARGEST`, rounded up as Kubernetes does: `2`, `"1k"`, `"1500m"`.

    What is no quantity, or below zero, counts as 0: whoever wrote it is told by the API server.
    """
    return _read(str(quantity)) if isinstance(quantity, int | float | str) else 0


@lru_cache(maxsize=256)
def _read(text: str) -> int:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return 0
    number, suffix = Decimal(match[1]), match[2] or ""
    if suffix in _BINARY:
        number *= 1024 ** (_BINARY.index(suffix) + 1)
    elif suffix:
        number = number.scaleb(_POWERS[suffix] if suffix in _POWERS else int(suffix[1:]))
    return min(LARGEST, max(0, int(min(number, Decimal(LARGEST)).to_integral_value(ROUND_CEILING))))

"""JSON that others wrote: read within bounds, or refused by one named error.

Whoever may write to a bucket chooses these bytes. What `json.loads` lets through, or raises something else at
(nesting, NaN and infinities, numbers of a million digits, keys that are there twice, halves of surrogate pairs), would
go wrong later and elsewhere; here it is `Unreadable`, and nothing else ever is raised.
"""

from __future__ import annotations

import json
import math
from typing import Any

JSON_BYTES = 16 << 20
"""Most bytes of a document, unless the caller knows better: a manifest of 100,000 files has as many."""
DEPTH = 32
"""Most lists and objects within each other; ours have five."""
INTEGERS = range(-(2**63), 2**63)


class Unreadable(ValueError):
    """Bytes that are not what they should be; the message says why in a few words, and quotes nothing."""


def read_json(data: bytes, limit: int = JSON_BYTES) -> Any:
    """Return the value of a JSON document in UTF-8.

    Raises:
        Unreadable: it is none, or not within bounds.
    """
    if len(data) > limit:
        raise Unreadable(f"it has more than {limit} bytes")
    try:
        text = data.decode()
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=_integer,
            parse_float=_float,
        )
        check_levels(value, DEPTH)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # halves of surrogate pairs have no UTF-8
    except Unreadable:
        raise
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    except UnicodeError:
        raise Unreadable("its text is not UTF-8") from None
    except ValueError:
        raise Unreadable("it is no JSON") from None
    return value


def read_object(data: bytes, limit: int = JSON_BYTES) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        Unreadable: it is none, or not within bounds.
    """
    value = read_json(data, limit)
    if not isinstance(value, dict):
        raise Unreadable("it is no JSON object")
    return value


def whole_number(value: Any, name: str, least: int = 0, most: int = INTEGERS.stop - 1) -> int:
    """Return a value that is an integer between bounds; true and 1.0 are none.

    Raises:
        Unreadable: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Unreadable(f"{name} is no whole number from {least} to {most}")
    return value


def finite(value: Any) -> float | None:
    """Return a value as the finite number that it is, None if it is none: a text, true, NaN or an infinity."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) else None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unreadable("a key is there twice")
    return found


def _constant(name: str) -> Any:
    raise Unreadable(f"{name} is no number of JSON")


def _integer(digits: str) -> int:
    if len(digits) > 20 or int(digits) not in INTEGERS:
        raise Unreadable("a number has more than 64 bits")
    return int(digits)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Unreadable("a number is beyond a float")
    return value


def check_levels(value: Any, most: int) -> None:
    """Refuse a JSON value with more than `most` lists and objects within each other: what walks it would not end well.

    Raises:
        Unreadable
    """
    level = [value]
    for _ in range(most):
        level = [
            child
            for each in level
            if isinstance(each, dict | list)
            for child in (each.values() if isinstance(each, dict) else each)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise Unreadable("it is nested too deeply")

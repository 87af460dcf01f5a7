"""Text that tenants wrote (names, messages, logs) on its way to a terminal.

A terminal obeys what it prints: an escape sequence in a condition's message could move the cursor, rename the window or
forge another row. So nothing that is not visible leaves here as itself, and nothing is ever given to rich as markup.
"""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that a terminal acts on or that hide: controls, direction marks, surrogates, line separators."""


def clean(text: object) -> str:
    """Return a text in one line, of which everything invisible is written out: ESC becomes `\\x1b`."""
    return "".join(_visible(each) for each in str(text))


def _visible(character: str) -> str:
    if character == "\t":
        return " "
    if unicodedata.category(character) not in UNSEEN:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def time_of(told: object) -> datetime | None:
    """Return a time of the API, or None for what is none."""
    try:
        time = datetime.fromisoformat(str(told))
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def age(since: object, now: datetime) -> str:
    """Return how long ago a time was, as kubectl writes it: 45s, 12m, 7h, 3d."""
    time = time_of(since)
    return "" if time is None else duration((now - time).total_seconds())


def duration(seconds: float) -> str:
    """Return seconds in the two units that say most, such as 4m3s or 7h12m."""
    whole = max(0, int(seconds))
    days, hours, minutes, rest = whole // 86400, whole // 3600 % 24, whole // 60 % 60, whole % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")]
    first = next((place for place, (count, _) in enumerate(parts) if count), 3)
    return "".join(f"{count}{unit}" for count, unit in parts[first : first + 2] if count) or "0s"

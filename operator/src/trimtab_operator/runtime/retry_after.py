"""What a server asks for by `Retry-After` (RFC 9110, 10.2.3): whole seconds, or the date until which to wait."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

MAXIMUM_SECONDS = 3600.0
"""However far ahead a server puts its date, or a gateway's clock is wrong."""


def pause_of(header: str, now: float) -> float | None:
    """Return the seconds, an hour at most, that a server asks to be left alone for; None where it does not say.

    Args:
        header: its value, empty where there is none.
        now: seconds since 1970.
    """
    if header.isascii() and header.isdigit():
        return min(float(header), MAXIMUM_SECONDS)
    try:
        date = parsedate_to_datetime(header)
        return min(max(0.0, date.replace(tzinfo=date.tzinfo or UTC).timestamp() - now), MAXIMUM_SECONDS)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None

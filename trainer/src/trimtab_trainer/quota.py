"""How long a server asks to be left alone: hubs, judges and registries say it in the same headers."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

LONGEST_WAIT_SECONDS = 3600
"""What a server may ask for; beyond it is not believed."""
PATIENCE_SECONDS = 60
"""What a stage waits by itself; for longer its pod ends, and says when the next attempt has a chance."""
_SPENT = re.compile(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d{1,9})")
"""Of the header RateLimit, where nothing remains: in how many seconds there is more."""


def retry_after(headers: Mapping[str, str]) -> int | None:
    """Return the seconds that a server asks to be left alone (RFC 9110, section 10.2.3), None if it does not say."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:9]), LONGEST_WAIT_SECONDS)
    if text:
        try:
            seconds = math.ceil(parsedate_to_datetime(text).timestamp() - time.time())
        except (ValueError, OverflowError):
            return None
        return min(max(0, seconds), LONGEST_WAIT_SECONDS)
    spent = _SPENT.search(headers.get("RateLimit", ""))
    return min(int(spent[1]), LONGEST_WAIT_SECONDS) if spent is not None else None

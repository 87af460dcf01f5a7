"""Whether a server's certificate was not taken, whichever library tells of it: all of them quote OpenSSL."""

from __future__ import annotations

import re

_REFUSED = re.compile(r"certificate verify failed(?:: ([^(]{1,200}))?", re.IGNORECASE)


def why_not_taken(error: BaseException) -> str | None:
    """Return what OpenSSL finds wrong with a server's certificate, None where an error tells of something else.

    An authority that is not known, a name that is another one's, or a time that is over.
    """
    found = _REFUSED.search(str(error))
    return (found[1] or "it cannot be verified").strip() if found is not None else None

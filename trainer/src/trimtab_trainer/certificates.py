"""Whether a server's certificate was not taken, whichever library tells of it: all of them quote OpenSSL.

And whether the file of those that are to be taken is one: every client of httpx reads it when it is made.
"""

from __future__ import annotations

import os
import re
import ssl

from .errors import SettingsInvalid

AUTHORITIES = "SSL_CERT_FILE"
_REFUSED = re.compile(r"certificate verify failed(?:: ([^(]{1,200}))?", re.IGNORECASE)


def why_not_taken(error: BaseException) -> str | None:
    """Return what OpenSSL finds wrong with a server's certificate, None where an error tells of something else.

    An authority that is not known, a name that is another one's, or a time that is over.
    """
    found = _REFUSED.search(str(error))
    return (found[1] or "it cannot be verified").strip() if found is not None else None


def check_authorities() -> None:
    """Refuse a file of authorities that is none, which a client that reads it would raise as a bug of ours.

    Raises:
        SettingsInvalid
    """
    file = os.environ.get(AUTHORITIES)
    if not file:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except OSError as error:  # ssl.SSLError is one
        why = error.strerror if error.errno and not isinstance(error, ssl.SSLError) else "it holds no certificate"
        raise SettingsInvalid(
            f"{AUTHORITIES} of template.env names {file[:200]}, which is no file of certificates ({why}); mount one "
            "there"
        ) from error

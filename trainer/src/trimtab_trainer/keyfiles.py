"""Keys of mounted Secrets: read from their files, and looked at before they are used. No value is ever in a message."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from .contract import Credentials, Reason
from .errors import SettingsInvalid


def source_of(credentials: Credentials) -> str:
    """Return what people call the place of keys."""
    return f"Secret {credentials.secret_name}" if credentials.secret_name else f"folder {credentials.directory}"


def read_key(file: Path, source: str) -> str | None:
    """Return what the file of a key holds, None where it is not there or empty; `source` names the Secret.

    Raises:
        SettingsInvalid: CREDENTIALS_MISSING, it cannot be read.
    """
    try:
        return file.read_text().strip() or None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(
            f"key {file.name} of {source} cannot be read: {type(error).__name__}", Reason.CREDENTIALS_MISSING
        ) from None


def is_endpoint(text: str) -> bool:
    """Tell whether a text is http:// or https:// and a host, with a port or a path at most: nothing that is secret."""
    try:
        url = urlsplit(text)
        return (
            re.fullmatch(r"[!-~]+", text) is not None
            and url.scheme in ("http", "https")
            and bool(url.hostname)
            and (url.port is None or url.port > 0)
            and "@" not in url.netloc
            and not url.query
            and not url.fragment
        )
    except ValueError:
        return False

"""From a URI and credentials to a `Store`."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..contract import Credentials
from ..errors import SettingsInvalid
from .store import Store
from .volume import FileStore


def open_store(uri: str, credentials: Credentials | None) -> Store:
    """Return the store rooted at an `s3://bucket/prefix` or `file:///folder` URI; nothing is contacted yet.

    Raises:
        SettingsInvalid: the scheme is unknown, or the credentials' files are missing or empty.
    """
    try:
        parts = urlsplit(uri)
    except ValueError:  # brackets that are no IPv6 address
        parts = urlsplit("")
    if parts.scheme == "file" and not parts.netloc and "\0" not in (path := unquote(parts.path)):
        return FileStore(uri, Path(path))
    if parts.scheme == "s3" and parts.netloc:
        from .s3 import S3Store

        # A key may hold any character, so '?' and '#' are taken as they are.
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        return S3Store(uri, bucket, prefix, credentials)
    raise SettingsInvalid(f"{uri!r} is no URI that can be read: use s3://bucket/prefix or file:///folder")

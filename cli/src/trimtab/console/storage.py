"""Reports of the object storage, read with keys that the console was given for this alone: only pages, and only those
that an object names which the person who asks may see."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from ..bucket import Bucket, Keys, place_of
from ..errors import Invalid, NotAllowed, Unreachable

PREFIX = "TRIMTAB_CONSOLE_STORAGE_"
"""Of the variables with its keys, before the names that every S3 tool knows."""
NEXT_STEP = (
    "get it with your own keys (aws s3 cp), or tell who runs the console: its keys have to read this, and reach it"
)
PAGES = ("report.html", "data.html", "sweep.html")


class Storage:
    """An object storage, of which pages are read."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._client: Any = None
        self._lock = threading.Lock()

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Storage | None:
        """Return the storage of an environment, None where it has no keys.

        Raises:
            Invalid: it has half of them.
        """
        keys = Keys.of(variables, PREFIX)
        return None if keys is None else cls(keys)

    def page(self, uri: str) -> bytes:
        """Return a page, as it was written.

        Raises:
            Invalid: the address is none of a page in a bucket.
            Problem: it is not there, too large, or the keys may not read it.
        """
        bucket, path = place_of(uri)
        if path.rpartition("/")[2] not in PAGES:
            raise Invalid(f"{uri} is no page of Trimtab", f"these are {', '.join(PAGES)}")
        with self._lock:  # made once; it may be used by several threads
            if self._client is None:
                self._client = self._keys.client()
        try:
            return Bucket(bucket, self._client).read(path)
        except (NotAllowed, Unreachable) as problem:  # its next step is that of a person's own keys
            raise type(problem)(problem.sentence, NEXT_STEP) from problem

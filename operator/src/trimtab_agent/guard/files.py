"""What the agent writes on the volume that both containers share, as the guard reads it.

The table, `aliases.json`: `{"version": 1, "aliases": {alias: ENTRY}, "harmed": {"instance": id, "reason": text}}`.
ENTRY is `{"to": {revision: weight}}`, `{"pending": reason}` (503, and the pod is not ready) or `{"unavailable":
reason}` (503, and the pod is ready for the rest). `harmed` fails the liveness of the engine process with that id only.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")
FOLDER = "/run/trimtab"
TABLE, TOKEN = "aliases.json", "token"
WORD = re.compile(r"(?:^|: )([A-Z][A-Za-z]{2,40})(?=$|[:;])")
"""The reason of a failure, as the agent writes it: `revision: Reason: message`."""


class Watched(Generic[T]):
    """A small file's parsed content, read again when another file took its place; the last good content stays."""

    def __init__(self, path: Path, parse: Callable[[bytes], T]) -> None:
        self._path = path
        self._parse = parse
        self._stamp: tuple[int, int, int] | None = None
        self._value: T | None = None

    def value(self) -> T | None:
        """Return the newest good content, or None if there has never been any."""
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
            if stamp != self._stamp:
                self._value = self._parse(self._path.read_bytes())
                self._stamp = stamp
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            pass  # missing or torn: the last good one stays, and it is looked at again with the next request
        return self._value


class Entry:
    """What an alias stands for: revisions by weight, or the reason why it answers 503."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.pending: str | None = _text(document.get("pending"))
        self.unavailable: str | None = _text(document.get("unavailable"))
        found = WORD.search(self.pending or self.unavailable or "")
        self.word = found[1] if found is not None else "Unavailable" if self.pending is None else "Pending"
        weights = document.get("to", {})
        self.names: tuple[str, ...] = tuple(str(name) for name, weight in weights.items() if weight > 0)
        self.weights: tuple[float, ...] = tuple(float(weights[name]) for name in self.names)
        if bool(self.names) + (self.pending is not None) + (self.unavailable is not None) != 1:
            raise ValueError("an alias has revisions, or is pending, or is unavailable")

    def choose(self, dice: random.Random) -> str:
        """Return one revision, drawn by weight."""
        return self.names[0] if len(self.names) == 1 else dice.choices(self.names, self.weights)[0]


class Table:
    """`aliases.json` as parsed.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is not what the agent writes.
    """

    def __init__(self, data: bytes) -> None:
        document = json.loads(data)
        if document["version"] != 1:
            raise ValueError("a table of another version")
        self.aliases = {str(alias): Entry(entry) for alias, entry in document["aliases"].items()}
        harmed = document.get("harmed") or {}
        self.harmed_instance: str | None = harmed.get("instance")
        self.harmed_reason: str = str(harmed.get("reason", ""))

    def targets(self) -> set[str]:
        """Return every revision that an alias points at."""
        return {name for entry in self.aliases.values() for name in entry.names}


def parse_token(data: bytes) -> bytes:
    token = data.strip()
    if len(token) < 32:
        raise ValueError("a token of 32 characters or more was expected")
    return token


def _text(value: object) -> str | None:
    return None if value is None else str(value)

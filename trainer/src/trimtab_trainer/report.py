"""What the trainer says while it works: one JSON object a line on stdout, a constant message and values in fields."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol


class Stream(Protocol):
    """What lines are written to."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> None: ...


@dataclass(frozen=True)
class Report:
    """Call it with a constant message and fields; `context` (run, attempt, stage) is part of every line."""

    context: dict[str, Any] = field(default_factory=dict)
    stream: Stream | None = None

    def __call__(self, message: str, **fields: Any) -> None:
        """Write one event."""
        self._write("info", message, fields)

    def warn(self, message: str, **fields: Any) -> None:
        """Write one event that somebody should look at."""
        self._write("warning", message, fields)

    def error(self, message: str, **fields: Any) -> None:
        """Write the event that ends a stage."""
        self._write("error", message, fields)

    def _write(self, level: str, message: str, fields: dict[str, Any]) -> None:
        line = {"time": _now(), "level": level, "message": message, **self.context, **fields}
        # JSON has no NaN and no infinity, and a loss can be both.
        line = {key: str(value) if _is_endless(value) else value for key, value in line.items()}
        stream = self.stream or sys.stdout
        # Names of files may hold bytes that are no text.
        text = json.dumps(line, ensure_ascii=False, default=str).encode(errors="backslashreplace").decode()
        stream.write(text + "\n")  # one write a line: threads and child processes share the stream
        stream.flush()


class Trouble(Report):
    """Of a process that is not the one to speak: it tells what somebody should look at, and nothing else."""

    def __call__(self, message: str, **fields: Any) -> None:
        """Say nothing."""


def _is_endless(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

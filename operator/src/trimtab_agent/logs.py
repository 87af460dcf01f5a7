"""Logs as JSON, one object a line: a constant message, and the values in keys."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TextIO


def keys(**values: object) -> dict[str, object]:
    """Return the `extra` of a log call: the keys of its line, such as name, uid, revision, reason, err."""
    return {"keys": values}


class JsonFormatter(logging.Formatter):
    """Prints ts, level, logger, msg and the keys; no other attribute, so that no object is logged by accident."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        line |= {key: value for key, value in record.__dict__.get("keys", {}).items() if value is not None}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


QUIET = ("aiohttp.access", "asyncio", "botocore", "boto3", "s3transfer", "urllib3")
"""aiohttp tells of every probe; what goes wrong these log as warnings."""


def configure(level: str, stream: TextIO = sys.stdout, quiet: Iterable[str] = QUIET) -> None:
    """Send every log of the process through one handler; of the quiet libraries only warnings."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)
    for name in quiet:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))

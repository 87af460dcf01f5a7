"""Logs as JSON, one object a line, in the form that operator and agent share."""

from __future__ import annotations

import logging

from trimtab_agent import logs
from trimtab_agent.logs import JsonFormatter, keys

__all__ = ["JsonFormatter", "configure", "keys"]

QUIET = ("kopf", "kopf.objects", "kopf.activities", "aiohttp.access", "asyncio", "kubernetes")
"""kopf tells of every handler call, aiohttp of every probe; what goes wrong they log as warnings."""


def configure(level: str) -> None:
    """Send every log of the process, kopf's included, through one handler."""
    logs.configure(level, quiet=QUIET)
    for handler in logging.getLogger().handlers:
        handler.addFilter(tried_again)


def tried_again(record: logging.LogRecord) -> bool:
    """Make a warning of what kopf calls an error and tries again, such as an API server that takes in a definition."""
    if record.name.startswith("kopf.") and record.levelno == logging.ERROR and "will retry" in record.getMessage():
        record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
    return True

"""Log lines."""

from __future__ import annotations

import io
import json
import logging

from trimtab_operator.runtime.logs import JsonFormatter, keys, tried_again


def line(**extra: object) -> dict[str, object]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    log = logging.Logger("test")
    log.addHandler(handler)
    try:
        raise ValueError("why")
    except ValueError:
        log.info("created", **extra)  # type: ignore[arg-type]
    found: dict[str, object] = json.loads(stream.getvalue())
    return found


def test_values_are_keys_and_the_message_is_constant() -> None:
    found = line(extra=keys(kind="FineTuneJob", name="demo", uid=None))
    assert found["msg"] == "created"
    assert (found["kind"], found["name"], found["level"]) == ("FineTuneJob", "demo", "info")
    assert "uid" not in found


def test_a_traceback_is_one_line() -> None:
    assert "ValueError: why" in str(line(exc_info=True)["traceback"])


def test_other_attributes_are_not_printed() -> None:
    assert "settings" not in line(extra={"settings": {"secret": "canary"}})


def test_what_kopf_tries_again_is_a_warning_and_what_it_gives_up_is_an_error() -> None:
    def level(name: str, message: str) -> str:
        record = logging.LogRecord(name, logging.ERROR, "", 0, message, (), None)
        assert tried_again(record)
        return record.levelname

    watching = "kopf._cogs.clients.watching"
    assert level(watching, "Request attempt #1/9 failed; will retry: GET /x -> 429") == "WARNING"
    assert level(watching, "Request attempt #9/9 failed; escalating: GET /x -> 429") == "ERROR"
    assert level("trimtab_operator.runtime.rounds.reconcile", "it will retry") == "ERROR"

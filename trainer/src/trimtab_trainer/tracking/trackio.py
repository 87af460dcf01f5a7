"""Trackio's HTTP API of version 1, as far as a run needs it, of a server that somebody runs (`trackio show`).

A row has the metrics of one step. Its id follows from the run and from what is in it, and the server keeps the first of
an id: whoever tells a run twice tells the same rows.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any
from urllib.parse import urlencode

from ..contract import Credentials, Reason, canonical_json
from ..contract.tracking import StoredTrackio, TrackingRecord
from ..errors import SettingsInvalid
from ..keyfiles import source_of
from .figures import Told
from .server import Server, batched, keys_of

TOKEN, TOKEN_HEADER = "TRACKIO_WRITE_TOKEN", "x-trackio-write-token"
API_VERSION = 1
ROWS_AT_ONCE = 1000


class Trackio:
    """A server, as one credential sees it.

    Every method raises a `TrainerError` with a named reason; no message holds a credential.
    """

    def __init__(self, tracker: StoredTrackio, sleep: Callable[[float], None] = time.sleep) -> None:
        wanted = f"the server's write token as {TOKEN}"
        self._server = Server(
            tracker.uri, "Trackio server", "trackio.uri", wanted, _header(tracker.credentials), sleep=sleep
        )
        self._project = tracker.project

    def close(self) -> None:
        self._server.close()

    def tell(self, record: TrackingRecord, told: Told) -> str:
        """Tell what there is of a run; return the address of its page."""
        status, answer = self._server.ask("GET", "version")
        if status != 200 or answer.get("api_version") != API_VERSION:
            raise self._server.strange(f"tells no api_version {API_VERSION} at /version")
        for rows in batched(list(self._rows(record, told)), ROWS_AT_ONCE):
            body = {"kwargs": {"logs": list(rows), "hf_token": None}}
            status, answer = self._server.ask("POST", "api/bulk_log", body=body)
            if status == 400 and TOKEN.rpartition("TRACKIO_")[2].lower() in str(answer.get("error")):
                raise self._server.denied(status)
            if status != 200 or answer.get("error") is not None:
                raise SettingsInvalid(
                    f"{self._server.uri} refuses what it is told: {status} {str(answer.get('error'))[:500]}"
                )
        return f"{self._server.uri}/?{urlencode({'project': self._project})}"

    def _rows(self, record: TrackingRecord, told: Told) -> Iterator[dict[str, Any]]:
        """Yield rows in the order of their steps; each has the configuration, the newest of which counts."""
        run = {
            "project": self._project,
            "run": f"{record.run.namespace}/{record.run.name}",
            "run_id": record.run.uid,
        }
        end = {} if record.step is not None else {"succeeded": float(record.succeeded)}
        last = max((each.step for each in told.metrics), default=0)
        steps = groupby(sorted(told.metrics, key=lambda each: each.step), key=lambda each: each.step)
        rows = {step: {each.key: each.value for each in metrics} for step, metrics in steps}
        rows[last] = {**rows.get(last, {}), **end}
        config = {**told.parameters, **told.tags}
        for step, metrics in rows.items():
            content = canonical_json({"run": record.run.uid, "step": step, "metrics": metrics})
            yield {
                **run,
                "metrics": metrics,
                "step": step,
                "config": config,
                "log_id": f"trimtab-{hashlib.sha256(content).hexdigest()[:32]}",
            }


def _header(credentials: Credentials | None) -> dict[str, str]:
    """Return the header that a Secret's key is; none asks as anybody, which no server lets write."""
    if credentials is None:
        return {}
    (token,) = keys_of(credentials, TOKEN)
    if token is None:
        raise SettingsInvalid(
            f"{source_of(credentials)} has no {TOKEN}; add it, or remove secretName", Reason.CREDENTIALS_MISSING
        )
    return {TOKEN_HEADER: token}

"""Telling Trackio: rows that are the same however often they are told, and what becomes of a server that says no;
`make test-trackers` tells a real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.contract import StoredTrackio, TrackingRecord
from trimtab_trainer.errors import SettingsInvalid, StorageFailed
from trimtab_trainer.tracking.figures import told_of
from trimtab_trainer.tracking.trackio import Trackio

from tests.trainer.test_tracking import NOWHERE, Reply, Server, serving
from tests.trainer.tracking_records import METRICS, record


def well(path: str, body: dict[str, Any]) -> Reply:
    """Answer as a Trackio server that takes everything."""
    if path == "/version":
        return 200, {"version": "0.43.0", "api_version": 1}
    return 200, {"data": None}


def typed(uri: str, output: Path, **more: Any) -> TrackingRecord:
    document = record(uri, output, **more)
    del document["mlflow"]
    tracker = {"uri": uri, "project": "support", **document.pop("trackio", {})}
    return TrackingRecord.model_validate({**document, "trackio": tracker})


def tell(server: Server, output: Path, metrics: dict[str, Any] | None = None, **more: Any) -> str:
    one = typed(server.uri, output, **more)
    tracker = Trackio(one.the_trackio, sleep=lambda seconds: None)
    try:
        return tracker.tell(one, told_of(one, METRICS if metrics is None else metrics))
    finally:
        tracker.close()


def rows(server: Server) -> list[dict[str, Any]]:
    return [row for path, body, _ in server.asked if path == "/api/bulk_log" for row in body["kwargs"]["logs"]]


def test_a_step_is_a_row_and_the_same_is_the_same(tmp_path: Path) -> None:
    with serving(well) as server:
        assert tell(server, tmp_path) == f"{server.uri}/?project=support"
        first = rows(server)
        tell(server, tmp_path)
        assert rows(server)[len(first) :] == first
    assert len(first) == 1500
    assert len({row["log_id"] for row in first}) == 1500
    assert {row["run"] for row in first} == {"team/demo"}
    assert {row["run_id"] for row in first} == {record(NOWHERE, tmp_path)["run"]["uid"]}
    (middle,) = [row for row in first if row["step"] == 750]
    assert middle["metrics"]["validation/loss"] == 1.5
    assert middle["metrics"]["training/loss"] == 2 - 750 / 2000
    assert first[-1]["metrics"]["succeeded"] == 1
    assert first[-1]["config"]["lora.rank"] == "16"
    assert first[-1]["config"]["trimtab.reason"] == "Completed"
    assert max(len(body["kwargs"]["logs"]) for path, body, _ in server.asked if path != "/version") <= 1000


def test_of_a_run_that_goes_on_one_row_is_told_beside_what_comes_at_the_end(tmp_path: Path) -> None:
    with serving(well) as server:
        tell(server, tmp_path, {}, step=40, succeeded=False, reason="Training", figures={"trainingLoss": 1.5})
    (row,) = rows(server)
    assert (row["step"], row["metrics"]) == (40, {"live/trainingLoss": 1.5})


def test_a_run_without_a_figure_is_told_that_it_failed(tmp_path: Path) -> None:
    with serving(well) as server:
        tell(server, tmp_path, {}, succeeded=False, reason="OutOfMemory")
    (row,) = rows(server)
    assert (row["step"], row["metrics"]) == (0, {"succeeded": 0.0})


NEEDED = "A write_token is required to log metrics or upload to this server. Use the write-access URL"
CASES: dict[str, tuple[Callable[[str, dict[str, Any]], Reply], type[Exception], str]] = {
    "it is no Trackio": (lambda path, body: (200, {"x": 1}), SettingsInvalid, "tells no api_version 1 at /version"),
    "it is of another API": (lambda path, body: (200, {"api_version": 2}), SettingsInvalid, "is it a Trackio server"),
    "it has no /version": (lambda path, body: (404, b"<html>"), SettingsInvalid, "answered 404 and no JSON"),
    "it wants a token": (
        lambda path, body: (400, {"error": NEEDED}) if "bulk" in path else well(path, body),
        SettingsInvalid,
        "put the server's write token as TRACKIO_WRITE_TOKEN into the Secret",
    ),
    "a proxy before it wants one": (lambda path, body: (401, b""), SettingsInvalid, "answered 401: put the server's"),
    "it refuses": (
        lambda path, body: (400, {"error": "no such thing"}) if "bulk" in path else well(path, body),
        SettingsInvalid,
        "refuses what it is told: 400 no such thing",
    ),
    "writes are paused": (
        lambda path, body: (503, {"error": "paused"}) if "bulk" in path else well(path, body),
        StorageFailed,
        "it answered 503; is trackio.uri right",
    ),
    "it leads elsewhere": (lambda path, body: (302, b"moved"), SettingsInvalid, "answered 302 and no JSON"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_server_that_says_no_is_named(case: str, tmp_path: Path) -> None:
    reply, kind, words = CASES[case]
    with serving(reply) as server, pytest.raises(kind, match=words):
        tell(server, tmp_path)


def test_the_token_is_a_header_and_in_no_message(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "TRACKIO_WRITE_TOKEN").write_text("very-secret\n")
    tracker = {"credentials": {"directory": str(keys), "secretName": "tracker"}}
    with serving(well) as server:
        tell(server, tmp_path, trackio=tracker)
    assert {headers["x-trackio-write-token"] for _, _, headers in server.asked} == {"very-secret"}
    with (
        serving(lambda path, body: (401, b"very-secret")) as server,
        pytest.raises(SettingsInvalid) as refused,
    ):
        tell(server, tmp_path, trackio=tracker)
    assert "very-secret" not in str(refused.value)
    (keys / "TRACKIO_WRITE_TOKEN").unlink()
    with pytest.raises(SettingsInvalid, match="Secret tracker has no TRACKIO_WRITE_TOKEN"):
        Trackio(StoredTrackio.model_validate({"uri": NOWHERE, "project": "a", **tracker}))


@pytest.mark.parametrize("project", ["", "a b", "a/b", "a.b", "a" * 129])
def test_a_project_that_trackio_would_call_otherwise_is_refused(project: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="project"):
        typed(NOWHERE, tmp_path, trackio={"project": project})


def test_a_record_names_one_tracker(tmp_path: Path) -> None:
    document = record(NOWHERE, tmp_path)
    with pytest.raises(ValueError, match="names one tracker"):
        TrackingRecord.model_validate({**document, "trackio": {"uri": NOWHERE, "project": "a"}})
    del document["mlflow"]
    with pytest.raises(ValueError, match="names one tracker"):
        TrackingRecord.model_validate(document)

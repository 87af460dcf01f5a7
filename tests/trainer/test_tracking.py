"""The `track` stage against a server that fails in every way; `make test-trackers` tells a real MLflow."""

from __future__ import annotations

import base64
import json
import posixpath
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.__main__ import main
from trimtab_trainer.contract import StoredMlflow, TrackingRecord
from trimtab_trainer.contract.curve import Curve
from trimtab_trainer.errors import SettingsInvalid, StorageFailed
from trimtab_trainer.report import Report
from trimtab_trainer.storage import open_store
from trimtab_trainer.tracking import server as server_module
from trimtab_trainer.tracking.figures import KEY_LENGTH, VALUE_LENGTH, Metric, told_of
from trimtab_trainer.tracking.mlflow import Mlflow
from trimtab_trainer.tracking.server import ATTEMPTS
from trimtab_trainer.tracking.stage import read_metrics, read_tracking

from tests.trainer.tracking_records import METRICS, publish, record

Reply = tuple[int, bytes | dict[str, Any]]
NOWHERE = "http://127.0.0.1:9"


@dataclass
class Server:
    """`reply` is given path and body; `asked` has every request with its headers."""

    reply: Callable[[str, dict[str, Any]], Reply]
    asked: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    uri: str = ""


def well(path: str, body: dict[str, Any]) -> Reply:
    """Answer as an MLflow that has the experiment and no run."""
    if path == "experiments/get-by-name":
        return 200, {"experiment": {"experiment_id": "3", "lifecycle_stage": "active"}}
    if path == "runs/create":
        return 200, {"run": {"info": {"run_id": "r1"}, "data": {}}}
    return 200, {}


@contextmanager
def serving(reply: Callable[[str, dict[str, Any]], Reply] = well) -> Iterator[Server]:
    server = Server(reply)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            path = self.path.partition("?")[0].removeprefix("/api/2.0/mlflow/")
            server.asked.append((path, body, dict(self.headers)))
            status, content = server.reply(path, body)
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name that it has there
            return

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.uri = f"http://127.0.0.1:{http.server_port}"
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def typed(document: dict[str, Any]) -> TrackingRecord:
    return TrackingRecord.model_validate(document)


def tell(server: Server, tmp_path: Path, **more: Any) -> str:
    one = typed(record(server.uri, tmp_path, **more))
    assert one.mlflow is not None
    tracker = Mlflow(one.mlflow, sleep=lambda seconds: None)
    try:
        return tracker.tell(one, told_of(one, METRICS))
    finally:
        tracker.close()


def test_what_is_told_of_a_run(tmp_path: Path) -> None:
    told = told_of(typed(record(NOWHERE, tmp_path, figures={"activeSeconds": 61.0})), METRICS)
    assert told.parameters["training.method"] == "SFT"
    assert told.parameters["dataset"] == "s3://datasets/rows/"
    assert told.tags["trimtab.attempts"] == "2"
    values = {each.key: each for each in told.metrics if "/" not in each.key}
    assert values["testLoss"] == Metric("testLoss", 1.25, 1500)
    assert values["activeSeconds"].value == 61
    assert "baseTestLoss" not in values  # there is none
    assert "stoppedEarly" not in values
    assert "runDigest" not in values
    series = [each for each in told.metrics if "/" in each.key]
    assert len(series) == 4 * 1500 + 2
    assert Metric("validation/loss", 1.5, 750) in series


def test_without_an_adapter_the_curve_of_the_status_is_told(tmp_path: Path) -> None:
    curve = Curve(steps=(1, 5), loss=(2.0, 1.0), validation_steps=(5,), validation_loss=(1.5,)).to_json()
    told = told_of(typed(record(NOWHERE, tmp_path, curve=curve, figures={"activeSeconds": 3.0})), {})
    assert told.metrics == (
        Metric("activeSeconds", 3.0, 5),
        Metric("training/loss", 2.0, 1),
        Metric("training/loss", 1.0, 5),
        Metric("validation/loss", 1.5, 5),
    )


def test_whatever_metrics_hold_is_read_without_an_error(tmp_path: Path) -> None:
    one = typed(record(NOWHERE, tmp_path))
    for hostile in (
        {"curve": 5, "settings": [], "steps": "many"},
        {"curve": [None, {"step": "x"}, {"step": -1, "loss": 1.0}, {"step": True}], "evaluations": {"a": 1}},
        {"a" * 999: 1.0, "settings": {"b;\n" * 99: "v" * 9999}, "steps": True},
        dict.fromkeys(("", ".", "..", "../a", "/a", "a//b", "a/./b", "a/", "ü", "a:b", "a\n", "a" * 249 + "/b"), 1.0),
        {"settings": {"": 1, "..": 1, "a//b": 1, "/": {"/": 1}}},
    ):
        told = told_of(one, hostile)
        assert all(len(each.key) <= KEY_LENGTH for each in told.metrics)
        for key in (*(each.key for each in told.metrics), *told.parameters):
            assert re.fullmatch(r"[\w.\- /]+", key, re.ASCII), "else MLflow refuses the whole run"
            assert posixpath.normpath(key) == key
            assert not key.startswith(("/", "."))
        assert all(len(k) <= KEY_LENGTH and len(v) <= VALUE_LENGTH for k, v in told.parameters.items())


def test_a_run_is_made_and_told_within_the_limits_of_a_request(tmp_path: Path) -> None:
    with serving() as server:
        page = tell(server, tmp_path)
    assert page == f"{server.uri}/#/experiments/3/runs/r1"
    paths = [path for path, _, _ in server.asked]
    assert paths[:3] == ["experiments/get-by-name", "runs/search", "runs/create"]
    assert paths[-1] == "runs/update"
    batches = [body for path, body, _ in server.asked if path == "runs/log-batch"]
    assert all(len(body.get("metrics", ())) <= 1000 and len(body.get("params", ())) <= 100 for body in batches)
    moments = {each["timestamp"] for body in batches for each in body.get("metrics", ())}
    assert moments == {1_790_000_600_000}


def test_a_run_that_is_there_keeps_its_parameters(tmp_path: Path) -> None:
    def there(path: str, body: dict[str, Any]) -> Reply:
        if path == "runs/search":
            params = [{"key": "lora.rank", "value": "8"}]
            return 200, {"runs": [{"info": {"run_id": "r7"}, "data": {"params": params}}]}
        return well(path, body)

    with serving(there) as server:
        assert tell(server, tmp_path).endswith("/runs/r7")
    told = {each["key"] for _, body, _ in server.asked for each in body.get("params", ())}
    assert "lora.alpha" in told
    assert "lora.rank" not in told
    assert "runs/create" not in [path for path, _, _ in server.asked]


def test_an_experiment_is_made_where_it_is_not_there_and_another_may_be_first(tmp_path: Path) -> None:
    answers = iter(
        [
            (404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}),
            (400, {"error_code": "RESOURCE_ALREADY_EXISTS", "message": "there"}),
        ]
    )

    def raced(path: str, body: dict[str, Any]) -> Reply:
        return next(answers, well(path, body)) if path.startswith("experiments/") else well(path, body)

    with serving(raced) as server:
        assert "/experiments/3/" in tell(server, tmp_path)
    assert [path for path, _, _ in server.asked][:3] == [
        "experiments/get-by-name",
        "experiments/create",
        "experiments/get-by-name",
    ]


def test_what_may_be_cured_is_asked_again(tmp_path: Path) -> None:
    left = [503, 429]

    def recovering(path: str, body: dict[str, Any]) -> Reply:
        return (left.pop(), b"busy") if left else well(path, body)

    with serving(recovering) as server:
        tell(server, tmp_path)
    assert [path for path, _, _ in server.asked][:3] == ["experiments/get-by-name"] * 3


def test_a_run_whose_making_was_not_answered_is_looked_for_before_another_is_made(tmp_path: Path) -> None:
    made: list[str] = []

    def lost(path: str, body: dict[str, Any]) -> Reply:
        if path == "runs/create":
            made.append(f"r{len(made)}")
            return 504, b"the proxy gave up waiting, MLflow did not"
        if path == "runs/search":
            return 200, {"runs": [{"info": {"run_id": each}, "data": {}} for each in made[:1]]}
        return well(path, body)

    with serving(lost) as server:
        assert tell(server, tmp_path).endswith("/runs/r0")
    assert made == ["r0"]

    def down(path: str, body: dict[str, Any]) -> Reply:
        return (503, b"") if path == "runs/create" else well(path, body)

    with serving(down) as server, pytest.raises(StorageFailed, match="it answered 503"):
        tell(server, tmp_path)
    assert [path for path, _, _ in server.asked].count("runs/create") == ATTEMPTS


ODD: tuple[Any, ...] = (
    {}, {"experiment": None, "run": None, "runs": [5]}, {"experiment": {}, "run": {"info": []}, "runs": {"a": 1}},
    {"experiment": {"experiment_id": {}}, "runs": "many"},
)  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("where", ["experiments/get-by-name", "runs/search", "runs/create"])
def test_an_answer_that_no_mlflow_gives_is_named(where: str, odd: dict[str, Any], tmp_path: Path) -> None:
    if where == "runs/search" and not odd.get("runs"):
        return  # that there is none
    with (
        serving(lambda path, body: (200, odd) if path == where else well(path, body)) as server,
        pytest.raises(SettingsInvalid, match="is it an MLflow"),
    ):
        tell(server, tmp_path)


@pytest.mark.parametrize("data", [None, [], {"params": 5}, {"params": [None, "x", {}]}])
def test_parameters_that_are_no_parameters_are_not_there(data: Any, tmp_path: Path) -> None:
    found = {"runs": [{"info": {"run_id": "r7"}, "data": data}]}
    with serving(lambda path, body: (200, found) if path == "runs/search" else well(path, body)) as server:
        assert tell(server, tmp_path).endswith("/runs/r7")


def test_what_is_never_cured_ends_the_stage_by_name(tmp_path: Path) -> None:
    with (
        serving(lambda path, body: (500, b"secret internals")) as server,
        pytest.raises(StorageFailed, match="it answered 500") as caught,
    ):
        tell(server, tmp_path)
    assert len(server.asked) == ATTEMPTS
    assert "internals" not in str(caught.value)
    with pytest.raises(StorageFailed, match="ConnectError; is"):
        tell(Server(well, uri=NOWHERE), tmp_path)


REFUSALS: dict[str, tuple[Reply, str]] = {
    "another credential": ((401, b"who?"), "MLFLOW_TRACKING_TOKEN"),
    "no right": ((403, {"error_code": "PERMISSION_DENIED"}), "may write to the experiment"),
    "no MLflow": ((404, b"<html>"), "without /api"),
    "a redirect": ((302, b""), "without /api"),
    "its own word": (
        (400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}),
        "refuses what it is told: 400 no",
    ),
    "too much": ((200, b" " * (9 << 20)), "bytes; is it an MLflow"),
    "a deleted experiment": (
        (200, {"experiment": {"experiment_id": "3", "lifecycle_stage": "deleted"}}),
        "restore it there",
    ),
}


@pytest.mark.parametrize("story", REFUSALS)
def test_a_refusal_says_what_to_do(story: str, tmp_path: Path) -> None:
    reply, words = REFUSALS[story]
    with serving(lambda path, body: reply) as server, pytest.raises(SettingsInvalid, match=words):
        tell(server, tmp_path)
    assert len(server.asked) == 1  # nothing is followed, nothing asked twice


def _keys(folder: Path, **files: str) -> dict[str, str]:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return {"directory": str(folder), "secretName": "tracker"}


def test_credentials_are_sent_as_they_lie(tmp_path: Path) -> None:
    bearer = _keys(tmp_path / "a", MLFLOW_TRACKING_TOKEN="t0ken\n")
    basic = _keys(tmp_path / "b", MLFLOW_TRACKING_USERNAME="me", MLFLOW_TRACKING_PASSWORD="pass word")
    wanted = {"Bearer t0ken": bearer, "Basic " + base64.b64encode(b"me:pass word").decode(): basic}
    for header, credentials in wanted.items():
        with serving() as server:
            document = record(server.uri, tmp_path)
            document["mlflow"]["credentials"] = credentials
            one = typed(document)
            assert one.mlflow is not None
            Mlflow(one.mlflow).tell(one, told_of(one, {}))
        headers = [{key.lower(): value for key, value in each.items()} for _, _, each in server.asked]
        assert {each["authorization"] for each in headers} == {header}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "neither MLFLOW_TRACKING_TOKEN nor"),
        ({"MLFLOW_TRACKING_USERNAME": "me"}, "neither MLFLOW_TRACKING_TOKEN nor"),
        ({"MLFLOW_TRACKING_TOKEN": "a\nb"}, "MLFLOW_TRACKING_TOKEN of Secret tracker holds a character"),
    ],
)
def test_credentials_that_are_none_are_named(tmp_path: Path, files: dict[str, str], words: str) -> None:
    tracker = {"uri": NOWHERE, "experiment": "a", "credentials": _keys(tmp_path / "keys", **files)}
    with pytest.raises(SettingsInvalid, match=words):
        Mlflow(StoredMlflow.model_validate(tracker))


def test_figures_that_are_not_what_the_manifest_says_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = publish(tmp_path, METRICS)
    store = open_store(tmp_path.as_uri(), None)
    assert read_metrics(store, adapter, Report())["steps"] == 1500
    (tmp_path / "adapters" / ("a" * 64) / "metrics.json").write_text('{"testLoss": 0.0}')
    assert read_metrics(store, adapter, Report()) == {}
    assert read_metrics(store, "sha256:" + "b" * 64, Report()) == {}
    assert capsys.readouterr().out.count("figures of the adapter cannot be read") == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"mlflow": {"uri": "https://me:pw@mlflow.example", "experiment": "a"}},
        {"mlflow": {"uri": "file:///etc", "experiment": "a"}},
        {"mlflow": {"uri": "https://mlflow.example", "experiment": "a'b"}},
        {"run": {"name": "demo", "namespace": "team", "uid": "' OR 1=1"}},
        {"version": "trimtab.dev/tracking/v9"},
        {"more": 1},
    ],
)
def test_a_record_that_cannot_be_meant_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps({**record("https://mlflow.example", tmp_path), **changed}))
    with pytest.raises(SettingsInvalid, match="is no record of a run"):
        read_tracking(file)


def test_the_stage_has_last_words_whatever_becomes_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "ATTEMPTS", 1)
    words = tmp_path / "words.json"

    def run(uri: str) -> tuple[int, dict[str, Any]]:
        (tmp_path / "run.json").write_text(json.dumps(record(uri, tmp_path)))
        code = main(["track", "--config", str(tmp_path / "run.json"), "--termination-log", str(words)])
        return code, json.loads(words.read_text())

    with serving() as server:
        code, last = run(server.uri)
    assert (code, last["stage"], last["reason"]) == (0, "track", "Completed")
    assert "/runs/r1" in last["message"]
    code, last = run(NOWHERE)
    assert (code, last["reason"]) == (13, "StorageFailed")
    with serving(lambda path, body: (401, b"")) as server:
        code, last = run(server.uri)
    assert (code, last["reason"]) == (10, "AccessDenied")


def test_an_answer_whose_head_drips_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(server_module, "CONNECT_SECONDS", 0.3)

    def drip(connection: socket.socket) -> None:
        with suppress(OSError), connection:  # who does not wait for it hangs up
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                time.sleep(0.05)
                connection.sendall(b"a")

    def listen() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=drip, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=listen, daemon=True).start()
        uri = f"http://127.0.0.1:{listening.getsockname()[1]}"
        told = server_module.Server(uri, "MLflow", "tracking.mlflow.uri", "a token", {}, sleep=lambda _: None)
        began = time.monotonic()
        with pytest.raises(StorageFailed, match="cannot be told: TimeoutError"):
            told.ask("GET", "api", attempts=2)
        assert time.monotonic() - began < 10
        listening.shutdown(socket.SHUT_RDWR)

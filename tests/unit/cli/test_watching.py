"""What is there, and again after every change: events, gaps, and API servers that go away."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from trimtab import watching
from trimtab.client import Client
from trimtab.errors import Unreachable
from trimtab.kinds import kind_named

from tests.unit.cli.cluster import GROUP, NAMESPACE, FakeCluster, Request, condition, finetunejob

JOBS = f"{GROUP}/namespaces/{NAMESPACE}/finetunejobs"


def job(name: str, state: str, version: int) -> dict[str, Any]:
    body = finetunejob(name, conditions=[condition("Succeeded", "Unknown", state)])
    return {**body, "metadata": {"name": name, "namespace": NAMESPACE, "uid": name, "resourceVersion": str(version)}}


@pytest.fixture
def script(empty: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What watches answer, one after the other; then nothing happens any more."""
    monkeypatch.setattr(watching, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(watching, "GATHER_SECONDS", 0.01)
    answers: list[Any] = []
    answer = empty.answer

    def scripted(request: Request) -> Any:
        if "watch" not in request.query:
            return answer(request)
        empty.asked.append(request)
        return answers.pop(0) if answers else (200, b"")

    monkeypatch.setattr(empty, "answer", scripted)
    return answers


def events(*told: tuple[str, dict[str, Any]]) -> tuple[int, bytes]:
    return 200, b"".join(json.dumps({"type": kind, "object": body}).encode() + b"\n" for kind, body in told)


def until(states: dict[str, str], client: Client) -> None:
    """Look until the objects are as expected; the test's own timeout is the bound."""
    for picture in itertools.islice(client.watch("ftj"), 50):
        if {each.name: each.state for each in picture} == states:
            return
    raise AssertionError("it never came")


def test_added_changed_and_deleted(empty: FakeCluster, script: list[Any]) -> None:
    empty.objects[f"{JOBS}/a"] = job("a", "Queued", 5)
    script += [
        events(("ADDED", job("b", "Queued", 8)), ("MODIFIED", job("b", "Training", 9)), ("BOOKMARK", job("", "", 10))),
        events(("DELETED", job("a", "Queued", 11))),
    ]
    with Client() as client:
        until({"b": "Training"}, client)
    versions = [request.query["resourceVersion"] for request in empty.asked if "watch" in request.query]
    assert versions[:2] == ["7", "10"], "from the list's, then from the bookmark's"


def test_a_gap_is_closed_by_a_list(empty: FakeCluster, script: list[Any]) -> None:
    empty.objects[f"{JOBS}/a"] = job("a", "Queued", 5)
    expired = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    script += [events(("ERROR", expired))]
    with Client() as client:
        pictures = client.watch("ftj")
        next(pictures)
        empty.objects[f"{JOBS}/b"] = job("b", "Training", 6)
        until({"a": "Queued", "b": "Training"}, client)


def test_an_api_server_that_comes_back_is_waited_for(empty: FakeCluster, script: list[Any]) -> None:
    script += [(200, b"<html>"), (200, b"{"), events(("ADDED", job("b", "Training", 9)))]
    with Client() as client:
        until({"b": "Training"}, client)


def test_one_that_stays_away_is_told(empty: FakeCluster, script: list[Any]) -> None:
    with Client() as client:
        empty.answers[JOBS] = (200, b"<html>")
        watcher = watching.Watcher(client._server, [kind_named("ftj")], NAMESPACE)
        with pytest.raises(Unreachable):
            list(watcher.pictures())

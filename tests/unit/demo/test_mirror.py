"""Waits on what watches tell: they end with what was waited for, with quiet, or with what broke the watch."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.demo.api import ApiError, Body, Unreachable
from deploy.demo.mirror import Mirror, Quiet


def pod(name: str, version: int, phase: str = "Pending") -> Body:
    metadata = {"name": name, "resourceVersion": str(version), "labels": {"app": name}}
    return {"metadata": metadata, "status": {"phase": phase}}


class Server:
    """An API server whose lists and watches say what the test tells them to."""

    def __init__(self, *items: Body) -> None:
        self.items = list(items)
        self.events: queue.Queue[Body | Exception | None] = queue.Queue()
        self.lists = 0

    def page(self, kind: str, namespace: str, labels: str = "") -> Body:
        self.lists += 1
        return {"metadata": {"resourceVersion": "1"}, "items": self.items}

    def watch(self, kind: str, namespace: str, since: str) -> Iterator[Body]:
        while (event := self.events.get()) is not None:  # None: the server ends the watch
            if isinstance(event, Exception):
                raise event
            yield event

    def tell(self, kind: str, body: Body) -> None:
        self.events.put({"type": kind, "object": body})


def mirror_of(server: Any) -> Mirror:
    return Mirror(server, "here", ("Pod",))


def running(mirror: Mirror, name: str) -> bool:
    return bool((mirror.get("Pod", name) or {"status": {}})["status"].get("phase") == "Running")


def test_what_is_there_and_what_comes_is_seen() -> None:
    server = Server(pod("one", 1))
    mirror = mirror_of(server)
    assert mirror.objects("Pod", {"app": "one"}) == [pod("one", 1)]
    assert mirror.objects("Pod", {"app": "two"}) == []
    threading.Timer(0.05, server.tell, ("MODIFIED", pod("one", 2, "Running"))).start()
    assert mirror.wait("it runs", lambda: running(mirror, "one"), quiet=60)
    server.tell("DELETED", pod("one", 3))
    assert mirror.wait("its end", lambda: mirror.get("Pod", "one") is None, quiet=60)


def test_a_wait_takes_as_long_as_something_moves_and_gives_up_when_nothing_does() -> None:
    server = Server(pod("one", 1))
    mirror = mirror_of(server)
    for number in range(20):
        threading.Timer(0.15 * number, server.tell, ("MODIFIED", pod("other", number))).start()
    threading.Timer(3, server.tell, ("MODIFIED", pod("one", 99, "Running"))).start()
    assert mirror.wait("it runs", lambda: running(mirror, "one"), quiet=2)
    with pytest.raises(Quiet, match="waited for two"):
        mirror.wait("two", lambda: mirror.get("Pod", "two"), quiet=0.1)


BROKEN: dict[str, Exception | None] = {
    "the server ends the watch": None,
    "the connection breaks": Unreachable("reset"),
    "the version is too old": ApiError(410, "too old"),
    "the server is busy": ApiError(429, "later"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_watch_that_ends_is_begun_again(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.demo.mirror.AGAIN_SECONDS", 0.01)
    server = Server(pod("one", 1))
    mirror = mirror_of(server)
    server.items = [pod("one", 1, "Running")]
    server.events.put(BROKEN[how])
    server.tell("ADDED", pod("two", 2))
    mirror.wait("what comes after it", lambda: mirror.get("Pod", "two"), quiet=60)
    assert (server.lists == 2) is (how == "the version is too old")


def test_whoever_waits_is_told_what_broke_the_watch() -> None:
    server = Server()
    mirror = mirror_of(server)
    server.events.put(ApiError(403, "pods is forbidden"))
    with pytest.raises(ApiError, match="forbidden"):
        mirror.wait("a pod", lambda: mirror.get("Pod", "one"), quiet=60)

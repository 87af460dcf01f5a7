"""Feeds: one watch for each user, kind and namespace, ended when nobody looks, and never another user's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from trimtab.console.callers import Caller
from trimtab.console.feeds import FEEDS_OF_ONE, Feeds, TooMany
from trimtab.errors import Expired, NotAllowed, Unreachable
from trimtab.kinds import kind_named

from tests.console.objects import queued, training

KIND, SWEEPS = kind_named("finetunejob"), kind_named("finetunesweep")


class Listed:
    """An API server with one list, whose watches tell what a test gives them."""

    def __init__(self) -> None:
        self.objects: list[dict[str, Any]] = [_stored(training("demo"), 1)]
        self.lists = 0
        self.open = 0
        self.refused: Exception | None = None
        self._events: list[dict[str, Any]] = []
        self._ended = threading.Event()
        self._moved = threading.Condition()

    def pages(self, path: str, first: int) -> Iterator[tuple[list[dict[str, Any]], str]]:
        self.lists += 1
        if self.refused is not None:
            raise self.refused
        yield [dict(each) for each in self.objects], "1"

    def watch(
        self, path: str, since: str, seconds: int, begun: Callable[[Callable[[], None]], None]
    ) -> Iterator[dict[str, Any]]:
        begun(self.end)
        self.open += 1
        try:
            while True:
                with self._moved:
                    self._moved.wait_for(lambda: bool(self._events) or self._ended.is_set(), 10)
                    if self._ended.is_set():
                        raise Unreachable("the connection was shut", "")
                    event = self._events.pop(0)
                    if event["type"] == "ERROR":
                        raise Expired("too old")
                yield event
        finally:
            self.open -= 1

    def tell(self, type_: str, body: dict[str, Any]) -> None:
        with self._moved:
            self._events.append({"type": type_, "object": body})
            self._moved.notify_all()

    def end(self) -> None:
        self._ended.set()
        with self._moved:
            self._moved.notify_all()


def _stored(body: dict[str, Any], version: int) -> dict[str, Any]:
    metadata = {**body["metadata"], "namespace": "a", "uid": body["metadata"]["name"], "resourceVersion": str(version)}
    return {**body, "metadata": {**metadata, "managedFields": [{"manager": "x"}]}}


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


def caller(server: Listed, key: str = "jane") -> Caller:
    return Caller(key, server, "a", "")  # type: ignore[arg-type]


@pytest.fixture
def feeds() -> Iterator[Feeds]:
    made = Feeds(linger=0.0)
    yield made
    made.close()


def test_many_pages_are_one_list_and_one_watch(feeds: Feeds) -> None:
    server = Listed()
    heard: list[tuple[str, str]] = []
    leaves = [feeds.listen(caller(server), [KIND], "a", lambda of, name: heard.append((of, name))) for _ in range(50)]
    assert [each.name for each in feeds.objects(caller(server), KIND, "a")] == ["demo"]
    until(lambda: server.open == 1)
    server.tell("ADDED", _stored(queued("next"), 2))
    until(lambda: heard.count(("finetunejobs", "next")) == 50)
    assert {each.name for each in feeds.objects(caller(server), KIND, "a")} == {"demo", "next"}
    server.tell("DELETED", _stored(queued("next"), 3))
    until(lambda: heard.count(("finetunejobs", "next")) == 100)
    assert [each.name for each in feeds.objects(caller(server), KIND, "a")] == ["demo"]
    assert (server.lists, server.open, len(feeds)) == (1, 1, 1)
    for leave in leaves[:-1]:
        leave()
    feeds.sweep()
    assert server.open == 1
    leaves[-1]()
    time.sleep(0.01)
    feeds.sweep()
    until(lambda: server.open == 0)
    assert len(feeds) == 0


def test_the_ledger_of_who_wrote_which_field_is_not_kept(feeds: Feeds) -> None:
    (about,) = feeds.objects(caller(Listed()), KIND, "a")
    assert "managedFields" not in about.metadata


def test_what_was_written_is_shown_at_once_and_not_undone_by_what_is_older(feeds: Feeds) -> None:
    server, heard = Listed(), []
    feeds.listen(caller(server), [KIND], "a", lambda of, name: heard.append(name))
    feeds.objects(caller(server), KIND, "a")
    written = _stored(training("demo"), 7)
    written["spec"]["suspend"] = True
    feeds.learn(caller(server), KIND, written)
    assert [each.stopped for each in feeds.objects(caller(server), KIND, "a")] == [True]
    server.tell("MODIFIED", _stored(training("demo"), 6))
    until(lambda: "demo" in heard)
    assert [each.stopped for each in feeds.objects(caller(server), KIND, "a")] == [True]
    server.tell("MODIFIED", _stored(training("demo"), 8))
    until(lambda: not feeds.objects(caller(server), KIND, "a")[0].stopped)
    feeds.learn(caller(server, "eve"), KIND, written)  # who looks at nothing learns nothing
    assert len(feeds) == 1


class Long(Listed):
    """The same with a list of two pages, of which the second comes when a test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()

    def pages(self, path: str, first: int) -> Iterator[tuple[list[dict[str, Any]], str]]:
        yield from super().pages(path, first)
        assert self.goes_on.wait(20)
        if self.refused is not None:
            raise self.refused
        yield [_stored(queued("last"), 1)], "1"


def test_of_a_long_list_what_was_read_is_there_and_the_rest_is_told(feeds: Feeds) -> None:
    server, heard = Long(), []
    feeds.listen(caller(server), [KIND], "a", lambda of, name: heard.append((of, name)))
    seen = feeds.so_far(caller(server), KIND, "a", 0.01)
    assert ([each.name for each in seen.objects], seen.is_whole) == (["demo"], False)
    told = len(heard)
    server.goes_on.set()
    assert [each.name for each in feeds.objects(caller(server), KIND, "a")] == ["demo", "last"]
    assert feeds.so_far(caller(server), KIND, "a", 0.01).is_whole
    until(lambda: len(heard) > told)
    server.goes_on.clear()  # a list that is read again is shown when it is whole
    server.objects = []
    server.tell("ERROR", {})
    until(lambda: server.lists == 2)
    assert [each.name for each in feeds.objects(caller(server), KIND, "a")] == ["demo", "last"]
    server.goes_on.set()
    until(lambda: [each.name for each in feeds.objects(caller(server), KIND, "a")] == ["last"])


def test_rights_that_end_within_a_list_show_nothing_of_it(feeds: Feeds) -> None:
    server = Long()
    assert feeds.so_far(caller(server), KIND, "a", 0.01).objects
    server.refused = NotAllowed("no more", "")
    server.goes_on.set()
    with pytest.raises(NotAllowed):
        feeds.objects(caller(server), KIND, "a")


def test_nobody_sees_what_another_may(feeds: Feeds) -> None:
    jane, eve = Listed(), Listed()
    eve.refused = NotAllowed("eve cannot list finetunejobs", "")
    assert len(feeds.objects(caller(jane), KIND, "a")) == 1
    with pytest.raises(NotAllowed, match="eve cannot"):
        feeds.objects(caller(eve, "eve"), KIND, "a")
    assert (jane.lists, eve.lists) == (1, 1)


def test_what_several_users_may_see_is_in_memory_once(feeds: Feeds) -> None:
    first, second, later = Listed(), Listed(), Listed()
    second.objects.append(_stored(queued("seen-by-rita-alone"), 2))
    later.objects = [_stored(training("demo", step=150), 3)]
    (of_jane,) = feeds.objects(caller(first), KIND, "a")
    of_rita = feeds.objects(caller(second, "rita"), KIND, "a")
    assert of_rita[0] is of_jane
    assert [each.name for each in feeds.objects(caller(first), KIND, "a")] == ["demo"]
    (of_paul,) = feeds.objects(caller(later, "paul"), KIND, "a")
    assert of_paul.told["progress"]["step"] == 150, "another version is another object"


def test_rights_that_were_taken_end_the_pages_stream(feeds: Feeds) -> None:
    server, heard = Listed(), []
    feeds.listen(caller(server), [KIND], "a", lambda of, name: heard.append(of))
    feeds.objects(caller(server), KIND, "a")
    until(lambda: server.open == 1)
    server.refused = NotAllowed("no more", "")
    server.tell("ERROR", {})
    until(lambda: "" in heard)
    feeds.sweep()
    assert len(feeds) == 0


def test_an_api_server_that_never_lets_a_watch_begin_is_not_asked_all_the_time(
    feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.console.feeds.PAUSE_SECONDS", 0.1)
    server = Listed()
    monkeypatch.setattr(server, "watch", lambda *_: _expired())
    began = time.monotonic()
    feeds.objects(caller(server), KIND, "a")
    until(lambda: server.lists >= 4)
    assert server.lists <= 2 + (time.monotonic() - began) / 0.1
    server.refused = Expired("too old")
    with pytest.raises(Expired):
        feeds.objects(caller(server, "rita"), KIND, "a")


def _expired() -> Iterator[dict[str, Any]]:
    yield from ()
    raise Expired("too old")


class Partial(Listed):
    """The same, where the user may see FineTuneJobs and nothing else."""

    def pages(self, path: str, first: int) -> Iterator[tuple[list[dict[str, Any]], str]]:
        if not path.endswith("/finetunejobs"):
            raise NotAllowed("jane cannot list this", "")
        return super().pages(path, first)


def test_who_may_see_one_kind_follows_it(feeds: Feeds) -> None:
    server, heard = Partial(), []
    leave = feeds.listen(caller(server), [SWEEPS, KIND], "a", lambda of, name: heard.append((of, name)))
    with pytest.raises(NotAllowed):
        feeds.objects(caller(server), SWEEPS, "a")
    until(lambda: server.open == 1)
    server.tell("ADDED", _stored(queued("next"), 2))
    until(lambda: ("finetunejobs", "next") in heard)
    assert ("", "") not in heard
    server.refused = NotAllowed("no more", "")
    server.tell("ERROR", {})
    until(lambda: ("", "") in heard)
    leave()


def test_who_may_see_nothing_has_no_stream(feeds: Feeds) -> None:
    server, heard = Listed(), []
    server.refused = NotAllowed("no", "")
    feeds.listen(caller(server), [SWEEPS, KIND], "a", lambda of, name: heard.append(of))
    until(lambda: "" in heard)


def test_a_page_that_is_one_too_many_leaves_nothing_open(feeds: Feeds) -> None:
    server = Listed()
    leaves = [
        feeds.listen(caller(server), [KIND], f"n{number}", lambda of, name: None) for number in range(FEEDS_OF_ONE - 1)
    ]
    with pytest.raises(TooMany):
        feeds.listen(caller(server), [KIND, SWEEPS], "another", lambda of, name: None)
    for leave in leaves:
        leave()
    time.sleep(0.01)
    feeds.sweep()
    assert len(feeds) == 0


def test_what_one_user_opens_is_bounded(feeds: Feeds) -> None:
    server = Listed()
    server.refused = NotAllowed("no", "")
    for number in range(FEEDS_OF_ONE):
        feeds.begin(caller(server), [KIND], f"n{number}")
    with pytest.raises(TooMany, match="too many"):
        feeds.begin(caller(server), [KIND], "another")
    feeds.begin(caller(server, "other"), [KIND], "a")

"""What a user's objects are now: one list and one watch for each user, kind and namespace, however many pages are open.

Of a long list a page shows what was read so far, and the rest when it is told of it: nobody waits for thousands. What
the API server gave to several users, each by their own rights, is in memory once.

A feed belongs to one user, so that nobody sees what another's rights show. It begins when a page first asks, and ends
when none is open any more and none has asked for a while; the watch's connection is closed at once. The API server is
asked for a new watch every two minutes, and says no where the user's rights or token have gone: then the feed ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from ..errors import Expired, NotAllowed, NotInstalled, Problem, Unreachable
from ..kinds import Kind
from ..objects import CustomObject, mapping, parse
from ..server import Body, Resource, Server
from .callers import Caller

WATCH_SECONDS = 120
FIRST_LIST_SECONDS = 30.0
FIRST_PAGE = 100
"""Objects of the first list's first page: about what the first screen shows of them."""
TRIES, PAUSE_SECONDS = 5, 1.0
"""Of an API server that does not answer or has no time, before it is told."""
LINGER_SECONDS = 20.0
"""Between two pages of one person."""
FEEDS, FEEDS_OF_ONE = 512, 40
"""At the same time: of all users, and of one."""

Key = tuple[str, str, str]
Shared = WeakValueDictionary[tuple[str, str, str], CustomObject]
"""Objects by plural, uid and resourceVersion, while somebody has them: of one version all users are told the same."""
Heard = Callable[[str, str], None]
"""Is told the plural and name of what changed, from whatever thread; without a plural: nothing more will come."""


class TooMany(Problem):
    """So much is open that no more can be."""


@dataclass(frozen=True)
class Seen:
    """Objects of a list; `is_whole` is false while it is being read for the first time."""

    objects: tuple[CustomObject, ...]
    is_whole: bool


@dataclass
class Feed:
    """The objects of a kind in a namespace, or in all for an empty one, as one user sees them."""

    server: Server
    kind: Kind
    namespace: str
    touched: float = 0.0
    problem: Problem | None = None
    heard: set[Heard] = field(default_factory=set)
    shared: Shared = field(default_factory=WeakValueDictionary)
    _objects: dict[tuple[str, str], CustomObject] = field(default_factory=dict)
    _begun: threading.Event = field(default_factory=threading.Event)
    _ready: threading.Event = field(default_factory=threading.Event)
    _over: threading.Event = field(default_factory=threading.Event)
    _was_listed: bool = False
    _end_watch: Callable[[], None] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> None:
        threading.Thread(target=self._follow, name=f"feed-{self.kind.plural}", daemon=True).start()

    def close(self) -> None:
        """End the watch at once, from another thread."""
        self._over.set()
        with self._lock:
            end = self._end_watch
        if end is not None:
            end()

    def objects(self) -> tuple[CustomObject, ...]:
        """Return what is there, waiting for the first list.

        Raises:
            Problem: it cannot be listed.
        """
        return self._after(self._ready.wait(FIRST_LIST_SECONDS)).objects

    def so_far(self, seconds: float) -> Seen:
        """Return what is there, waiting so long for the first list, and longer for its first page.

        Raises:
            Problem: it cannot be listed.
        """
        return self._after(self._ready.wait(seconds) or self._begun.wait(FIRST_LIST_SECONDS))

    def _after(self, answered: bool) -> Seen:
        if not answered:
            raise Unreachable("the API server has not answered yet", "try it again")
        if self.problem is not None:
            raise self.problem
        with self._lock:
            return Seen(tuple(self._objects.values()), self._was_listed)

    @property
    def listed(self) -> bool:
        """Whether the first list is there."""
        return self._ready.is_set() and self.problem is None

    @property
    def refused(self) -> bool:
        """Whether it cannot be seen, and never could."""
        return not self._was_listed and isinstance(self.problem, NotAllowed | NotInstalled)

    def learn(self, body: Body) -> None:
        """Take an object as it is now, from the watch or as the answer to a write; what is older changes nothing."""
        with self._lock:
            known = self._objects.get(_place(body))
            if known is None or _version(body) >= _version(known.body):
                self._objects[_place(body)] = self._parsed(body)

    def _follow(self) -> None:
        path = Resource(self.kind.group, self.kind.version, self.kind.plural).path(self.namespace or None)
        tries = 0
        while not self._over.is_set():
            try:
                version = self._list(path)
                tries = 0
                while not self._over.is_set():
                    version = self._watch(path, version)
            except (Expired, Unreachable) as problem:
                if self._over.is_set():
                    return
                tries += 1
                if tries >= TRIES:
                    self._fail(problem)
                    return
                self._over.wait(PAUSE_SECONDS)
            except Problem as problem:
                self._fail(problem)
                return
            except Exception as error:  # a bug: told where somebody waits, and not lost with the thread
                self._fail(Problem(f"{self.kind.plural} cannot be followed ({error})", "load the page again"))
                raise

    def _list(self, path: str) -> str:
        version, found = "", dict[tuple[str, str], CustomObject]()
        for bodies, since in self.server.pages(path, FIRST_PAGE):
            version = since
            found |= {_place(each): self._parsed(each) for each in bodies}
            if not self._was_listed:  # a list that is read again is shown when it is whole
                with self._lock:
                    self._objects = dict(found)
                self._begun.set()
                self._tell("")
        with self._lock:
            self._objects = found
            self._was_listed = True
        self._ready.set()
        self._tell("")
        return version

    def _parsed(self, body: Body) -> CustomObject:
        """Return an object that the API server gave to this user, the very one that another user was given."""
        made, metadata = parse(self.kind, _light(body)), mapping(body.get("metadata"))
        uid, version = str(metadata.get("uid") or ""), str(metadata.get("resourceVersion") or "")
        return self.shared.setdefault((self.kind.plural, uid, version), made) if uid and version else made

    def _watch(self, path: str, version: str) -> str:
        """Follow one watch to its end; return the resourceVersion that the next goes on from."""
        began = time.monotonic()
        try:
            for event in self.server.watch(path, version, WATCH_SECONDS, self._opened):
                if self._over.is_set():
                    return version
                body: Body = event["object"]
                version = str(body["metadata"]["resourceVersion"])
                if event["type"] == "BOOKMARK":
                    continue
                if event["type"] == "DELETED":
                    with self._lock:
                        self._objects.pop(_place(body), None)
                else:
                    self.learn(body)
                self._tell(str(body["metadata"]["name"]))
        finally:
            with self._lock:
                self._end_watch = None
        if time.monotonic() - began < PAUSE_SECONDS:  # whoever ends watches at once is not asked all the time
            self._over.wait(PAUSE_SECONDS)
        return version

    def _opened(self, end: Callable[[], None]) -> None:
        with self._lock:
            self._end_watch = end
        if self._over.is_set():
            end()

    def _fail(self, problem: Problem) -> None:
        self.problem = problem
        self._begun.set()
        self._ready.set()
        self._over.set()
        for each in tuple(self.heard):
            each("", "")

    def _tell(self, name: str) -> None:
        for each in tuple(self.heard):
            each(self.kind.plural, name)


class Feeds:
    """All feeds of a console."""

    def __init__(self, linger: float = LINGER_SECONDS) -> None:
        self._linger = linger
        self._feeds: dict[Key, Feed] = {}
        self._shared: Shared = WeakValueDictionary()
        self._lock = threading.Lock()

    def begin(self, caller: Caller, kinds: Sequence[Kind], namespace: str) -> None:
        """Let the first lists of several kinds be asked for at the same time."""
        for kind in kinds:
            self._feed(caller, kind, namespace)

    def objects(self, caller: Caller, kind: Kind, namespace: str) -> tuple[CustomObject, ...]:
        """Return a user's objects of a kind in a namespace, or in all for an empty one.

        Raises:
            Problem: they cannot be listed, or too much is open.
        """
        return self._feed(caller, kind, namespace).objects()

    def so_far(self, caller: Caller, kind: Kind, namespace: str, seconds: float) -> Seen:
        """Return the same, of a list that takes longer than so many seconds what was read of it.

        Raises:
            Problem: they cannot be listed, or too much is open.
        """
        return self._feed(caller, kind, namespace).so_far(seconds)

    def learn(self, caller: Caller, kind: Kind, body: Body) -> None:
        """Show what the API server answered to a user's write at once, and not when the watch tells of it."""
        namespace = _place(body)[0]
        with self._lock:
            found = [self._feeds.get((caller.key, kind.plural, each)) for each in (namespace, "")]
        for feed in found:
            if feed is not None and feed.listed:
                feed.learn(body)

    def listen(self, caller: Caller, kinds: Sequence[Kind], namespace: str, heard: Heard) -> Callable[[], None]:
        """Tell of every change; return what ends that.

        A kind that the user may not see, or the cluster does not have, is told by the page already: the others are
        followed, and only where none is left nothing more will come.

        Raises:
            TooMany: so much is open that not all of them can be followed; then none is.
        """
        followed: list[tuple[Feed, Heard]] = []
        left = {kind.plural for kind in kinds}

        def hears(feed: Feed) -> Heard:
            def hear(of: str, which: str) -> None:
                if not of and feed.refused:
                    left.discard(feed.kind.plural)
                    if left:
                        return
                heard(of, which)

            return hear

        def leave() -> None:
            with self._lock:
                for feed, hear in followed:
                    feed.heard.discard(hear)
                    feed.touched = time.monotonic()

        try:
            for kind in kinds:
                feed = self._feed(caller, kind, namespace)
                followed.append((feed, hears(feed)))
                feed.heard.add(followed[-1][1])
        except TooMany:
            leave()
            raise
        for feed, hear in followed:
            if feed.problem is not None:  # before anybody listened
                hear("", "")
        return leave

    def sweep(self) -> None:
        """Close what nobody looks at any more, or what has failed."""
        now = time.monotonic()
        with self._lock:
            gone = [
                key
                for key, feed in self._feeds.items()
                if feed.problem is not None or (not feed.heard and now - feed.touched > self._linger)
            ]
            closed = [self._feeds.pop(key) for key in gone]
        _close(closed)

    def close(self) -> None:
        with self._lock:
            closed = list(self._feeds.values())
            self._feeds.clear()
        _close(closed)

    def __len__(self) -> int:
        return len(self._feeds)

    def _feed(self, caller: Caller, kind: Kind, namespace: str) -> Feed:
        key = (caller.key, kind.plural, namespace)
        with self._lock:
            feed = self._feeds.get(key)
            if feed is None or feed.problem is not None:
                of_one = sum(1 for each in self._feeds if each[0] == caller.key)
                if len(self._feeds) >= FEEDS or of_one >= FEEDS_OF_ONE:
                    raise TooMany("too many pages of different namespaces are open", "close some, and wait a moment")
                feed = self._feeds[key] = Feed(caller.server, kind, namespace, shared=self._shared)
                feed.begin()
            feed.touched = time.monotonic()
            return feed


def _close(feeds: Iterable[Feed]) -> None:
    for feed in feeds:
        feed.close()


def _place(body: Body) -> tuple[str, str]:
    return str(body["metadata"].get("namespace", "")), str(body["metadata"]["name"])


def _version(body: Mapping[str, Any]) -> int:
    """Return a resourceVersion as the number that it is in Kubernetes (comparable since 1.35); 0 for what is none."""
    told = str(mapping(body.get("metadata")).get("resourceVersion") or "")
    return int(told) if told.isdecimal() else 0


def _light(body: Body) -> Body:
    """Return an object without the ledger of who wrote which field, which is half of it."""
    body["metadata"].pop("managedFields", None)
    return body

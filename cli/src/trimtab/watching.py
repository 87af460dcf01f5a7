"""What is there, and again whenever it changes: a list and a watch for each kind, each in a thread of its own."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .errors import Expired, Unreachable
from .kinds import Kind
from .objects import CustomObject, parse
from .server import Body, Resource, Server
from .tables import Listing

WATCH_SECONDS = 30
"""How long a watch lasts before it is begun again: no longer does a thread live on after nobody looks any more."""
TRIES, PAUSE_SECONDS = 5, 1.0
"""Of an API server that does not answer, before it is told."""
GATHER_SECONDS = 0.2
"""Changes within it make one picture."""


@dataclass
class Watcher:
    """Follows kinds in a namespace, or in all, and puts what it learns into a queue."""

    server: Server
    kinds: Sequence[Kind]
    namespace: str | None
    _told: queue.SimpleQueue[tuple[Kind, dict[str, Body]] | Exception] = field(default_factory=queue.SimpleQueue)
    _over: threading.Event = field(default_factory=threading.Event)

    def pictures(self) -> Iterator[Listing]:
        """Yield all objects, first as they are, then after every change.

        Raises:
            Problem: one of the kinds cannot be listed, or the API server went away.
        """
        for kind in self.kinds:
            threading.Thread(target=self._follow, args=(kind,), daemon=True).start()
        known: dict[Kind, dict[str, Body]] = {}
        try:
            while True:
                self._take(known, self._told.get())
                time.sleep(GATHER_SECONDS)
                while not self._told.empty():
                    self._take(known, self._told.get())
                if len(known) == len(self.kinds):
                    yield Listing.of(_objects(known), self.kinds)
        finally:
            self._over.set()

    @staticmethod
    def _take(known: dict[Kind, dict[str, Body]], told: tuple[Kind, dict[str, Body]] | Exception) -> None:
        if isinstance(told, Exception):
            raise told
        kind, objects = told
        known[kind] = objects

    def _follow(self, kind: Kind) -> None:
        path = Resource(kind.group, kind.version, kind.plural).path(self.namespace)
        tries = 0
        while not self._over.is_set():
            try:
                for objects in self._changes(path):
                    tries = 0
                    self._told.put((kind, objects))
                    if self._over.is_set():
                        return
            except (Expired, Unreachable) as problem:
                tries += 1
                if tries == TRIES:
                    self._told.put(problem)
                    return
                self._over.wait(PAUSE_SECONDS)
            except Exception as problem:  # a bug too is raised where somebody waits, and not in a thread
                self._told.put(problem)
                return

    def _changes(self, path: str) -> Iterator[dict[str, Body]]:
        """Yield the objects of a list by uid, and again after every event of the watches that follow it."""
        listed, version = self.server.listed(path)
        objects = {str(each["metadata"]["uid"]): each for each in listed}
        yield dict(objects)
        while not self._over.is_set():
            began = time.monotonic()
            for event in self.server.watch(path, version, WATCH_SECONDS):
                body: Body = event["object"]
                version = str(body["metadata"]["resourceVersion"])
                if event["type"] == "BOOKMARK":
                    continue
                if event["type"] == "DELETED":
                    objects.pop(str(body["metadata"]["uid"]), None)
                else:
                    objects[str(body["metadata"]["uid"])] = body
                yield dict(objects)
            if time.monotonic() - began < PAUSE_SECONDS:  # whoever ends watches at once is not asked all the time
                self._over.wait(PAUSE_SECONDS)


def _objects(known: dict[Kind, dict[str, Body]]) -> Iterator[CustomObject]:
    for kind, objects in known.items():
        yield from (parse(kind, body) for body in objects.values())

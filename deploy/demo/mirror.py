"""A namespace as its watches tell it, and waits that end when nothing in it moves any more.

How long a pod takes to start says more about the machine than about what runs on it: no wait ends by the clock alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from trimtab_local.progress import Failed

from deploy.demo.api import Api, ApiError, Body, Unreachable

T = TypeVar("T")

QUIET_SECONDS = 300.0
"""How long nothing may move: five pods beside each other that import torch on one core take two minutes."""
GONE = 410
BUSY = (429, 500, 503, 504)
AGAIN_SECONDS = 1.0


class Quiet(Failed):
    """What was waited for did not come, and nothing moves any more."""


class Mirror:
    """The objects of some kinds in a namespace, each kind kept by one watch; use it as a context manager or close it.

    Whoever reads it sees what the watches have told so far, which may be a moment old.
    """

    def __init__(self, api: Api, namespace: str, kinds: Sequence[str]) -> None:
        self.namespace = namespace
        self._api = api
        self._objects: dict[str, dict[str, Body]] = {}
        self._moved = threading.Condition()
        self._moves = 0
        self._broken: Exception | None = None
        self._closed = False
        for kind in kinds:
            threading.Thread(target=self._keep, args=(kind,), daemon=True, name=f"{namespace}-{kind}").start()
        self.wait("the first lists", lambda: len(self._objects) == len(kinds))

    def __enter__(self) -> Mirror:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the watches end with the next thing they hear."""
        self._closed = True

    def objects(self, kind: str, labels: dict[str, str] | None = None) -> list[Body]:
        """Return the objects of a kind that have some labels."""
        with self._moved:
            found = list(self._objects[kind].values())
        wanted = (labels or {}).items()
        return [body for body in found if wanted <= body["metadata"].get("labels", {}).items()]

    def get(self, kind: str, name: str) -> Body | None:
        with self._moved:
            return self._objects[kind].get(name)

    def wait(self, what: str, look: Callable[[], T | None], quiet: float = QUIET_SECONDS) -> T:
        """Look at every move until there is something to be seen, and return it.

        Raises:
            Quiet: nothing has moved for so many seconds.
        """
        while True:
            with self._moved:
                seen = self._moves
            if found := look():
                return found
            with self._moved:
                moved = self._moved.wait_for(partial(self._has_moved_since, seen), quiet)
                if self._broken is not None:
                    raise self._broken
            if not moved:
                raise Quiet(f"waited for {what}, and nothing has moved in {self.namespace} for {quiet:.0f} s")

    def _has_moved_since(self, seen: int) -> bool:
        return self._moves != seen

    def _keep(self, kind: str) -> None:
        """Follow the objects of a kind for as long as this is open."""
        since = ""
        while not self._closed:
            try:
                since = since or self._list(kind)
                since = self._follow(kind, since)
            except Unreachable:
                time.sleep(AGAIN_SECONDS)
            except ApiError as error:
                if error.status == GONE:
                    since = ""
                elif error.status in BUSY:
                    time.sleep(AGAIN_SECONDS)
                else:
                    self._fail(error)
                    return
            except Exception as error:  # whoever waits gets it
                self._fail(error)
                return

    def _list(self, kind: str) -> str:
        page = self._api.page(kind, self.namespace)
        fresh = {body["metadata"]["name"]: body for body in page["items"]}
        with self._moved:
            if self._objects.get(kind) != fresh:
                self._objects[kind] = fresh
                self._tell()
        version: str = page["metadata"]["resourceVersion"]
        return version

    def _follow(self, kind: str, since: str) -> str:
        """Take the events of one watch; return the version to go on from, empty to begin with a list again."""
        for event in self._api.watch(kind, self.namespace, since):
            if self._closed:
                return ""
            body = event["object"]
            if event["type"] == "ERROR":
                raise ApiError(body.get("code", 0), str(body.get("message")))
            since = body["metadata"]["resourceVersion"]
            if event["type"] != "BOOKMARK":
                self._take(kind, event["type"], body)
        return since

    def _take(self, kind: str, change: str, body: Body) -> None:
        with self._moved:
            if change == "DELETED":
                self._objects[kind].pop(body["metadata"]["name"], None)
            else:
                self._objects[kind][body["metadata"]["name"]] = body
            self._tell()

    def _fail(self, error: Exception) -> None:
        with self._moved:
            self._broken = None if self._closed else error
            self._tell()

    def _tell(self) -> None:
        self._moves += 1
        self._moved.notify_all()

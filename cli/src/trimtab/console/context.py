"""What all requests share: feeds, sessions, and the few things that are asked once a user and kept shortly."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from starlette.requests import HTTPConnection

from ..decisions import User, who_am_i
from ..errors import Invalid, NotAllowed, NotFound, NotInstalled, Problem
from ..kinds import Kind, kind_named
from ..objects import CustomObject, mapping, parse, text
from ..server import SELF_SUBJECT_REVIEWS, Resource
from .callers import Caller, Callers
from .feeds import Feeds
from .preferences import Preferences
from .sessions import Sessions
from .storage import Storage

KINDS: Final = ("finetunejobs", "finetunesweeps", "evaluations", "adapterrollouts")
"""That have pages, in the order of the menu."""
NAMESPACES = Resource("", "v1", "namespaces")
ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews")
KEPT, KEPT_SECONDS = 512, 60.0
NAMESPACES_SHOWN = 500
PATIENCE_SECONDS = 0.05
"""That a page which follows the cluster waits for lists, before it shows what was read of them."""

Value = TypeVar("Value")


@dataclass
class Kept:
    """Answers to questions of one user, for a minute."""

    _answers: OrderedDict[tuple[str, str], tuple[float, Any]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, caller: Caller, question: str, ask: Callable[[], Value]) -> Value:
        key, now = (caller.key, question), time.monotonic()
        with self._lock:
            known = self._answers.get(key)
        if known is not None and now - known[0] < KEPT_SECONDS:
            kept: Value = known[1]
            return kept
        answer = ask()
        with self._lock:
            self._answers[key] = (now, answer)
            while len(self._answers) > KEPT:
                self._answers.popitem(last=False)
        return answer


@dataclass(frozen=True)
class Found:
    """All objects of a namespace that a user may see.

    Attributes:
        not_shown: which kinds are not, and why.
        is_whole: whether all lists have been read to their end.
    """

    objects: list[CustomObject]
    not_shown: list[str]
    is_whole: bool


@dataclass
class Context:
    """A console.

    Attributes:
        address: of the API server, for people.
        secure: whether browsers come by HTTPS, for the cookie.
        storage: reads pages of reports, where the console was given keys.
        preferences: stores what people prefer, where it was given others for that.
    """

    callers: Callers
    feeds: Feeds
    sessions: Sessions
    address: str
    secure: bool
    storage: Storage | None = None
    preferences: Preferences | None = None
    kept: Kept = field(default_factory=Kept)

    def caller(self, request: HTTPConnection) -> Caller:
        return self.callers.caller(request)

    def user(self, caller: Caller) -> User:
        """Return the user as the API server knows them; without a name where it does not say."""

        def ask() -> User:
            try:
                return User.of(caller.server.create(SELF_SUBJECT_REVIEWS.path(), who_am_i()))
            except (Invalid, NotInstalled, NotAllowed):
                return User("")

        return self.kept.of(caller, "user", ask)

    def named_user(self, caller: Caller) -> User:
        """Return the user as the API server knows them.

        Raises:
            NotInstalled: it does not say.
        """
        user = self.user(caller)
        if not user.name:
            raise NotInstalled("the API server does not say who you are", "it has to be of version 1.28 or later")
        return user

    def may_prefer(self, caller: Caller, namespace: str, rollout: str) -> bool:
        """Return whether RBAC lets a user give preferences about the models of a rollout.

        The console writes them with keys of its own, so that it asks for a right of theirs first: to create the
        subresource `preferences` of that AdapterRollout, which nothing serves and which roles name all the same.
        """
        about = {"group": "trimtab.dev", "resource": "adapterrollouts", "subresource": "preferences"}
        attributes = {**about, "verb": "create", "namespace": namespace, "name": rollout}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }

        def ask() -> bool:
            return mapping(caller.server.create(ACCESS_REVIEWS.path(), body).get("status")).get("allowed") is True

        return self.kept.of(caller, f"preferences {namespace}/{rollout}", ask)

    def namespaces(self, caller: Caller) -> tuple[str, ...]:
        """Return the namespaces that the user may see; none where the user may not list them."""

        def ask() -> tuple[str, ...]:
            try:
                found = caller.server.items(NAMESPACES.path())
            except Problem:  # where that is more than a right, what the page itself asks for says so
                return ()
            return tuple(sorted(text(mapping(each.get("metadata")).get("name")) for each in found)[:NAMESPACES_SHOWN])

        return self.kept.of(caller, "namespaces", ask)

    def everything(self, caller: Caller, namespace: str, seconds: float = PATIENCE_SECONDS) -> Found:
        """Return all objects of a namespace that the user may see; of lists that take longer, what was read of them.

        Raises:
            Problem: none of the kinds can be seen.
        """
        kinds = [kind_named(plural) for plural in KINDS]
        self.feeds.begin(caller, kinds, namespace)
        found: list[CustomObject] = []
        refusals: list[Problem] = []
        not_shown = []
        is_whole, end = True, time.monotonic() + seconds
        for kind in kinds:
            try:
                seen = self.feeds.so_far(caller, kind, namespace, max(0.0, end - time.monotonic()))
                found += seen.objects
                is_whole = is_whole and seen.is_whole
            except (NotAllowed, NotInstalled) as problem:
                refusals.append(problem)
                if isinstance(problem, NotAllowed):
                    not_shown.append(f"{kind.name}s ({problem.sentence})")
        if len(refusals) == len(kinds):
            raise refusals[0]
        return Found(found, not_shown, is_whole)

    def one(
        self, caller: Caller, kind: Kind, namespace: str, name: str, seconds: float = PATIENCE_SECONDS
    ) -> tuple[CustomObject, Sequence[CustomObject]]:
        """Return an object, and the others of its namespace that the user may see, as `everything` does.

        Raises:
            Problem: it cannot be read, or is not there.
        """
        others: Sequence[CustomObject]
        try:
            others = self.everything(caller, namespace, seconds).objects
        except (NotAllowed, NotInstalled):
            others = ()
        for each in others:
            if each.kind == kind and each.name == name and each.namespace == namespace:
                return each, others
        path = Resource(kind.group, kind.version, kind.plural).path(namespace, name)
        try:
            return parse(kind, caller.server.get(path)), others
        except NotFound as problem:
            raise NotFound(f"there is no {kind.name} {name} in {namespace}", "look at the list") from problem

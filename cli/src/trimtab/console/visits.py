"""Who has signed in: a random name of a session in a cookie, and behind it what the provider gave for that person.

Tokens are in this process's memory and nowhere else; a console that starts again knows nobody. They are made new before
they expire, by whoever asks first, so that what is open goes on for as long as the provider lets it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from ..errors import NotAllowed, Unreachable
from .provider import Provider, Tokens
from .sessions import digest, new_session

VISITS = 1024
"""That are known at the same time; who asked longest ago goes first."""
VISITS_OF_ONE = 32
"""Of one person, in as many browsers: nobody signs the others out by signing in again and again."""
VISIT_SECONDS = 12 * 3600.0
"""After which a person signs in again, whatever the provider says."""
EARLY_SECONDS = 30.0
"""Before an ID token expires, another is asked for."""

PAUSE_SECONDS = 5.0
"""After a provider did not answer, until it is asked again for a person: each tab would hold up a thread."""


class NotSignedIn(NotAllowed):
    """Nobody, or somebody whose time is over."""

    def __init__(self, sentence: str = "you are not signed in") -> None:
        super().__init__(sentence, "sign in")


class Visit:
    """What a person who has signed in asks with."""

    def __init__(self, provider: Provider, tokens: Tokens, clock: Callable[[], float]) -> None:
        self._provider, self._tokens, self._clock = provider, tokens, clock
        self.subject = tokens.subject
        self._began = clock()
        self._is_over = False
        self._away: tuple[float, Unreachable] | None = None
        self._lock = threading.Lock()

    def end(self) -> None:
        self._is_over = True

    def id_token(self) -> str:
        """Return an ID token that holds for a while.

        Raises:
            NotSignedIn: the person has signed out, or the provider gives no more.
            Unreachable: the provider does not answer, and what it gave has expired.
        """
        with self._lock:  # one asks for a new one, the others wait: a refresh token may be good for one answer
            now = self._clock()
            if self._is_over or now - self._began > VISIT_SECONDS:
                raise NotSignedIn
            if self._tokens.expires - now < EARLY_SECONDS:
                self._refresh(now)
            return self._tokens.id_token

    def _refresh(self, now: float) -> None:
        """Ask for newer tokens; while those that there are still hold, it does no harm that there are none."""
        if self._away is not None and now - self._away[0] < PAUSE_SECONDS:
            if self._tokens.expires <= now:
                raise Unreachable(self._away[1].sentence, self._away[1].next_step)
            return
        try:
            self._tokens = self._provider.refreshed(self._tokens)
            self._away = None
        except Unreachable as problem:
            self._away = (self._clock(), problem)  # it may have taken its time
            if self._tokens.expires <= now:
                raise
        except NotAllowed as problem:
            if self._tokens.expires <= now:
                self._is_over = True
                raise NotSignedIn("your sign-in has expired") from problem

    def credentials(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.id_token()}"}


class Visits:
    """All who have signed in."""

    def __init__(self, provider: Provider, clock: Callable[[], float] = time.time) -> None:
        self.provider = provider
        self._clock = clock
        self._known: OrderedDict[str, Visit] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, tokens: Tokens) -> str:
        """Return the name of a new session of whom the tokens are."""
        name = new_session()
        with self._lock:
            own = [key for key, visit in self._known.items() if visit.subject == tokens.subject]
            for key in own[: max(0, len(own) + 1 - VISITS_OF_ONE)]:
                self._known.pop(key).end()
            self._known[digest(name)] = Visit(self.provider, tokens, self._clock)
            while len(self._known) > VISITS:
                self._known.popitem(last=False)[1].end()
        return name

    def of(self, name: str) -> Visit:
        """Return the visit of a session.

        Raises:
            NotSignedIn: there is none.
        """
        with self._lock:
            key = digest(name)
            if key not in self._known:
                raise NotSignedIn
            self._known.move_to_end(key)
            return self._known[key]

    def end(self, name: str) -> None:
        """End a session; one that is not known is none."""
        with self._lock:
            visit = self._known.pop(digest(name), None)
        if visit is not None:
            visit.end()

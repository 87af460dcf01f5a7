"""Sessions of browsers: a random name in a cookie, made anew at every login, and a token for forms that goes with it.

Nothing of a session is stored but its digest and when it was made: who may read the process's memory sees no cookie.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict

SESSIONS = 64
"""That are known at the same time; the oldest goes first."""


class Sessions:
    """Sessions that a one-time token opens."""

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = secret or secrets.token_bytes(32)
        self._token: str | None = None
        self._known: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def invitation(self) -> str:
        """Return a token that opens one session; the one before does no more."""
        with self._lock:
            self._token = secrets.token_urlsafe(32)
            return self._token

    def redeem(self, token: str) -> str | None:
        """Return the name of a new session for a token that was not used yet, else None."""
        with self._lock:
            if self._token is None or not hmac.compare_digest(self._token.encode(), token.encode()):
                return None
            self._token = None
            name = new_session()
            self._known[digest(name)] = None
            while len(self._known) > SESSIONS:
                self._known.popitem(last=False)
            return name

    def knows(self, name: str) -> bool:
        with self._lock:
            return digest(name) in self._known

    def form_token(self, name: str) -> str:
        """Return what a form of a session has to carry."""
        return hmac.new(self._secret, name.encode(), hashlib.sha256).hexdigest()

    def form_allowed(self, name: str, token: str) -> bool:
        return bool(name) and hmac.compare_digest(self.form_token(name).encode(), token.encode())


def new_session() -> str:
    return secrets.token_urlsafe(32)


def digest(name: str) -> str:
    """Return what a session is known by here: its name is the browser's alone."""
    return hashlib.sha256(name.encode()).hexdigest()

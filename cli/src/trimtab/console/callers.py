"""Who asks: `caller(request)` is the only way to an API server, and it is always the asking user's.

On loopback that is the user of the kubeconfig, for whoever has the session; in a cluster it is whose bearer token the
request carries, as an authenticating proxy sets it, or who has signed in at a provider. Without any of these there is
no server: the console has no account of its own to fall back to.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from starlette.requests import HTTPConnection

from ..errors import NotAllowed
from ..kubeconfig import connection_to
from ..server import Server
from .sessions import Sessions, digest
from .visits import Visits

TOKEN_HEADERS = ("x-forwarded-access-token", "authorization")
"""In this order: behind a proxy that also authenticates itself the first is the user's."""
TOKEN_BYTES = 16_384
SameSite = Literal["strict", "lax"]
CALLERS = 256
"""Whose connections are kept; the one that asked longest ago goes first."""


@dataclass(frozen=True)
class Caller:
    """A user of an API server.

    Attributes:
        key: of what is kept for this user alone; it is no secret and says nothing of one.
        namespace: that is meant where none is said.
        session: name of the browser's session, empty before it has one.
        is_signed_in: whether the session is one that can be signed out of.
    """

    key: str
    server: Server = field(repr=False)
    namespace: str
    session: str = field(repr=False)
    is_signed_in: bool = False


class Callers(Protocol):
    """How callers are known."""

    @property
    def cookie(self) -> str:
        """Name of the cookie with the session."""

    @property
    def same_site(self) -> SameSite:
        """When browsers send that cookie with what another site leads to."""

    def caller(self, request: HTTPConnection) -> Caller:
        """Return who asks.

        Raises:
            NotAllowed: nobody that is known.
        """


@dataclass(frozen=True)
class OfKubeconfig:
    """The user of a kubeconfig, for browsers with a session."""

    server: Server
    namespace: str
    sessions: Sessions
    cookie: str
    same_site: SameSite = "strict"

    def caller(self, request: HTTPConnection) -> Caller:
        session = request.cookies.get(self.cookie, "")
        if not self.sessions.knows(session):
            raise NotAllowed("this browser has no session", "open the address that kubectl trimtab ui printed")
        return Caller("kubeconfig", self.server, self.namespace, session)


class OfBearerToken:
    """The user whose token a request carries.

    Args:
        address, authority: of the API server, and the file with its certificate authority.
        namespace: that is shown first.
    """

    def __init__(self, address: str, authority: str, namespace: str, cookie: str) -> None:
        self._address, self._authority, self._namespace = address, authority, namespace
        self.cookie = cookie
        self.same_site: SameSite = "strict"
        self._servers: OrderedDict[str, Server] = OrderedDict()
        self._lock = threading.Lock()

    def caller(self, request: HTTPConnection) -> Caller:
        token = _token(request)
        if not token:
            raise NotAllowed("nobody is logged in", "the proxy in front of the console has to send the user's token")
        key = hashlib.sha256(token.encode()).hexdigest()
        return Caller(key, self._server(key, token), self._namespace, request.cookies.get(self.cookie, ""))

    def _server(self, key: str, token: str) -> Server:
        with self._lock:
            if key not in self._servers:
                self._servers[key] = Server(connection_to(self._address, {"token": token}, self._authority))
            self._servers.move_to_end(key)
            while len(self._servers) > CALLERS:
                self._servers.popitem(last=False)[1].close()
            return self._servers[key]


class OfProvider:
    """Who has signed in at an OpenID Connect provider; the ID token is the bearer token. Headers count for nothing.

    Args:
        address, authority: of the API server, and the file with its certificate authority.
        namespace: that is shown first.
    """

    def __init__(self, address: str, authority: str, namespace: str, cookie: str, visits: Visits) -> None:
        self._connection = connection_to(address, {}, authority)
        self._namespace = namespace
        self.cookie = cookie
        # Who comes back from the provider, or by a link in a message, is signed in; forms have tokens and origins.
        self.same_site: SameSite = "lax"
        self.visits = visits

    def caller(self, request: HTTPConnection) -> Caller:
        session = request.cookies.get(self.cookie, "")
        visit = self.visits.of(session)
        visit.id_token()  # before anything is asked, so that nobody gets half a page
        server = Server(replace(self._connection, credentials=visit.credentials))
        return Caller(digest(session), server, self._namespace, session, is_signed_in=True)


def _token(request: HTTPConnection) -> str:
    """Return the bearer token of a request; empty without one, or where it is none."""
    for name in TOKEN_HEADERS:
        told = request.headers.get(name, "")
        scheme, _, rest = told.partition(" ")
        value = rest.strip() if scheme.lower() == "bearer" else told if name != "authorization" else ""
        if value and len(value) <= TOKEN_BYTES and value.isascii() and value.isprintable() and " " not in value:
            return value
    return ""

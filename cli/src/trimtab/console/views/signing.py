"""Signing in at an OpenID Connect provider, and out: authorization code with PKCE, state and nonce.

Nothing is kept of who has not signed in yet: the browser has a random cookie for each sign-in with the time and the
page that it wanted, and state, nonce and verifier are derived from the whole of it with a secret of this process. A
code that somebody else began does not fit the browser's cookie, so nobody is signed in as another without knowing it.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from ...errors import NotAllowed, Unreachable
from ...text import clean
from ..addresses import within
from ..callers import Caller
from ..context import Context
from ..visits import Visits
from .responding import set_session, templates

SIGN_IN, CALLBACK, SIGN_OUT, SIGNED_OUT = "/sign-in", "/callback", "/sign-out", "/signed-out"
BEGUN_SECONDS = 600
"""How long a person may take at the provider."""
PATH_LENGTH = 1500
"""Of a page that is gone back to: the cookie has it."""
BEGUN_BYTES = 3000
"""Of the cookies of a browser that signs in in several tabs: proxies take 8 KiB of a header, with all else in it."""
MARK_LENGTH = 12
"""Of the state, in the name of its cookie."""


class Signing:
    """The pages of signing in and out."""

    def __init__(self, context: Context, visits: Visits) -> None:
        self._context, self._visits = context, visits
        self._secret = secrets.token_bytes(32)
        self._cookie = f"{context.callers.cookie}-sign-in"

    def begin(self, request: Request) -> Response:
        """Send the browser to the provider."""
        wanted = within(request.query_params.get("to", "/"))
        path = urlsafe_b64encode((wanted if len(wanted) <= PATH_LENGTH else "/").encode()).decode()
        begun = f"{secrets.token_urlsafe(32)}.{int(time.time())}.{path}"
        state, nonce, verifier = (self._derived(what, begun) for what in ("state", "nonce", "verifier"))
        address = self._visits.provider.sign_in(self._own(request, CALLBACK), state, nonce, verifier)
        response = RedirectResponse(address, 303)
        # The way back comes from another site, so that a strict cookie would not come with it.
        response.set_cookie(
            self._named(state), begun, max_age=BEGUN_SECONDS, path="/", httponly=True, samesite="lax",
            secure=self._context.secure,
        )  # fmt: skip
        ours = re.compile(rf"{re.escape(self._cookie)}-[0-9a-f]{{{MARK_LENGTH}}}")
        others = {name: told for name, told in request.cookies.items() if ours.fullmatch(name)}
        if sum(map(len, others.values())) + len(begun) > BEGUN_BYTES:
            for name in others:
                self._forget(response, name)
        return response

    def end(self, request: Request) -> Response:
        """Take the code with which the provider sent the browser back, and begin a new session.

        Raises:
            NotAllowed: this browser has not begun it, or the provider says no.
        """
        query = request.query_params
        cookie = self._named(query.get("state", ""))
        begun = request.cookies.get(cookie, "")
        path = self._page_of(begun)
        if path is None or not hmac.compare_digest(
            self._derived("state", begun).encode(), query.get("state", "").encode()
        ):
            raise NotAllowed("this sign-in was not begun by this browser, or took too long", "go to the first page")
        if query.get("iss", self._visits.provider.settings.issuer) != self._visits.provider.settings.issuer:  # RFC 9207
            raise NotAllowed("another provider answered", "go to the first page")
        if query.get("error") or not query.get("code"):
            said = clean(query.get("error", "no code"))[:100]
            raise NotAllowed(f"the provider says no ({said})", "go to the first page")
        tokens = self._visits.provider.tokens(
            self._own(request, CALLBACK), query["code"], self._derived("nonce", begun), self._derived("verifier", begun)
        )
        self._visits.end(request.cookies.get(self._context.callers.cookie, ""))
        response = RedirectResponse(path, 303)
        set_session(self._context, response, self._visits.begin(tokens))
        self._forget(response, cookie)
        return response

    def leave(self, request: Request, caller: Caller) -> Response:
        """End a session; the provider's own goes on until the person ends it there."""
        self._visits.end(caller.session)
        response = RedirectResponse(SIGNED_OUT, 303)
        self._forget(response, self._context.callers.cookie)
        return response

    def left(self, request: Request) -> Response:
        """Say that it is over, and how the provider's session is ended too."""
        try:
            there = self._visits.provider.sign_out(self._own(request, SIGNED_OUT))
        except Unreachable:  # it is over here all the same
            there = ""
        return HTMLResponse(templates().get_template("signed-out.html").render(there=there))

    def _own(self, request: Request, path: str) -> str:
        """Return an address of the console; the name is one of its own, or the request would not be here."""
        return f"{'https' if self._context.secure else 'http'}://{request.headers['host']}{path}"

    def _named(self, state: str) -> str:
        """Return the name of the cookie of a sign-in: tabs that sign in at the same time keep out of each other's."""
        return f"{self._cookie}-{state[:MARK_LENGTH]}"

    def _derived(self, what: str, begun: str) -> str:
        return hmac.new(self._secret, f"{what} {begun}".encode(), sha256).hexdigest()

    @staticmethod
    def _page_of(begun: str) -> str | None:
        """Return the page that was wanted, None for a cookie that is none or too old."""
        try:
            _, since, path = begun.split(".")
            if not 0 <= time.time() - int(since) <= BEGUN_SECONDS:
                return None
            return within(urlsafe_b64decode(path).decode())
        except ValueError:
            return None

    def _forget(self, response: Response, cookie: str) -> None:
        response.delete_cookie(cookie, path="/", httponly=True, samesite="lax", secure=self._context.secure)


def way_in(request: Request) -> str:
    """Return where a person who is not signed in begins, to come back to this page."""
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return f"{SIGN_IN}?to={quote(here, safe='/')}"

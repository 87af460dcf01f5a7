"""An OpenID Connect provider, asked as the client that the console is there (OpenID Connect Core 1.0; PKCE, RFC 7636).

What is asked of it and what it answers is checked here: that it is the provider that was named, that an ID token is for
this client and this sign-in and is signed by the provider's keys. authlib and joserfc do the protocol and the
cryptography; they are an extra, imported when somebody signs in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

from ..errors import Invalid, NotAllowed, Unreachable
from ..objects import mapping, sequence, text
from ..text import clean

DISCOVERY = "/.well-known/openid-configuration"
SCOPES = ("openid", "profile", "email", "offline_access")
ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"
)  # fmt: skip
"""Of ID tokens: those with a public key."""
SECONDS, LEEWAY_SECONDS = 10.0, 60
"""For an answer, and between its clock and this one's."""
KNOWN_SECONDS = 600.0
"""How long its addresses are believed."""
REFUSED_SECONDS = 2.0
"""How long it is not asked again for them when it did not tell them: whoever comes would hold up a thread."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
INSTALL = "install the console with its extra oidc: uv tool install './cli[ui,oidc]' from a checkout"

Value = TypeVar("Value")


@dataclass(frozen=True)
class Settings:
    """How the console is known to a provider.

    Attributes:
        issuer: address, exactly as ID tokens name it.
        client_secret: empty for a public client, which PKCE alone protects.
        authority: file with certificates that are trusted; this machine's if it is empty.
    """

    issuer: str
    client_id: str
    client_secret: str = field(default="", repr=False)
    scopes: Sequence[str] = SCOPES
    authority: str = ""

    def __post_init__(self) -> None:
        if not _is_safe(self.issuer):
            raise Invalid(f"the issuer {self.issuer!r} is no https address", "write https://login.example.com")
        if not self.client_id:
            raise Invalid("the provider's client has no id", "give --oidc-client-id")


@dataclass(frozen=True)
class Tokens:
    """What a provider gave for a person.

    Attributes:
        subject: who they are there.
        expires: when the ID token does, in seconds since 1970.
        refresh_token: empty where it gave none.
    """

    subject: str
    id_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires: float


class Provider:
    """One provider; it may be asked from several threads."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self._clock = clock
        self._known: tuple[float, Mapping[str, Any]] | None = None
        self._refused: tuple[float, Unreachable] | None = None
        self._lock = threading.Lock()

    def sign_in(self, back: str, state: str, nonce: str, verifier: str) -> str:
        """Return the address at which a person says who they are, and which leads them back with a code."""
        address, _ = self._session(back).create_authorization_url(
            self._address("authorization_endpoint"), state=state, nonce=nonce, code_verifier=verifier
        )
        return str(address)

    def tokens(self, back: str, code: str, nonce: str, verifier: str) -> Tokens:
        """Return what the provider gives for a code, and what its ID token says.

        Raises:
            NotAllowed: it does not take the code, or the ID token is not for this sign-in.
            Unreachable: it does not answer.
        """

        def ask() -> Mapping[str, Any]:
            address = self._address("token_endpoint")
            given: Mapping[str, Any] = self._session(back).fetch_token(
                address, grant_type="authorization_code", code=code, redirect_uri=back, code_verifier=verifier,
                allow_redirects=False,
            )  # fmt: skip
            return given

        return self._checked(self._asked(ask), nonce)

    def refreshed(self, tokens: Tokens) -> Tokens:
        """Return newer tokens of the same person.

        Raises:
            NotAllowed: the provider gives none any more.
            Unreachable: it does not answer.
        """
        if not tokens.refresh_token:
            raise NotAllowed("what the provider gave has expired", "sign in again")

        def ask() -> Mapping[str, Any]:
            session, address = self._session(""), self._address("token_endpoint")
            session.scope = None  # those of the first time
            given: Mapping[str, Any] = session.refresh_token(
                address, refresh_token=tokens.refresh_token, allow_redirects=False
            )
            return given

        given = self._asked(ask)
        if not given.get("id_token"):
            raise NotAllowed("the provider gave no new ID token", "sign in again")
        found = self._checked({"refresh_token": tokens.refresh_token, **given}, None)
        if found.subject != tokens.subject:
            raise NotAllowed("the provider answered for somebody else", "sign in again")
        return found

    def sign_out(self, back: str) -> str:
        """Return where a person ends their session at the provider, empty where it has no such place."""
        address = text(self._metadata().get("end_session_endpoint"))
        query = urlencode({"client_id": self.settings.client_id, "post_logout_redirect_uri": back})
        return f"{address}{'&' if '?' in address else '?'}{query}" if _is_safe(address) else ""

    def _session(self, back: str) -> Any:
        try:
            from authlib.integrations.requests_client import OAuth2Session
        except ImportError as error:
            raise Invalid(f"signing people in needs {error.name}, which is not installed", INSTALL) from error
        settings = self.settings
        methods = sequence(self._metadata().get("token_endpoint_auth_methods_supported")) or ["client_secret_basic"]
        basic = "client_secret_basic" if "client_secret_basic" in methods else "client_secret_post"
        made = OAuth2Session(
            settings.client_id,
            settings.client_secret or None,
            token_endpoint_auth_method=basic if settings.client_secret else "none",
            scope=" ".join(settings.scopes),
            redirect_uri=back,
            code_challenge_method="S256",
            default_timeout=SECONDS,
        )
        made.verify = settings.authority or True
        made.trust_env = not settings.authority  # else requests prefers an authority of the environment
        return made

    def _address(self, name: str) -> str:
        address = text(self._metadata().get(name))
        if not _is_safe(address):
            raise Unreachable(f"the provider {self.settings.issuer} tells no {name}", "is it the right issuer?")
        return address

    def _metadata(self) -> Mapping[str, Any]:
        with self._lock:  # whoever comes meanwhile waits for the same answer
            if self._known is not None and self._clock() - self._known[0] < KNOWN_SECONDS:
                return self._known[1]
            if self._refused is not None and self._clock() - self._refused[0] < REFUSED_SECONDS:
                raise Unreachable(self._refused[1].sentence, self._refused[1].next_step)
            try:
                self._known = (self._clock(), self._discovered())
            except Unreachable as problem:
                self._refused = (self._clock(), problem)
                raise
            return self._known[1]

    def _discovered(self) -> Mapping[str, Any]:
        told = self._read(self.settings.issuer.rstrip("/") + DISCOVERY)
        if told.get("issuer") != self.settings.issuer:
            raise Unreachable(
                f"the provider calls itself {clean(told.get('issuer'))} and not {self.settings.issuer}",
                "name it as it names itself, to the last slash",
            )
        return told

    def _read(self, address: str) -> Mapping[str, Any]:
        import requests

        def ask() -> Mapping[str, Any]:
            with requests.Session() as session:
                session.trust_env = not self.settings.authority
                answer = session.get(
                    address, timeout=SECONDS, verify=self.settings.authority or True, allow_redirects=False
                )
                if answer.status_code != 200:
                    raise Unreachable(f"the provider answered {answer.status_code} at {address}", "is it up?")
                return mapping(answer.json())

        return self._asked(ask)

    def _checked(self, given: Mapping[str, Any], nonce: str | None) -> Tokens:
        """Return the tokens of an answer whose ID token is signed by the provider, for this client and sign-in.

        Raises:
            NotAllowed: it is not.
        """
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        written = text(given.get("id_token"))
        keys = self._read(self._address("jwks_uri"))
        offered = sequence(self._metadata().get("id_token_signing_alg_values_supported")) or ["RS256"]
        try:
            told = jwt.decode(
                written,
                KeySet.import_key_set(keys),  # type: ignore[arg-type]  # it refuses what are none
                algorithms=[each for each in ALGORITHMS if each in offered],
            )
            claims = CodeIDToken(
                told.claims,
                told.header,
                {"iss": {"values": [self.settings.issuer]}, "aud": {"values": [self.settings.client_id]}},
                {"nonce": nonce, "client_id": self.settings.client_id, "access_token": given.get("access_token")},
            )
            claims.validate(now=int(self._clock()), leeway=LEEWAY_SECONDS)
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise NotAllowed(f"the provider's ID token does not hold ({_short(error)})", "sign in again") from error
        return Tokens(str(claims["sub"]), written, text(given.get("refresh_token")), float(claims["exp"]))

    def _asked(self, ask: Callable[[], Value]) -> Value:
        """Return what asking gives; what goes wrong says nothing of codes and tokens."""
        import requests
        from authlib.common.errors import AuthlibBaseError

        try:
            return ask()
        except AuthlibBaseError as error:
            raise NotAllowed(f"the provider says no ({_short(error)})", "sign in again") from error
        except (requests.RequestException, OSError, ValueError) as error:
            raise Unreachable(
                f"the provider {self.settings.issuer} does not answer ({type(error).__name__})",
                "is it up, and its certificate trusted? Try it again",
            ) from error


def _is_safe(address: str) -> bool:
    """Tell whether an address is reached so that nobody reads along."""
    parts = urlsplit(address)
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK))


def _short(error: Exception) -> str:
    told = getattr(error, "error", "") or type(error).__name__
    more = getattr(error, "description", "")
    return clean(f"{told}: {more}" if more else told)[:200]

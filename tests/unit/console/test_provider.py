"""Providers that are not what they should be: each is told in a sentence, and none of them signs anybody in.

A real provider is asked in tests/component/console/test_signing.py; these answer what no real one would.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from starlette.testclient import TestClient
from trimtab.console import visits
from trimtab.console.app import Console
from trimtab.console.callers import OfProvider
from trimtab.console.context import Context
from trimtab.console.feeds import Feeds
from trimtab.console.provider import Provider, Settings, Tokens
from trimtab.console.sessions import Sessions
from trimtab.console.visits import NotSignedIn, Visits
from trimtab.errors import Invalid, NotAllowed, Problem, Unreachable

from tests.unit.cli.cluster import NAMESPACE
from tests.unit.console.conftest import WatchedCluster

KEY, OTHER = RSAKey.generate_key(2048, {"kid": "a"}), RSAKey.generate_key(2048, {"kid": "a"})
BACK, CLIENT, SECRET = "https://console.example.com/callback", "trimtab", "a-secret-of-the-client"
HOST = "console.example.com"


@dataclass
class FakeProvider:
    """Answers what a test wants of it.

    Attributes:
        claims: that are other than they should be; without a value they are left out.
        answers: by path, instead of what would be right.
        asked: forms of the token endpoint.
    """

    issuer: str = ""
    claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=lambda: {"alg": "RS256", "kid": "a"})
    key: Any = field(default_factory=lambda: KEY)
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)
    nonce: str = "a-nonce"
    lifetime: float = 3600

    def answer(self, path: str, form: dict[str, str]) -> tuple[int, Any]:
        if path == "/token":
            self.asked.append(form)
        if path in self.answers:
            return self.answers[path]
        if path == "/.well-known/openid-configuration":
            told = {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/auth",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
            }
            return 200, {name: value for name, value in {**told, **self.metadata}.items() if value is not None}
        if path == "/keys":
            return 200, {"keys": [KEY.as_dict(private=False)]}
        if path == "/token":
            return 200, {
                "access_token": "opaque",
                "token_type": "Bearer",
                "refresh_token": "r2",
                "id_token": self.signed(),
            }
        return 404, {}

    def signed(self) -> str:
        now = int(time.time())
        told = {
            "iss": self.issuer, "aud": CLIENT, "sub": "jane", "iat": now, "exp": now + self.lifetime,
            "nonce": self.nonce, **self.claims,
        }  # fmt: skip
        claims = {name: value for name, value in told.items() if value is not None}
        return jwt.encode(self.header, claims, self.key, algorithms=[self.header["alg"]])


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    made = FakeProvider()

    class Handler(BaseHTTPRequestHandler):
        def _respond(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            form = dict(parse_qsl(self.rfile.read(size).decode()))
            code, told = made.answer(urlsplit(self.path).path, form)
            raw = told if isinstance(told, bytes) else json.dumps(told).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.send_header("Location", "https://evil.example.com/")
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = _respond

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 its name in the base class
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.issuer = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def provider(fake: FakeProvider) -> Provider:
    return Provider(Settings(fake.issuer, CLIENT, SECRET))


def given(provider: Provider) -> Tokens:
    return provider.tokens(BACK, "a-code", "a-nonce", "a-verifier")


def test_what_is_right_is_taken(fake: FakeProvider, provider: Provider) -> None:
    tokens = given(provider)
    assert (tokens.subject, tokens.refresh_token) == ("jane", "r2")
    assert tokens.id_token.count(".") == 2
    assert tokens.id_token not in repr(tokens)
    (form,) = fake.asked
    assert form["code_verifier"] == "a-verifier"
    assert form["redirect_uri"] == BACK
    assert SECRET not in repr(provider.settings)


def test_the_address_of_the_sign_in_has_all_that_binds_it(provider: Provider) -> None:
    query = parse_qs(urlsplit(provider.sign_in(BACK, "a-state", "a-nonce", "a-verifier")).query)
    assert query["response_type"] == ["code"]
    assert query["code_challenge_method"] == ["S256"]
    assert query["code_challenge"] != ["a-verifier"]
    assert (query["state"], query["nonce"], query["redirect_uri"]) == (["a-state"], ["a-nonce"], [BACK])
    assert query["scope"] == ["openid profile email offline_access"]
    assert "client_secret" not in query


NOW = int(time.time())
WRONG: dict[str, dict[str, Any]] = {
    "of another sign-in": {"claims": {"nonce": "another"}},
    "of no sign-in": {"claims": {"nonce": None}},
    "of another provider": {"claims": {"iss": "https://evil.example.com"}},
    "of no provider": {"claims": {"iss": None}},
    "for another client": {"claims": {"aud": "another"}},
    "for several clients, and given to another": {"claims": {"aud": [CLIENT, "another"], "azp": "another"}},
    "for nobody": {"claims": {"aud": None}},
    "of nobody": {"claims": {"sub": None}},
    "that has expired": {"claims": {"exp": NOW - 3600}},
    "that never expires": {"claims": {"exp": None}},
    "of the future": {"claims": {"iat": NOW + 7200}},
    "for another access token": {"claims": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}},
    "signed by somebody else": {"key": OTHER},
    "of a key that is not known": {"header": {"alg": "RS256", "kid": "b"}},
    "signed with the client's secret": {"header": {"alg": "HS256"}, "key": OctKey.import_key(SECRET)},
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_an_id_token(case: str, fake: FakeProvider, provider: Provider) -> None:
    for name, value in WRONG[case].items():
        setattr(fake, name, value)
    with pytest.raises(NotAllowed, match="the provider's ID token does not hold") as refused:
        given(provider)
    assert "eyJ" not in str(refused.value)


def unsigned(fake: FakeProvider) -> str:
    _, claims, _ = fake.signed().split(".")
    return f"eyJhbGciOiJub25lIn0.{claims}."


@pytest.mark.parametrize(
    "written", ["", "a", "a.b.c", "eyJ.eyJ.", unsigned], ids=["empty", "a", "three letters", "no JSON", "unsigned"]
)
def test_what_is_no_id_token(written: Any, fake: FakeProvider, provider: Provider) -> None:
    token = written(fake) if callable(written) else written
    fake.answers["/token"] = (200, {"access_token": "a", "token_type": "Bearer", "id_token": token})
    with pytest.raises(NotAllowed, match="the provider's ID token does not hold"):
        given(provider)


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"metadata": {"issuer": "https://evil.example.com"}}, Unreachable, "calls itself https://evil.example.com"),
        ({"metadata": {"token_endpoint": "http://evil.example.com/token"}}, Unreachable, "tells no token_endpoint"),
        ({"metadata": {"token_endpoint": None}}, Unreachable, "tells no token_endpoint"),
        ({"metadata": {"jwks_uri": "file:///etc/passwd"}}, Unreachable, "tells no jwks_uri"),
        ({"answers": {"/.well-known/openid-configuration": (500, {})}}, Unreachable, "answered 500"),
        ({"answers": {"/.well-known/openid-configuration": (302, {})}}, Unreachable, "answered 302"),
        ({"answers": {"/.well-known/openid-configuration": (200, b"<html>")}}, Unreachable, "does not answer"),
        ({"answers": {"/token": (400, {"error": "invalid_grant"})}}, NotAllowed, "says no (invalid_grant"),
        ({"answers": {"/token": (302, b"")}}, Unreachable, "does not answer"),
        ({"answers": {"/token": (200, b"<html>")}}, Unreachable, "does not answer"),
        ({"answers": {"/token": (500, b"no")}}, Unreachable, "does not answer"),
        ({"answers": {"/keys": (200, {"keys": []})}}, NotAllowed, "does not hold"),
        ({"answers": {"/keys": (200, {"keys": "a"})}}, NotAllowed, "does not hold"),
        ({"answers": {"/keys": (404, {})}}, Unreachable, "answered 404"),
    ],
    ids=str,
)
def test_a_provider_that_is_none(
    changes: dict[str, Any], error: type[Problem], sentence: str, fake: FakeProvider, provider: Provider
) -> None:
    for name, value in changes.items():
        setattr(fake, name, value)
    with pytest.raises(error) as refused:
        given(provider)
    assert sentence in str(refused.value)
    assert "a-code" not in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_provider_that_does_not_answer_is_not_asked_by_everybody(fake: FakeProvider) -> None:
    clock = Clock()
    provider = Provider(Settings(fake.issuer, CLIENT, SECRET), clock)
    fake.answers["/.well-known/openid-configuration"] = (503, {})
    with pytest.raises(Unreachable, match="answered 503"):
        given(provider)
    del fake.answers["/.well-known/openid-configuration"]
    with pytest.raises(Unreachable, match="answered 503"):
        given(provider)
    clock.ahead = 3
    assert given(provider).subject == "jane"


@pytest.mark.parametrize("issuer", ["http://login.example.com", "login.example.com", "ftp://a", "", "https://"])
def test_an_issuer_that_others_could_read_along_is_refused(issuer: str) -> None:
    with pytest.raises(Invalid, match="is no https address"):
        Settings(issuer, CLIENT)
    with pytest.raises(Invalid, match="has no id"):
        Settings("https://login.example.com", "")


def test_without_a_secret_none_is_sent(fake: FakeProvider) -> None:
    given(Provider(Settings(fake.issuer, CLIENT)))
    assert fake.asked[0]["client_id"] == CLIENT
    assert "client_secret" not in fake.asked[0]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def visit(provider: Provider, clock: Clock) -> visits.Visit:
    known = Visits(provider, clock)
    return known.of(known.begin(given(provider)))


def test_tokens_are_made_new_shortly_before_they_expire(fake: FakeProvider, provider: Provider, clock: Clock) -> None:
    mine = visit(provider, clock)
    first = mine.id_token()
    assert mine.id_token() == first
    clock.ahead, fake.lifetime = 3590, 7200
    second = mine.id_token()
    assert second != first
    assert [each["grant_type"] for each in fake.asked] == ["authorization_code", "refresh_token"]
    assert fake.asked[1]["refresh_token"] == "r2"
    assert mine.credentials() == {"Authorization": f"Bearer {second}"}


def test_a_provider_that_is_away_is_waited_for_while_tokens_hold(
    fake: FakeProvider, provider: Provider, clock: Clock
) -> None:
    mine = visit(provider, clock)
    fake.answers["/token"] = (500, b"no")
    clock.ahead = 3590
    assert mine.id_token()
    clock.ahead = 3700
    with pytest.raises(Unreachable):
        mine.id_token()
    del fake.answers["/token"]
    fake.lifetime = 7200
    clock.ahead += visits.PAUSE_SECONDS
    assert mine.id_token()


def test_a_provider_that_is_away_is_not_asked_by_every_tab(
    fake: FakeProvider, provider: Provider, clock: Clock
) -> None:
    """Each would wait for it in a thread of its own, one after the other."""
    mine = visit(provider, clock)
    fake.answers["/token"] = (500, b"no")
    fake.asked.clear()
    clock.ahead = 3590
    assert {mine.id_token() for _ in range(20)} == {mine.id_token()}
    assert len(fake.asked) == 1
    clock.ahead = 3700
    for _ in range(20):
        with pytest.raises(Unreachable, match="does not answer"):
            mine.id_token()
    assert len(fake.asked) == 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"answers": {"/token": (400, {"error": "invalid_grant"})}}, "your sign-in has expired"),
        ({"claims": {"sub": "eve"}}, "your sign-in has expired"),
        ({"answers": {"/token": (200, {"access_token": "a", "token_type": "Bearer"})}}, "your sign-in has expired"),
    ],
    ids=str,
)
def test_who_gets_no_more_signs_in_again(
    changes: dict[str, Any], sentence: str, fake: FakeProvider, provider: Provider, clock: Clock
) -> None:
    mine = visit(provider, clock)
    for name, value in changes.items():
        setattr(fake, name, value)
    clock.ahead = 3700
    for _ in range(2):
        with pytest.raises(NotSignedIn):
            mine.id_token()


def test_after_a_day_of_work_a_person_signs_in_again(fake: FakeProvider, provider: Provider, clock: Clock) -> None:
    fake.lifetime = 10 * 86400
    mine = visit(provider, clock)
    clock.ahead = visits.VISIT_SECONDS + 1
    with pytest.raises(NotSignedIn):
        mine.id_token()


def test_visits_are_bounded_and_end(provider: Provider, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "VISITS", 2)
    known, tokens = Visits(provider, clock), given(provider)
    names = [known.begin(tokens) for _ in range(2)]
    kept = known.of(names[0])
    known.begin(tokens)
    with pytest.raises(NotSignedIn):
        known.of(names[1])
    known.end(names[0])
    known.end("none")
    with pytest.raises(NotSignedIn):
        kept.id_token()


def test_who_signs_in_again_and_again_ends_their_own_oldest_visit_and_nobody_elses(
    provider: Provider, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visits, "VISITS", 4)
    monkeypatch.setattr(visits, "VISITS_OF_ONE", 2)
    known, mine = Visits(provider, clock), given(provider)
    theirs = known.begin(replace(mine, subject="somebody-else"))
    names = [known.begin(mine) for _ in range(5)]
    assert known.of(theirs)
    for name in names[:3]:
        with pytest.raises(NotSignedIn):
            known.of(name)
    assert all(known.of(name) for name in names[3:])


@pytest.fixture
def signing(cluster: WatchedCluster, feeds: Feeds, provider: Provider) -> TestClient:
    """A browser by HTTPS of a console whose people sign in."""
    sessions = Sessions()
    callers = OfProvider(cluster.address, "", NAMESPACE, "__Host-trimtab", Visits(provider))
    context = Context(callers, feeds, sessions, cluster.address, secure=True)
    return TestClient(Console(context, [HOST]).app, base_url=f"https://{HOST}", follow_redirects=False)


def signed_in(browser: TestClient, fake: FakeProvider, path: str = "/ns/team-a/finetunejobs") -> str:
    way = browser.get(browser.get(path).headers["location"]).headers["location"]
    query = parse_qs(urlsplit(way).query)
    fake.nonce = query["nonce"][0]
    return f"/callback?code=a-code&state={query['state'][0]}"


def test_the_id_token_is_what_the_api_server_is_asked_with(
    signing: TestClient, fake: FakeProvider, cluster: WatchedCluster
) -> None:
    answer = signing.get(signed_in(signing, fake))
    assert (answer.status_code, answer.headers["location"]) == (303, "/ns/team-a/finetunejobs")
    for cookie in answer.headers.get_list("set-cookie"):
        assert cookie.startswith("__Host-trimtab")
        assert all(each in cookie for each in ("HttpOnly", "Secure", "Path=/", "SameSite=lax"))
    assert signing.get("/ns/team-a/finetunejobs", headers={"Authorization": "Bearer another"}).status_code == 200
    tokens = {each.headers["Authorization"] for each in cluster.asked}
    assert len(tokens) == 1
    assert tokens.pop().startswith("Bearer eyJ")


@pytest.mark.parametrize("more", ["&iss=https://evil.example.com", "&error=access_denied"])
def test_an_answer_of_somebody_else_signs_nobody_in(more: str, signing: TestClient, fake: FakeProvider) -> None:
    answer = signing.get(signed_in(signing, fake) + more)
    assert answer.status_code == 403
    assert fake.asked == []
    assert "__Host-trimtab" not in signing.cookies


def test_a_sign_in_that_takes_too_long_is_begun_again(
    signing: TestClient, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = signed_in(signing, fake)
    monkeypatch.setattr("trimtab.console.views.signing.BEGUN_SECONDS", -1)
    assert "took too long" in signing.get(way).text
    assert fake.asked == []


@pytest.mark.parametrize("cookie", ["", "a", "a.b.c", "a.1.====", "a.99999999999.Lw==", "a.1.Lw=="])
def test_a_cookie_that_was_made_up_begins_nothing(cookie: str, signing: TestClient, fake: FakeProvider) -> None:
    for state in ("", "abcdefghijkl"):
        signing.cookies.set(f"__Host-trimtab-sign-in-{state}", cookie)
        assert signing.get(f"/callback?code=a&state={state}").status_code == 403
    assert signing.get("/callback").status_code == 403
    assert fake.asked == []


def test_a_long_address_is_not_carried_along(signing: TestClient, fake: FakeProvider) -> None:
    way = signed_in(signing, fake, f"/ns/team-a?text={'a' * 4000}")
    assert signing.get(way).headers["location"] == "/"


def test_tabs_that_sign_in_at_the_same_time_all_get_where_they_were(signing: TestClient, fake: FakeProvider) -> None:
    ways = [(path, signed_in(signing, fake, path), fake.nonce) for path in ("/ns/team-a", "/ns/team-b")]
    assert len({way for _, way, _ in ways}) == 2
    for path, way, nonce in ways:
        fake.nonce = nonce
        assert signing.get(way).headers["location"] == path
    assert [name for name in signing.cookies if "sign-in" in name] == []
    assert signing.get(ways[0][1]).status_code == 403, "each is good for one answer"


def test_sign_ins_that_are_not_ended_do_not_fill_the_header(signing: TestClient, fake: FakeProvider) -> None:
    for number in range(30):
        way = signed_in(signing, fake, f"/ns/team-a?text={'a' * 700}{number}")
        assert sum(len(name) + len(told) for name, told in signing.cookies.items()) < 4000
    assert signing.get(way).status_code == 303


def test_who_signs_out_while_the_provider_is_down_is_signed_out(signing: TestClient, fake: FakeProvider) -> None:
    fake.answers["/.well-known/openid-configuration"] = (503, {})
    answer = signing.get("/signed-out")
    assert answer.status_code == 200
    assert "You are signed out." in answer.text
    assert "Sign out there too" not in answer.text


def test_a_provider_that_is_down_is_told(signing: TestClient, fake: FakeProvider) -> None:
    fake.answers["/.well-known/openid-configuration"] = (503, {})
    answer = signing.get("/sign-in")
    assert answer.status_code == 502
    assert "the provider answered 503" in answer.text


def test_where_a_proxy_signs_people_in_there_is_no_such_page(proxied: TestClient) -> None:
    for path in ("/sign-in", "/callback?code=a&state=b", "/signed-out"):
        assert proxied.get(path).status_code == 404

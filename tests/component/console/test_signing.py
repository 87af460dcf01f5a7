"""Signing in to the console at a real OpenID Connect provider, whose ID tokens a real API server takes."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
import requests
from trimtab_local import Cluster

from tests.component.conftest import INSTANCE
from tests.component.console.provider import CLIENT, PASSWORD, SECRET, USERS, Running, may, provider, taken_by
from tests.component.console.test_console import in_cluster
from tests.component.patience import Patience
from tests.component.serving_pod import own_address
from tests.console.conftest import Team, team_of_three
from tests.ports import free_port

__all__ = ["team_of_three"]

pytestmark = pytest.mark.cluster
BRIEF_SECONDS = 3
"""Of an ID token, where one is to be made new."""
TOKEN = re.compile(r"eyJ[\w-]+\.eyJ[\w-]+\.")
"""A signed one; a code of this provider is encrypted, and good for once."""


@dataclass
class Person:
    """A browser that follows where it is led, and fills in the provider's form."""

    home: str
    provider: Running
    session: requests.Session = field(default_factory=requests.Session)
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.session.verify = str(self.provider.authority)
        self.session.trust_env = False

    def get(self, path: str, headers: dict[str, str] | None = None, *, follow: bool = False) -> requests.Response:
        answer = self.session.get(urljoin(self.home, path), timeout=60, allow_redirects=follow, headers=headers)
        self.seen += [each.url for each in (*answer.history, answer)]
        return answer

    def begin(self, path: str) -> requests.Response:
        """Open a page without being signed in; return the provider's form."""
        form = self.get(path, follow=True)
        assert form.url.startswith(self.provider.issuer), form.url
        return form

    def end(self, form: requests.Response, name: str) -> str:
        """Fill in the provider's form, and return the address with the code that it leads back to."""
        id_ = re.search(r'name="id" value="([^"]+)"', form.text)
        assert id_ is not None
        fields = {"id": id_[1], "username": name, "password": PASSWORD}
        address = urljoin(form.url, "/login/username")
        answer = self.session.post(address, data=fields, timeout=60, allow_redirects=False)
        while (back := answer.headers["Location"]).startswith(("/", self.provider.issuer)):
            answer = self.session.get(urljoin(address, back), timeout=60, allow_redirects=False)
        return back

    def sign_in(self, path: str, name: str = "jane") -> requests.Response:
        return self.get(self.end(self.begin(path), name), follow=True)

    def post(self, path: str, page: str, **headers: str) -> requests.Response:
        token = re.search(r'name="form_token" value="(\w+)"', page)
        form = {"form_token": token[1] if token else ""}
        address = urljoin(self.home, path)
        return self.session.post(
            address, data=form, headers={"Origin": self.home, **headers}, timeout=60, allow_redirects=False
        )

    @property
    def cookie(self) -> str | None:
        return self.session.cookies.get("trimtab")


@dataclass
class Scene:
    """A console whose people sign in at a provider, whose ID tokens last an hour or a moment."""

    home: str
    provider: Running
    team: Team
    log: list[str]

    @property
    def page(self) -> str:
        return f"/ns/{self.team.namespace}/finetunejobs"

    def person(self) -> Person:
        return Person(self.home, self.provider)


@pytest.fixture(scope="module")
def scenes(team_of_three: Team, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Scene]]:
    server, made = team_of_three.server, {}
    host = own_address(server)
    may(server, team_of_three.namespace, USERS["jane"])
    with contextlib.ExitStack() as stack:
        running = {}
        for word, lifetime in (("hour", "1h"), ("moment", f"{BRIEF_SECONDS}s")):
            folder, own = tmp_path_factory.mktemp(word), free_port()
            back = f"http://127.0.0.1:{own}/callback"
            running[word] = (folder, own, stack.enter_context(provider(folder, host, free_port(host), back, lifetime)))
        cluster = Cluster(name=INSTANCE, control_plane=True).instance.folder
        stack.enter_context(taken_by(server, cluster, *(each for _, _, each in running.values())))
        for word, (folder, own, each) in running.items():
            options = ("--oidc-issuer", each.issuer, "--oidc-client-id", CLIENT,
                       "--oidc-certificate-authority", str(each.authority))  # fmt: skip
            variables = {"TRIMTAB_CONSOLE_OIDC_CLIENT_SECRET": SECRET}
            config = team_of_three.users["jane"]
            home, process = stack.enter_context(in_cluster(config, folder, *options, port=own, **variables))
            made[word] = Scene(home, each, team_of_three, [])
            stack.callback(lambda log, one: log.append(one.communicate()[1]), made[word].log, process)
            stack.callback(process.terminate)
        yield made
    for scene in made.values():
        (said,) = scene.log
        assert "Traceback" not in said
        assert not re.search(r"eyJ|code=|state=", said), said
        assert SECRET not in said


@pytest.fixture
def scene(scenes: dict[str, Scene]) -> Scene:
    return scenes["hour"]


def test_who_signs_in_is_who_the_api_server_knows(scene: Scene) -> None:
    jane, eve = scene.person(), scene.person()
    answer = jane.sign_in(f"{scene.page}?text=field")
    assert (answer.status_code, answer.url) == (200, f"{scene.home}{scene.page}?text=field"), "where they wanted to go"
    assert f"oidc:{USERS['jane']}" in answer.text
    assert "field-guide-v4" in answer.text
    assert not [told for told in (*jane.seen, answer.text) if TOKEN.search(told)], "no token is in an address or a page"
    assert not [told for told in jane.seen[-1:] if "code=" in told]
    refused = eve.sign_in(scene.page, "eve")
    assert refused.status_code == 403
    assert f"User &#34;oidc:{USERS['eve']}&#34; cannot list" in refused.text
    assert "field-guide-v4" not in refused.text


def test_cookies_are_the_browsers_alone(scene: Scene) -> None:
    jane = scene.person()
    answer = jane.get(jane.end(jane.begin(scene.page), "jane"))
    told = {each.split("=")[0]: each for each in answer.raw.headers.getlist("set-cookie")}
    for each in told.values():
        assert "httponly" in each.lower()
        assert "samesite=lax" in each.lower()
    (begun,) = told.keys() - {"trimtab"}
    assert re.fullmatch("trimtab-sign-in-[0-9a-f]{12}", begun)
    assert "max-age=0" in told[begun].lower()
    assert "trimtab" in told


def test_a_session_that_was_planted_is_not_the_one_that_is_opened(scene: Scene) -> None:
    jane, mallory = scene.person(), scene.person()
    for each in (jane, mallory):
        each.session.cookies.set("trimtab", "planted", domain="127.0.0.1", path="/")
    assert jane.sign_in(scene.page).status_code == 200
    assert jane.cookie not in (None, "planted")
    assert mallory.get(scene.page).status_code == 303
    before = jane.cookie
    jane.get(jane.end(jane.begin(f"{scene.home}/sign-in"), "jane"))
    assert jane.cookie != before, "signing in again is a new session"
    mallory.session.cookies.set("trimtab", before, domain="127.0.0.1", path="/")
    assert mallory.get(scene.page).status_code == 303, "and the one before is none any more"


@pytest.mark.parametrize(
    "to", ["https://evil.example.com", "//evil.example.com", "/\\evil.example.com", "javascript:alert(1)", "/a\r\nb: c"]
)
def test_nobody_is_led_elsewhere(to: str, scene: Scene) -> None:
    jane = scene.person()
    form = jane.session.get(f"{scene.home}/sign-in", params={"to": to}, timeout=60)
    answer = jane.get(jane.end(form, "jane"))
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")


def test_a_code_that_another_browser_asked_for_signs_nobody_in(scene: Scene) -> None:
    mallory, jane = scene.person(), scene.person()
    address = mallory.end(mallory.begin(scene.page), "eve")
    assert jane.get(address).status_code == 403, "a browser that has begun nothing"
    jane.begin(scene.page)
    answer = jane.get(address)
    assert answer.status_code == 403
    assert "was not begun by this browser" in answer.text
    assert jane.cookie is None
    assert mallory.get(address).status_code == 303
    assert mallory.get(address).status_code == 403, "and a code is good for once"


def test_what_the_provider_says_no_with_is_told(scene: Scene) -> None:
    jane = scene.person()
    state = parse_qs(urlsplit(jane.end(jane.begin(scene.page), "jane")).query)["state"][0]
    answer = jane.get(f"/callback?state={state}&error=access_denied%1b%3Cb%3E")
    assert answer.status_code == 403
    assert "the provider says no (access_denied\\x1b&lt;b&gt;)" in answer.text
    jane.begin(scene.page)
    assert jane.get(f"/callback?state={state}&code=made-up").status_code == 403, "a state of before"


def test_signing_out_ends_the_session_everywhere(scene: Scene) -> None:
    jane = scene.person()
    page = jane.sign_in(scene.page).text
    stolen = jane.cookie
    changes = jane.session.get(f"{scene.home}/ns/{scene.team.namespace}/changes", stream=True, timeout=60)
    assert jane.post("/sign-out", page, Origin="https://evil.example.com").status_code == 403
    assert jane.post("/sign-out", "").status_code == 403, "without the form's token"
    assert jane.get(scene.page).status_code == 200
    answer = jane.post("/sign-out", page)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/signed-out")
    assert jane.cookie is None
    with contextlib.suppress(requests.exceptions.ChunkedEncodingError):  # how it ends, as of a process that goes
        for _ in changes.iter_lines():
            pass
    left = jane.get("/signed-out")
    assert "Sign out there too" in left.text
    there = re.search(r'href="(https://[^"]+)"', left.text)
    assert there is not None
    assert there[1].startswith(f"{scene.provider.issuer}/end_session?client_id={CLIENT}&amp;post_logout_redirect_uri=")
    jane.session.cookies.set("trimtab", stolen, domain="127.0.0.1", path="/")
    assert jane.get(scene.page).headers["Location"].startswith("/sign-in?to=/ns/")


def test_without_a_session_nothing_is_told(scene: Scene) -> None:
    nobody = scene.person()
    assert nobody.get(scene.page, {"Authorization": "Bearer made-up"}).status_code == 303, "headers count for nothing"
    part = nobody.get(scene.page, {"HX-Request": "true", "HX-Target": "live"})
    assert (part.status_code, part.headers["HX-Refresh"], part.text) == (403, "true", "")
    changes = nobody.get(f"/ns/{scene.team.namespace}/changes", {"Sec-Fetch-Dest": "empty"})
    assert changes.status_code == 403
    assert nobody.post(f"{scene.page}/field-guide-v4/suspend", "").status_code == 403


def test_tokens_are_made_new_before_they_expire(scenes: dict[str, Scene]) -> None:
    scene = scenes["moment"]
    jane = scene.person()
    assert jane.sign_in(scene.page).status_code == 200
    end, patience = time.monotonic() + 2 * BRIEF_SECONDS, Patience("two lifetimes")
    while time.monotonic() < end:
        assert jane.get(scene.page).status_code == 200
        patience.spend(time.monotonic())
        time.sleep(0.2)

"""A console on a cluster in a dictionary, and browsers of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from trimtab.client import Client
from trimtab.console.app import Console
from trimtab.console.callers import OfBearerToken, OfKubeconfig
from trimtab.console.context import Context
from trimtab.console.feeds import Feeds
from trimtab.console.sessions import Sessions

from tests.console.objects import team
from tests.unit.cli.cluster import NAMESPACE, Body, FakeCluster, Request, kubeconfig, serve

HOME = "http://127.0.0.1:8090"
ORIGIN = {"Origin": HOME, "Sec-Fetch-Site": "same-origin"}
WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


@dataclass
class WatchedCluster(FakeCluster):
    """The same, whose watches end at once without an event, and which stores what is made."""

    def answer(self, request: Request) -> tuple[int, Body | bytes]:
        if "watch" in request.query:
            return 200, b""
        if request.path == WHO and WHO not in self.answers:
            return 201, {"status": {"userInfo": {"username": "jane", "groups": ["leads", "system:authenticated"]}}}
        if request.method == "POST":
            self.asked.append(request)
            if self.otherwise is not None and (told := self.otherwise(request)) is not None:
                return told
            if request.path in self.answers:
                return self.answers[request.path]
            if "dryRun" not in request.query:
                self.put(request.body)
            return 201, request.body
        return super().answer(request)


@pytest.fixture
def cluster() -> Iterator[WatchedCluster]:
    made = WatchedCluster()
    server = serve(made)
    for each in team():
        made.put(each)
    made.answers["/apis/trimtab.dev/v1alpha1/namespaces/team-a/reviews"] = (404, b"404 page not found\n")
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


@pytest.fixture
def feeds() -> Iterator[Feeds]:
    made = Feeds()
    yield made
    made.close()


@pytest.fixture
def outside(cluster: WatchedCluster, sessions: Sessions, feeds: Feeds, tmp_path: Path) -> Iterator[TestClient]:
    """A browser that has no session."""
    with Client(kubeconfig=kubeconfig(tmp_path / "kubeconfig", cluster.address)) as client:
        callers = OfKubeconfig(client.server, NAMESPACE, sessions, "trimtab-8090")
        context = Context(callers, feeds, sessions, cluster.address, secure=False)
        app = Console(context, ["127.0.0.1:8090"]).app
        yield TestClient(app, base_url=HOME, follow_redirects=False)


@pytest.fixture
def browser(outside: TestClient, sessions: Sessions) -> TestClient:
    """A browser with a session."""
    assert outside.get(f"/login?token={sessions.invitation()}").status_code == 303
    return outside


@pytest.fixture
def proxied(cluster: WatchedCluster, sessions: Sessions, feeds: Feeds) -> TestClient:
    """A browser behind a proxy, whose requests have the headers that a test gives."""
    callers = OfBearerToken(cluster.address, "", NAMESPACE, "__Host-trimtab")
    context = Context(callers, feeds, sessions, cluster.address, secure=True)
    return TestClient(
        Console(context, ["console.example.com"]).app, base_url="https://console.example.com", follow_redirects=False
    )


@pytest.fixture
def form_token(browser: TestClient, sessions: Sessions) -> str:
    return sessions.form_token(browser.cookies["trimtab-8090"])


Posted = Callable[..., int]

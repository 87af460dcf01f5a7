"""Whose token a request carries, and that nothing is asked without one or with another's."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient
from trimtab.console.app import Console
from trimtab.console.callers import OfBearerToken
from trimtab.console.context import Context
from trimtab.console.feeds import Feeds
from trimtab.console.sessions import Sessions

from tests.unit.console.conftest import WatchedCluster

PAGE = "/ns/team-a/finetunejobs"


def tokens(cluster: WatchedCluster) -> set[str]:
    return {each.headers.get("Authorization", "none") for each in cluster.asked}


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({"Authorization": "Bearer jane-token"}, "jane-token"),
        ({"X-Forwarded-Access-Token": "jane-token"}, "jane-token"),
        ({"X-Forwarded-Access-Token": "Bearer jane-token"}, "jane-token"),
        ({"Authorization": "Basic cHJveHk6cHJveHk=", "X-Forwarded-Access-Token": "jane-token"}, "jane-token"),
        ({"Authorization": "Bearer proxy", "X-Forwarded-Access-Token": "jane-token"}, "jane-token"),
    ],
    ids=str,
)
def test_every_question_is_asked_as_the_user(
    headers: dict[str, str], token: str, proxied: TestClient, cluster: WatchedCluster
) -> None:
    told = proxied.get(PAGE, headers={**headers, "Impersonate-User": "admin", "X-Remote-User": "admin"})
    assert told.status_code == 200
    assert "field-guide-v4" in told.text
    assert token not in told.text
    assert tokens(cluster) == {f"Bearer {token}"}
    assert not [each for each in cluster.asked if {"Impersonate-User", "X-Remote-User"} & set(each.headers)]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Basic cHJveHk6cHJveHk="},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer a b"},
        {"Authorization": "Bearer " + "a" * 20_000},
        {"X-Forwarded-Access-Token": ""},
        {"X-Forwarded-User": "admin"},
        {"Cookie": "__Host-trimtab=a"},
    ],
    ids=lambda headers: str(headers)[:60],
)
def test_without_a_token_nothing_is_asked(
    headers: dict[str, str], proxied: TestClient, cluster: WatchedCluster
) -> None:
    told = proxied.get(PAGE, headers=headers)
    assert told.status_code == 403
    assert "nobody is logged in" in told.text
    assert cluster.asked == []


def test_what_one_user_read_is_not_shown_to_another(proxied: TestClient, cluster: WatchedCluster) -> None:
    assert proxied.get(PAGE, headers={"Authorization": "Bearer jane"}).status_code == 200
    cluster.refuse("/apis/trimtab.dev/v1alpha1/namespaces/team-a/finetunejobs", 401, "Unauthorized")
    told = proxied.get(PAGE, headers={"Authorization": "Bearer eve"})
    assert told.status_code == 403
    assert "field-guide" not in told.text


def test_a_form_needs_the_cookie_of_the_page_that_it_was_on(proxied: TestClient, cluster: WatchedCluster) -> None:
    headers = {"Authorization": "Bearer jane"}
    page = proxied.get(f"{PAGE}/field-guide-v4", headers=headers)
    cookie = page.headers["set-cookie"]
    assert all(each in cookie for each in ("__Host-trimtab=", "HttpOnly", "SameSite=strict", "Secure", "Path=/"))
    token = page.text.partition('name="form_token" value="')[2].partition('"')[0]
    form = {"form_token": token, "uid": "uid-field-guide-v4"}
    sent = {**headers, "Origin": "https://console.example.com"}
    assert proxied.post(f"{PAGE}/field-guide-v4/suspend", data=form, headers=sent).status_code == 303
    proxied.cookies.clear()
    assert proxied.post(f"{PAGE}/field-guide-v4/suspend", data=form, headers=sent).status_code == 403
    assert [each.headers["Authorization"] for each in cluster.asked if each.method == "PATCH"] == ["Bearer jane"]


def test_a_form_of_one_replica_is_taken_by_another_that_shares_its_key(cluster: WatchedCluster, feeds: Feeds) -> None:
    def replica(key: bytes) -> TestClient:
        callers, sessions = OfBearerToken(cluster.address, "", "team-a", "__Host-trimtab"), Sessions(key)
        context = Context(callers, feeds, sessions, cluster.address, secure=True)
        address, headers = "https://console.example.com", {"Authorization": "Bearer jane"}
        app = Console(context, ["console.example.com"]).app
        return TestClient(app, base_url=address, follow_redirects=False, headers=headers)

    first, second, stranger = (replica(key * 32) for key in (b"a", b"a", b"b"))
    page = first.get(f"{PAGE}/field-guide-v4").text
    form = {"uid": "uid-field-guide-v4", "form_token": page.partition('name="form_token" value="')[2].partition('"')[0]}
    cookies = {"__Host-trimtab": first.cookies["__Host-trimtab"]}
    headers = {"Origin": "https://console.example.com"}
    for console, status in ((second, 303), (stranger, 403)):
        console.cookies.update(cookies)
        assert console.post(f"{PAGE}/field-guide-v4/suspend", data=form, headers=headers).status_code == status
        assert "set-cookie" not in console.get(f"{PAGE}/field-guide-v4").headers, "the session is theirs on each"

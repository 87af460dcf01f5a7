"""Requests that are not from the console's own pages, and the headers of every answer."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient
from trimtab.console.serving import loopback_hosts

from tests.unit.cli.cluster import FakeCluster
from tests.unit.console.conftest import HOME, ORIGIN

SUSPEND = "/ns/team-a/finetunejobs/field-guide-v4/suspend"


@pytest.mark.parametrize("host", ["evil.example.com", "evil.example.com:8090", "127.0.0.1", "127.0.0.1:80", ""])
def test_another_name_is_answered_by_nothing(host: str, browser: TestClient) -> None:
    told = browser.get("/ns/team-a", headers={"Host": host})
    assert told.status_code == 403
    assert "field-guide" not in told.text


@pytest.mark.parametrize(("port", "there"), [(8090, False), (80, True)])
def test_a_port_that_browsers_leave_out_may_be_left_out(port: int, there: bool) -> None:
    assert ("127.0.0.1" in loopback_hosts(port)) is there
    assert f"localhost:{port}" in loopback_hosts(port)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "https://evil.example.com"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": HOME, "Sec-Fetch-Site": "cross-site"},
        {"Origin": HOME, "Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_another_site_changes_nothing(
    headers: dict[str, str], browser: TestClient, form_token: str, cluster: FakeCluster
) -> None:
    form = {"form_token": form_token, "uid": "uid-field-guide-v4"}
    assert browser.post(SUSPEND, data=form, headers=headers).status_code == 403
    assert not [each for each in cluster.asked if each.method == "PATCH"]


@pytest.mark.parametrize("token", ["", "0" * 64])
def test_a_form_without_the_token_of_the_session_changes_nothing(
    token: str, browser: TestClient, cluster: FakeCluster
) -> None:
    form = {"form_token": token, "uid": "uid-field-guide-v4"}
    assert browser.post(SUSPEND, data=form, headers=ORIGIN).status_code == 403
    assert not [each for each in cluster.asked if each.method == "PATCH"]


def test_what_is_no_form_or_too_large_is_not_read(browser: TestClient) -> None:
    assert browser.post(SUSPEND, json={}, headers=ORIGIN).status_code == 422
    assert browser.post(SUSPEND, data={"a": "b" * 1_100_000}, headers=ORIGIN).status_code == 422
    many = {f"f{number}": "1" for number in range(200)}
    assert browser.post(SUSPEND, data=many, headers=ORIGIN).status_code == 422


@pytest.mark.parametrize("path", ["/ns/team-a", "/nothing", "/assets/console.js", "/ns/team-a/finetunejobs/none", "/"])
def test_every_answer_has_its_policy(path: str, browser: TestClient) -> None:
    headers = browser.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == (
        "public, max-age=31536000, immutable" if path.startswith("/assets") else "no-store"
    )


def test_methods_that_no_page_has_are_refused(browser: TestClient) -> None:
    assert browser.delete("/ns/team-a/finetunejobs/field-guide-v4", headers=ORIGIN).status_code == 405
    assert browser.post("/ns/team-a/finetunejobs/field-guide-v4/explode", headers=ORIGIN).status_code == 404


@pytest.mark.parametrize(
    "name", ["vendored.json", "../app.py", "..%2fapp.py", "vendor/LICENSES", "vendor/../console.js"]
)
def test_only_files_of_pages_are_given(name: str, browser: TestClient) -> None:
    assert browser.get(f"/assets/{name}").status_code in (200, 404)
    assert "import" not in browser.get(f"/assets/{name}").text[:400]

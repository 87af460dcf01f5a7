"""Reports of a real S3 server on the console: whose are opened, what they may do, and what is told without keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient
from trimtab.console.app import Console
from trimtab.console.callers import OfKubeconfig
from trimtab.console.context import Context
from trimtab.console.feeds import Feeds
from trimtab.console.sessions import Sessions
from trimtab.console.storage import PREFIX, Storage
from trimtab.errors import Invalid
from trimtab.kubeconfig import connection_to
from trimtab.server import Server

from tests.console.objects import HOSTILE, completed, evaluation, sweep
from tests.trainer.conftest import ObjectStorage
from tests.unit.cli.cluster import NAMESPACE
from tests.unit.console.conftest import HOME, WatchedCluster, cluster

__all__ = ["cluster"]

PAGE = "<!doctype html><title>A report</title><script>fetch('/')</script><p>all of it</p>"


def keys_of(object_storage: ObjectStorage, identity: str) -> dict[str, str]:
    folder = object_storage.folder / identity
    return {f"{PREFIX}{each.name}": each.read_text() for each in folder.iterdir()}


@pytest.fixture
def opened(cluster: WatchedCluster) -> Iterator[Any]:
    """Return what opens a browser with a session on a console with this storage."""
    feeds = Feeds()

    def browser(storage: Storage | None) -> TestClient:
        sessions = Sessions()
        server = Server(connection_to(cluster.address, {"token": "a"}))
        context = Context(OfKubeconfig(server, NAMESPACE, sessions, "c"), feeds, sessions, "", False, storage)
        made = TestClient(Console(context, ["127.0.0.1:8090"]).app, base_url=HOME, follow_redirects=False)
        assert made.get(f"/login?token={sessions.invitation()}").status_code == 303
        return made

    yield browser
    feeds.close()


def put(object_storage: ObjectStorage, name: str, content: str = PAGE) -> str:
    uri = object_storage.uri(name)
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    object_storage.client().put_object(Bucket=bucket, Key=key, Body=content.encode())
    return uri


def with_report(cluster: WatchedCluster, uri: str, data: str = "") -> str:
    body = completed("mine")
    body["status"]["artifact"]["reportURI"] = uri
    body["status"]["dataset"]["reportURI"] = data or uri
    cluster.put(body)
    return "/ns/team-a/finetunejobs/mine"


@pytest.mark.parametrize("make", [evaluation, sweep, completed])
def test_a_report_opens_in_a_frame_that_can_do_nothing(
    make: Any, opened: Any, cluster: WatchedCluster, object_storage: ObjectStorage
) -> None:
    name = "sweep.html" if make is sweep else "report.html"
    body = make("mine", "mine", passed=True) if make is evaluation else make("mine")
    told = body["status"]["artifact"] if make is completed else body["status"]
    told["reportURI"] = put(object_storage, name)
    cluster.put(body)
    browser = opened(Storage.of(keys_of(object_storage, "reader")))
    home = f"/ns/team-a/{body['kind'].lower()}s/mine"
    assert f'href="{home}/reports/report"' in browser.get(home).text
    frame = browser.get(f"{home}/reports/report").text
    assert f'sandbox referrerpolicy="no-referrer" title="{name} of mine" src="{home}/reports/report/page"' in frame
    answer = browser.get(f"{home}/reports/report/page")
    assert (answer.status_code, answer.text) == (200, PAGE)
    policy = answer.headers["content-security-policy"].split("; ")
    assert policy[0] == "sandbox", "and nothing behind it: no scripts, no origin, no forms"
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'self'" in policy
    assert not [each for each in policy if "script" in each]
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


def test_without_keys_it_says_how_reports_are_got(opened: Any, cluster: WatchedCluster) -> None:
    home = with_report(cluster, "s3://adapters/a b/report.html", "file:///volume/data.html")
    browser = opened(None)
    assert "/reports/" not in browser.get(home).text
    assert "s3://adapters/a b/report.html" in browser.get(home).text
    page = browser.get(f"{home}/reports/report").text
    assert "aws s3 cp &#39;s3://adapters/a b/report.html&#39; ." in page
    assert "<iframe" not in page
    assert "# on its volume: file:///volume/data.html" in browser.get(f"{home}/reports/data").text
    assert browser.get(f"{home}/reports/report/page").status_code == 404


@pytest.mark.parametrize(
    ("uri", "refusal"),
    [
        ("s3://trainer/none/report.html", (404, "s3://trainer/none/report.html is not there")),
        ("s3://trainer/secrets.txt", (422, "is no page of Trimtab")),
        ("s3://trainer/report.html/", (404, "is not there")),
        ("file:///etc/report.html", (422, "is not in a bucket")),
        ("http://169.254.169.254/report.html", (422, "is not in a bucket")),
        (f"s3://trainer/{HOSTILE}/data.html", (404, "is not there")),
    ],
)
def test_what_cannot_be_opened_is_told(
    uri: str, refusal: tuple[int, str], opened: Any, cluster: WatchedCluster, object_storage: ObjectStorage
) -> None:
    browser = opened(Storage.of(keys_of(object_storage, "reader")))
    home = with_report(cluster, uri)
    answer = browser.get(f"{home}/reports/data/page")
    assert answer.status_code == refusal[0]
    assert refusal[1] in answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["x-frame-options"] == "SAMEORIGIN", "or the frame of the page would be empty"
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
    page = browser.get(f"{home}/reports/data").text
    assert "<script>alert" not in page
    assert ("<iframe" in page) == uri.startswith("s3://"), "what it cannot read anyhow is not tried"


def test_keys_that_may_not_read_are_no_matter_of_who_looks(
    opened: Any, cluster: WatchedCluster, object_storage: ObjectStorage
) -> None:
    keys = {**keys_of(object_storage, "reader"), f"{PREFIX}AWS_SECRET_ACCESS_KEY": "another"}
    home = with_report(cluster, put(object_storage, "report.html"))
    answer = opened(Storage.of(keys)).get(f"{home}/reports/data/page")
    assert answer.status_code == 403
    assert "tell who runs the console" in answer.text
    assert "AWS_ACCESS_KEY_ID" not in answer.text


def test_only_reports_that_an_object_names_are_opened(
    opened: Any, cluster: WatchedCluster, object_storage: ObjectStorage
) -> None:
    browser = opened(Storage.of(keys_of(object_storage, "reader")))
    home = with_report(cluster, "")
    for which in ("report", "data", "other", "..%2freport"):
        assert browser.get(f"{home}/reports/{which}").status_code == 404
        assert browser.get(f"{home}/reports/{which}/page").status_code == 404
    cluster.refuse("/apis/trimtab.dev/v1alpha1/namespaces/team-b/finetunejobs/theirs", 403, "forbidden")
    assert browser.get("/ns/team-b/finetunejobs/theirs/reports/report/page").status_code == 403


def test_keys_that_may_not_read_are_told_and_not_shown(
    opened: Any, cluster: WatchedCluster, object_storage: ObjectStorage
) -> None:
    uri = put(object_storage, "report.html")
    wrong = keys_of(object_storage, "reader") | {f"{PREFIX}AWS_SECRET_ACCESS_KEY": "a-wrong-secret"}
    answer = opened(Storage.of(wrong)).get(f"{with_report(cluster, uri)}/reports/report/page")
    assert answer.status_code == 403
    assert "the object storage says SignatureDoesNotMatch" in answer.text
    assert "a-wrong-secret" not in answer.text


def test_keys_are_a_pair_and_those_of_the_environment_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-machine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-machine")
    assert Storage.of({}) is None
    assert Storage.of({f"{PREFIX}AWS_ENDPOINT_URL": "http://s3"}) is None
    with pytest.raises(Invalid, match=f"{PREFIX}AWS_SECRET_ACCESS_KEY is missing"):
        Storage.of({f"{PREFIX}AWS_ACCESS_KEY_ID": "a"})
    with pytest.raises(Invalid, match=f"{PREFIX}AWS_ACCESS_KEY_ID is missing"):
        Storage.of({f"{PREFIX}AWS_SECRET_ACCESS_KEY": "a"})

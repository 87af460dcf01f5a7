"""Every page: what a person reads on it, that nothing that tenants wrote is anything but text, and its file to keep."""

from __future__ import annotations

import json
import re
import threading
from html import escape
from html.parser import HTMLParser

import pytest
from starlette.testclient import TestClient

from tests.console.objects import HOSTILE, completed, digest, rollout
from tests.unit.cli.cluster import Body, FakeCluster, Request
from tests.unit.console.conftest import HOME

PAGES = {
    "/ns/team-a": ["Overview", "field-guide-v4", "accelerators in use", "Queued", "DatasetMalformed", "4/4"],
    "/ns/-": ["all namespaces", "field-guide-v4"],
    "/ns/team-a/finetunejobs": ["6 runs", "field-guide-v4", "Compare chosen"],
    "/ns/team-a/finetunejobs/field-guide-v4": ["step 124 of 200", "18,240 tokens/s", "NodeLost", "10,924", "Suspend"],
    "/ns/team-a/finetunejobs/field-guide-v3": ["Completed", "Judged by", "Served as", digest("field-guide-v3")[7:19]],
    "/ns/team-a/finetunejobs/chat-tone-v1": ["line 7 is no JSON", "What next", "Correct the file"],
    "/ns/team-a/finetunejobs/field-guide-v4/manifest": ["apiVersion: trimtab.dev/v1alpha1", "learningRate: 0.0002"],
    "/ns/team-a/finetunejobs/field-guide-v4/log": ["Attempt 1, train", "node gpu-3 does not answer"],
    "/ns/team-a/evaluations/field-guide-v2": [
        *("worse than the baseline by 0.51", "not kept", "at most 13.5", "anchor 11.9, +0.71"),
        *("at most 2.5 % worse than the anchor", "Regressed: 6 % worse than the anchor, at most 2.5 % was asked"),
    ],
    "/ns/team-a/evaluations/field-guide-v3": ["falls by 0.68", "kept", "better", "4 more are in the report"],
    "/ns/team-a/adapterrollouts/field-guide": ["4 of 4", "Previous", "Go back", "412 requests"],
    "/ns/team-a/adapterrollouts/field-guide-next": ["Canary", "84 requests", "1 of 4", "vllm-6d9f-x2k"],
    "/ns/team-a/finetunesweeps/rate-search": ["9 of 24", "best so far", "training.learningRate", "OutOfMemory", "81%"],
    "/ns/team-a/compare?name=field-guide-v3&name=field-guide-v2": ["Settings that differ", "lora.rank", "10,924"],
    "/ns/team-a/compare?kind=evaluations&name=field-guide-v3&name=field-guide-v2": ["heldout/perplexity", "11.03 to"],
    "/ns/team-a/compare?name=none": ["There is no none", "Choose two or more"],
    "/ns/team-a/approvals": ["This cluster has no Reviews"],
    "/ns/team-a/playground": ["field-guide-next (Canary)", "no pod with app=vllm is ready in team-a"],
    "/ns/-/playground": ["Choose a namespace above"],
    "/ns/empty/playground": ["No rollout is here"],
    "/ns/team-a/new": ["Write the manifests"],
    "/ns/empty": ["Nothing of Trimtab is here yet", "Write the first one"],
    "/ns/empty/evaluations": ["No evaluations here yet"],
}
FORM = "/ns/team-a/new?name=made&base_model=s3://models/base&data=s3://rows/&output=s3://adapters/out"
OF_OBJECTS = [path for path in PAGES if path.count("/") >= 4 or "compare" in path]


class Markup(HTMLParser):
    """What a page would run or ask for, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.addresses: list[str] = []
        self.inline: list[str] = []
        self.words = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._inside = tag
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href", "action", "formaction")]

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script" and data.strip():
            self.inline.append(data)
        self.words += data


@pytest.mark.parametrize("path", PAGES)
def test_a_page_says_what_is_there(path: str, browser: TestClient) -> None:
    told = browser.get(path)
    assert told.status_code == 200, told.text
    words = " ".join(Markup(told.text).words.split())
    assert not [each for each in PAGES[path] if each not in words and each not in told.text], words


@pytest.mark.parametrize(
    "path", [*PAGES, "/ns/team-a/finetunejobs/hostile", "/ns/team-a/finetunejobs/hostile/manifest"]
)
def test_nothing_on_a_page_runs_but_its_own_files(path: str, browser: TestClient) -> None:
    page = Markup(browser.get(path).text)
    assert page.inline == []
    assert page.handlers == []
    assert page.tags.count("script") == 6 + ("playground" in path)
    assert not [each for each in page.addresses if not each.startswith(("/", "#", "?"))]
    assert not [each for each in page.addresses if each.startswith("//")]


def test_hostile_words_are_words(browser: TestClient, cluster: FakeCluster) -> None:
    told = browser.get("/ns/team-a/finetunejobs/hostile").text
    assert HOSTILE in Markup(told).words
    assert "<script>alert" not in told
    assert "49" not in Markup(told).words.partition("{{ 7*7 }}")[1]
    for path in ("/ns/team-a", "/ns/team-a/finetunejobs", "/ns/team-a/finetunejobs/hostile/manifest"):
        assert "<script>alert" not in browser.get(path).text


def test_a_name_in_the_address_is_no_markup_either(browser: TestClient) -> None:
    told = browser.get("/ns/team-a/compare", params={"name": HOSTILE})
    assert "<script>alert" not in told.text
    assert "<script>alert" not in browser.get("/ns/%3Cscript%3Ealert(1)%3C/finetunejobs").text
    assert "<script>alert" not in browser.get("/ns/team-a/finetunejobs", params={"text": HOSTILE}).text


@pytest.mark.parametrize("path", ["/ns/team-a", "/ns/team-a/finetunejobs?text=guide", FORM, *OF_OBJECTS])
def test_a_file_to_keep_stands_alone(path: str, browser: TestClient) -> None:
    address = path + ("&" if "?" in path else "?") + "export"
    if "none" not in path:
        assert f'href="{escape(address)}" download>Save as a file' in browser.get(path).text
    told = browser.get(address)
    assert told.status_code == 200
    assert told.headers["content-disposition"].startswith('attachment; filename="trimtab-')
    page = Markup(told.text)
    assert not {"script", "link", "form", "img", "trimtab-curve"} & set(page.tags)
    assert "default-src 'none'" in told.text
    assert "url(" not in told.text
    assert 'name="form_token"' not in told.text


def test_a_live_page_asks_for_its_live_part_alone(browser: TestClient) -> None:
    whole = browser.get("/ns/team-a").text
    part = browser.get("/ns/team-a", headers={"HX-Request": "true", "HX-Target": "live"}).text
    assert "<html" not in part
    assert part.strip() in whole
    other = browser.get("/ns/team-a", headers={"HX-Request": "true", "HX-Target": "title"}).text
    assert "<html" in other  # no other block can be named


def test_a_curve_is_data_for_the_live_picture(browser: TestClient) -> None:
    told = browser.get("/ns/team-a/finetunejobs/field-guide-v4").text
    attribute = re.search(r'data-series="([^"]*)"', told)
    assert attribute is not None
    from html import unescape

    loss, validation = json.loads(unescape(attribute[1]))
    assert (loss["role"], validation["role"]) == ("loss", "validation")
    assert loss["points"][-1][0] == 124


def test_a_list_is_searched_filtered_and_paged(browser: TestClient, cluster: FakeCluster) -> None:
    for number in range(120):
        cluster.put(completed(f"old-{number:03}"))
    path = "/ns/many/finetunejobs"
    assert "No runs here yet" in browser.get(path).text
    first = browser.get("/ns/-/finetunejobs").text
    assert "126 runs" in first
    assert "1 of 3" in first
    assert first.count("<tr id=") == 50
    last = browser.get("/ns/-/finetunejobs?page=99").text
    assert "3 of 3" in last
    assert last.count("<tr id=") == 26
    found = browser.get("/ns/-/finetunejobs?text=OLD-01&state=done&order=name").text
    assert re.findall(r"<tr id=\"[^\"]*-(old-\d+)\"", found) == [f"old-{number:03}" for number in range(10, 20)]
    assert "Nothing is like this" in browser.get("/ns/-/finetunejobs?text=nowhere").text


def test_what_is_not_there_is_said(browser: TestClient) -> None:
    told = browser.get("/ns/team-a/finetunejobs/none")
    assert told.status_code == 404
    assert "there is no FineTuneJob none in team-a" in told.text
    assert browser.get("/ns/team-a/secrets/a").status_code == 404
    assert browser.get("/ns/team-a/finetunejobs/-/manifest").status_code == 404


def test_of_a_long_list_a_page_shows_what_was_read_and_says_so(browser: TestClient, cluster: FakeCluster) -> None:
    goes_on = threading.Event()

    def in_two_pages(request: Request) -> tuple[int, Body | bytes] | None:
        if not request.path.endswith("/finetunejobs") or "watch" in request.query:
            return None
        jobs = [body for path, body in sorted(cluster.objects.items()) if path.startswith(f"{request.path}/")]
        if "continue" not in request.query:
            return 200, {"metadata": {"resourceVersion": "7", "continue": "more"}, "items": jobs[:2]}
        assert goes_on.wait(20)
        return 200, {"metadata": {"resourceVersion": "7"}, "items": jobs[2:]}

    cluster.otherwise = in_two_pages
    assert "Still reading: 7 so far" in browser.get("/ns/team-a").text
    part = browser.get("/ns/team-a/finetunejobs?text=hostile", headers={"HX-Request": "true", "HX-Target": "live"}).text
    assert "Still reading: 2 so far" in part
    assert "Nothing is like this" not in part
    assert "step 124 of 200" in browser.get("/ns/team-a/finetunejobs/field-guide-v4").text, "it is asked for by itself"
    assert "Nothing waits for a decision" not in browser.get("/ns/team-a/approvals").text
    threading.Timer(0.3, goes_on.set).start()
    assert "hostile" in browser.get("/ns/team-a/finetunejobs?export").text, "a file to keep has all of them"
    assert "Still reading" not in browser.get("/ns/team-a").text


def test_of_a_log_no_more_is_asked_for_than_a_page_holds(browser: TestClient, cluster: FakeCluster) -> None:
    pods = "/api/v1/namespaces/team-a/pods"
    cluster.answers[pods] = (200, {"metadata": {}, "items": [{"metadata": {"name": "pod"}}]})
    cluster.answers[f"{pods}/pod/log"] = (200, b"x" * 3_000_000)
    told = browser.get("/ns/team-a/finetunejobs/field-guide-v4/log")
    assert told.status_code == 200
    assert len(told.content) < 400_000
    asked = [each.query for each in cluster.asked if each.path == f"{pods}/pod/log"]
    assert {(each["tailLines"], each["limitBytes"]) for each in asked} == {("200", "2000000")}


def test_kinds_that_are_refused_are_named_and_the_others_shown(browser: TestClient, cluster: FakeCluster) -> None:
    path = "/apis/trimtab.dev/v1alpha1/namespaces/team-a/evaluations"
    cluster.refuse(path, 403, 'evaluations.trimtab.dev is forbidden: User "jane" cannot list')
    told = browser.get("/ns/team-a").text
    assert "Not shown: Evaluations" in told
    assert "field-guide-v4" in told
    assert browser.get("/ns/team-a/evaluations").status_code == 403


def test_a_cluster_that_went_away_is_said(browser: TestClient, cluster: FakeCluster) -> None:
    for plural in ("finetunejobs", "finetunesweeps", "evaluations", "adapterrollouts"):
        cluster.refuse(f"/apis/trimtab.dev/v1alpha1/namespaces/gone/{plural}", 500, "etcd is gone")
    told = browser.get("/ns/gone")
    assert told.status_code == 502
    assert "etcd is gone" in told.text


@pytest.mark.parametrize("code", [410, 429, 500, 503])
def test_an_api_server_that_has_no_time_is_asked_again(code: int, browser: TestClient, cluster: FakeCluster) -> None:
    """Priority and fairness answers 429, one that starts or has no etcd 500 and 503: a moment later it is over."""
    refusals = [code]

    def busy(request: Request) -> tuple[int, Body | bytes] | None:
        is_list = request.path.endswith("/finetunejobs") and "watch" not in request.query
        return (refusals.pop(), {"message": "too many requests"}) if is_list and refusals else None

    cluster.otherwise = busy
    told = browser.get("/ns/team-a/finetunejobs")
    assert (told.status_code, "field-guide-v4" in told.text) == (200, True), told.text


@pytest.mark.parametrize("dots", ["%2e%2e", "%2e", "..%2f..", "%2e%2e%2f"])
@pytest.mark.parametrize(
    "path", ["/ns/{}", "/ns/{}/finetunejobs", "/ns/{}/finetunejobs/a", "/ns/team-a/finetunejobs/{}", "/ns/{}/changes"]
)
def test_dots_in_an_address_are_no_way_to_another(
    path: str, dots: str, browser: TestClient, cluster: FakeCluster
) -> None:
    told = browser.get(path.format(dots))
    assert told.status_code in (307, 404, 405, 422), told.text
    assert told.headers.get("location", HOME).startswith(f"{HOME}/" if told.status_code == 307 else HOME)
    assert not [each.path for each in cluster.asked if "." in each.path.removeprefix("/apis/trimtab.dev")]


def test_namespaces_are_gone_to_and_nowhere_else(browser: TestClient) -> None:
    assert browser.get("/go?namespace=team-b&part=evaluations").headers["location"] == "/ns/team-b/evaluations"
    for odd in (
        "//evil.example.com",
        "/\\evil.example.com",
        "https://evil.example.com",
        "a/../../b",
        "\r\nLocation: x",
    ):
        where = browser.get("/go", params={"namespace": odd, "part": odd}).headers["location"]
        assert where == "/" or where.startswith("/ns/"), where
        assert "//" not in where


def test_what_waits_for_approvals_has_not_failed(browser: TestClient, cluster: FakeCluster) -> None:
    waits = rollout("asks")
    message = "asks has 0 of 1 approvals"
    waits["status"]["conditions"] = [
        {"type": type_, "status": "False", "reason": "AwaitingApproval", "message": message}
        for type_ in ("Ready", "Progressing")
    ]
    cluster.put(waits)
    path = "/ns/team-a/adapterrollouts"
    assert message in browser.get(f"{path}?state=waiting").text
    assert message not in browser.get(f"{path}?state=failed").text


def test_of_two_runs_of_a_name_none_is_taken_for_the_other(browser: TestClient, cluster: FakeCluster) -> None:
    cluster.put(completed("field-guide-v3", namespace="team-b"))
    told = browser.get("/ns/-/compare?name=field-guide-v3&name=field-guide-v2")
    assert told.status_code == 422
    assert "field-guide-v3 is in 2 namespaces" in told.text
    assert browser.get("/ns/-/compare?name=field-guide-v4&name=field-guide-v2").status_code == 200

"""Asking side by side from a page: whom, as whom, within which bounds, and that leaving ends what is asked."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient
from trimtab.asking import Ends, Heard
from trimtab.console import app
from trimtab.console.callers import OfBearerToken
from trimtab.console.context import Context
from trimtab.console.feeds import Feeds
from trimtab.console.pages.playground import choices_of
from trimtab.console.sessions import Sessions
from trimtab.console.streams import Words
from trimtab.errors import Problem
from trimtab.kinds import kind_named
from trimtab.objects import AdapterRollout, parse
from trimtab.replies import Reply

from tests.console.objects import rollout
from tests.unit.cli.cluster import NAMESPACE, Body, Request
from tests.unit.cli.test_asking import events, model
from tests.unit.console.conftest import HOME, ORIGIN, WatchedCluster
from tests.unit.console.test_streams import Browser

BASE, ADAPTER = "smollm2", "field-guide"
OLD, NEW = "field-guide@aaaaaaaa", "field-guide@bbbbbbbb"
PAGE, ANSWERS = "/ns/team-a/playground?rollout=field-guide", "/ns/team-a/adapterrollouts/field-guide/answers"
HOSTILE = '<script>alert(1)</script>"\u202e'


@pytest.fixture
def engine(cluster: WatchedCluster) -> list[dict[str, Any]]:
    """One serving pod, whose models answer with their name; what it was asked."""
    path, asked = cluster.put_pod("vllm-0", {"app": "vllm"}), []
    models = [model(ADAPTER, owner="trimtab"), model(BASE), model(OLD, BASE), model(NEW, BASE), model("other@1", BASE)]

    def answer(request: Request) -> tuple[int, Any] | None:
        if request.path == f"{path}/v1/models":
            return 200, {"data": models}
        if request.path.startswith(f"{path}/v1/"):
            asked.append({"path": request.path.removeprefix(path), **request.body})
            if request.body["model"] == NEW:
                return 503, {"error": {"message": "it loads"}}
            chat = request.path.endswith("chat/completions")
            return 200, events("I am ", request.body["model"], HOSTILE, chat=chat)
        return None

    cluster.otherwise = answer
    return asked


def form(token: str, *models: str, **changes: str) -> dict[str, str]:
    told = {"question": "Who are you?", "models": "\r\n".join(models), "tokens": "64", "temperature": "0.5"}
    return {"form_token": token, **told, **changes}


def told_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(each.removeprefix("data: ")) for each in text.split("\n\n") if each.startswith("data: ")]


def test_the_page_offers_what_the_engines_serve(browser: TestClient, engine: list[dict[str, Any]]) -> None:
    page = browser.get(PAGE).text
    offered = [part.partition('"')[0] for part in page.split('name="model" value="')[1:]]
    assert offered == [BASE, ADAPTER, OLD, NEW], "and nothing of other rollouts"


def test_a_pod_that_does_not_answer_hides_no_other(
    browser: TestClient, engine: list[dict[str, Any]], cluster: WatchedCluster
) -> None:
    well = cluster.otherwise
    assert well is not None
    gone = {"kind": "Status", "message": "error trying to reach service: dial tcp 10.0.0.1:8000: connection refused"}
    path = cluster.put_pod("a-broken-one", {"app": "vllm"})
    cluster.otherwise = lambda request: (503, gone) if request.path.startswith(path) else well(request)
    assert f'value="{NEW}"' in browser.get(PAGE).text
    cluster.otherwise = lambda request: (503, gone) if "/proxy/" in request.path else None
    assert "pod a-broken-one does not answer" in browser.get(PAGE).text


def test_whose_engine_is_silent_holds_up_nobody_else(cluster: WatchedCluster, sessions: Sessions, feeds: Feeds) -> None:
    path, goes_on, asked = cluster.put_pod("vllm-0", {"app": "vllm"}), threading.Event(), threading.Event()

    def silent(request: Request) -> tuple[int, Body | bytes] | None:
        if request.path == f"{path}/v1/models":
            asked.set()
            goes_on.wait(20)
        return None

    cluster.otherwise = silent
    callers = OfBearerToken(cluster.address, "", NAMESPACE, "trimtab")
    made = app.Console(Context(callers, feeds, sessions, cluster.address, secure=False), ["127.0.0.1:8090"]).app
    with TestClient(made, base_url=HOME) as browser, ThreadPoolExecutor(50) as eve:
        pages = [eve.submit(browser.get, PAGE, headers={"Authorization": "Bearer eve"}) for _ in range(50)]
        assert asked.wait(20)
        told = browser.get("/ns/team-a", headers={"Authorization": "Bearer jane"})
        assert (told.status_code, any(page.done() for page in pages)) == (200, False)
        goes_on.set()
        assert {page.result().status_code for page in pages} == {200}


def test_half_a_character_in_a_name_breaks_no_page(browser: TestClient, cluster: WatchedCluster) -> None:
    """JSON may say it, and UTF-8 cannot."""
    path = cluster.put_pod("vllm-0", {"app": "vllm"})
    told = json.dumps({"data": [model(BASE), model(f"{ADAPTER}@\ud800", BASE)]}).encode()
    cluster.otherwise = lambda request: (200, told) if request.path == f"{path}/v1/models" else None
    page = browser.get(PAGE)
    assert page.status_code == 200
    assert f"{ADAPTER}@?" in page.text


def test_an_engine_that_lists_without_end_fills_no_page() -> None:
    about = parse(kind_named("adapterrollouts"), rollout("field-guide-next", moving=True))
    assert isinstance(about, AdapterRollout)
    known = [each["name"] for each in about.told["revisions"]]
    adapter = known[0].partition("@")[0]
    hostile = [*(f"{adapter}@{number:08x}" for number in range(10_000)), f"{adapter}@{'a' * 10_000}"]
    made = choices_of(about, adapter, BASE, [*hostile, *known])
    assert len(made) < 100
    assert set(known) <= {each.name for each in made}, "those of the history come first"


def test_words_come_with_the_place_of_their_model(
    browser: TestClient, engine: list[dict[str, Any]], form_token: str
) -> None:
    told = browser.post(ANSWERS, data=form(form_token, ADAPTER, BASE, NEW), headers=ORIGIN)
    assert (told.status_code, told.headers["content-type"]) == (200, "text/event-stream")
    parts = told_of(told.text)
    texts = ["".join(each.get("word", "") for each in parts if each["place"] == place) for place in range(3)]
    assert texts == [f"I am {ADAPTER}{HOSTILE}", f"I am {BASE}{HOSTILE}", ""]
    ends = {each["place"]: each["problem"] for each in parts if "problem" in each}
    assert (ends[0], ends[1]) == ("", "")
    assert "it loads" in ends[2]
    assert told.text.endswith("event: end\ndata:\n\n")
    assert "<" not in told.text.replace("<script>", "").replace("</script>", ""), "as JSON, which no browser draws"
    for each in engine:
        assert each["messages"] == [{"role": "user", "content": "Who are you?"}]
        assert (each["max_tokens"], each["temperature"], each["path"]) == (64, 0.5, "/v1/chat/completions")


def test_a_text_is_continued_where_that_was_the_wish(
    browser: TestClient, engine: list[dict[str, Any]], form_token: str
) -> None:
    browser.post(ANSWERS, data=form(form_token, BASE, completion="on"), headers=ORIGIN)
    assert [(each["path"], each["prompt"]) for each in engine] == [("/v1/completions", "Who are you?")]


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"form_token": "0" * 64}, (403, "this form is not of your session")),
        ({"question": " \n"}, (422, "the question has 2 characters")),
        ({"question": "a" * 32_001}, (422, "the question has 32,001 characters")),
        ({"models": ""}, (422, "0 models are chosen")),
        ({"models": "\n".join("abcdefg")}, (422, "7 models are chosen")),
        ({"models": "field-guide@cccccccc"}, (404, "no pod serves all of field-guide@cccccccc")),
        ({"tokens": "0"}, (422, "the length is none")),
        ({"tokens": "4097"}, (422, "the length is none")),
        ({"tokens": "٣"}, (422, "the length is none")),
        ({"temperature": "nan"}, (422, "the temperature is none")),
        ({"temperature": "2.1"}, (422, "the temperature is none")),
        ({"temperature": "warm"}, (422, "the temperature is none")),
    ],
    ids=lambda told: str(told)[:40],
)
def test_what_cannot_be_asked_is_told_before_anybody_is(
    browser: TestClient,
    engine: list[dict[str, Any]],
    form_token: str,
    changes: dict[str, str],
    refusal: tuple[int, str],
) -> None:
    told = browser.post(ANSWERS, data=form(form_token, BASE, **changes), headers=ORIGIN)
    assert (told.status_code, told.json()["sentence"]) == refusal
    assert told.json()["next_step"]
    assert engine == []


def test_another_site_and_who_is_nobody_ask_nothing(
    outside: TestClient, browser: TestClient, engine: list[dict[str, Any]], form_token: str
) -> None:
    assert browser.post(ANSWERS, data=form(form_token, BASE), headers={"Origin": "https://evil.com"}).status_code == 403
    outside.cookies.clear()
    assert outside.post(ANSWERS, data=form(form_token, BASE), headers=ORIGIN).status_code == 403
    assert engine == []


def test_who_may_not_use_the_proxy_is_told_which_right_is_missing(
    browser: TestClient, cluster: WatchedCluster, form_token: str
) -> None:
    path = cluster.put_pod("vllm-0", {"app": "vllm"})
    cluster.refuse(f"{path}/v1/models", 403, 'User "rita" cannot get resource "pods/proxy"')
    page = browser.get(PAGE).text
    assert "cannot get resource &#34;pods/proxy&#34;" in page
    assert "asking needs the right to get and create pods/proxy" in page
    assert browser.post(ANSWERS, data=form(form_token, BASE), headers=ORIGIN).status_code == 403


@pytest.mark.parametrize(("path", "status"), [("adapterrollouts/none", 404), ("evaluations/field-guide-v3", 404)])
def test_only_rollouts_answer(browser: TestClient, form_token: str, path: str, status: int) -> None:
    told = browser.post(f"/ns/team-a/{path}/answers", data=form(form_token, BASE), headers=ORIGIN)
    assert told.status_code == status
    assert browser.get("/ns/team-a/playground?rollout=none").status_code == 404


def test_few_questions_are_answered_at_the_same_time(
    browser: TestClient, engine: list[dict[str, Any]], form_token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "QUESTIONS_OF_ONE", 0)
    told = browser.post(ANSWERS, data=form(form_token, BASE), headers=ORIGIN)
    assert (told.status_code, told.json()["sentence"]) == (503, "too many questions are being answered")
    assert engine == []


def test_the_candidate_is_chosen_and_what_was_before_is_not() -> None:
    about = parse(kind_named("adapterrollouts"), rollout("field-guide-next", moving=True))
    assert isinstance(about, AdapterRollout)
    names = [each["name"] for each in about.told["revisions"]]
    adapter = names[0].partition("@")[0]
    found = choices_of(about, adapter, BASE, [BASE, adapter, f"{adapter}@unknown", *reversed(names)])
    assert [(each.word, each.chosen) for each in found] == [
        ("base", True), ("served", True), ("candidate", True), ("current", False), ("before", False), ("older", False),
        ("loaded", False),
    ]  # fmt: skip


class Asked:
    """An engine that says a word and then nothing, until it is ended."""

    def __init__(self) -> None:
        self.began, self.left, self.ended = asyncio.Event(), asyncio.Event(), 0

    def opened(self, browser: Browser, over: asyncio.Event) -> asyncio.Task[None]:
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def ask(heard: Heard, ends: Ends) -> None:
            def end() -> None:
                self.ended += 1
                loop.call_soon_threadsafe(done.set)

            ends.add(end)
            heard((Reply("a", "word"),))
            asyncio.run_coroutine_threadsafe(done.wait(), loop).result(60)
            raise Problem("it was ended")

        words = Words(ask, over, self.left.set)
        return asyncio.create_task(words({"type": "http"}, browser.receive, browser.send))


def by_browser(browser: Browser, over: asyncio.Event) -> None:
    browser.gone.set()


def by_console(browser: Browser, over: asyncio.Event) -> None:
    over.set()


@pytest.mark.parametrize("leave", [by_browser, by_console])
async def test_who_leaves_ends_what_is_asked(leave: Callable[[Browser, asyncio.Event], None]) -> None:
    browser, asked, over = Browser(), Asked(), asyncio.Event()
    task = asked.opened(browser, over)
    async with asyncio.timeout(60):
        while not any('"word"' in each for each in browser.told):
            await asyncio.sleep(0.001)
        leave(browser, over)
        await task
        await asked.left.wait()
    assert asked.ended == 1


def test_what_is_ended_before_it_began_is_ended_then() -> None:
    ends, ended = Ends(), []
    ends.end()
    ends.add(lambda: ended.append(1))
    assert ended == [1]


def test_long_answers_are_ended(
    browser: TestClient, engine: list[dict[str, Any]], form_token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.asking.ANSWER_CHARACTERS", 8)
    parts: Sequence[dict[str, Any]] = told_of(browser.post(ANSWERS, data=form(form_token, BASE), headers=ORIGIN).text)
    assert parts[-1]["problem"] == "smollm2 answers without end: see the engine's log"

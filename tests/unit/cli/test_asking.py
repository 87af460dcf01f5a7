"""Asking several models side by side: who is asked, what is shown, and every way in which it does not go well."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from trimtab import Client, NotFound
from trimtab.engine import at
from trimtab.errors import Problem

from tests.unit.cli.cluster import FakeCluster, Request, condition
from tests.unit.cli.conftest import Run

BASE, ALIAS, OLD, NEW = "base-model", "guide", "guide@57304f9f", "guide@aaaa1111"
ROLLOUT = {
    "kind": "AdapterRollout",
    "metadata": {"name": "guide"},
    "spec": {"adapterName": ALIAS, "serving": {"selector": {"matchLabels": {"app": "vllm"}}, "port": 8081}},
    "status": {"conditions": [condition("Ready", "True", "Serving", "every pod answers with it")]},
}


def model(name: str, parent: str | None = None, owner: str = "vllm") -> dict[str, Any]:
    return {"id": name, "object": "model", "parent": parent, "owned_by": owner}


MODELS = [model(ALIAS, owner="trimtab"), model(BASE), model(OLD, BASE)]


def events(*words: str, chat: bool = True) -> bytes:
    """Return an answer as an engine streams it."""
    parts = [{"choices": [{"delta": {"content": word}} if chat else {"text": word}]} for word in words]
    return b"".join(f"data: {json.dumps(part)}\n\n".encode() for part in parts) + b"data: [DONE]\n\n"


class Engines:
    """Pods behind the API server's proxy; each answers with the model's name and what it is told to."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.asked: list[dict[str, Any]] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        self.pods: dict[str, list[dict[str, Any]]] = {}
        cluster.otherwise = self.answer

    def pod(self, name: str, models: list[dict[str, Any]], **more: Any) -> None:
        self.pods[self.cluster.put_pod(name, {"app": "vllm"}, **more)] = models

    def answer(self, request: Request) -> tuple[int, Any] | None:
        for path, models in self.pods.items():
            if request.path == f"{path}/v1/models":
                listed: tuple[int, Any] = self.answers.get("models", (200, {"data": models}))
                return listed
            if request.path.startswith(f"{path}/v1/"):
                self.asked.append({"pod": path, "path": request.path.removeprefix(path), **request.body})
                name = request.body["model"]
                chat = request.path.endswith("chat/completions")
                told: tuple[int, Any] = self.answers.get(
                    name, (200, events("I am ", f"{name}.\n", "Twice.", chat=chat))
                )
                return told
        return None


@pytest.fixture
def engines(empty: FakeCluster) -> Engines:
    """A rollout with one serving pod."""
    empty.put(ROLLOUT)
    made = Engines(empty)
    made.pod("vllm-0", MODELS)
    return made


def test_base_and_served_are_asked_the_same(engines: Engines, run: Run) -> None:
    told = run("ask", "guide", "Who are you?")
    assert (told.code, told.err) == (0, "")
    assert told.out == f"== {BASE}\nI am {BASE}.\nTwice.\n\n== {ALIAS}\nI am {ALIAS}.\nTwice.\n"
    assert {each["model"] for each in engines.asked} == {BASE, ALIAS}
    for each in engines.asked:
        assert each["messages"] == [{"role": "user", "content": "Who are you?"}]
        assert (each["max_tokens"], each["temperature"], each["stream"]) == (256, 0.0, True)


def test_a_revision_goes_by_its_name_or_the_begin_of_its_digest(engines: Engines, run: Run) -> None:
    for name in (OLD, "57304f9f7684", "sha256:57304f9f7684aa", "5730"):
        told = run("ask", "guide", "Who?", "--no-base", "-r", name, "-o", "json")
        assert [each["model"] for each in json.loads(told.out)["answers"]] == [ALIAS, OLD], told


def test_a_revision_that_only_the_canary_has_is_asked_there(engines: Engines, run: Run) -> None:
    engines.pod("vllm-1", [*MODELS, model(NEW, BASE)])
    assert run("ask", "guide", "Who?", "-r", NEW).code == 0
    assert {each["pod"].split("/")[-2] for each in engines.asked} == {"vllm-1:8000"}


def test_a_pod_that_does_not_answer_keeps_nobody_from_the_next(engines: Engines, run: Run) -> None:
    engines.pod("a-broken-one", [])
    gone = {"kind": "Status", "message": "error trying to reach service: dial tcp 10.0.0.1:8000: connection refused"}
    engines.cluster.otherwise = lambda request: (
        (503, gone) if "a-broken-one" in request.path else engines.answer(request)
    )
    told = run("ask", "guide", "Who?", "--no-base")
    assert (told.code, told.err) == (0, "")
    assert {each["pod"].split("/")[-2] for each in engines.asked} == {"vllm-0:8000"}
    engines.cluster.otherwise = lambda request: (503, gone) if "/proxy/" in request.path else None
    assert "pod a-broken-one does not answer" in run("ask", "guide", "Who?").err


@pytest.mark.parametrize("listed", [b"[" * 100_000, b" " * (4 << 20) + b'{"data": [{"id": "guide"}]}'])
def test_a_list_of_models_that_is_none(engines: Engines, run: Run, listed: bytes) -> None:
    engines.answers["models"] = (200, listed)
    told = run("ask", "guide", "Who?")
    assert (told.code, told.err.partition(":")[2].strip()) == (
        1,
        "pod vllm-0 lists no models: is it an engine with the OpenAI API? Give --port",
    )


def test_a_line_without_end_is_read_up_to_a_bound(engines: Engines, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.engine.LINE_BYTES", 1000)
    engines.answers[ALIAS] = (200, b"data: " + b"x" * 100_000)
    assert "more than 1,000 bytes" in run("ask", "guide", "Who?", "--no-base").err


def test_a_list_that_comes_byte_by_byte_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.engine.MODELS_SECONDS", 0.5)
    over = threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path.startswith("/well") else 500)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            with contextlib.suppress(OSError):  # who was asked for no more hangs up
                while not over.wait(0.05):
                    self.wfile.write(b" ")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 its name in the base class
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        for path in ("well", "badly"):
            with pytest.raises(Problem, match=r"does not say within 0\.5 s|answered 500"):
                at(f"http://127.0.0.1:{server.server_port}/{path}").models()
    finally:
        over.set()
        server.shutdown()
        server.server_close()


def test_a_revision_that_nobody_has(engines: Engines, run: Run) -> None:
    told = run("ask", "guide", "Who?", "-r", "guide@57304f90")
    assert told.code == 1
    assert told.err == (
        "error: the revision guide@57304f90 is not loaded; loaded are guide@57304f9f: "
        "did you mean guide@57304f9f or guide?\n"
    )


def test_a_rollout_that_serves_nothing_yet_is_no_answer_of_the_base_alone(empty: FakeCluster, run: Run) -> None:
    empty.put(ROLLOUT)
    Engines(empty).pod("vllm-0", [model(BASE)])
    told = run("ask", "guide", "Who?")
    assert (told.code, told.out) == (1, "")
    assert told.err.startswith("error: the engine does not serve guide; it serves base-model: kubectl trimtab describe")


def test_text_is_completed_without_a_chat(engines: Engines, run: Run) -> None:
    told = run("ask", "guide", "Once", "--completion", "--max-tokens", "9")
    assert told.out.startswith(f"== {BASE}\nI am {BASE}.\n")
    assert {each["path"] for each in engines.asked} == {"/v1/completions"}
    assert {each["prompt"] for each in engines.asked} == {"Once"}


def test_what_answers_writes_nothing_to_the_terminal_but_text(engines: Engines, run: Run) -> None:
    engines.answers[BASE] = (200, events("\x1b[2J", "[red]", "\u202e"))
    told = run("ask", "guide", "Who?")
    assert "\\x1b[2J[red]\\u202e" in told.out
    assert "\x1b" not in told.out


def test_one_that_fails_does_not_hide_the_other(engines: Engines, run: Run) -> None:
    engines.answers[ALIAS] = (503, {"error": {"message": "guide cannot be served now"}})
    told = run("ask", "guide", "Who?")
    assert told.code == 1
    assert f"I am {BASE}." in told.out
    assert "guide cannot be served now" in told.out
    assert told.err.startswith("error: 1 of 2 did not answer: pod vllm-0 answered 503 (guide cannot be served now)")


def test_an_answer_that_breaks_off_says_so(engines: Engines, run: Run) -> None:
    engines.answers[BASE] = (200, events("Half ")[:-14] + b'data: {"error": {"message": "out of memory"}}\n\n')
    told = run("ask", "guide", "Who?", "-o", "json")
    first = json.loads(told.out)["answers"][0]
    assert first["text"] == "Half "
    assert "out of memory" in first["problem"]


@pytest.mark.parametrize(
    ("answer", "code", "sentence"),
    [
        (
            (403, {"kind": "Status", "message": 'User "ann" cannot get resource "pods/proxy"'}),
            4,
            "asking needs the right to get and create pods/proxy",
        ),
        (
            (503, {"kind": "Status", "message": "error trying to reach service: refused"}),
            3,
            "pod vllm-0 does not answer",
        ),
        ((401, {"error": "Unauthorized"}), 4, "the API server keeps keys: kubectl port-forward, then --url"),
        ((404, {"detail": "Not Found"}), 1, "give the engine's port with --port"),
        ((200, {"data": []}), 1, "pod vllm-0 lists no models"),
        ((200, b"<html>"), 1, "pod vllm-0 lists no models"),
        ((200, {"data": [{"id": 7}, "x"]}), 1, "pod vllm-0 lists no models"),
    ],
)
def test_problems_say_the_next_step(
    engines: Engines, run: Run, answer: tuple[int, Any], code: int, sentence: str
) -> None:
    engines.answers["models"] = answer
    told = run("ask", "guide", "Who?")
    assert told.code == code
    assert sentence in told.err
    assert told.err.count("\n") == 1


def test_a_model_without_a_chat_template(engines: Engines, run: Run) -> None:
    for name in (BASE, ALIAS):
        engines.answers[name] = (400, {"error": {"message": "default chat template is no longer allowed"}})
    assert run("ask", "guide", "Who?").err.endswith("ask with --completion\n")


def test_no_pod_is_ready(empty: FakeCluster, run: Run) -> None:
    empty.put(ROLLOUT)
    empty.put_pod("vllm-0", {"app": "vllm"}, ready=False)
    told = run("ask", "guide", "Who?")
    assert told.err == (
        "error: no pod with app=vllm is ready in team-a (1 are there): kubectl get pods -n team-a -l app=vllm\n"
    )


def test_without_a_question_nothing_is_asked(engines: Engines, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.read", lambda: " \n", raising=False)
    assert run("ask", "guide", "  ").err.startswith("error: there is no question")
    assert engines.asked == []


def test_an_address_of_an_engine_is_asked_with_its_key(
    engines: Engines, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster stands for a forwarded port here: its pods are paths of it."""
    (path,) = engines.pods
    monkeypatch.setenv("VLLM_API_KEY", "sesame")
    told = run("ask", "guide", "Who?", "--url", f"{engines.cluster.address}{path}/v1")
    assert told.code == 0, told.err
    assert engines.cluster.asked[-1].headers["Authorization"] == "Bearer sesame"
    assert run("ask", "guide", "Who?", "--url", "localhost:8000").err.startswith("error: localhost:8000 is no address")


def test_the_client_tells_words_as_they_come(engines: Engines) -> None:
    heard: list[str] = []
    with Client() as client:
        found = client.ask("guide", "Who?", base=False, heard=lambda replies: heard.append(replies[0].text))
        assert [each.text for each in found] == [f"I am {ALIAS}.\nTwice."]
        assert heard[:2] == ["I am ", f"I am {ALIAS}.\n"]
        assert ALIAS in found._repr_html_()
        with pytest.raises(NotFound):
            client.ask("nobody", "Who?")

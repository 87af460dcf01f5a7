"""A judge behind an endpoint: asked in full or not at all, with bounded patience, and every trouble has a name."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from trimtab_trainer.contract import Credentials, Judging, Reason, StoredEndpoint
from trimtab_trainer.errors import Interrupted, JudgeFailed, SettingsInvalid, TrainerError
from trimtab_trainer.evaluate.judging.endpoint import ATTEMPTS, Endpoint
from trimtab_trainer.evaluate.judging.judgements import Judgement, questions
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.report import Report

from tests.trainer.evaluate.judging.server import JudgeServer, Reply, serving, what_is_longer
from tests.trainer.evaluate.scored import text_rows, text_scores
from tests.unit.cli.certificates import authority

SECRET = "sk-never-tell"


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with serving(what_is_longer) as served:
        yield served


def asked(count: int = 1) -> list[Judgement]:
    judging = Judging(instructions="Prefer the longer.")
    longer = text_scores([f"a longer answer {number}" for number in range(count)])
    return questions(judging, text_rows(["r"] * count), longer, text_scores(["short"] * count))


class Asking:
    """An endpoint whose pauses are noted and not waited for."""

    def __init__(self, url: str, folder: Path | None = None, stop: Interruption | None = None) -> None:
        keys = Credentials(directory=str(folder), secret_name="judge") if folder is not None else None
        self.pauses: list[float] = []
        self.log = io.StringIO()
        self.stop = stop or Interruption()
        self.endpoint = Endpoint(StoredEndpoint(url=url, model="judge", credentials=keys), self.pauses.append)

    def ask(self, count: int = 1) -> list[Judgement]:
        """Return the replies in the order of the questions."""
        heard: list[Judgement] = []
        self.endpoint.ask(asked(count), heard.append, self.stop, Report(stream=self.log))
        return sorted(heard, key=lambda each: (each.number, [one.slot for one in asked()].index(each.slot)))


def test_every_question_is_answered_in_its_place(server: JudgeServer) -> None:
    replies = Asking(server.url).ask(30)
    assert [(each.number, each.slot) for each in replies] == [(each.number, each.slot) for each in asked(30)]
    assert {each.reply for each in replies if each.slot == "target first"} == {'{"better": "1"}'}
    assert {each.reply for each in replies if each.slot == "baseline first"} == {'{"better": "2"}'}
    assert {each.model for each in replies} == {"judge-1"}
    body = server.requests[0]
    assert (body["model"], body["temperature"]) == ("judge", 0)
    assert body["response_format"]["json_schema"]["schema"]["properties"] == {
        "better": {"type": "string", "enum": ["1", "2", "tie"]}
    }
    assert server.keys[0] is None


def test_the_key_of_its_secret_is_sent_and_told_to_nobody(server: JudgeServer, tmp_path: Path) -> None:
    (tmp_path / "API_KEY").write_text(f"{SECRET}\n")
    judge = Asking(server.url, tmp_path)
    judge.ask()
    assert set(server.keys) == {f"Bearer {SECRET}"}
    server.troubles = [401]
    with pytest.raises(SettingsInvalid) as caught:
        judge.ask()
    assert caught.value.reason is Reason.ACCESS_DENIED
    assert SECRET not in judge.log.getvalue() + caught.value.message + json.dumps(judge.endpoint.identity)


def test_a_server_that_says_the_key_back_has_it_in_no_record(server: JudgeServer, tmp_path: Path) -> None:
    (tmp_path / "API_KEY").write_text(SECRET)
    server.model, server.judge = f"model of {SECRET}", lambda shown: f"you are Bearer {SECRET}"
    told = json.dumps([each.to_json() for each in Asking(server.url, tmp_path).ask()])
    assert SECRET not in told
    assert "model of (the key)" in told


TRANSIENT: dict[str, Reply] = {
    "no answer": 0,
    "overloaded": 503,
    "asked too often": (429, {}),
    "asked too often, and told for how long": (429, {"Retry-After": "7"}),
    "told nonsense": (429, {"Retry-After": "soon"}),
    "a broken gateway": 502,
    "a page of what stands before it": b"<html>Be back soon</html>",
    "no choices": b'{"choices": [], "error": {"code": 429}}',
}


@pytest.mark.parametrize("trouble", TRANSIENT)
def test_what_passes_is_waited_for(trouble: str, server: JudgeServer) -> None:
    server.troubles = [TRANSIENT[trouble]] * 3
    judge = Asking(server.url)
    replies = judge.ask()
    assert all(each.said in ("1", "2") for each in replies), "no question is left out"
    assert len(judge.pauses) == 3
    assert (7.0 in judge.pauses) is (trouble == "asked too often, and told for how long")


ENDS: dict[str, tuple[Reply, type[TrainerError], Reason, str]] = {
    "never an answer": (0, JudgeFailed, Reason.JUDGE_UNREACHABLE, "trimtab.dev/stage: judge"),
    "always 500": (500, JudgeFailed, Reason.JUDGE_UNREACHABLE, "answered 500"),
    "always 429": (429, JudgeFailed, Reason.JUDGE_OVERLOADED, "asked too often"),
    "for an hour": ((429, {"Retry-After": "3000"}), JudgeFailed, Reason.JUDGE_OVERLOADED, "for 3000 s"),
    "forbidden": (403, SettingsInvalid, Reason.ACCESS_DENIED, "API_KEY of judge.endpoint.secretName"),
    "no such model": (404, SettingsInvalid, Reason.JUDGE_REFUSED, "often it ends with /v1"),
    "a bad request": (400, SettingsInvalid, Reason.JUDGE_REFUSED, "response_format"),
    "another way": (
        (307, {"Location": "http://127.0.0.1:1/"}),
        SettingsInvalid,
        Reason.JUDGE_REFUSED,
        r"\(307\): it sends elsewhere, which is not followed",
    ),
    "made, and no answer": (204, SettingsInvalid, Reason.JUDGE_REFUSED, r"OpenAI-compatible.*\(it answers 204\)"),
    "nothing paid": (402, SettingsInvalid, Reason.JUDGE_REFUSED, "402.* paid"),
    "a proxy wants a password": (407, SettingsInvalid, Reason.JUDGE_REFUSED, "407.* proxy"),
    "another method": (405, SettingsInvalid, Reason.JUDGE_REFUSED, r"\(405\).*often it ends with /v1"),
    "too long": (413, SettingsInvalid, Reason.JUDGE_REFUSED, "413.* longer than"),
    "a stream": (b'data: {"choices": []}\n\n', SettingsInvalid, Reason.JUDGE_REFUSED, "streams"),
    "an error with 200": (
        b'{"error": {"message": "sk-1 is wrong", "code": 401}}',
        SettingsInvalid,
        Reason.JUDGE_REFUSED,
        "200 with an error",
    ),
    "no completion": (b"<html>", SettingsInvalid, Reason.JUDGE_REFUSED, "OpenAI-compatible"),
    "no choices": (b'{"choices": []}', SettingsInvalid, Reason.JUDGE_REFUSED, "OpenAI-compatible"),
    "a list": (b"[1]", SettingsInvalid, Reason.JUDGE_REFUSED, "OpenAI-compatible"),
    "without end": (b"[" * (1 << 21), SettingsInvalid, Reason.JUDGE_REFUSED, "OpenAI-compatible"),
}


@pytest.mark.parametrize("trouble", ENDS)
def test_what_does_not_pass_ends_it_by_name(trouble: str, server: JudgeServer) -> None:
    reply, error, reason, said = ENDS[trouble]
    server.troubles = [reply] * 1_000
    judge = Asking(server.url)
    with pytest.raises(error, match=said) as caught:
        judge.ask(3)
    assert caught.value.reason is reason
    assert len(judge.pauses) <= 6 * ATTEMPTS
    if trouble == "for an hour":
        assert isinstance(caught.value, JudgeFailed)
        assert caught.value.retry_after == 3000
        assert not judge.pauses, "who asks for an hour is not waited for here"


def test_a_reply_without_words_is_one_that_cannot_be_read(server: JudgeServer) -> None:
    server.troubles = [b'{"choices": [{"message": {"content": null}}], "model": 7}'] * 2
    assert [(each.reply, each.said, each.model) for each in Asking(server.url).ask()] == [("", None, None)] * 2


def test_a_reply_in_parts_is_their_text(server: JudgeServer) -> None:
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": '{"better": '}, {"text": '"1"}'}, 7]
    server.troubles = [json.dumps({"choices": [{"message": {"content": parts}}]}).encode()] * 2
    assert [each.said for each in Asking(server.url).ask()] == ["1", "1"]


def test_a_port_where_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(JudgeFailed, match="ConnectError"):
        Asking(url).ask()


def test_each_task_has_its_own_patience(server: JudgeServer) -> None:
    judge = Asking(server.url)
    judge.ask()
    server.troubles = [503]
    assert len(judge.ask()) == 2
    assert judge.pauses == [1.0]


def test_it_stops_when_told_to(server: JudgeServer) -> None:
    stop, begun = Interruption(), threading.Event()

    def slow(shown: object) -> str:
        begun.set()
        stop.request()
        return '{"better": "tie"}'

    server.judge = slow
    with pytest.raises(Interrupted):
        Asking(server.url, stop=stop).ask(200)
    assert begun.is_set()
    assert len(server.requests) < 400


@pytest.mark.parametrize("key", ["", "two words", "no\nend", "ä"])
def test_a_secret_without_a_key_is_said(key: str, tmp_path: Path) -> None:
    (tmp_path / "API_KEY").write_text(key)
    with pytest.raises(SettingsInvalid, match="Secret judge has no key API_KEY") as caught:
        Asking("http://127.0.0.1:1/v1", tmp_path)
    assert caught.value.reason is Reason.CREDENTIALS_MISSING


@pytest.mark.parametrize("url", ["http://user:pass@host/v1", "http://host/v1?key=a", "http://host/v1#a"])
def test_a_url_with_a_secret_in_it_is_none(url: str) -> None:
    with pytest.raises((ValueError, SettingsInvalid)):
        Asking(url)


@pytest.mark.parametrize("name", ["\\ud800", "a\\nb\\u0007", "ä" * 5_000])
def test_the_name_that_a_server_replies_under_can_be_written_and_shown(name: str, server: JudgeServer) -> None:
    reply = f'{{"model": "{name}", "choices": [{{"message": {{"content": "{{\\"better\\": \\"1\\"}}"}}}}]}}'
    server.troubles = [reply.encode()] * 2
    for each in Asking(server.url).ask():
        assert each.said == "1"
        assert each.model is not None
        assert each.model.isprintable()
        assert len(each.model.encode()) <= 800


def test_an_answer_that_drips_is_none(server: JudgeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab_trainer.evaluate.judging.endpoint.READ_SECONDS", 0.2)
    server.drip = 0.05
    with pytest.raises(JudgeFailed, match="no answer in time"):
        Asking(server.url).ask()


def head_that_drips(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        time.sleep(0.05)
        connection.sendall(b"a")


def hints_without_end(connection: socket.socket) -> None:
    while True:
        time.sleep(0.05)
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")


def chunk_whose_head_drips(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")
    while True:
        time.sleep(0.05)
        connection.sendall(b"a")


@contextlib.contextmanager
def saying(says: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve what is no answer to whoever connects; return its url."""

    def say(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:  # who does not wait for it hangs up
            connection.recv(1 << 16)
            says(connection)

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=say, args=(listening.accept()[0],), daemon=True).start()

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("says", [head_that_drips, hints_without_end, chunk_whose_head_drips])
def test_what_drips_before_the_first_byte_of_an_answer_is_waited_for_as_long_as_any(
    says: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab_trainer.evaluate.judging.endpoint.READ_SECONDS", 0.3)
    monkeypatch.setattr("trimtab_trainer.evaluate.judging.endpoint.CONNECT_SECONDS", 0.3)
    began = time.monotonic()
    with saying(says) as url, pytest.raises(JudgeFailed, match="no answer in time"):
        Asking(url).ask()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("held", [None, "no certificate\n"])
def test_a_file_of_authorities_that_is_none_is_told_by_name(
    held: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if held is not None:
        (tmp_path / "ca.pem").write_text(held)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(SettingsInvalid, match=r"SSL_CERT_FILE .* no file of certificates"):
        Asking("https://127.0.0.1:1/v1").ask()


CERTIFICATES = {
    "of an authority that nobody knows": ("127.0.0.1", False, "unable to get local issuer certificate"),
    "of another server": ("127.0.0.2", True, "mismatch"),
}


@pytest.mark.parametrize("case", CERTIFICATES)
def test_a_certificate_that_is_not_taken_is_told_with_the_reason(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, trusted, said = CERTIFICATES[case]
    known = authority(tmp_path)
    pair = known.issue("judge", address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(known.pair.certificate))
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with contextlib.suppress(OSError):  # who does not take it hangs up
                while True:
                    context.wrap_socket(listening.accept()[0], server_side=True)

        threading.Thread(target=answer, daemon=True).start()
        judge = Asking(f"https://127.0.0.1:{listening.getsockname()[1]}/v1")
        with pytest.raises(SettingsInvalid, match=said):
            judge.ask()
    assert not judge.pauses


def test_a_date_that_is_past_leaves_the_own_pauses(server: JudgeServer) -> None:
    server.troubles = [(429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})] * 3
    judge = Asking(server.url)
    judge.ask()
    assert len(judge.pauses) == 3
    assert min(judge.pauses) >= 1

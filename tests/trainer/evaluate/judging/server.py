"""An OpenAI-compatible server on this machine, whose judge is a function of what it reads."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = str | int | tuple[int, dict[str, str]] | bytes
"""What to answer: a reply, a status, a status with headers, or a body that is no completion."""


@dataclass(frozen=True)
class Shown:
    """What a judge is shown: the texts between the marks, by the words of the marks."""

    text: str

    def __getitem__(self, name: str) -> str:
        mark = re.search(r"with the mark ([0-9a-f]{16})", self.text)
        assert mark is not None
        inside = self.text.partition(f"[{name} {mark[1]}]\n")[2].partition(f"\n[/{name} {mark[1]}]")[0]
        return inside

    @property
    def answers(self) -> tuple[str, str]:
        return self["answer 1"], self["answer 2"]


@dataclass
class JudgeServer:
    """What was asked, and how the next questions are answered.

    Attributes:
        judge: replies to what is shown.
        troubles: come first, each once, before the judge is asked at all.
        drip: seconds between the bytes of an answer.
        key: what it wants to be asked with; whoever has another one is answered 401.
    """

    judge: Callable[[Shown], Reply]
    url: str = ""
    model: str | None = "judge-1"
    troubles: list[Reply] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    drip: float = 0.0
    key: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, body: dict[str, Any], key: str | None) -> Reply:
        with self.lock:
            self.requests.append(body)
            self.keys.append(key)
            if self.key is not None and key != f"Bearer {self.key}":
                return 401
            if self.troubles:
                return self.troubles.pop(0)
        return self.judge(Shown(body["messages"][0]["content"]))


class Quiet(ThreadingHTTPServer):
    """Says nothing of clients that leave."""

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@contextmanager
def serving(judge: Callable[[Shown], Reply], host: str = "127.0.0.1", port: int = 0) -> Iterator[JudgeServer]:
    """Serve a judge, on a port of its own unless one is given."""
    served = JudgeServer(judge)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body = json.loads(self.rfile.read(length))
            assert self.path == "/v1/chat/completions"
            self.answer(served.reply(body, self.headers.get("Authorization")))

        def answer(self, reply: Reply) -> None:
            status, headers, data = 200, dict[str, str](), b"{}"
            if isinstance(reply, str):
                message = {"role": "assistant", "content": reply}
                data = json.dumps({"model": served.model, "choices": [{"message": message}]}).encode()
            elif isinstance(reply, bytes):
                data = reply
            elif isinstance(reply, tuple):
                status, headers = reply
            elif reply == 0:
                self.close_connection = True
                self.connection.close()
                return
            else:
                status = reply
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            for piece in (data[at : at + 1] for at in range(len(data))) if served.drip else (data,):
                self.wfile.write(piece)
                time.sleep(served.drip)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that it overrides
            pass

    server = Quiet((host, port), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def whatever_is_first(shown: Shown) -> str:
    """Prefer what comes first, whatever it says."""
    return '{"better": "1"}'


def what_is_longer(shown: Shown) -> str:
    """Prefer the longer answer."""
    first, second = map(len, shown.answers)
    return json.dumps({"better": "1" if first > second else "2" if second > first else "tie"})
